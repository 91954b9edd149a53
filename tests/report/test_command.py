"""`cifar-lab report` as people call it: what it prints, where it writes, how fast, and side by side in a terminal."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import completed, processor_seconds
from support.written_runs import written, written_study

from cifar_lab.commands.report import main
from cifar_lab.report.contents import contents
from cifar_lab.report.read import read_run
from cifar_lab.report.terminal import ranked_tables, say, side_by_side


def test_table_is_printed_and_the_page_lies_beside_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = written(Path("runs"), "plain18", error=0.1), written(Path("runs"), "plain34", error=0.2)
    written(Path("runs"), "demo").write_status("failed", 3, 9, reason="full disk")
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "rank"
    assert [line.split()[:2] for line in lines[2:4]] == [["1", "plain18"], ["2", "plain34"]]
    assert lines[2].split() == ["1", "plain18", "10.00", "%", "1", "10.00", "%", "11.17", "M", "10", "1,234", "1:02:05"]
    assert lines[-2].endswith("failed, at step 3 of 9: full disk")
    assert lines[-1] == "report: runs/report/report.html"
    assert main(["runs/plain18", "runs/plain34"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "report: runs/report/report.html"
    assert main([f"runs/plain18/{first.path.name}"]) == 0
    assert (first.path / "report" / "report.html").is_file()
    assert main([str(first.path), str(second.path), "--out", "elsewhere"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "report: elsewhere/report.html"
    assert main([str(path) for path in sorted(Path("runs").iterdir())]) == 0, "runs/* names the report too"


def test_mistakes_are_answered_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no run in" in capsys.readouterr().err
    assert main([str(tmp_path / "absent")]) == 2
    assert "is not a directory" in capsys.readouterr().err
    run = written(tmp_path / "runs", "plain18")
    (tmp_path / "file").touch()
    assert main([str(run.path), "--out", str(tmp_path / "file" / "below")]) == 1
    assert "--out DIR" in capsys.readouterr().err


def test_report_needs_neither_torch_nor_wandb_and_a_terminal_no_matplotlib(tmp_path: Path) -> None:
    run = written(tmp_path, "demo")
    program = (
        "import sys; from cifar_lab.commands.report import main; main(sys.argv[1:])\n"
        "print([name for name in ('torch', 'wandb', 'matplotlib.pyplot', 'matplotlib') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(run.path)]
    said = [
        subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout
        for more in ([], ["--terminal"])
    ]
    assert [text.splitlines()[-1] for text in said] == ["['matplotlib']", "[]"]


def test_runs_with_nothing_in_common_need_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = written(tmp_path, "plain18")
    monkeypatch.setattr("cifar_lab.commands.report.common_folder", lambda paths: Path("/"))
    assert main([str(run.path)]) == 2
    assert "name one with --out DIR" in capsys.readouterr().err


def test_fifty_runs_take_less_than_three_seconds(tmp_path: Path) -> None:
    written_study(tmp_path, seeds=6, epochs=150)
    for seed in range(2):
        written(tmp_path, "eva02_large", seed, count=10_000, epochs=50)
    assert len(list(tmp_path.glob("*/*/summary.json"))) == 50
    command = [sys.executable, "-m", "cifar_lab", "report", str(tmp_path)]
    done, seconds = processor_seconds(lambda: completed(command))
    assert done.returncode == 0, done.stderr
    assert seconds < 3
    assert (tmp_path / "report" / "plots" / "vits-error.png").exists()


def test_a_terminal_shows_differences_curves_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        written(tmp_path, "plain18", error=0.1),
        written(tmp_path, "plain18", 1, error=0.3, overrides=["optim.lr=0.5", "log.every_steps=3"]),
    ]
    assert main([*(str(run.path) for run in runs), "--terminal"]) == 0
    text = capsys.readouterr().out
    assert not (tmp_path / "report").exists()
    assert f"a  plain18/{runs[0].path.name}" in text
    table = [line.split() for line in text.splitlines()]
    assert ["seed", "0", "1"] in table
    assert ["optim.lr", "0.1", "0.5"] in table
    assert "log.every_steps" not in text
    assert [line for line in table if line[:1] == ["b"] and "%" in line] == [
        ["b", "30.00", "%", "30.00", "%", "10", "1,234", "1:02:05", "completed"]
    ]
    for title in ("validation error (%)", "validation loss", "training loss"):
        start = text.splitlines().index(title)
        plot = text.splitlines()[start + 1 : start + 13]
        heights = {letter: [row for row, line in enumerate(plot) if letter in line.split("|")[1]] for letter in "ab"}
        assert max(heights["a"]) > max(heights["b"]), "the better run ends lower"


@pytest.mark.parametrize("width", [50, 80, 120])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    overrides = (["optim.lr=0.5"], [], ["name=a_very_long_name_that_needs_half_of_a_line"])
    records = [read_run(written(tmp_path, "plain18", seed, overrides=overrides[seed]).path) for seed in range(3)]
    lines = side_by_side(records, width, False).splitlines()
    assert [line for line in lines if len(line) > width] == []
    assert max(map(len, lines)) > width - 10 or width == 120
    assert "\x1b[" not in side_by_side(records, width, False)
    assert "\x1b[34ma\x1b[0m" in side_by_side(records, width, True)


def test_equal_recipes_and_a_single_run_say_so(tmp_path: Path) -> None:
    first, second = (read_run(written(tmp_path, "plain18", fresh=True).path) for _ in range(2))
    assert "the recipes do not differ" in side_by_side([first, second], 80, False)
    assert "differ" not in side_by_side([first], 80, False)


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    records = [read_run(written(tmp_path, "plain18", seed).path) for seed in range(2)]
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    say(ranked_tables(contents(records)), stream)
    stream.seek(0)
    assert "20.00 +- 0.00 %" in stream.read()
