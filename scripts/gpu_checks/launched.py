"""Jobs that a launcher starts: the checks' ends of it, and, as a script, the jobs themselves.

LAUNCHER launched.py world|zero FOLDER DEVICE
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from gpu_checks.check import Place, child_environment

STEPS = 5
SECONDS = 200
# Stage, and where ZeRO keeps the optimizer and, in stage 3, the weights.
ZERO = {"ZeRO-1": (1, "none"), "ZeRO-2": (2, "none"), "ZeRO-3": (3, "none"), "ZeRO-3 offload": (3, "cpu")}


def launch(job: str, launcher: list[str], place: Place) -> dict[str, Any]:
    """Start a job and wait for its end; what it found. Raises RuntimeError with its last words."""
    command = [sys.executable, "-m", *launcher, str(Path(__file__).resolve()), job, str(place.folder), place.device]
    environment = child_environment(place)
    if job == "zero":  # that setting makes Accelerate forget DeepSpeed; the CPU is the one device that it sees
        environment.pop("ACCELERATE_USE_CPU", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    print(done.stdout, done.stderr, sep="\n")
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "Error" in line]
        raise RuntimeError(f"{job} ended with status {done.returncode}: {(errors or ['no word'])[0]}")
    found: dict[str, Any] = json.loads((place.folder / f"{job}.json").read_text())
    return found


def mapping() -> dict[str, Any]:
    """A net of attention, clipped, in two micro-batches."""
    from gpu_checks.runs import small

    train = {"steps": STEPS, "global_batch": 32, "micro_batch": 16, "grad_clip": 0.5}
    return small("attention", optim={"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "eps": 1e-3}, train=train)


def world(folder: Path, device: str) -> dict[str, Any]:
    """Collectives and DDP in a world of one."""
    import torch
    import torch.distributed as dist
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
    from torch.nn.parallel import DistributedDataParallel

    from cifar_lab.runtime.start import start_world
    from cifar_lab.runtime.vote import Save, Vote
    from gpu_checks.runs import session, small, take_steps

    own = start_world(60.0)
    assert own.device.type == device, f"the trainer chose {own.device}, not {device}"
    if not dist.is_initialized():  # Accelerate does not, for one CPU
        dist.init_process_group("gloo")
    objects: list[Any] = [{"a": 1}]
    dist.broadcast_object_list(objects)
    gathered = own.gather_objects(own.from_main(lambda: objects))
    vote = Vote(replace(own, world_size=2))  # one alone has none
    ones = torch.ones(1000, device=own.device)
    dist.all_reduce(ones)
    found = {
        "backend": dist.get_backend(),
        "objects": gathered == [[{"a": 1}]],
        "vote": vote.cast(stop=True, save=Save.WRITING) == (True, Save.WRITING),
        "sum": bool((ones == 1).all()),
        "losses": {},
    }
    for way in ("alone", "ddp", "bf16 hook"):
        with session(small("attention", train={"steps": STEPS, "global_batch": 32}), folder / way, own) as made:
            if way != "alone":
                devices = None if device == "cpu" else [own.device]
                ddp = DistributedDataParallel(made.engine.module, device_ids=devices, gradient_as_bucket_view=True)
                if way == "bf16 hook":
                    ddp.register_comm_hook(None, default_hooks.bf16_compress_hook)
                made.engine.model = ddp
            found["losses"][way] = [loss.item() for loss in take_steps(made, range(STEPS))]
    own.close()
    return found


def zero(folder: Path, device: str) -> dict[str, Any]:
    """The losses of every stage of ZeRO."""
    from cifar_lab.runtime.start import start_world
    from gpu_checks.runs import session, take_steps

    own = start_world(60.0)
    assert own.device.type == device, f"the trainer chose {own.device}, not {device}"
    found = {}
    for name, (stage, offload) in ZERO.items():
        os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] = str(stage)
        os.environ["ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE"] = offload
        os.environ["ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE"] = offload
        with session(mapping(), folder / name.replace(" ", "-"), own) as made:
            found[name] = {"strategy": made.engine.strategy, "losses": []}
            found[name]["losses"] = [loss.item() for loss in take_steps(made, range(STEPS))]
    own.close()
    return found


if __name__ == "__main__":
    _, job, where, kind = sys.argv
    answer = {"world": world, "zero": zero}[job](Path(where), kind)
    Path(where, f"{job}.json").write_text(json.dumps(answer))
