"""What a run says while it trains, in a log and in a terminal: the measure's words, and the result as the last line."""

import os
import pty
import re

from support.small import small

from cifar_lab.rundir.directory import RunDir
from cifar_lab.runtime import vote
from cifar_lab.train import run
from cifar_lab.training.progress import Progress

RECIPE = small(train__epochs=2)


def lines_in_a_log(folder, capsys) -> list[str]:
    run(RECIPE, run_dir=str(folder))
    return capsys.readouterr().err.splitlines()


def lines_in_a_terminal(folder, monkeypatch) -> list[str]:
    """Those that are left to be seen."""
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream, monkeypatch.context() as patched:
        patched.setattr("sys.stderr", stream)
        run(RECIPE, run_dir=str(folder))
    text = b""
    while chunk := _read(master):
        text += chunk
    os.close(master)
    return re.sub(r"\r[^\r\n]*\x1b\[K", "", text.decode()).split("\r\n")[:-1]


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # nobody writes any more
        return b""


def in_words(line: dict) -> str:
    accuracy = 100 * line["accuracy"]
    return (
        f"error {100 - accuracy:.2f} % (accuracy {accuracy:.2f} %) of {line['count']} pictures, loss {line['loss']:.4f}"
    )


def test_in_a_log_the_result_comes_last_and_tells_error_and_accuracy(tmp_path, capsys):
    lines = lines_in_a_log(tmp_path / "run", capsys)
    measured = {(line["split"], line["epoch"]): line for line in RunDir(tmp_path / "run").metrics()}
    assert lines[-1] == f"test {in_words(measured['test', 2])}"
    assert lines[-2].startswith("100%  step 40/40  epoch 2.0  loss ")
    for epoch in (1, 2):
        assert f"epoch {epoch}: validation {in_words(measured['val', epoch])}" in lines


def test_in_a_terminal_nothing_is_left_of_the_progress(tmp_path, monkeypatch):
    lines = lines_in_a_terminal(tmp_path / "run", monkeypatch)
    assert [line.partition(" error ")[0] for line in lines[-3:]] == [
        "epoch 1: validation",
        "epoch 2: validation",
        "test",
    ]
    assert not [line for line in lines if "step" in line and "%" in line]


def test_in_a_log_a_stop_is_said_last(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(vote, "SECONDS_BETWEEN_VOTES", 0.0)
    update = Progress.update

    def ask(self, step, **values):
        update(self, step, **values)
        if step == 7:
            (tmp_path / "run" / "STOP").touch()

    monkeypatch.setattr(Progress, "update", ask)
    run(RECIPE, run_dir=str(tmp_path / "run"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "stopped at step 7; start again to continue"
    assert re.match(r" 18%  step 7/40  \d+:\d\d left  epoch 0.3  loss ", lines[-2])
