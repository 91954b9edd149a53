"""A real all-reduce between the nodes: the program that does it, and the checks of what it says.

As a program: {"backend", "rank", "world_size", "address", "port"} on standard input; "joined", then "latency" (seconds
of one number) and "bandwidth" (bytes a second of BYTES bytes) on standard output.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from datetime import timedelta
from typing import Any

from cifar_lab.doctor.check import Check

TIMEOUT = 20.0
BYTES = 16 * 2**20
SLOW_BYTES_PER_SECOND = 100e6  # about gigabit Ethernet


def collective_check(backend: str, found: dict[str, Any], hosts: dict[str, str]) -> Check:
    """`found` is what this node's program said; `hosts` are the names of the nodes by address."""
    name = f"all-reduce ({backend})"
    if "bandwidth" not in found:
        error = str(found.get("error", "no answer"))
        named = [f"{address} is {host}" for address, host in hosts.items() if address in error]
        where = "in the all-reduce" if "joined" in found else "while the processes joined"
        fix = "NCCL_DEBUG=INFO tells more" if backend == "nccl" else "firewalls, or another GLOO_SOCKET_IFNAME"
        return Check(name, "FAIL", f"{where}: {error}{' (' + ', '.join(named) + ')' if named else ''}", fix)
    says = f"{found['latency'] * 1e3:.2f} ms, {found['bandwidth'] / 1e6:,.0f} MB/s"
    if backend == "nccl" and found["bandwidth"] < SLOW_BYTES_PER_SECOND:
        fix = "choose a faster interface with NCCL_SOCKET_IFNAME, or InfiniBand (NCCL_IB_HCA)"
        return Check(name, "warning", f"{says}: slower than Ethernet of 1 Gbit/s", fix)
    return Check(name, "ok", says)


def main() -> int:
    """Join the others and reduce; a failure is an answer too."""
    question = json.load(sys.stdin)
    import torch
    import torch.distributed as dist

    device = "cuda:0" if question["backend"] == "nccl" else "cpu"
    timeout = timedelta(seconds=TIMEOUT)
    where = f"tcp://{question['address']}:{question['port']}"
    place = {"rank": question["rank"], "world_size": question["world_size"]}
    try:
        dist.init_process_group(question["backend"], init_method=where, timeout=timeout, **place)
        print(json.dumps({"joined": True}), flush=True)
        small, large = torch.ones(1, device=device), torch.ones(BYTES // 4, device=device)
        latency = statistics.median(_seconds(small) for _ in range(20))
        bandwidth = BYTES / min(_seconds(large) for _ in range(3))
        if not torch.allclose(large[:1], torch.tensor(float(question["world_size"] ** 3), device=device)):
            raise RuntimeError(f"the sum is wrong: {large[0].item()}")
        print(json.dumps({"latency": latency, "bandwidth": bandwidth}), flush=True)
        dist.barrier()
        dist.destroy_process_group()
    except (RuntimeError, ValueError) as error:
        print(json.dumps({"error": " ".join(str(error).split())[:300]}), flush=True)
        return 1
    return 0


def _seconds(tensor: Any) -> float:
    import torch
    import torch.distributed as dist

    begun = time.perf_counter()
    dist.all_reduce(tensor)
    if tensor.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    raise SystemExit(main())
