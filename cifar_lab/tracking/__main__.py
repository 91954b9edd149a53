"""`python -m cifar_lab.tracking NAME RUN [PID]`: send a run directory to one tracker.

It follows the run until standard input says `finish`, or closes because the trainer was killed; without PID, that of
the trainer, it is `cifar-lab sync`. Standard output carries lines for the user.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from functools import partial

import filelock

from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.record import EXIT_NOT_SENT, NAME, Identity, not_sent
from cifar_lab.tracking.server import NotSentError

ORPHAN_SECONDS = 30.0
RETRY_SECONDS = 30.0
MAX_RETRY_SECONDS = 600.0
BUSY_SECONDS = 1.0
# Libraries print for people; what they say belongs into the log.
USER = os.dup(1)


def main(name: str, folder: str, trainer: int | None) -> int:
    """Send the run, again while there is no server; the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # Schedulers signal every process of a job.
    os.nice(10)
    ended = _listen()
    run_dir = RunDir(folder)
    identity = Identity.model_validate_json((run_dir.path / NAME).read_bytes())
    sys.argv = run_dir.env().get("command") or [run_dir.path.name]  # what W&B shows as the program
    send: Callable[[], None]
    if name == "wandb":
        _take_no_other_run(identity)
        if trainer is None:
            os.environ["WANDB_MODE"] = "online"
        from cifar_lab.tracking.wandb import connect, upload

        if trainer is None and identity.whole_at == connect.server():
            _say("everything was sent before")
            return 0
        send = partial(upload.send, run_dir, identity, ended, trainer, _say)
    else:
        from cifar_lab.tracking import adapter

        send = partial(adapter.send, name, run_dir, identity, ended, _say)
    # After kill -9 of a trainer its own processes live on for a while.
    lock = filelock.FileLock(run_dir.path / f"{name}.lock")
    seconds, told = RETRY_SECONDS, False
    while True:
        try:
            try:
                lock.acquire(poll_interval=BUSY_SECONDS, cancel_check=ended.is_set)
            except filelock.Timeout as error:
                raise NotSentError("another process sends this run now") from error
            except OSError:  # a full or read-only disk, no locks there: no reason to keep metrics from being sent
                pass
            send()
            return 0
        except NotSentError as error:
            lock.release()
            if not told:
                _say(not_sent(run_dir.path, error, name))
                told = True
            if not error.passing or ended.wait(seconds):
                return EXIT_NOT_SENT
        seconds = min(2 * seconds, MAX_RETRY_SECONDS)


def _take_no_other_run(identity: Identity) -> None:
    """Keep W&B from the run that the environment names: the sweep may be another run's."""
    given = os.environ.get("WANDB_RUN_ID")
    if given == identity.id:
        return
    if given:
        _say(
            f"W&B: WANDB_RUN_ID={given} is ignored: this directory is the run {identity.id}; a directory takes its "
            "id only from `wandb agent`, at its first start, and no two take the same (unset WANDB_RUN_ID)"
        )
    os.environ["WANDB_RUN_ID"] = identity.id  # else SageMaker makes one up
    os.environ.pop("WANDB_SWEEP_ID", None)
    os.environ.pop("WANDB_SWEEP_PARAM_PATH", None)


def _listen() -> threading.Event:
    """Set when standard input says so or closes."""
    ended = threading.Event()

    def wait() -> None:
        if sys.stdin.readline().strip() != "finish":  # Killed: nobody else would bound what follows.
            timer = threading.Timer(ORPHAN_SECONDS, os._exit, (1,))
            timer.daemon = True
            timer.start()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended


def _say(line: str) -> None:
    os.write(USER, f"{line}\n".encode())  # in one piece: the reader does not wait for the rest


if __name__ == "__main__":
    status = 1
    os.dup2(2, 1)
    logging.disable()  # W&B's own log: on a full disk to close it raises, before what was sent is noted
    # W&B makes temporary folders when it is imported, and removes them in an exit hook.
    tempfile.tempdir = tempfile.mkdtemp(prefix=f"cifar_lab-{sys.argv[1]}-{os.getpid()}-")
    try:
        status = main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if sys.argv[3:] else None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        shutil.rmtree(tempfile.tempdir, ignore_errors=True)
        os._exit(status)  # W&B's exit hooks wait for its telemetry; its service ends with its parent.
