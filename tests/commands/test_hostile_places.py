"""Every command where nothing can be written, without a home, without a reader, on a full disk, and after Ctrl-C."""

# ruff: noqa: F811 (fixtures are imported)
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import ROOT, environment
from support.fork_server import Done
from support.hostile_place import good, place, server  # noqa: F401
from support.materials import snapshot

# Each works where it may write.
WORKING = {
    "train": "train good.yaml --run-dir new",
    "dry run": "train good.yaml --dry-run",
    "plan": "plan good.yaml --gpu cpu",
    "status": "status run",
    "status json": "status . --json",
    "checkpoint": "checkpoint show run",
    "evaluate": "evaluate run",
    "evaluate json": "evaluate run --json",
    "predict": "predict run picture.png --sheet sheet.png",
    "export": "export run --format onnx --out out",
    "recipes": "recipes new mine.yaml",
    "recipes show": "recipes show good.yaml",
    "report": "report run --out page",
    "terminal": "report run --terminal",
}
WRITING = ("train", "predict", "export", "recipes", "report")
NO_HOME = {"HOME": None, "XDG_CACHE_HOME": None, "CIFAR_LAB_CACHE": None, "HF_HOME": None, "MPLCONFIGDIR": None}


@pytest.fixture
def folder(good, place) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir=place))
    shutil.copytree(good, made, symlinks=True, dirs_exist_ok=True)
    yield made
    for path in [made, *made.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(made)


def told(done: Done, statuses: tuple[int, ...]) -> None:
    said = f"{done.status}\n{done.err[-3000:]}"
    assert done.status in statuses, said
    assert "Traceback" not in done.err and "ignored" not in done.err, said
    if done.status not in (0, 141):
        assert done.err.strip(), said


def whole(before: dict, after: dict) -> None:
    """Nothing that was there changed, and nothing is half written."""
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in after if ".tmp-" in path or path.endswith(".partial")]


@pytest.mark.parametrize("name", WORKING)
def test_a_folder_that_may_only_be_read(server, folder, name):
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = snapshot(folder)
    done = server(WORKING[name].split(), cwd=folder)
    told(done, (1, 2) if name in WRITING else (0,))
    assert snapshot(folder) == before
    if name in WRITING:
        assert len(done.err.strip().splitlines()) == 1, done.err


@pytest.mark.parametrize("name", WORKING)
def test_no_home(server, folder, name):
    told(server(WORKING[name].split(), cwd=folder, env=NO_HOME), (0,))


@pytest.mark.parametrize("name", ["evaluate", "predict", "report", "recipes"])
def test_a_home_that_cannot_be(server, folder, name):
    """Where evaluate keeps decoded pictures follows from it; the others go on."""
    done = server(WORKING[name].split(), cwd=folder, env=NO_HOME | {"HOME": "/dev/null/home"})
    told(done, (0, 2) if name == "evaluate" else (0,))
    assert done.status == 0 or "set CIFAR_LAB_CACHE" in done.err


@pytest.mark.parametrize("name", WORKING)
def test_closed_standard_output(server, folder, name):
    told(server(WORKING[name].split(), cwd=folder, stdout=""), (0,))


@pytest.mark.parametrize("name", WORKING)
def test_standard_output_on_a_full_disk(server, folder, name):
    done = server(WORKING[name].split(), cwd=folder, stdout="/dev/full")
    told(done, (1,))
    assert "No space left on device" in done.err.splitlines()[-1]


@pytest.mark.parametrize("size", [0, 3000])
@pytest.mark.parametrize("name", WRITING)
def test_files_that_cannot_grow(server, folder, name, size):
    """What a full disk does, at the first byte and later; the output itself is no file."""
    before = snapshot(folder)
    done = server(WORKING[name].split(), cwd=folder, file_bytes=size, stdout="/dev/null")
    assert "Traceback" not in done.err and done.status in (0, 1, 2), done
    if name != "train":
        whole(before, snapshot(folder))
        # A report's drawings are whole files each.
        assert done.status == 0 or name == "report" or set(snapshot(folder)) == set(before)


@pytest.mark.parametrize("name", WRITING)
def test_a_full_disk(server, folder, name):
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (disk / "filler").write_bytes(b"x" * 16384)
        before = snapshot(folder)
        *words, last = WORKING[name].split()
        done = server([*words, f"disk/{last}"], cwd=folder)
        told(done, (1, 2))
        assert "No space left" in done.err, done.err
        whole(before, snapshot(folder))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("after", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("name", ["evaluate", "predict", "export", "report", "plan"])
def test_ctrl_c(server, folder, name, after):
    before = snapshot(folder)
    done = server(WORKING[name].split(), cwd=folder, interrupt_after=after)
    told(done, (0, 130))
    whole(before, snapshot(folder))
    if done.status == 130:
        assert done.err.strip().splitlines()[-1] == "interrupted"


AT_IMPORT = """\
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
wanted, calls = sys.argv[1], sys.argv[2:]
def hook(event, arguments):
    if event == "import" and arguments[0] == wanted:
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(hook)
sys.argv[1:] = calls
from cifar_lab.commands.dispatch import main
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["numpy._core.multiarray", "numpy.linalg", "torch", "pydantic", "yaml", "argparse"])
def test_ctrl_c_during_an_import(good, module):
    command = [sys.executable, "-c", AT_IMPORT, module, "evaluate", "run"]
    done = subprocess.run(
        command, cwd=good, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_node_sh_and_submit_take_no_nonsense(tmp_path):
    for number, words in enumerate((["X"], ["X", "--nproc", "x"], ["--strategy"], ["X", "--runs", "/dev/null/runs"])):
        for script in ("node.sh", "submit.py"):
            done = subprocess.run(
                [str(ROOT / "launch" / script), *words],
                cwd=tmp_path,
                env=environment(CIFAR_LAB_PYTHON=sys.executable),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 2, (number, script, done)
            assert done.stderr.strip() and "Traceback" not in done.stderr, done.stderr
            assert not os.listdir(tmp_path)
