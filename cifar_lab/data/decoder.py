"""Decoding of many pictures, also by processes beside this one: threads would wait for Python's lock.

Imports neither torch nor NumPy, so that such a process starts in 0.1 s.
"""

import io
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from subprocess import PIPE, Popen

from PIL import Image

from cifar_lab.data.pictures import Fit, open_picture, problem, upright_rgb
from cifar_lab.errors import UserError

MAX_PROCESSES = 16
Job = tuple[Sequence[bytes | str | None], int, Fit | None]  # encoded pictures or paths, side, how they come to it
Batch = tuple[bytes, dict[int, str | tuple[int, int]]]


def decode(job: Job) -> Batch:
    """Squares, uint8 (n, side, side, 3), and by their places what is wrong with others: a text, or (width, height)."""
    cells, side, fit = job
    sheet = Image.new("RGB", (side, side * len(cells)))  # pasting into it is faster than making arrays
    wrong: dict[int, str | tuple[int, int]] = {}
    for place, cell in enumerate(cells):
        try:
            if isinstance(cell, str):
                with open(cell, "rb", buffering=0) as file:  # at once: Pillow asks for two bytes at a time
                    cell = file.read()
            with open_picture(io.BytesIO(cell or b"")) as opened:
                picture = upright_rgb(opened, side if fit else None, fit or "crop")
        except MemoryError:  # which is not the picture's fault
            raise
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
            wrong[place] = problem(error) if cell else "is missing or empty"
            continue
        sheet.paste(picture, (0, place * side))
        if picture.size != (side, side):
            wrong[place] = picture.size
    return sheet.tobytes(), wrong


def decode_all(jobs: Iterable[Job], *, alone: bool) -> Generator[Batch, None, None]:
    """`decode` of each, in their order: here if `alone`, else by processes. Raises UserError where one fails."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if alone or cores == 1:
        yield from map(decode, jobs)
        return
    # Not multiprocessing, which would import the main program again, and torch with it.
    path = [str(Path(__file__).parents[2]), *map(str, sys.path)]
    program = f"import sys; sys.path[:] = {path}; from cifar_lab.data import decoder; decoder.serve()"
    command = [sys.executable, "-S", "-W", "ignore", "-c", program]
    count, running = min(cores, MAX_PROCESSES), deque[Future[Batch]]()
    free: SimpleQueue[Popen[bytes] | None] = SimpleQueue()
    for _ in range(count):
        free.put(None)

    def ask(job: Job) -> Batch:
        process = free.get()
        try:
            process = process or Popen(command, stdin=PIPE, stdout=PIPE)
            assert process.stdin and process.stdout
            pickle.dump(job, process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)  # type: ignore[no-any-return]
        except (OSError, EOFError) as error:
            raise UserError(f"a process that decodes pictures failed ({error}): is memory short?") from error
        finally:
            free.put(process)

    threads = ThreadPoolExecutor(count)
    try:
        for job in jobs:
            running.append(threads.submit(ask, job))
            if len(running) > 3 * count:
                yield running.popleft().result()
        yield from (future.result() for future in running)
    finally:
        threads.shutdown(cancel_futures=True)
        while not free.empty():
            if process := free.get():
                process.communicate()


def serve() -> None:
    """Answer until standard input ends; signals are for the process that asks."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    with open(0, "rb") as jobs, open(1, "wb") as answers:
        while jobs.peek(1):
            pickle.dump(decode(pickle.load(jobs)), answers)
            answers.flush()
