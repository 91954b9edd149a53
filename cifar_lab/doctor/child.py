"""Programs that import torch, run beside the doctor so that one that hangs or crashes is a finding and not the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any


class Child:
    """`python -m cifar_lab.doctor.PROGRAM` with a question as JSON on standard input; answers with JSON lines."""

    def __init__(self, program: str, question: Mapping[str, Any], **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"cifar_lab.doctor.{program}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **variables},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode())
        self._process.stdin.close()
        self._process.stdin = None  # else communicate would flush it

    def answer(self, deadline: float) -> dict[str, Any]:
        """All its lines as one mapping; `error` says why it ended otherwise, `deadline` is of time.monotonic."""
        try:
            output, errors = self._process.communicate(timeout=max(0.1, deadline - time.monotonic()))
            late = False
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            output, errors = self._process.communicate()
            late = True
        found: dict[str, Any] = {}
        for line in output.decode(errors="replace").splitlines():
            if line.startswith("{"):
                found |= json.loads(line)
        if late:
            found.setdefault("error", "it did not answer in time")
        elif self._process.returncode:
            lines = errors.decode(errors="replace").strip().splitlines()
            found.setdefault("error", lines[-1] if lines else f"it ended with status {self._process.returncode}")
        return found
