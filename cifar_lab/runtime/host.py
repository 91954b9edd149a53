"""What a process settles before torch is loaded: how threads wait, where freed memory goes, when garbage is sought."""

import atexit
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Of <malloc.h>; the values mean "never trim" and "no mapping of its own for any block".
M_TRIM_THRESHOLD, NEVER = -1, -1
M_MMAP_MAX, NONE = -4, 0


@contextmanager
def loading() -> Iterator[None]:
    """Settle all, and do not seek garbage within, where torch is loaded and a model is built.

    Modules are no garbage, and Python's collector looks through all of them again and again: a fifth of an import.
    """
    settle()
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def settle() -> None:
    """Settle what the user has not. Once is enough; later calls change nothing."""
    _wait_briefly()
    _keep_freed_pages()
    _end_at_once()


def _wait_briefly() -> None:
    """Let threads that wait spin for a short time only, unless a policy is set.

    By default they spin for long, which is lost on cores that others use too: the demo trained at 240 images/s on two
    busy ones, so at 4,300; on idle ones it is as fast.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def _keep_freed_pages() -> None:
    """Let glibc keep what a training step frees for the next one, which needs just as much.

    By default it gives activations and gradients back to the kernel, which has to clear each page anew: thousands of
    page faults a step, a quarter of the step of a small net. Peak memory grows by some MB.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_MMAP_MAX, NONE)


def _end_at_once() -> None:
    """Take what is there at the end out of the collector's last search, which lasts half a second after torch."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
