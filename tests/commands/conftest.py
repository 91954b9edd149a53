"""A run to evaluate, and what `evaluate` says of it."""

import json
import shutil

import pytest
from support.saved_runs import saved_run

from cifar_lab.commands import evaluate


@pytest.fixture
def run(tmp_path):
    """A copy of a run, to be written to."""
    return shutil.copytree(saved_run("vit").path, tmp_path / "run")


@pytest.fixture
def measured(capsys):
    """What --json prints."""

    def ask(*arguments):
        assert evaluate.main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return ask
