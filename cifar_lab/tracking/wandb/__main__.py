"""`python -m cifar_lab.tracking.wandb RUN`: send a run directory to Weights & Biases.

With `--follow PID` while the trainer PID goes on, until standard input says `finish`, or closes because the trainer was
killed. Without it what is there now, for `cifar-lab sync`. Standard output carries lines for the user.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from dataclasses import dataclass
from typing import Any

from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.wandb.hearing import Hearing
from cifar_lab.tracking.wandb.record import Identity, read_all_sent, read_identity, sole_sender
from cifar_lab.tracking.wandb.rows import PICTURES, follow, place

ORPHAN_SECONDS = 30.0
RETRY_SECONDS = 30.0
MAX_RETRY_SECONDS = 600.0
BUSY_SECONDS = 1.0
EXIT_NOT_SENT = 3


@dataclass
class Trainer:
    """The process that is followed: `ended` is set when it says so or dies."""

    pid: int
    ended: threading.Event

    @classmethod
    def listen(cls, pid: int) -> Trainer:
        """Wait for its word in a thread."""
        trainer = cls(pid, threading.Event())

        def wait() -> None:
            if sys.stdin.readline().strip() != "finish":  # Killed: nobody else would bound what follows.
                timer = threading.Timer(ORPHAN_SECONDS, os._exit, (1,))
                timer.daemon = True
                timer.start()
            trainer.ended.set()

        threading.Thread(target=wait, daemon=True).start()
        return trainer


def main(argv: list[str] | None = None) -> int:
    """Send the run; 0 when all was sent or the trainer was told why not, EXIT_NOT_SENT without a trainer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--project")
    parser.add_argument("--entity")
    parser.add_argument("--follow", type=int, metavar="PID")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        if options.follow:
            signal.signal(number, signal.SIG_IGN)  # Schedulers signal every process of a job.
    run_dir = RunDir(options.run)
    identity = read_identity(run_dir.path, options.project, options.entity)
    assert identity is not None
    _name_run(identity)
    sys.argv = run_dir.env().get("command") or [run_dir.path.name]  # what W&B shows as the program
    if options.follow:
        os.nice(10)
        return _follow(run_dir, identity, Trainer.listen(options.follow))
    return _send_once(run_dir, identity, options.check)


def _name_run(identity: Identity) -> None:
    """In a sweep W&B takes the run from the environment alone, read once; the one of now may be another agent's."""
    if not identity.sweep:
        os.environ.pop("WANDB_SWEEP_ID", None)
        os.environ.pop("WANDB_SWEEP_PARAM_PATH", None)
    else:
        named = {"SWEEP_ID": identity.sweep, "RUN_ID": identity.id, "PROJECT": identity.project}
        os.environ.update({f"WANDB_{name}": value for name, value in named.items()})
        if identity.entity:
            os.environ["WANDB_ENTITY"] = identity.entity


def _follow(run_dir: RunDir, identity: Identity, trainer: Trainer) -> int:
    """Send lines as they come; try again while there is no server, and say so once."""
    from cifar_lab.tracking.wandb.connect import ConnectError, connect, wants_offline
    from cifar_lab.tracking.wandb.upload import LostError

    seconds, told, offline = RETRY_SECONDS, False, wants_offline()
    while True:
        with sole_sender(run_dir.path) as sole:
            if sole or offline:
                try:
                    run = connect(run_dir, identity, offline=offline, stats_pid=trainer.pid)
                    if not offline:
                        _say(f"W&B: {run.url}")
                    _send(run, run_dir, identity, trainer.ended, offline)
                    return 0
                except ConnectError as error:
                    reason, passing = str(error), error.passing
                except LostError as error:
                    reason, passing = str(error), False
            else:
                reason, passing = "a former process still sends this run", True
        if not sole and not trainer.ended.wait(BUSY_SECONDS):
            continue
        if not told:
            _say(f"W&B: {reason}; metrics.jsonl has everything, `cifar-lab sync {run_dir.path}` sends it")
            told = True
        if not passing or trainer.ended.wait(seconds):
            return 0
        seconds = min(2 * seconds, MAX_RETRY_SECONDS)


def _send_once(run_dir: RunDir, identity: Identity, check: bool) -> int:
    from cifar_lab.tracking.wandb.connect import ConnectError, connect, server
    from cifar_lab.tracking.wandb.upload import LostError

    if not check and _all_sent(run_dir, server(), identity):
        _say("everything was sent before")
        return 0
    over = threading.Event()
    over.set()
    with sole_sender(run_dir.path) as sole:
        if not sole:
            _say("another process sends it to W&B now, so there is nothing to do")
            return EXIT_NOT_SENT
        try:
            _say(_send(connect(run_dir, identity), run_dir, identity, over, offline=False))
        except (ConnectError, LostError) as error:
            _say(str(error))
            return EXIT_NOT_SENT
    return 0


def _all_sent(run_dir: RunDir, server: str, identity: Identity) -> bool:
    """Whether a completed run is known to be whole on this server."""
    status = run_dir.status()
    return (
        status is not None
        and status.state == "completed"
        and any(
            sent.pictures and sent.weights and sent.next_place > place(status.step, PICTURES)
            for destination, sent in read_all_sent(run_dir.path).items()
            if destination.startswith(f"{server}/{identity.entity or ''}")
            and destination.endswith(f"/{identity.project}")
        )
    )


def _send(run: Any, run_dir: RunDir, identity: Identity, ended: threading.Event, offline: bool) -> str:
    """What was sent, in words. Raises LostError."""
    from cifar_lab.tracking.wandb.connect import connect
    from cifar_lab.tracking.wandb.upload import Upload, owes_results

    url = run.url
    upload = Upload(run, run_dir)
    upload.augmented()
    for line in follow(run_dir.path / "metrics.jsonl", ended):
        upload.line(line)
        if upload.lost:
            break
    sent = upload.end()
    said = [f"{upload.num_lines} lines"]
    if owes_results(run_dir, sent) and not offline:
        Upload(connect(run_dir, identity), run_dir).results()
        said += ["pictures", "weights"]
    return f"{', '.join(said)} sent to {url}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")  # in one piece, however it is buffered: the reader does not wait for the rest
    sys.stdout.flush()


if __name__ == "__main__":
    status = 1
    Hearing.installed()  # before W&B takes hold of standard error
    logging.disable()  # W&B's own log: on a full disk to close it raises, before what was sent is noted
    # W&B makes temporary folders when it is imported, and removes them in an exit hook.
    tempfile.tempdir = tempfile.mkdtemp(prefix=f"cifar_lab-wandb-{os.getpid()}-")
    try:
        status = main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        shutil.rmtree(tempfile.tempdir, ignore_errors=True)
        os._exit(status)  # W&B's exit hooks wait for its telemetry; its service ends with its parent.
