"""Of a Python package that is not installed there is one line that names it; what does not need it works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cifar_lab.cli.missing import missing_package

DEMO = str(Path(__file__).resolve().parents[2] / "recipes" / "demo.yaml")


def without(package: str, code: str) -> subprocess.CompletedProcess[str]:
    """Python that cannot import `package`."""
    hidden = f"import sys\nsys.modules[{package!r}] = None\n"
    return subprocess.run([sys.executable, "-c", hidden + code], capture_output=True, text=True)


def command(*words: str) -> str:
    return f"from cifar_lab.commands.dispatch import main\nsys.exit(main({list(words)!r}))"


@pytest.mark.parametrize(
    ("package", "words", "install"),
    [
        ("pydantic", ("train", DEMO), "pip install 'pydantic"),
        ("pydantic_core", ("status",), "pip install 'pydantic"),
        ("yaml", ("recipes",), "pip install 'pyyaml"),
    ],
)
def test_what_is_missing_is_one_line(package: str, words: tuple[str, ...], install: str) -> None:
    done = without(package, command(*words))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"cifar-lab {words[0]}: the Python package py")
    assert install in line


def test_a_launch_says_it_in_one_line() -> None:
    """That of several processes one speaks: see test_refused_together.py."""
    started = f"import runpy\nsys.argv = ['train', {DEMO!r}]\nrunpy.run_module('cifar_lab.train', run_name='__main__')"
    done = without("pydantic", started)
    assert done.returncode == 1
    assert done.stderr.count("is not installed: pip install 'pydantic") == len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [("data",), ("train", "--help"), ("doctor", "--help")])
def test_what_reads_no_recipe_needs_no_pydantic(words: tuple[str, ...]) -> None:
    done = without("pydantic", command(*words))
    assert (done.returncode, done.stderr) == (0, "")


def test_only_sets_of_the_hub_need_datasets(tmp_path: Path) -> None:
    """That cifar10 and shapes need neither it nor timm: see tests/test_packaging.py."""
    words = ("train", DEMO, "--runs", str(tmp_path), "data.name=hub", "data.args={id: a/b}")
    done = without("datasets", command(*words))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "cifar-lab train: the Python package datasets is not installed: pip install 'datasets"
    )


def test_a_fault_of_ours_is_no_missing_package() -> None:
    for name in ("cifar_lab.data.nothing", "torch.nothing", None):
        error = ModuleNotFoundError("no", name=name)
        with pytest.raises(ModuleNotFoundError) as raised:
            missing_package(error)
        assert raised.value is error
