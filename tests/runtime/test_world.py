"""What an error of the collectives means, and how a process leaves them."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from cifar_lab.runtime.world import World, is_lost_peer
from cifar_lab.training.start import _explain

NCCL = "NCCL error in: /pytorch/torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:3690, {0}, NCCL version 2.28.9\n{1}"
STORE = "[1] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d key-value store, but {}"
OUR_OWN = {
    "memory": NCCL.format(
        "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nFailed to CUDA calloc 10485760 bytes",
    ),
    "usage": NCCL.format(
        "invalid usage (run with NCCL_DEBUG=WARN for details)",
        "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
        "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000",
    ),
    "shared memory": NCCL.format(
        "unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.\n"
        "Last error:\nError while creating shared memory segment /dev/shm/nccl-2eXQgF (size 9637888)",
    ),
    "tensors": "Tensor list must be nonempty",
}
LOST = {
    "remote": NCCL.format(
        "remote process exited or there was a network error",
        "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.\n"
        "Last error:\nNET/IB: Got completion from peer 10.0.0.1<50180> with status=12 opcode=0 len=0 vendor err 129",
    ),
    "closed": NCCL.format(
        "remote process exited or there was a network error",
        "Last error:\nsocketProgress: Connection closed by remote peer node1<41325>",
    ),
    "socket": NCCL.format(
        "unhandled system error",
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.\n"
        "Last error:\nsocketPollConnect: connect to 10.0.0.1<41325> returned Connection refused",
    ),
    "store": STORE.format("store->get('0') got error: Connection reset by peer"),
    "store's end": STORE.format("got error: failed to recv, got 0 bytes. Connection was likely closed."),
    "timeout": "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE)",
}


@pytest.mark.parametrize("text", OUR_OWN.values(), ids=OUR_OWN)
def test_an_error_of_our_own_is_no_lost_peer(text):
    error = dist.DistBackendError(text)
    assert not is_lost_peer(error)
    assert _explain(error, None, World.start()) == (error, "failed")


@pytest.mark.parametrize("text", LOST.values(), ids=LOST)
def test_a_peer_that_is_gone_is_seen(text):
    explained, state = _explain(dist.DistBackendError(text), None, World.start())
    assert (explained.exit_status, state) == (75, "interrupted")


def test_the_store_and_gloo_tell_of_peers_too():
    gloo = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3181"
    for error in (dist.DistNetworkError("x"), dist.DistStoreError("x"), RuntimeError(gloo)):
        assert is_lost_peer(error)
    assert not is_lost_peer(RuntimeError("shape '[2]' is invalid")) and not is_lost_peer(OSError("Broken pipe"))


@pytest.fixture
def joined():
    world = World.start()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    second = dist.new_group(backend="gloo")
    yield world, second
    assert not dist.is_initialized()


def test_an_error_leaves_the_collectives_without_waiting(joined, monkeypatch):
    """NCCL's destroy finishes what is under way, for which it needs its peers."""
    world, _ = joined

    def waits(group=None):
        raise AssertionError("it would wait for the others")

    monkeypatch.setattr(dist, "destroy_process_group", waits)
    with pytest.raises(KeyboardInterrupt), world:
        raise KeyboardInterrupt


def test_without_an_error_they_are_left_in_order(joined, monkeypatch):
    world, _ = joined
    left = []
    destroy = dist.destroy_process_group
    monkeypatch.setattr(dist, "destroy_process_group", lambda: left.append(destroy()))
    with world:
        dist.all_reduce(torch.ones(2))
    assert left == [None]
