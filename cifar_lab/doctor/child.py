"""What imports torch or W&B, in a program beside the doctor: one that hangs or crashes is a finding and not the end.

As a program: a question as JSON on standard input, {"arch", "precision"} for the devices and the place of the weights
of that family and architecture, {"wandb"} for where W&B would send runs, or {"backend", "device", "rank", "world_size",
"address", "port", "serve"} for a real all-reduce between devices. It answers with JSON lines, one a step, so that what
was found survives a crash.
"""

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
    work = _all_reduce if "backend" in question else _wandb if "wandb" in question else _devices
    for answer in work(**question):
        print(json.dumps(answer), flush=True)
    return 0


def _devices(arch: tuple[str, str] | None, precision: str) -> Iterator[dict[str, Any]]:
    """Versions, "cpu", "devices" or "cuda_error", and "weights" or "no_weights"; the last device may have ended it."""
    import torch

    from cifar_lab.runtime.device import BACKENDS

    yield {"torch": torch.__version__, "cuda": torch.version.cuda, "archs": torch.cuda.get_arch_list(), "devices": []}
    count, accelerator, devices = torch.accelerator.device_count(), torch.accelerator.current_accelerator(), []
    try:
        if torch.version.cuda:
            torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        yield {"cuda_error": str(error).splitlines()[0]}
        count = 0
    yield {"cpu": _step(torch.device("cpu"), precision)}
    for number in range(count):
        assert accelerator is not None
        device = torch.device(accelerator.type, number)
        devices.append({"name": str(device)})
        yield {"devices": devices, "kind": device.type, "backend": BACKENDS.get(device.type)}
        devices[-1] |= _about(device) | _step(device, precision)
    yield {"devices": devices}
    if arch:
        from cifar_lab.models.factory import ModelError, find_family

        try:
            yield {"weights": str(find_family(arch[0]).pretrained_file(arch[1], local_only=True))}
        except ModelError as error:
            yield {"no_weights": str(error)}


def _about(device: Any) -> dict[str, Any]:
    """Its name; bytes of memory where it tells them, a compute capability where it has one."""
    import torch

    from cifar_lab.runtime.device import name

    if device.type == "mps":
        return {"name": name(device)}
    module = torch.get_device_module(device)
    free, memory = module.mem_get_info(device)
    found = {"name": name(device), "free": free, "memory": memory}
    return found | ({"capability": module.get_device_capability(device)} if torch.version.cuda else {})


def _step(device: Any, precision: str) -> dict[str, Any]:
    """ "loss" and "seconds" of the third step of a small net, as training makes it, or "problem"."""
    import torch
    from torch import nn

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    torch.manual_seed(0)
    images, labels = torch.randn(64, 3, 16, 16), torch.arange(64) % 10
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 14 * 14, 10))
    try:
        net, images, labels = net.to(device), images.to(device), labels.to(device)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)
        for _ in range(3):
            begun = time.perf_counter()
            with torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"):
                logits = net(images)
            loss = nn.functional.cross_entropy(logits.float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            found = {"loss": loss.item(), "seconds": time.perf_counter() - begun}
    except Exception as error:  # of many kinds, by the backend
        return {"problem": " ".join(str(error).split())[:300] or type(error).__name__}
    return found


def _wandb(wandb: bool) -> Iterator[dict[str, Any]]:
    """ "offline" and "server" as W&B has them, whether there is a "key", then "problem" where that does not answer."""
    from requests.utils import get_netrc_auth  # which W&B itself requires

    from cifar_lab.tracking.server import unreachable
    from cifar_lab.tracking.wandb.connect import is_offline, server

    key = bool(os.environ.get("WANDB_API_KEY") or get_netrc_auth(server()))
    yield {"offline": is_offline(), "server": server(), "key": key}
    yield {"problem": None if is_offline() else unreachable(server())}


def _all_reduce(
    backend: str, device: str, rank: int, world_size: int, address: str, port: int, serve: bool
) -> Iterator[dict[str, Any]]:
    """Join the others in their store: "joined", then "latency" (s) and "bandwidth" (bytes/s), or "error".

    The store is the meeting's, or that of rank 0 of a machine alone, with `serve`.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    timeout, place = timedelta(seconds=TIMEOUT), torch.device(device)
    try:
        if place.type != "cpu":
            torch.accelerator.set_device_index(place)
        store = PrefixStore(backend, TCPStore(address, port, is_master=serve and rank == 0, timeout=timeout))
        dist.init_process_group(backend, store=store, timeout=timeout, rank=rank, world_size=world_size)
        yield {"joined": True}
        small, large = torch.ones(1, device=place), torch.ones(BYTES // 4, device=place)
        latency = statistics.median(_seconds(small) for _ in range(20))
        bandwidth = BYTES / min(_seconds(large) for _ in range(3))
        if not torch.allclose(large[:1], torch.tensor(float(world_size**3), device=place)):
            raise RuntimeError(f"the sum is wrong: {large[0].item()}")
        yield {"latency": latency, "bandwidth": bandwidth}
        _seconds(small.zero_())  # all have come so far; a barrier would have to guess the device
        dist.destroy_process_group()
    except (RuntimeError, ValueError) as error:
        yield {"error": " ".join(str(error).split())[:300]}


def _seconds(tensor: Any) -> float:
    import torch.distributed as dist

    begun = time.perf_counter()
    dist.all_reduce(tensor)
    tensor[:1].tolist()  # waits for the device
    return time.perf_counter() - begun


if __name__ == "__main__":
    raise SystemExit(main())
