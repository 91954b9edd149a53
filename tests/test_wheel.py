"""What an installed wheel can do in an empty folder, without the checkout: all that the checkout can."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.commands import ROOT

SOURCES = ("accelerate_configs", "cifar_lab", "launch", "recipes", "slurm")
FILES = ("CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "README.md", "constraints.txt", "pyproject.toml")
SMALL = ["data.name=shapes", "data.args={num_train: 400, num_test: 100}", "data.val_size=100", "model.args.width=16"]
SMALL += ["train.steps=4", "train.epochs=null", "train.global_batch=50", "optim.warmup_epochs=0"]
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


@dataclass(frozen=True)
class Installed:
    """A fresh environment with the package, and an empty folder to work in."""

    python: Path
    folder: Path

    def __call__(self, *words: str, status: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        """`cifar-lab WORDS` in the folder; its status is checked."""
        command = [str(self.python.with_name("cifar-lab")), *words]
        path = f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CIFAR_LAB_PYTHON")}
        done = subprocess.run(
            command, cwd=self.folder, env={**environment, "PATH": path, **more}, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
        assert str(ROOT) not in done.stdout + done.stderr
        return done


def build(source: Path, kind: str, to: Path) -> Path:
    """The wheel or sdist of a source tree, made as pip makes it, without a network."""
    to.mkdir()
    subprocess.run([sys.executable, "-c", BUILD, f"build_{kind}", str(to)], cwd=source, check=True, capture_output=True)
    (made,) = to.iterdir()
    return made


def install(archive: Path, place: Path) -> Installed:
    """`pip install ARCHIVE` in a new environment, which borrows the dependencies of this one."""
    venv.create(place / "env", with_pip=False)
    python = place / "env" / "bin" / "python"
    (site,) = (place / "env" / "lib").glob("*/site-packages")
    words = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", "pip", *words, "--disable-pip-version-check", str(archive)]
    subprocess.run(command, check=True, capture_output=True, cwd=place)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")  # .pth files in there are not read
    (place / "empty").mkdir()
    return Installed(python, place / "empty")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist of a copy of the checkout, and the wheel that is built of the unpacked sdist."""
    pytest.importorskip("setuptools", minversion="77")  # what pyproject.toml asks for; torch brings it
    place = tmp_path_factory.mktemp("built")
    for name in SOURCES:
        shutil.copytree(ROOT / name, place / "source" / name, ignore=shutil.ignore_patterns("__pycache__", "*.log"))
    for name in (*FILES, "setup.cfg", "setup.py"):
        shutil.copy(ROOT / name, place / "source")
    sdist = build(place / "source", "sdist", place / "sdist")
    shutil.unpack_archive(sdist, place / "unpacked")
    (unpacked,) = (place / "unpacked").iterdir()
    return {"sdist": sdist, "source": place / "source", "wheel": build(unpacked, "wheel", place / "wheel")}


@pytest.fixture(scope="module")
def lab(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(archives["wheel"], tmp_path_factory.mktemp("installed"))


def test_the_wheel_has_every_file_of_its_folders_and_nothing_else(archives: dict[str, Path]) -> None:
    """From the sdist and from the checkout the same ones."""
    names = zipfile.ZipFile(archives["wheel"]).namelist()
    direct = build(archives["source"], "wheel", archives["source"].parent / "direct")
    assert zipfile.ZipFile(direct).namelist() == names
    found = {name.removeprefix("cifar_lab/_bundled/") for name in names if not name.startswith("cifar_lab-")}
    tracked = subprocess.run(["git", "ls-files", *SOURCES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert found == {name for name in tracked.split("\n") if name and not name.endswith(".gitignore")}
    assert archives["wheel"].stat().st_size < 1_000_000


def test_recipes_are_found_by_their_names_and_copied(lab: Installed) -> None:
    listed = json.loads(lab("recipes", "ls", "--json").stdout)["recipes"]
    shipped = [path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name != "sweeps"]
    assert len(listed) == len(shipped)
    planned = lab("plan", "resnet18", "--gpu", "h100-80gb", "--gpus", "2", "--json").stdout
    command = next(option["command"] for option in json.loads(planned)["plans"] if option["fits"])
    config = Path(command.split()[3])
    assert config.is_absolute() and config.is_file()

    copied = lab("recipes", "copy", "all", "mine").stdout.splitlines()
    files = [*(ROOT / "recipes").rglob("*.*"), *(ROOT / "accelerate_configs").glob("*.yaml")]
    assert {lab.folder / name for name in copied} == {lab.folder / "mine" / path.relative_to(ROOT) for path in files}
    for path in files:
        assert (lab.folder / "mine" / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


def test_it_trains_tests_and_reports(lab: Installed) -> None:
    run = Path(lab("train", "demo", "--runs", "trained", *SMALL).stdout.split()[-1])
    assert json.loads((run / "summary.json").read_text())["steps"] == 4
    lab("status", "trained")
    lab("evaluate", str(run))
    lab("report", "trained", "--out", "page")
    assert any((lab.folder / "page").iterdir())


def test_a_repository_around_the_environment_is_not_its_revision(lab: Installed) -> None:
    subprocess.run(["git", "init", "--quiet", str(lab.python.parents[2])], check=True)
    git = ["git", "-C", str(lab.python.parents[2]), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "mine"], check=True)
    run = Path(lab("train", "demo", "--runs", "revision", *SMALL).stdout.split()[-1])
    environment = json.loads((run / "env.json").read_text())
    assert {key: value for key, value in environment.items() if "revision" in key} == {"revision": None}


def test_a_file_that_a_message_names_is_there(lab: Installed) -> None:
    refused = lab("train", "demo", "--runs", "refused", status=2, ACCELERATE_USE_MEGATRON_LM="true").stderr
    (named,) = re.findall(r"use (\S+/accelerate_configs/\w+\.yaml)", refused)
    assert Path(named).is_file()


@pytest.mark.launch
def test_launch_starts_two_processes(lab: Installed) -> None:
    done = lab("launch", "demo", "--nproc", "2", "--runs", "launched", *SMALL)
    (summary,) = (lab.folder / "launched").rglob("summary.json")
    assert json.loads(summary.read_text())["world_size"] == 2, done.stdout
    done = lab("launch", "demo", "--with", "accelerate", "--nproc", "2", "--runs", "accelerated", *SMALL)
    (summary,) = (lab.folder / "accelerated").rglob("summary.json")
    assert json.loads(summary.read_text())["world_size"] == 2, done.stdout


def test_submit_makes_a_job_that_finds_the_files(lab: Installed) -> None:
    """The job's own lines, with an srun that only tells what it is to start."""
    script = lab("submit", "demo", "--time", "60", "--dry-run", *SMALL).stdout
    for name, text in {"srun": 'printf "%s\\n" "$@"', "squeue": ":", "scontrol": ":"}.items():
        (lab.folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (lab.folder / name).chmod(0o755)
    variables = {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "a", "PATH": f"{lab.folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash"], input=script, cwd="/", env={**os.environ, **variables}, capture_output=True, text=True
    )
    started = [Path(word) for word in done.stdout.splitlines() if word.endswith("/launch/node.sh")]
    assert len(started) == 1 and os.access(started[0], os.X_OK), done.stdout + done.stderr
    assert started[0].is_relative_to(lab.python.parents[1])
    assert f"cd {lab.folder} || exit" in script


def test_an_editable_install_reads_the_checkout_from_any_folder(archives: dict[str, Path], tmp_path: Path) -> None:
    """It copies nothing, and what changes there is seen."""
    shutil.copytree(archives["source"], tmp_path / "checkout")
    editable = install(build(tmp_path / "checkout", "editable", tmp_path / "wheel"), tmp_path)
    recipe = tmp_path / "checkout" / "recipes" / "demo.yaml"
    shutil.copy(recipe, recipe.with_name("new_one.yaml"))
    assert editable("recipes", "show", "new_one").stdout.startswith(f"{recipe.with_name('new_one.yaml')}\n")
    editable("train", "new_one", "--dry-run", *SMALL)
    assert f"cd {tmp_path / 'checkout'} || exit" in editable("submit", "new_one", "--dry-run", *SMALL).stdout
    assert "launch/node.sh RECIPE" in editable("launch", "--help").stdout
    assert not list((tmp_path / "env").rglob("demo.yaml"))


def test_a_missing_extra_is_named_as_this_installation_gets_it(lab: Installed, archives: dict[str, Path]) -> None:
    code = "from cifar_lab.files.shipped import install; print(install('wandb'))"

    def said(python: Path, folder: Path) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [str(python), "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert said(lab.python, lab.folder) == f"pip install 'cifar-lab[wandb] @ {archives['wheel'].as_uri()}'"
    assert said(Path(sys.executable), ROOT) == "pip install -e '.[wandb]'"
    (origin,) = lab.python.parents[1].rglob("direct_url.json")
    for content, command in (
        (None, "pip install 'cifar-lab[wandb]'"),
        ({"url": "https://x.org/lab", "vcs_info": {"vcs": "git", "commit_id": "abc"}}, "git+https://x.org/lab@abc"),
    ):
        kept = origin.read_bytes()
        origin.unlink() if content is None else origin.write_text(json.dumps(content))
        try:
            assert command in said(lab.python, lab.folder)
        finally:
            origin.write_bytes(kept)
