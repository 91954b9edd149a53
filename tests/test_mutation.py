"""scripts/mutation.py: what gets faults and which tests they face; the faults are Cosmic Ray's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutation", ROOT / "scripts" / "mutation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutation"] = module
    spec.loader.exec_module(module)
    return module


def test_every_room_has_the_modules_and_tests_that_it_names(script: ModuleType) -> None:
    modules = script.modules()
    for room, (names, folders) in script.ROOMS.items():
        files = [Path(module) for module in modules if module.startswith(f"cifar_lab/{room}/")]
        assert names == "*" or {file.stem for file in files} == set(names.split())
        assert len(files) > 2
        faced = {Path(file).parts[1] for file in script.faced(room)}
        assert faced == set(folders)


def test_tests_of_the_name_come_first_and_then_those_that_import_the_module(script: ModuleType) -> None:
    faced = script.faced("report", "cifar_lab/report/stats.py")
    assert faced[0] == "tests/report/test_stats.py"
    assert set(faced) >= set(script.faced("report"))
    faced = script.faced("runtime", "cifar_lab/runtime/signals.py")
    assert faced[0] == "tests/runtime/test_signals.py"
    importing = ["cifar_lab.runtime.signals" in (ROOT / file).read_text() for file in faced[1:]]
    assert any(importing)
    assert importing == sorted(importing, reverse=True)
    assert "tests/commands/test_recipes.py" in script.faced("recipe", "cifar_lab/recipe/book.py")


def test_only_annotations_are_hints(script: ModuleType) -> None:
    source = "def f(a: int | None, b=1 | 2) -> str | int:\n    c: int | str = a | b\n    return c\n"
    lines = source.splitlines()
    found = [lines[low[0] - 1][low[1] : high[1]] for low, high in script.hints(source)]
    assert sorted(found) == ["int | None", "int | str", "str | int"]


def test_the_report_has_shares_and_every_diff_that_no_test_noticed(script: ModuleType) -> None:
    results = [
        script.Tested("cifar_lab/data/mixing.py", "killed", "tests/data/test_mixing.py::test_a", "-a", 2.0),
        script.Tested("cifar_lab/data/mixing.py", "survived", "", "-b\n+c", 9.0),
        script.Tested("cifar_lab/optim/muon.py", "timed out", "", "-d", 60.0),
    ]
    text = script.report(results, "head")
    assert "| data | 2 | 1 | 0 | 1 |" in text
    assert "| optim | 1 | 0 | 1 | 0 |" in text
    assert "## survived: cifar_lab/data/mixing.py\n\n```diff\n-b\n+c\n```" in text
    assert "-a" not in text
    assert "tests/data/test_mixing.py::test_a in 2 s" in text
