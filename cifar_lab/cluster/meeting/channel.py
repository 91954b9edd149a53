"""Small messages between the nodes of a job: JSON objects, one a line, over TCP."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

MAX_BYTES = 4 * 2**20


class Channel:
    """One connection; what is no message of ours raises ValueError, an end or a timeout OSError."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._rest = b""

    def send(self, **message: Any) -> None:
        """Send one message within ten seconds."""
        self.socket.settimeout(10)
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float) -> dict[str, Any]:
        """The next message, which must be whole within `seconds`."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            piece = self.socket.recv(65536)
            if not piece:
                raise ConnectionError("the connection was closed")
            self._rest += piece
            if len(self._rest) > MAX_BYTES:
                raise ValueError("not a message of ours")
        line, _, self._rest = self._rest.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("not a message of ours")
        return message

    def close(self) -> None:
        self.socket.close()


def reason(error: Exception) -> str:
    """An OSError or ValueError in a few words."""
    if isinstance(error, TimeoutError):
        return str(error) if "looked up" in str(error) else "no answer"
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
