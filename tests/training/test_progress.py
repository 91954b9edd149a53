"""The progress line in a real pseudo-terminal, in a pipe, and with nobody reading."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from cifar_lab.training.progress import Progress


class Terminal:
    """A pseudo-terminal of a given width; `text()` is what was written so far."""

    def __init__(self, columns: int) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = open(slave, "w")  # noqa: SIM115

    def text(self) -> str:
        os.set_blocking(self.master, False)
        try:
            return os.read(self.master, 100_000).decode()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        self.stream.close()
        os.close(self.master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal(columns=44)
    yield terminal
    terminal.close()


def redraw(progress: Progress, step: int, **values: float) -> None:
    time.sleep(0.11)
    progress.update(step, **values)


def test_terminal_line_is_redrawn_within_the_width_and_clears_itself(terminal: Terminal) -> None:
    progress = Progress(1000, 0, terminal.stream)
    redraw(progress, 250, epoch=1.0, loss=1.25, lr=0.1, images_per_second=1234.0)
    progress.message("validation error 12 %")
    progress.close()
    text = terminal.text()
    drawn, *rest = text.split("\x1b[K")
    assert "25%" in drawn
    assert "step 250/1000" in drawn
    assert "left" in drawn
    assert drawn.endswith("epoch 1.0")  # The loss would not fit as a whole.
    assert "\n" not in drawn
    assert len(drawn.lstrip("\r")) < 44
    assert "".join(rest) == "\rvalidation error 12 %\r\n"


def test_terminal_is_not_redrawn_more_than_ten_times_a_second(terminal: Terminal) -> None:
    progress = Progress(10**6, 0, terminal.stream)
    started = time.monotonic()
    step = 0
    while time.monotonic() - started < 0.35:
        step += 1
        progress.update(step)
    assert 2 <= terminal.text().count("\r") <= 4


def test_wide_terminal_shows_all_numbers(terminal: Terminal) -> None:
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 150, 0, 0))
    progress = Progress(1000, 0, terminal.stream)
    redraw(progress, 500, epoch=2.5, loss=1.25, lr=0.1, images_per_second=1234.0)
    text = terminal.text()
    for part in ("[##########..........]", "epoch 2.5", "loss 1.2500", "lr 1.00e-01", "1,234 images/s"):
        assert part in text


def test_pipe_gets_plain_lines_at_intervals_and_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    progress = Progress(100, 0, stream, plain_seconds=0.1)
    progress.update(1, loss=2.0)
    progress.message("validation error 12 %")
    redraw(progress, 50)
    progress.update(51)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "validation error 12 %"
    assert [re.search(r"step (\d+)", line)[1] for line in lines[1:]] == ["50", "51"]
    assert "loss 2.0000" in lines[1]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", stream.getvalue())


def test_dumb_terminal_gets_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    progress = Progress(10, 0, terminal.stream, plain_seconds=0.05)
    redraw(progress, 5)
    assert re.fullmatch(r" 50%  step 5/10  \d+:\d\d left\r\n", terminal.text())


def test_time_left_counts_this_start_only(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 100.0])
    monkeypatch.setattr("cifar_lab.training.progress.time.monotonic", lambda: next(clock))
    stream = io.StringIO()
    Progress(1000, 900, stream).update(950)
    assert "1:40 left" in stream.getvalue()


def test_disabled_shows_nothing_and_message_after_close_gets_through(capsys: pytest.CaptureFixture[str]) -> None:
    silent = Progress(10, enabled=False)
    silent.update(5)
    silent.message("hidden")
    silent.close()
    progress = Progress(10)
    progress.close()
    progress.close()
    progress.message("W&B: late")
    assert capsys.readouterr().err == "W&B: late\n"


@pytest.mark.parametrize("closed", ["2>&-", "2> >(exec true)"])
def test_closed_stream_never_ends_the_run(closed: str) -> None:
    program = (
        "import os, sys, time; time.sleep(0.3); from cifar_lab.training.progress import Progress\n"
        "p = Progress(10, plain_seconds=0)\n"
        "for step in range(10): p.update(step + 1); p.message('x' * 10000)\n"
        "print('to stderr', file=sys.stderr or open(os.devnull, 'w')); p.close(); print('survived')"
    )
    command = ["bash", "-c", f'"$0" -c "$1" {closed}', sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout == "survived\n"
    assert done.returncode == 0


def test_full_disk_is_waited_out() -> None:
    with open("/dev/full", "w") as full:
        progress = Progress(10, 0, full, plain_seconds=0)
        progress.message("lost")
        assert progress._stream is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_update_costs_about_a_microsecond() -> None:
    progress = Progress(10**6, 0, io.StringIO())
    best = min(_seconds(progress) for _ in range(5))
    assert best / 20_000 < 3e-6


def _seconds(progress: Progress) -> float:
    started = time.perf_counter()
    for step in range(20_000):
        progress.update(step)
    return time.perf_counter() - started
