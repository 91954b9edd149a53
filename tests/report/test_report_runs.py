"""The report on complete, missing, failed and corrupt runs, from directories alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cifar_lab.recipe import parse_recipe
from cifar_lab.report.__main__ import main
from cifar_lab.report.plots import _epoch_means, plot_curves
from cifar_lab.report.read import ReportError, find_runs, read_run
from cifar_lab.report.table import table
from cifar_lab.rundir import RunDir

TEST = {"accuracy": 0.9203, "loss": 0.2954, "count": 10000}


def start(runs: Path, name: str) -> RunDir:
    recipe = parse_recipe(
        {
            "name": name,
            "model": {"name": "resnet", "args": {"depth": 18}},
            "optim": {"lr": 0.1},
            "train": {"epochs": 2, "global_batch": 32},
        }
    )
    run = RunDir.locate(recipe, runs=str(runs))
    run.create(recipe)
    for step in range(1, 9):
        run.append_metrics(split="train", step=step, epoch=step / 4, loss=2.0 / step, lr=0.1)
    run.append_metrics(split="val", step=4, epoch=1.0, loss=1.5, accuracy=0.4, count=500)
    run.append_metrics(split="val", step=8, epoch=2.0, loss=1.25, accuracy=0.75, count=500)
    return run


def complete(run: RunDir) -> RunDir:
    run.append_metrics(split="test", step=8, epoch=2.0, **TEST)
    run.write_summary(
        {
            "test": TEST,
            "val": {"accuracy": 0.75, "loss": 1.25, "count": 500},
            "epochs": 2.0,
            "wall_seconds": 3725.4,
            "images_per_second": 1234.5,
            "num_parameters": 11_173_962,
        }
    )
    run.write_status("completed", 8, 8)
    return run


def row(text: str, name: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name}/") and ": " not in line)
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_completed_run_in_the_table(tmp_path: Path) -> None:
    run = complete(start(tmp_path, "resnet18"))
    text = table([read_run(run.path)])
    assert row(text, "resnet18") == [
        f"resnet18/{run.path.name}",
        "resnet 18",
        "92.03%",
        "0.2954",
        "25.00%",
        "11.17 M",
        "2",
        "1,234",
        "1:02:05",
        "completed",
    ]
    assert len(text.splitlines()) == 3


def test_failed_run_shows_what_it_has_and_its_reason(tmp_path: Path) -> None:
    run = start(tmp_path, "big")
    run.write_status("failed", 8, 100, reason="out of memory: set train.micro_batch=32")
    text = table([read_run(run.path)])
    assert row(text, "big")[2:] == ["-", "-", "25.00%", "-", "-", "-", "-", "failed"]
    assert text.splitlines()[-1].endswith("failed, at step 8 of 100: out of memory: set train.micro_batch=32")


@pytest.mark.parametrize("name", ["recipe.yaml", "status.json", "summary.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[1]\n"])
def test_corrupt_file_becomes_a_problem_of_that_run_alone(tmp_path: Path, name: str, content: bytes) -> None:
    run, healthy = complete(start(tmp_path, "hurt")), complete(start(tmp_path, "fine"))
    (run.path / name).write_bytes(content + b"\n" if name == "metrics.jsonl" else content)
    text = table([read_run(run.path), read_run(healthy.path)])
    assert row(text, "hurt")[-1] == "corrupt"
    assert row(text, "fine")[-1] == "completed"
    assert name in text.splitlines()[-1]


def test_torn_last_line_and_missing_summary_are_no_problem(tmp_path: Path) -> None:
    run = start(tmp_path, "young")
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"split": "val", "acc')
    record = read_run(run.path)
    assert record.problems == []
    assert record.state == "not started"
    assert record.result("val", "accuracy") == 0.75
    assert record.curve("val", "loss") == ([1.0, 2.0], [1.5, 1.25])


def test_values_of_the_wrong_type_are_missing(tmp_path: Path) -> None:
    run = complete(start(tmp_path, "odd"))
    run.write_summary({"test": {"accuracy": "good"}, "epochs": [], "num_parameters": "many", "wall_seconds": None})
    run.append_metrics(split="test", step=8, epoch="last", accuracy="good")
    (run.path / "recipe.yaml").write_text("{model: {name: resnet, args: 3}}")
    cells = row(table([read_run(run.path)]), "odd")
    assert cells[1:] == ["resnet", "92.03%", "0.2954", "25.00%", "-", "-", "-", "-", "completed"]


def test_null_values_are_left_out(tmp_path: Path) -> None:
    run = start(tmp_path, "diverged")
    run.append_metrics(split="train", step=9, epoch=2.25, loss=float("nan"))
    assert len(read_run(run.path).curve("train", "loss")[1]) == 8


def test_find_runs_takes_runs_and_folders_of_them_once(tmp_path: Path) -> None:
    first, second = start(tmp_path, "a"), start(tmp_path, "b")
    assert find_runs([second.path, tmp_path]) == [second.path, first.path]
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(ReportError, match=nothing.name):
            find_runs([nothing])


def test_epoch_means_close_an_epoch_at_its_last_line() -> None:
    assert _epoch_means([0.5, 1.0, 1.5, 2.0], [4.0, 2.0, 1.0, 3.0]) == ([0.75, 1.75], [3.0, 2.0])


def test_curves_have_both_losses_and_the_error(tmp_path: Path) -> None:
    run = complete(start(tmp_path, "resnet18"))
    plot_curves(read_run(run.path), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1500, 570)
        left, right = (_colours(picture.crop(box)) for box in ((0, 0, 750, 570), (750, 0, 1500, 570)))
    assert {"blue", "vermillion"} <= left
    assert "green" not in left
    assert right == {"vermillion", "green"}


def _colours(picture: Image.Image) -> set[str]:
    """Which of the palette's colours occur."""
    palette = {"blue": (0, 114, 178), "vermillion": (213, 94, 0), "green": (0, 158, 115)}
    present = {colour for _, colour in picture.convert("RGB").getcolors(10**6)}
    return {name for name, colour in palette.items() if colour in present}


def test_command_prints_table_and_writes_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = complete(start(tmp_path / "runs", "done")), start(tmp_path / "runs", "bare")
    (other.path / "metrics.jsonl").unlink()
    assert main([str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert f"curves: {run.path / 'curves.png'}" in printed
    assert str(other.path) not in printed
    assert main([str(run.path), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / f"done-{run.path.name}-curves.png").exists()


def test_command_answers_mistakes_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no run in" in capsys.readouterr().err
    run = complete(start(tmp_path / "runs", "done"))
    (tmp_path / "file").touch()
    assert main([str(run.path), "--out", str(tmp_path / "file" / "below")]) == 1
    assert "--out DIR" in capsys.readouterr().err


def test_report_needs_neither_torch_nor_wandb(tmp_path: Path) -> None:
    run = complete(start(tmp_path, "done"))
    program = (
        "import sys; from cifar_lab.report.__main__ import main; main(sys.argv[1:])\n"
        "print([name for name in ('torch', 'wandb', 'matplotlib.pyplot') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(run.path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith("[]\n")
