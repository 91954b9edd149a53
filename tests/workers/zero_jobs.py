"""Started by `accelerate launch --use_deepspeed`, torchrun or alone: train recipes one after another.

    python tests/workers/zero_jobs.py JOBS.json

JOBS.json lists jobs: `run` (a run directory, which may hold checkpoints), `recipe` (a mapping), and, each optional,
`stage`, `offload`, `persistence` (stage 3's threshold) and `bad_steps` (whose loss becomes NaN). Rank 0 leaves
`report.json` in each run directory.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.runs import closed, opened

from cifar_lab.runtime import zero_config
from cifar_lab.runtime.start import start_world
from cifar_lab.training.loop import fit

KINDS = ("weights", "optimizer", "ema", "buffers")


def run(world, job):
    """Train one job to its end; what the tests ask of it."""
    if "stage" in job:  # one launch serves all stages
        offload = job.get("offload", "none")
        os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] = str(job["stage"])
        os.environ["ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE"] = offload
        os.environ["ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE"] = offload if job["stage"] == 3 else "none"
        zero_config.PERSISTENCE_THRESHOLD = job.get("persistence", 100_000)
    session = opened(job["recipe"], Path(job["run"]), world)
    poison(session, job.get("bad_steps", ()))
    before, images = state(session), session.stream.micro_batch(0, 0).images.clone()
    logits = session.engine.predict(images)
    with session.engine.use_ema():
        averaged = state(session)
        averaged_logits = session.engine.predict(images)
    restored = equal(before, state(session)) and torch.equal(logits, session.engine.predict(images))
    assert fit(session)
    (health, _), last = session.engine.health([torch.zeros(())] * session.engine.accumulation_steps), state(session)
    closed(session)
    return {
        "strategy": session.engine.strategy,
        "world_size": world.world_size,
        "config": getattr(session.engine, "config", None),
        "shares_weights": shares_weights(session.engine),
        "ema_leaves_no_trace": restored,
        "ema_stands_in": all(
            torch.equal(t, (averaged["weights"] | averaged["buffers"])[n]) for n, t in before["ema"].items()
        ),
        "ema_is_predicted_with": not torch.equal(logits, averaged_logits),
        "first_bad_step": health.first_bad_step,
        "first_bad_tensor": health.first_bad_tensor,
        "skipped": health.skipped,
        "finite": all(bool(torch.isfinite(t).all()) for kind in last.values() for t in kind.values()),
    }


def state(session):
    """Copies of all tensors of the training state, by kind and name."""
    return {kind: {name: t.clone() for name, t in session.engine.named_state(kind)} for kind in KINDS}


def shares_weights(engine):
    """Whether the forward pass of ZeRO-3 reads the weights that the optimizer writes."""
    flats = getattr(getattr(engine, "sharder", None), "fp16_partitioned_groups_flat", [])
    return bool(flats) and all(f.data_ptr() == m.data_ptr() for f, m in zip(flats, engine.masters, strict=True))


def equal(one, other):
    """Whether two states are the same bit for bit."""
    return all(torch.equal(t, other[kind][name]) for kind in KINDS for name, t in one[kind].items())


def poison(session, bad_steps):
    """Make the loss NaN at `bad_steps`."""
    micro_batch = session.stream.micro_batch

    def poisoned(step, m):
        batch = micro_batch(step, m)
        if step in bad_steps:
            batch.images.fill_(float("nan"))
        return batch

    session.stream.micro_batch = poisoned


def main(jobs):
    world = start_world()
    for job in json.loads(Path(jobs).read_text()):
        report = run(world, job)
        if world.is_main:
            (Path(job["run"]) / "report.json").write_text(json.dumps(report))
    world.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
