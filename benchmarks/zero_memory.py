"""Model state a process under DDP, each ZeRO stage and FSDP2, measured on two CPU processes.

    python benchmarks/zero_memory.py [--strategies ddp zero3 ...]

Each strategy trains vit_base (86 M parameters, AdamW, fp32) for a few steps in fresh processes. Measured are, with all
gradients there (between the backward pass and the step) and after the step: the resident memory over that after all
imports and two steps of a tiny model under the same strategy, glibc returning freed memory at once; and the storage of
all tensors that Python can reach. The larger of both processes counts. The seconds are the median of five steps of two
pictures a process at 32 px: what counts in them is the optimizer and what is sent. Prints JSON on its last line; exit 1
where ZeRO-3 or FSDP2 needs more than 0.6 of DDP, resident and with gradients.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from plan_memory import MALLOC, recipe, resident, timm

ROOT = Path(__file__).resolve().parents[1]
PROCESSES, STEPS, SIZE, BATCH = 2, 7, 32, 2  # so few activations that they do not matter
STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
LIMIT = 0.6
MODEL = {"name": "timm_zoo", "args": {"arch": "vit_base_patch16_224"}}


def work(strategy: str, folder: str) -> None:
    """One process: train tiny, then large, leave what grew in FOLDER/RANK.json."""
    import torch
    from torch import Tensor
    from torch.distributed.tensor import DTensor

    from cifar_lab.data.stream import Batch
    from cifar_lab.models.factory import build_model, num_parameters
    from cifar_lab.recipe import parse_recipe
    from cifar_lab.runtime.make import make_engine
    from cifar_lab.runtime.start import start_world

    world = start_world()
    assert world.world_size == PROCESSES, world

    def live() -> int:
        """Bytes of the storages of all tensors within reach, and of their gradients."""
        storages = {}
        for thing in gc.get_objects():
            if issubclass(type(thing), Tensor):
                for tensor in (thing, thing.grad if thing.is_leaf else None):
                    tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
                    if tensor is not None and not tensor.is_meta:
                        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return sum(storages.values())

    def now() -> dict[str, int]:
        """Resident and live bytes once everything freed is returned."""
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        return {"resident": resident("VmRSS"), "live": live()}

    def train(model: dict[str, Any], size: int, steps: int) -> dict[str, Any]:
        """What is there before and after the last step."""
        parsed = parse_recipe(recipe(model, BATCH * PROCESSES, size=size))
        module = build_model(parsed.model, 10, size, seed=0)
        parameters = num_parameters(module)
        engine = make_engine(world, parsed, module, 1)
        assert engine.strategy == strategy, engine.strategy
        torch.manual_seed(world.rank)
        labels = torch.randint(10, (BATCH,))
        batch = Batch(torch.randn(BATCH, 3, size, size), labels, torch.arange(BATCH), None)
        found: dict[str, Any] = {"num_parameters": parameters}
        seconds = []
        for step in range(steps):
            begun = time.perf_counter()
            engine.forward_backward(batch, index=0, torch_seed=step)
            if step == steps - 1:
                found["with_gradients"] = now()
            engine.step(step, 1e-5)
            seconds.append(time.perf_counter() - begun)
        found["seconds"] = statistics.median(seconds[1:-1] or seconds)
        found["after_step"] = now()
        return found

    train(timm("test_vit"), 160, 2)
    before = now()
    found = train(MODEL, SIZE, STEPS)
    for moment in ("with_gradients", "after_step"):
        found[moment] = {kind: found[moment][kind] - before[kind] for kind in before}
    (Path(folder) / f"{world.rank}.json").write_text(json.dumps(found))
    world.close()


def measured(strategy: str) -> dict[str, Any]:
    """The figures of a strategy, each the largest over the processes."""
    environment = {**os.environ, **MALLOC, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    if strategy == "ddp":
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        config = str(ROOT / "accelerate_configs" / f"{strategy}.yaml")
        launcher = ["accelerate.commands.launch", "--config_file", config, "--num_processes", str(PROCESSES)]
        launcher += ["--main_process_port", port]
        environment["DS_ACCELERATOR"] = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", *launcher, str(Path(__file__).resolve()), "--work", strategy, folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{strategy}: {done.stderr[-3000:]}")
        found = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(PROCESSES)]
    result: dict[str, Any] = {key: found[0][key] for key in ("num_parameters", "seconds")}
    for moment in ("with_gradients", "after_step"):
        result[moment] = {kind: max(process[moment][kind] for process in found) for kind in ("resident", "live")}
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="*", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work)
        return 0
    results: dict[str, Any] = {}
    heads = f"{'MiB a process':14} {'with gradients':>15} {'(live)':>8} {'after step':>11} {'(live)':>8}"
    print(f"{heads} {'of ddp':>7} {'s a step':>9}")
    for strategy in arguments.strategies:
        found = results[strategy] = measured(strategy)
        numbers = [found[moment][kind] for moment in ("with_gradients", "after_step") for kind in ("resident", "live")]
        if "ddp" in results:
            found["of_ddp"] = numbers[0] / results["ddp"]["with_gradients"]["resident"]
        a, b, c, d = (number / 2**20 for number in numbers)
        share = f"{found['of_ddp']:7.2f}" if "of_ddp" in found else ""
        print(f"{strategy:14} {a:15.0f} {b:8.0f} {c:11.0f} {d:8.0f} {share:7} {found['seconds']:9.3f}", flush=True)
    print(json.dumps(results))
    return 0 if all(results.get(name, {}).get("of_ddp", 0.0) <= LIMIT for name in ("zero3", "fsdp2")) else 1


if __name__ == "__main__":
    sys.exit(main())
