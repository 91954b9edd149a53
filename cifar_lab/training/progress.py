"""Progress of a run: one redrawn line in a terminal, now and then a plain line in a pipe or a Slurm log."""

import errno
import math
import os
import sys
import time
from typing import TextIO

from cifar_lab.cli.printable import duration, leave

REDRAW_SECONDS = 0.1
PLAIN_SECONDS = 30.0

FORMATS = {"epoch": "epoch {:.1f}", "loss": "loss {:.4f}", "lr": "lr {:.2e}", "images_per_second": "{:,.0f} images/s"}


class Progress:
    """Shows step, latest numbers and time left on `stream` (standard error); `enabled=False` shows nothing.

    There are no colours, so NO_COLOR has nothing to switch off; TERM=dumb gets plain lines. A stream that is closed or
    whose reader is gone is given up on; the run goes on.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        stream: TextIO | None = None,
        *,
        enabled: bool = True,
        plain_seconds: float = PLAIN_SECONDS,
    ) -> None:
        self._total = total_steps
        self._step = self._first_step = start_step
        # sys.stderr itself is None when the process was started with it closed.
        self._stream = (stream or sys.stderr) if enabled else None
        self._redraws = _is_terminal(self._stream)
        self._every = REDRAW_SECONDS if self._redraws else plain_seconds
        self._started = time.monotonic()
        self._due = self._started + self._every
        self._values: dict[str, float] = {}
        self._drawn = False

    def update(self, step: int, **values: float) -> None:
        """Note that `step` steps are done; `values` (epoch, loss, lr, images_per_second) come with log lines only."""
        self._step = step
        if values:
            self._values.update(values)
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._every
            self._show(now)

    def message(self, text: str) -> None:
        """Print a line of its own; the progress comes back with the next update."""
        self._clear()
        self._write(text + "\n")

    def close(self) -> None:
        """Clear the line, or in a log say where it ended; may be called twice, and messages still get through."""
        if self._redraws:
            self._clear()
        elif self._step > self._first_step and self._due < math.inf:
            self._show(time.monotonic())
        self._due = math.inf

    def _show(self, now: float) -> None:
        if self._redraws:
            self._write("\r" + self._line(now, self._columns() - 1) + "\x1b[K")
            self._drawn = True
        else:
            self._write(self._line(now, 1000) + "\n")

    def _line(self, now: float, width: int) -> str:
        """As many fields as fit into `width` characters, the most telling ones first."""
        part = self._step / self._total if self._total else 1.0
        fields = [f"{100 * part:3.0f}%", f"step {self._step}/{self._total}"]
        fields += [
            form.format(self._values[name]) for name, form in FORMATS.items() if self._values.get(name) is not None
        ]
        if self._first_step < self._step < self._total:
            pace = (now - self._started) / (self._step - self._first_step)
            fields.insert(2, f"{duration(pace * (self._total - self._step))} left")
        line = fields[0]
        for field in fields[1:]:
            if len(line) + 2 + len(field) > width:
                break
            line += "  " + field
        return line[: max(width, 0)]

    def _columns(self) -> int:
        assert self._stream is not None
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def _clear(self) -> None:
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError) as error:
            # A full disk under a log may have room again; a reader that is gone never comes back.
            if isinstance(error, ValueError) or error.errno in (errno.EPIPE, errno.EBADF, errno.EIO):
                leave(self._stream)
                self._stream, self._due = None, math.inf


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    except ValueError:  # A closed file.
        return False
