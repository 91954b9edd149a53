"""ZeRO: the stages of DeepSpeed, one process each, against the engine without it."""

from __future__ import annotations

import importlib.util
import socket

from gpu_checks.check import Found, Place
from gpu_checks.launched import STEPS, ZERO, launch, mapping
from gpu_checks.runs import make_world, session, take_steps


def zero(place: Place, found: Found) -> None:
    """Five steps, clipped and accumulated: losses within 1e-5."""
    missing = [name for name in ("deepspeed", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        found.skip(f"{' and '.join(missing)} not installed")
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = ["--use_deepspeed", "--zero_stage", "2", "--num_machines", "1", "--num_processes", "1"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
    seen = launch("zero", ["accelerate.commands.launch", *options], place)
    with session(mapping(), place.folder / "single", make_world(place.device)) as made:
        expected = [loss.item() for loss in take_steps(made, range(STEPS))]
    for name in ZERO:
        strategy, losses = seen[name]["strategy"], seen[name]["losses"]
        found.holds(f"{name} is {strategy}", strategy == name.lower().replace("-", "").replace(" ", "_"))
        found.at_most(f"{name} off by", max(abs(a - b) for a, b in zip(losses, expected, strict=True)), 1e-5)
