"""Started by torchrun or alone: train recipes and record every loss and a digest of every picture.

    python tests/workers/layouts.py OUT_FOLDER RUNS_FOLDER RECIPES.json

RECIPES.json maps names to recipe mappings. Rank r leaves OUT_FOLDER/NAME-r.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.runs import closed, opened

from cifar_lab.runtime import loss_scale
from cifar_lab.runtime.world import World
from cifar_lab.training.loop import fit

# Under fp16: steps and micro-batches, each of one of two processes, that overflow.
OVERFLOWS = ((3, 1), (4, 0), (12, 1))
loss_scale.GROWTH_INTERVAL = 6


def record(world, name, mapping, runs):
    """Train one recipe; its layout, the pictures by (step, micro-batch) and the train and val lines of its metrics."""
    session = opened(mapping, Path(runs) / name, world)
    pictures, scales = {}, []
    original, engine_step = session.stream.micro_batch, session.engine.step
    scale = session.engine.loss_scale

    def micro_batch(step, m):
        batch = original(step, m)
        digest = hashlib.sha256(batch.images.contiguous().numpy().tobytes()).hexdigest()[:16]
        pictures[f"{step}/{m}"] = [digest, batch.ids.tolist(), batch.labels.tolist()]
        if scale is not None and (step, m) in OVERFLOWS:
            batch.images[0].fill_(float("inf"))
        return batch

    def step(number, lr):
        engine_step(number, lr)
        scales.append(None if scale is None else [scale.value.item(), scale.good_steps.item()])

    session.stream.micro_batch, session.engine.step = micro_batch, step
    assert fit(session)
    closed(session)
    lines = session.run_dir.metrics()
    return {
        "world_size": world.world_size,
        "micro_batch": session.schedule.micro_batch,
        "pictures": pictures,
        "scales": scales,
        "train": [line["loss"] for line in lines if line["split"] == "train"],
        "val": [[line["loss"], line["accuracy"], line["count"]] for line in lines if line["split"] == "val"],
    }


def main(out, runs, recipes):
    world = World.start()
    for name, mapping in json.loads(Path(recipes).read_text()).items():
        result = record(world, name, mapping, runs)
        (Path(out) / f"{name}-{world.rank}.json").write_text(json.dumps(result))
    world.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
