"""`cifar-lab report` as people call it: what it prints, where it writes, how often it draws."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.written_runs import written, written_study

from cifar_lab.commands.report import main
from cifar_lab.report import files, read, svg


def counted(function: Callable[..., Any], count: Callable[..., None]) -> Callable[..., Any]:
    """The function, whose calls go on as they do after `count` was told their arguments."""

    def calls(*args: Any) -> Any:
        count(*args)
        return function(*args)

    return calls


def test_table_is_printed_and_the_page_lies_beside_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = written(Path("runs"), "plain18", error=0.1), written(Path("runs"), "plain34", error=0.2)
    written(Path("runs"), "demo").write_status("failed", 3, 9, reason="full disk")
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 experiments, 2 runs: plain18 has the lowest test error, 10.00 % (1 seed), 10.00")
    assert lines[0].endswith(" Not counted: 1 failed.")
    assert lines[2].split("  ")[0] == "rank"
    assert [line.split()[:2] for line in lines[3:5]] == [["1", "plain18"], ["2", "plain34"]]
    assert lines[3].split() == ["1", "plain18", "10.00", "%", "1", "10.00", "%", "11.17", "M", "1:02:05"]
    assert lines[-2].endswith("failed, at step 3 of 9: full disk")
    assert lines[-1] == "report: runs/report/report.html"
    assert main(["runs/plain18", "runs/plain34"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "report: runs/report/report.html"
    assert main([f"runs/plain18/{first.path.name}"]) == 0
    assert (first.path / "report" / "report.html").is_file()
    assert main([str(first.path), str(second.path), "--out", "elsewhere"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "report: elsewhere/report.html"
    assert main([str(path) for path in sorted(Path("runs").iterdir())]) == 0, "runs/* names the report too"
    capsys.readouterr()
    assert main(["runs/plain18", "/proc/self/cwd/runs/plain34"]) == 0, "nothing in common but the root"
    assert capsys.readouterr().out.splitlines()[-1] == "report: report/report.html"


def test_mistakes_are_answered_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no run in" in capsys.readouterr().err
    assert main([str(tmp_path / "absent")]) == 2
    assert "is not a directory" in capsys.readouterr().err
    run = written(tmp_path / "runs", "plain18")
    (tmp_path / "file").touch()
    assert main([str(run.path), "--out", str(tmp_path / "file" / "below")]) == 2
    assert "--out DIR" in capsys.readouterr().err


def test_report_needs_neither_torch_nor_wandb(tmp_path: Path) -> None:
    run = written(tmp_path, "demo")
    program = (
        "import sys; from cifar_lab.commands.report import main; main(sys.argv[1:])\n"
        "print([name for name in ('torch', 'wandb') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(run.path)]
    said = [
        subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout
        for more in ([], ["--terminal"])
    ]
    assert [text.splitlines()[-1] for text in said] == ["[]", "[]"]


def test_each_figure_is_drawn_once_and_each_run_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written_study(tmp_path, seeds=2)
    drawn, shown, opened = Counter[str](), Counter[str](), Counter[Path]()
    monkeypatch.setattr(files, "draw", counted(svg.draw, lambda figure: drawn.update([figure.name])))
    on_page = counted(svg.draw, lambda figure, size: shown.update([figure.name]))
    monkeypatch.setitem(svg.templates().globals, "draw", on_page)
    monkeypatch.setattr(read, "read_metrics", counted(read.read_metrics, lambda path: opened.update([path])))
    assert main([str(tmp_path)]) == 0
    runs = {path.parent for path in tmp_path.glob("*/*/summary.json")}
    assert opened == Counter(path / "metrics.jsonl" for path in runs)
    assert drawn == Counter(path.stem for path in (tmp_path / "report" / "plots").glob("*-[le]*.svg"))
    assert {name: shown.pop(name) for name in drawn} == dict.fromkeys(drawn, 2), "for a desk and for a phone"
    assert shown.total() == 4 * len(runs)


def test_a_terminal_shows_ranks_and_claims_whole_in_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written_study(tmp_path, seeds=2)
    written(tmp_path, "demo", error=0.2, overrides=["name=a_very_long_name_that_needs_half_of_a_line_or_more"])
    written(tmp_path, "demo", 7).write_status("failed", 3, 9, reason="full disk")
    assert main([str(tmp_path), "--terminal"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not (tmp_path / "report").exists()
    (long,) = (line for line in lines if "a_very_long_name_that_needs_half_of_a_line_or_more" in line)
    assert "20.00 %" in long
    (degradation,) = (line for line in lines if line.startswith("Degradation"))
    assert degradation.split()[1:6] == ["holds", "Plain34", "minus", "Plain18:", "+4.00"]
    assert lines[-1].endswith("failed, at step 3 of 9: full disk")
