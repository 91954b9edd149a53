"""Hearing what W&B says to people."""

from __future__ import annotations

import sys
from typing import Any, TextIO


class Hearing:
    """Standard error that remembers whether W&B gave up; nothing else of its interface tells while the run goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.lost = stream, False

    @classmethod
    def installed(cls) -> Hearing:
        """The process's one."""
        if not isinstance(sys.stderr, cls):
            sys.stderr = cls(sys.stderr)
        assert isinstance(sys.stderr, cls)
        return sys.stderr

    def write(self, text: str) -> int:
        self.lost = self.lost or "Fatal error while uploading data" in text
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
