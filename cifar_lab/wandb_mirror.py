"""The process that mirrors a run directory to Weights & Biases while the run goes on: `python -m` with the directory.

Standard input carries the session as one JSON line and at the end `finish <exit code>`; standard output carries lines
for the user. The trainer never waits for it: it follows metrics.jsonl at its own pace.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import sys
import tempfile
import threading
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cifar_lab.rundir import RunDir

POLL_SECONDS = 0.5
REACH_SECONDS = 5.0
INIT_SECONDS = 30.0
ORPHAN_SECONDS = 30.0
COMMON_FIELDS = ("split", "step", "epoch", "time")


def _follow(path: Path, offset: int, ended: threading.Event) -> Iterator[dict[str, Any]]:
    """Yield the complete lines of metrics.jsonl from `offset` on, until `ended` and nothing is left."""
    file: BinaryIO | None = None
    rest = b""
    while True:
        last_round = ended.is_set()
        if file is None and path.exists():
            file = open(path, "rb")  # noqa: SIM115
            file.seek(offset)
        if file is not None:
            *lines, rest = (rest + file.read()).split(b"\n")
            yield from map(json.loads, lines)
        if last_round:
            return
        ended.wait(POLL_SECONDS)


def _unreachable(url: str) -> str | None:
    """Why no server answers at `url`, None when one does; W&B itself would try for minutes."""
    try:
        urllib.request.urlopen(url, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return None  # An answer, whatever it says.
    except urllib.error.URLError as error:
        return None if isinstance(error.reason, ssl.SSLError) else f"{url}: {error.reason}"
    except (OSError, ValueError) as error:
        return f"{url}: {error}"
    return None


def _start_run(session: dict[str, Any], run_dir: RunDir) -> Any:
    """`wandb.init`, offline when there is no key or no server; returns a wandb.Run."""
    import wandb

    options: dict[str, Any] = {**session["init"], "config": session["config"], "resume": "allow"}
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        init_timeout=INIT_SECONDS,
        x_stats_pid=session["trainer_pid"],
    )
    chosen = wandb.setup().settings
    if "WANDB_MODE" in os.environ or chosen.mode != "online":
        return wandb.init(**options, settings=settings, allow_val_change=True)
    reason = _unreachable(chosen.base_url)
    if reason is None:
        try:
            return wandb.init(**options, settings=settings, allow_val_change=True, mode="online")
        except (wandb.Error, TimeoutError) as error:
            reason = str(error).splitlines()[0]
    print(f"W&B is offline ({reason}); send the run later with `cifar-lab sync {run_dir.path}`", flush=True)
    return wandb.init(**options, settings=settings, allow_val_change=True, mode="offline")


def main(argv: list[str] | None = None) -> int:
    """Mirror the run directory `argv[0]` to W&B until standard input says `finish` or closes."""
    run_dir = RunDir((sys.argv[1:] if argv is None else argv)[0])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # Schedulers signal every process of a job.
    session = json.loads(sys.stdin.readline())
    sys.argv = session["argv"]
    ended = threading.Event()
    exit_codes = []

    def listen() -> None:
        words = sys.stdin.readline().split()
        exit_codes.append(int(words[1]) if words else 1)
        if not words:  # The trainer was killed: nobody else would bound what follows.
            timer = threading.Timer(ORPHAN_SECONDS, os._exit, (1,))
            timer.daemon = True
            timer.start()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    run = _start_run(session, run_dir)
    for metric in ("val/*", "test/*"):
        run.define_metric(metric, step_metric="epoch")
    for line in _follow(run_dir.path / "metrics.jsonl", session["offset"], ended):
        values = {f"{line['split']}/{key}": value for key, value in line.items() if key not in COMMON_FIELDS}
        # W&B drops what is not past its last step: lines that a resumed run repeats are not doubled.
        run.log({"epoch": line["epoch"], **values}, step=line["step"])
    run.finish(exit_code=exit_codes[0])
    return 0


if __name__ == "__main__":
    status = 1
    # W&B makes temporary folders when it is imported, and removes them in an exit hook.
    tempfile.tempdir = tempfile.mkdtemp(prefix="cifar_lab-wandb-")
    try:
        status = main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        shutil.rmtree(tempfile.tempdir, ignore_errors=True)
        os._exit(status)  # W&B's exit hooks wait for its telemetry; its service ends with its parent.
