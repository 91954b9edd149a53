"""scripts/setup with an installer that only counts its calls, and what it finds in the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def checkout_in(folder: Path) -> Path:
    """What scripts/setup reads."""
    checkout = folder / "lab"
    (checkout / "scripts").mkdir(parents=True)
    (checkout / "cifar_lab").mkdir()
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt", "scripts/setup", "scripts/quickstart"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
        (checkout / name).chmod(0o755)
    return checkout


def link_to_an_environment(folder: Path, venv: Path) -> str:
    """One with a file of somebody's; setup's own marks lie in it, too."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "theirs"], check=True)
    for name in ("setup.stamp", "setup.made", "setup.unfinished", "thesis.tex"):
        (folder / "theirs" / name).write_text("theirs")
    venv.symlink_to(folder / "theirs")
    return ".venv is a link to "


def somebodys_folder(folder: Path, venv: Path) -> str:
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / "bin" / "pip").write_text(f"#!{venv}/bin/python\n")
    (venv / "thesis.tex").write_text("theirs")
    return ".venv is not of scripts/setup: it stays as it is"


def half_an_environment(folder: Path, venv: Path) -> str:
    venv.mkdir()
    (venv / "pyvenv.cfg").write_text("home = /usr/bin")
    return ".venv is not of scripts/setup: it stays as it is"


def a_file(folder: Path, venv: Path) -> str:
    venv.write_text("theirs")
    return ".venv is not of scripts/setup: it stays as it is"


def link_to_nowhere(folder: Path, venv: Path) -> str:
    venv.symlink_to(folder / "gone")
    return ".venv is a link to "


@pytest.mark.parametrize(
    "place", [link_to_an_environment, somebodys_folder, half_an_environment, a_file, link_to_nowhere]
)
def test_nothing_that_setup_did_not_make_is_touched(place: Callable[[Path, Path], str], tmp_path: Path) -> None:
    checkout = checkout_in(tmp_path)
    told = place(tmp_path, checkout / ".venv")

    def everything() -> dict[str, object]:
        return {
            str(path): os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
            for path in tmp_path.rglob("*")
        }

    before = everything()
    for script in ("setup", "quickstart"):
        for argument, status in (("--help", 0), ("-h", 0), (None, 1)):
            command = [str(checkout / "scripts" / script), *([argument] if argument else [])]
            environ = {**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1"}
            done = subprocess.run(command, cwd="/", env=environ, capture_output=True, text=True, timeout=60)
            assert done.returncode == status, done.stderr
            if argument:
                assert done.stdout.startswith("Makes .venv") and "set -e" not in done.stdout and not done.stderr
            else:
                assert told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
            assert everything() == before, (script, argument)


def test_setup_again_is_at_once(tmp_path: Path) -> None:
    """A changed setup.cfg, a failed or killed install and a moved checkout are noticed, each at its own cost."""
    checkout = checkout_in(tmp_path)
    # An installer that only counts its calls stands in for the network.
    fake = tmp_path / "python"
    fake.write_text(
        f"""#!/usr/bin/env bash
if [ "$1 $2" = "-m venv" ]; then
  echo venv >>{tmp_path}/calls; mkdir -p .venv/bin; cp "$0" .venv/bin/python
  echo "#!$PWD/.venv/bin/python" >.venv/bin/pip
elif [ "$1 $2 $3" = "-m pip install" ]; then
  echo pip >>{tmp_path}/calls; [ ! -e {tmp_path}/offline ] && [ ! -e {tmp_path}/killed ] || {{
    [ ! -e {tmp_path}/killed ] || kill -9 $PPID; exit 1; }}
else
  exec {sys.executable} "$@"
fi
"""
    )
    fake.chmod(0o755)

    def calls(place: Path = checkout) -> tuple[int, str, str]:
        (tmp_path / "calls").write_text("")
        command = [str(place / "scripts" / "setup")]
        result = subprocess.run(
            command, cwd="/", env={**os.environ, "PYTHON": str(fake)}, capture_output=True, text=True, timeout=60
        )
        return result.returncode, " ".join((tmp_path / "calls").read_text().split()), result.stderr

    assert calls() == (0, "venv pip pip", "")
    assert calls() == (0, "", "")
    (checkout / "setup.cfg").write_text((checkout / "setup.cfg").read_text() + "\n# changed\n")
    assert calls() == (0, "pip pip", "")

    (checkout / "setup.cfg").write_text((checkout / "setup.cfg").read_text() + "\n# again\n")
    (tmp_path / "offline").touch()
    status, made, errors = calls()
    assert (status, made) == (1, "pip")
    assert "could not install torch" in errors
    (tmp_path / "offline").unlink()
    assert calls() == (0, "pip pip", "")

    (checkout / "setup.cfg").write_text((checkout / "setup.cfg").read_text() + "\n# and again\n")
    (tmp_path / "killed").touch()
    assert calls()[0] == -9
    (tmp_path / "killed").unlink()
    assert calls() == (0, "venv pip pip", "")

    moved = checkout.rename(tmp_path / "moved")
    (moved / ".venv" / "left").symlink_to(tmp_path)
    assert calls(moved) == (0, "venv pip pip", "")
    assert not (moved / ".venv" / "left").is_symlink() and fake.exists()  # the link went, not what it leads to

    (tmp_path / "large disk").mkdir()
    shutil.rmtree(moved / ".venv")
    (moved / ".venv").symlink_to(tmp_path / "large disk")  # empty, so nothing can be lost
    assert calls(moved) == (0, "venv pip pip", "")
    assert calls(moved) == (0, "", "")
