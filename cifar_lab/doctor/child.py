"""What imports torch, in a program beside the doctor, so that one that hangs or crashes is a finding and not the end.

As a program: a question as JSON on standard input, {"arch"} for the devices and the place of that timm architecture's
weights, or {"backend", "rank", "world_size", "address", "port"} for a real all-reduce between the nodes. It answers
with JSON lines, one a step, so that what was found survives a crash.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

TIMEOUT = 20.0  # of the all-reduce
BYTES = 16 * 2**20


def ask(question: Mapping[str, Any], seconds: float, **variables: str) -> dict[str, Any]:
    """All that the program says as one mapping; `error` tells why it ended otherwise, or not within `seconds`."""
    command, environment = [sys.executable, "-m", "cifar_lab.doctor.child"], {**os.environ, **variables}
    try:
        done = subprocess.run(
            command, input=json.dumps(question).encode(), capture_output=True, timeout=seconds, env=environment
        )
        output, error = done.stdout, None
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            error = lines[-1] if lines else f"it ended with status {done.returncode}"
    except subprocess.TimeoutExpired as late:
        output, error = late.stdout or b"", "it did not answer in time"
    found: dict[str, Any] = {} if error is None else {"error": error}
    for line in output.decode(errors="replace").splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return found


def main() -> int:
    question = json.load(sys.stdin)
    answers = _all_reduce(**question) if "backend" in question else _devices(question["arch"])
    for answer in answers:
        print(json.dumps(answer), flush=True)
    return 0


def _devices(arch: str | None) -> Iterator[dict[str, Any]]:
    """Versions, "devices" or "cuda_error", and "weights" or "no_weights"."""
    import torch

    yield {"torch": torch.__version__, "cuda": torch.version.cuda, "devices": []}
    try:
        if torch.version.cuda:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        yield {"devices": [_device(number) for number in range(torch.cuda.device_count())]}
    except (RuntimeError, AssertionError) as error:
        yield {"cuda_error": str(error).splitlines()[0]}
    if arch:
        from cifar_lab.models.factory import ModelError
        from cifar_lab.models.families.timm_zoo import pretrained_file

        try:
            yield {"weights": str(pretrained_file(arch, local_only=True))}
        except ModelError as error:
            yield {"no_weights": str(error)}


def _device(number: int) -> dict[str, Any]:
    import torch

    free, memory = torch.cuda.mem_get_info(number)
    with torch.cuda.device(number):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return {"name": torch.cuda.get_device_name(number), "free": free, "memory": memory, "bf16": bf16}


def _all_reduce(backend: str, rank: int, world_size: int, address: str, port: int) -> Iterator[dict[str, Any]]:
    """Join the others in the meeting's store: "joined", then "latency" (s) and "bandwidth" (bytes/s), or "error"."""
    import torch
    import torch.distributed as dist
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    device, timeout = "cuda:0" if backend == "nccl" else "cpu", timedelta(seconds=TIMEOUT)
    try:
        store = PrefixStore(backend, TCPStore(address, port, is_master=False, timeout=timeout))
        dist.init_process_group(backend, store=store, timeout=timeout, rank=rank, world_size=world_size)
        yield {"joined": True}
        small, large = torch.ones(1, device=device), torch.ones(BYTES // 4, device=device)
        latency = statistics.median(_seconds(small) for _ in range(20))
        bandwidth = BYTES / min(_seconds(large) for _ in range(3))
        if not torch.allclose(large[:1], torch.tensor(float(world_size**3), device=device)):
            raise RuntimeError(f"the sum is wrong: {large[0].item()}")
        yield {"latency": latency, "bandwidth": bandwidth}
        dist.barrier()
        dist.destroy_process_group()
    except (RuntimeError, ValueError) as error:
        yield {"error": " ".join(str(error).split())[:300]}


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
