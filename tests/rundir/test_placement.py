"""Which directory a start takes, among those that others left."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small import small

from cifar_lab.errors import UsageError
from cifar_lab.recipe import parse_recipe
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.placement import find_runs

RECIPE = parse_recipe(small())


def test_copies_that_people_made_are_no_attempts(tmp_path: Path) -> None:
    first = RunDir.locate(RECIPE, runs=str(tmp_path)).path
    for copy in (f"{first.name}.5backup", f"{first.name}.05", f"old-{first.name}.7", f"{first.name}.tar"):
        (first.parent / copy).mkdir(parents=True)
    assert RunDir.locate(RECIPE, runs=str(tmp_path)).path == first
    assert RunDir.locate(RECIPE, runs=str(tmp_path), fresh=True).path == first
    first.mkdir()
    assert RunDir.locate(RECIPE, runs=str(tmp_path), fresh=True).path.name == f"{first.name}.2"


def test_what_lies_in_a_place_of_our_own_does_not_matter(tmp_path: Path) -> None:
    first = RunDir.locate(RECIPE, runs=str(tmp_path)).path
    first.mkdir(parents=True)
    (first / "notes.md").touch()
    assert RunDir.locate(RECIPE, runs=str(tmp_path)).path == first
    with pytest.raises(UsageError, match="holds notes"):
        RunDir.locate(RECIPE, run_dir=str(first))


def test_a_setting_that_only_the_run_has_is_a_difference(tmp_path: Path) -> None:
    there = parse_recipe(small(optim__eps=1e-6))
    RunDir(tmp_path).create(there)
    with pytest.raises(UsageError, match=r"optim\.eps: 1e-06 there, 1e-08 here"):
        RunDir.locate(RECIPE, run_dir=str(tmp_path))


def test_runs_in_hidden_folders_are_not_found(tmp_path: Path) -> None:
    for folder in ("seen", ".trash/gone"):
        RunDir(tmp_path / folder).create(RECIPE)
    assert find_runs([tmp_path]) == [tmp_path / "seen"]
