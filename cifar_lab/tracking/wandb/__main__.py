"""`python -m cifar_lab.tracking.wandb RUN [PID]`: send a run directory to Weights & Biases.

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

from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.wandb.record import EXIT_NOT_SENT, NAME, Identity, not_sent

ORPHAN_SECONDS = 30.0
RETRY_SECONDS = 30.0
MAX_RETRY_SECONDS = 600.0


def main(folder: str, trainer: int | None) -> int:
    """Send the run, again while there is no server; the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # Schedulers signal every process of a job.
    os.nice(10)
    ended = _listen()
    run_dir = RunDir(folder)
    identity = Identity.model_validate_json((run_dir.path / NAME).read_bytes())
    given = os.environ.get("WANDB_RUN_ID")
    if given != identity.id:  # the sweep is another run's; W&B would take that run
        if given:
            _say(
                f"W&B: WANDB_RUN_ID={given} is ignored: this directory is the run {identity.id}; a directory takes its "
                "id only from `wandb agent`, at its first start, and no two take the same (unset WANDB_RUN_ID)"
            )
        os.environ["WANDB_RUN_ID"] = identity.id  # else SageMaker makes one up
        os.environ.pop("WANDB_SWEEP_ID", None)
        os.environ.pop("WANDB_SWEEP_PARAM_PATH", None)
    sys.argv = run_dir.env().get("command") or [run_dir.path.name]  # what W&B shows as the program

    from cifar_lab.tracking.wandb.connect import NotSentError, server
    from cifar_lab.tracking.wandb.upload import send

    if trainer is None and identity.whole_at == server():
        _say("everything was sent before")
        return 0
    seconds, told = RETRY_SECONDS, False
    while True:
        try:
            send(run_dir, identity, ended, trainer, _say)
            return 0
        except NotSentError as error:
            if not told:
                _say(not_sent(run_dir.path, error))
                told = True
            if not error.passing or ended.wait(seconds):
                return EXIT_NOT_SENT
        seconds = min(2 * seconds, MAX_RETRY_SECONDS)


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
    sys.stdout.write(f"{line}\n")  # in one piece, however it is buffered: the reader does not wait for the rest
    sys.stdout.flush()


if __name__ == "__main__":
    status = 1
    logging.disable()  # W&B's own log: on a full disk to close it raises, before what was sent is noted
    # W&B makes temporary folders when it is imported, and removes them in an exit hook.
    tempfile.tempdir = tempfile.mkdtemp(prefix=f"cifar_lab-wandb-{os.getpid()}-")
    try:
        status = main(sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        shutil.rmtree(tempfile.tempdir, ignore_errors=True)
        os._exit(status)  # W&B's exit hooks wait for its telemetry; its service ends with its parent.
