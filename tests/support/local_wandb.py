"""A real server that W&B's client talks to, and what it has in its database."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY = "local" + "0" * 40
START_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A running openwandb; everything is asked from its SQLite file."""

    url: str
    data: Path
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """What makes W&B use it."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.data / "openwandb.db", timeout=30)) as connection:
            return connection.execute(text, values).fetchall()

    def runs(self, project: str) -> list[str]:
        """Ids of a project's runs."""
        rows = self.query(
            "select run_id from runs join projects on projects.id = project_id where projects.name = ?", project
        )
        return [row[0] for row in rows]

    def history(self, run: str) -> dict[str, list[tuple[int, float]]]:
        """W&B step and value of each metric, in the order of arrival."""
        found: dict[str, list[tuple[int, float]]] = {}
        for key, step, value in self.query("select key, step, value from metrics where run_id = ? order by id", run):
            found.setdefault(key, []).append((step, value))
        return found

    def rows(self, run: str) -> list[dict[str, Any]]:
        """The history as it was sent, pictures and tables included."""
        (path,) = self.data.glob(f"files/*/*/{run}/**/wandb-history.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines() if line]

    def config(self, run: str) -> dict[str, Any]:
        ((text,),) = self.query("select config_json from runs where run_id = ?", run)
        return {key: entry["value"] for key, entry in json.loads(text).items()}

    def summary(self, run: str) -> dict[str, Any]:
        ((text,),) = self.query("select summary_json from runs where run_id = ?", run)
        return json.loads(text)

    def state(self, run: str) -> str:
        ((state,),) = self.query("select state from runs where run_id = ?", run)
        return state

    def files(self, run: str) -> dict[str, Path]:
        """Name and place of each file that arrived."""
        rows = self.query("select name, path, size from files where run_id = ?", run)
        return {name: Path(path) for name, path, size in rows if size}

    def artifacts(self, run: str, kind: str) -> list[tuple[str, dict[str, Any]]]:
        """Names and metadata of a run's artifacts of a type."""
        rows = self.query("select name, metadata_json from artifacts where run_id = ? and artifact_type = ?", run, kind)
        return [(name, json.loads(metadata)) for name, metadata in rows]

    def mutations(self, name: str) -> list[dict[str, Any]]:
        """Variables of all GraphQL mutations of this name."""
        lines = (self.data / "mutations.jsonl").read_text().splitlines()
        return [entry["variables"] for entry in map(json.loads, lines) if entry["mutation"] == name]


@contextmanager
def serving(data: Path) -> Iterator[Server]:
    """openwandb on a free port of this machine."""
    data.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    program = Path(__file__).with_name("local_wandb_main.py")
    settings = {"OPENWANDB_DATA_DIR": str(data), "OPENWANDB_HOST": "127.0.0.1", "OPENWANDB_PORT": str(port)}
    environment = {**os.environ, **settings, "HOME": str(data)}
    with open(data / "server.log", "wb") as log:
        process = subprocess.Popen([sys.executable, str(program)], stdout=log, stderr=log, cwd=data, env=environment)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url := f"http://127.0.0.1:{port}"):
            assert process.poll() is None, (data / "server.log").read_text()
            assert time.monotonic() < deadline, (data / "server.log").read_text()
            time.sleep(0.1)
        yield Server(url, data, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/login", timeout=5).close()
    except OSError:
        return False
    return True
