"""The report of runs that were really trained: its numbers are those that the trainer left."""

import csv
from pathlib import Path

import pytest
from support.small import small

from cifar_lab.commands.report import main
from cifar_lab.report.read import read_run
from cifar_lab.rundir.placement import find_runs
from cifar_lab.train import run as train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, and one run that diverges."""
    runs = tmp_path_factory.mktemp("trained")
    for seed in range(2):
        train(small(seed=seed), runs=str(runs))
    with pytest.raises(ArithmeticError):
        train(small(name="wild", optim__name="sgd", optim__lr=1e30), runs=str(runs))
    return runs


def test_numbers_are_the_trainers(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(trained)]) == 0
    printed = capsys.readouterr().out
    assert "diverged" in printed
    assert "is not finite" in printed
    with open(trained / "report" / "results.csv", newline="") as file:
        lines = {line["path"]: line for line in csv.DictReader(file)}
    records = [read_run(path) for path in find_runs([trained])]
    assert len(lines) == len(records) == 3
    assert sorted(record.state for record in records) == ["completed", "completed", "diverged"]
    for record in records:
        assert record.problems == []
        if record.counts:
            assert record.predictions is not None
            wrong = record.predictions.labels != record.predictions.predictions
            assert float(lines[str(record.path)]["test_error"]) == pytest.approx(wrong.mean())
            assert len(record.metrics.curve("train", "lr")[0]) == record.figure("steps")
            assert record.fingerprint is not None
            assert record.classes
    page = (trained / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2, "the mistakes of both"
    assert "1 experiment, 2 runs: small has a test error of " in page
    assert " Not counted: 1 diverged.</p>" in page
