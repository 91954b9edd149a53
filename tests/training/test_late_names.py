"""Two processes on a file system that shows the names which the other made late, as network file systems do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import ROOT, TRAIN, environment, write_recipe
from support.small import small

from cifar_lab.rundir.directory import RunDir

HIDDEN = (
    'mount -t tmpfs none "$1" && (until [ -e "$2" ]; do sleep 0.1; done; umount -l "$1") & sleep 1; shift 2; exec "$@"'
)
LATE = 'mkdir "$2" && mount --bind "$1" "$2" && "$PYTHON" "$LATE_FILES" "$2" "$1" 15 && shift 2 && exec "$@"'
ENTER = ["unshare", "--mount", "--propagation", "private"]


def files_are_late() -> bool:
    """Whether tests/support/late_files.py can run: fusepy, its library and /dev/fuse are there."""
    return subprocess.run([sys.executable, "-c", "import fuse"], capture_output=True).returncode == 0


@pytest.mark.launch
@pytest.mark.parametrize("how", ["folder", "names"])
def test_what_is_late_is_waited_for(tmp_path: Path, how: str) -> None:
    """`folder`: all is hidden for five seconds after it is there; `names`: each name for 15, by FUSE, all along."""
    if subprocess.run([*ENTER, "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    if how == "names" and not files_are_late():
        pytest.skip("needs fusepy (pip install fusepy) and libfuse2")
    recipe = small(train__epochs=None, train__steps=6, optim__warmup_epochs=0, checkpoint__every_steps=2)
    shared, go = tmp_path / "shared", tmp_path / "go"
    shared.mkdir()
    words = [*TRAIN, write_recipe(tmp_path, recipe), "--run-dir", str(shared / "run")]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    world |= {"ACCELERATE_USE_CPU": "true", "PYTHON": sys.executable, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    world |= {"LATE_FILES": str(ROOT / "tests" / "support" / "late_files.py")}
    apart = [*ENTER, "sh", "-c", HIDDEN if how == "folder" else LATE, "sh", str(shared), str(go)]
    processes = [
        subprocess.Popen(
            [*before, *words],
            cwd=ROOT,
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **world),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, before in enumerate(([], apart))
    ]
    try:
        deadline = time.monotonic() + 120
        while not (shared / "run" / "attempt.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        if how == "folder":
            time.sleep(5)
            go.touch()
        said = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    status = RunDir(shared / "run").status()
    assert status is not None and (status.state, status.world_size) == ("completed", 2)
