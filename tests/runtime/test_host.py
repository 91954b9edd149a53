"""What a process settles: memory is asked for once, users' settings win, and garbage is sought where there is some."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from contextlib import suppress

import pytest

from cifar_lab.runtime import host

FAULTS = """
import os, resource
from cifar_lab.runtime import host
host.settle()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(64 * 2**20)  # written to and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults(), os.environ.get("GOMP_SPINCOUNT"))
"""


def settled(**environment: str) -> tuple[int, str]:
    """Page faults of a second block of 64 MiB, and the spin count, in a process that has settled its host."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", "OMP_", "GOMP_"))}
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True)
    faults, spins = done.stdout.split()
    return int(faults), spins


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_unless_the_user_has_settled_it() -> None:
    assert settled()[0] < 100
    assert settled(MALLOC_ARENA_MAX="1")[0] > 64 * 2**20 / os.sysconf("SC_PAGE_SIZE") / 2


def test_threads_wait_briefly_unless_the_user_has_settled_it() -> None:
    assert settled()[1] == "20000"
    assert settled(GOMP_SPINCOUNT="7")[1] == "7"
    assert settled(OMP_WAIT_POLICY="active")[1] == "None"


@pytest.mark.parametrize("collects", [True, False])
def test_loading_seeks_no_garbage_and_leaves_the_collector_as_it_was(collects: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with suppress(KeyError), host.loading():
            with host.loading():
                assert not gc.isenabled()
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()


LEFT = """
import sys
from cifar_lab.runtime import host
if sys.argv[1] == "settled":
    host.settle()
    host.settle()
class Left:
    def __del__(self):
        print("sought and found", flush=True)
left = Left()
left.itself = left
del left
print("the end", flush=True)
"""


def test_the_end_seeks_no_garbage() -> None:
    def said(how: str) -> list[str]:
        command = [sys.executable, "-c", LEFT, how]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert said("settled") == ["the end"]
    assert said("as it comes") == ["the end", "sought and found"]
