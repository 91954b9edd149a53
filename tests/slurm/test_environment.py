"""What a cluster needs before python, on two nodes: it holds in every call of `status` and of launch/node.sh."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from support.commands import ROOT, environment, write_recipe
from support.node_sh import executable
from support.slurm_jobs import ENDED
from support.small import small
from support.submitting import LAUNCH

from cifar_lab.rundir.directory import RunDir

NAME = f"environment_{os.getpid()}"
# A python that says where and in what it was started for which module; that of the tests, as `{python}`.
PYTHON = f"""#!/bin/bash
echo "$1 $2 $3 node=$(hostname) module=$LAB_MODULE own=$LAB_OWN in=$LAB_CONTAINER" >>"$LAB_RECORD"
exec {sys.executable} "$@"
"""
# It is not here: a stand-in that shows only how it is called, and starts what it is given.
APPTAINER = """#!/bin/bash
[ "$1 $2 $3" = "exec --nv --bind" ] || exit 9
export LAB_CONTAINER=$5
shift 5
exec "$@"
"""


def trained(slurm, tmp_path: Path, *words: str, **variables: str) -> list[str]:
    """What the recorded python says of a job of two nodes that trained."""
    recipe = write_recipe(tmp_path, small(train__epochs=None, train__steps=3, optim__warmup_epochs=0))
    (tmp_path / "lines.sh").write_text("export LAB_OWN='two words' # mine\n")
    record = tmp_path / "record"
    call = [LAUNCH / "submit.py", recipe, "--job-name", NAME, "--nodes", "2", "--time", "20", "--gpus", "0"]
    call += ["--runs", tmp_path / "runs", "--setup", "lines.sh", *words]
    environ = {k: v for k, v in environment(LAB_RECORD=str(record), **variables).items() if k != "CIFAR_LAB_PYTHON"}
    done = slurm.run([sys.executable, *map(str, call)], cwd=tmp_path, env=environ, timeout=120)
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[1]
    log = ROOT / "slurm" / "logs" / f"{NAME}-{job}.log"
    state = slurm.until(job, *ENDED)
    said = log.read_text()
    log.unlink()
    assert state == "COMPLETED", said
    (run,) = (tmp_path / "runs" / "small").iterdir()
    assert (RunDir(run).status().state, RunDir(run).env()["hosts"]) == ("completed", ["node1", "node2"])
    return record.read_text().splitlines()


def calls(lines: list[str], module: str) -> dict[str, int]:
    """How often each node called a module."""
    found = [line for line in lines if line.startswith(f"-m {module} ")]
    return {node: sum(f" node={node} " in line for line in found) for node in ("node1", "node2")}


def test_modules_a_virtual_environment_and_lines_of_ones_own(slurm, tmp_path: Path) -> None:
    if not Path("/etc/profile.d/modules.sh").exists() or not shutil.which("tclsh"):
        pytest.skip("needs Debian's environment-modules")
    (tmp_path / "modules" / "lab").mkdir(parents=True)
    (tmp_path / "modules" / "lab" / "1.0").write_text("#%Module\nsetenv LAB_MODULE loaded\n")
    (tmp_path / "an env" / "bin").mkdir(parents=True)
    executable(tmp_path / "an env" / "bin" / "python", PYTHON)
    (tmp_path / "an env" / "bin" / "activate").write_text("export LAB_CONTAINER=venv\n")
    lines = trained(slurm, tmp_path, "--module=lab/1.0", "--venv=an env", MODULEPATH=str(tmp_path / "modules"))
    in_the_job = [line for line in lines if line.endswith(" module=loaded own=two words in=venv")]
    assert calls(in_the_job, "cifar_lab status") == {"node1": 3, "node2": 0}
    assert calls(in_the_job, "cifar_lab.cluster.links") == calls(in_the_job, "torch.distributed.run")
    assert calls(in_the_job, "torch.distributed.run") == {"node1": 1, "node2": 1}
    on_nodes = [line for line in lines if " node=node" in line]
    assert on_nodes == in_the_job


def test_a_module_that_is_not_there_ends_the_job_with_its_message(slurm, tmp_path: Path) -> None:
    if not Path("/etc/profile.d/modules.sh").exists():
        pytest.skip("needs Debian's environment-modules")
    recipe = write_recipe(tmp_path, small())
    call = [
        LAUNCH / "submit.py",
        recipe,
        "--job-name",
        NAME,
        "--gpus=0",
        "--runs",
        tmp_path / "runs",
        "--module=nope/1",
    ]
    done = slurm.run([sys.executable, *map(str, call)], cwd=tmp_path, env=environment(), timeout=120)
    job = done.stdout.split()[1]
    assert slurm.until(job, *ENDED) == "FAILED"
    log = ROOT / "slurm" / "logs" / f"{NAME}-{job}.log"
    said = log.read_text()
    log.unlink()
    assert "nope/1" in said and "== job" not in said


def test_a_container_around_every_python(slurm, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    executable(programs / "apptainer", APPTAINER)
    executable(programs / "python3", PYTHON)
    image = tmp_path / "an image.sif"
    lines = trained(slurm, tmp_path, f"--container={image}", PATH=f"{programs}:{os.environ['PATH']}")
    inside = [line for line in lines if line.endswith(f" module= own=two words in={image}")]
    assert calls(inside, "cifar_lab status") == {"node1": 3, "node2": 0}
    assert calls(inside, "cifar_lab.cluster.links") == {"node1": 1, "node2": 1}
    assert calls(inside, "torch.distributed.run") == {"node1": 1, "node2": 1}
    assert [line for line in lines if " node=node" in line] == inside
