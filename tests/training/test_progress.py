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
from collections.abc import Iterator
from contextlib import suppress

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
        parts = []
        with suppress(BlockingIOError):
            while True:  # a read gives one write's text
                parts.append(os.read(self.master, 100_000))
        return b"".join(parts).decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self.master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal(columns=44)
    yield terminal
    terminal.close()


class Time:
    """Stands in for the module `time`: it passes only when it is told to, and counts how often it is read."""

    def __init__(self) -> None:
        self.now, self.reads = 0.0, 0

    def monotonic(self) -> float:
        self.reads += 1
        return self.now


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr("cifar_lab.training.progress.time", time)
    return time


def test_terminal_line_is_redrawn_within_the_width_and_clears_itself(terminal: Terminal, time: Time) -> None:
    progress = Progress(1000, 0, terminal.stream)
    time.now += 0.11
    progress.update(250, epoch=1.0, loss=1.25, lr=0.1, images_per_second=1234.0)
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


def test_terminal_is_redrawn_ten_times_a_second_and_the_clock_read_once_a_step(terminal: Terminal, time: Time) -> None:
    progress = Progress(10**6, 0, terminal.stream)
    time.reads = 0
    for step in range(1, 352):
        time.now = step / 1000
        progress.update(step)
    assert terminal.text().count("\r") == 3
    assert time.reads == 351


def test_wide_terminal_shows_all_numbers(terminal: Terminal, time: Time) -> None:
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 150, 0, 0))
    progress = Progress(1000, 0, terminal.stream)
    time.now += 0.11
    progress.update(500, epoch=2.5, loss=1.25, lr=0.1, images_per_second=1234.0)
    text = terminal.text()
    for part in (" 50%", "epoch 2.5", "loss 1.2500", "lr 1.00e-01", "1,234 images/s"):
        assert part in text


def test_pipe_gets_plain_lines_at_intervals_and_messages(time: Time) -> None:
    stream = io.StringIO()
    progress = Progress(100, 0, stream, plain_seconds=0.1)
    progress.update(1, loss=2.0)
    progress.message("validation error 12 %")
    time.now += 0.11
    progress.update(50)
    progress.update(51)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "validation error 12 %"
    assert [re.search(r"step (\d+)", line)[1] for line in lines[1:]] == ["50", "51"]
    assert "loss 2.0000" in lines[1]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", stream.getvalue())


def test_dumb_terminal_gets_plain_lines(terminal: Terminal, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    progress = Progress(10, 0, terminal.stream, plain_seconds=0.05)
    time.now += 0.11
    progress.update(5)
    assert re.fullmatch(r" 50%  step 5/10  \d+:\d\d left\r\n", terminal.text())


def test_time_left_counts_this_start_only(time: Time) -> None:
    stream = io.StringIO()
    progress = Progress(1000, 900, stream)
    time.now = 100.0
    progress.update(950)
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
