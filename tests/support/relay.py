"""A server between W&B's client and a real one, which can go bad in the middle of a run."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOP_BY_HOP = ("connection", "content-length", "transfer-encoding")


@dataclass
class Relay:
    """`refuse`: the HTTP status with which it answers to metrics; `silent` set: it takes requests and never answers.

    `num_metrics` counts the requests that bring metrics.
    """

    target: str
    url: str = ""
    refuse: int | None = None
    silent: bool = False
    num_metrics: int = 0
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def relaying(target: str) -> Iterator[Relay]:
    relay = Relay(target)

    class Handler(BaseHTTPRequestHandler):
        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if relay.silent:
                relay.closing.wait()
                return
            relay.num_metrics += self.path.endswith("/file_stream")
            if relay.refuse and self.path.endswith("/file_stream"):
                self.answer(relay.refuse, b"{}")
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            request = urllib.request.Request(relay.target + self.path, body or None, headers, method=self.command)
            try:
                with urllib.request.urlopen(request) as answer:
                    self.answer(answer.status, answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    self.answer(error.code, error.read())

        do_GET = do_POST = do_PUT = handle_request  # noqa: N815

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that was killed

    server = Server(("127.0.0.1", 0), Handler)
    relay.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
