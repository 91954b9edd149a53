"""Training for many epochs keeps to the memory that it began with."""

from __future__ import annotations

import json
from pathlib import Path

from support.commands import PYTHON, completed
from support.small import small

EPOCHS, SETTLED = 30, 10
BOUND = 4e6  # bytes over the last 15 epochs and more, which a list of losses with their graphs exceeds four times
# A second run keeps each batch's pictures, to show that the measurement sees a leak.
MEASURE = """\
import json, resource, sys
from pathlib import Path
from cifar_lab.runtime import host
from cifar_lab.rundir.attempt import claim
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.recipe import parse_recipe
from cifar_lab.rundir.directory import RunDir
from cifar_lab.runtime.world import World
from cifar_lab.training.session import Session
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.training.loop import fit
from cifar_lab.training.watchdog import Presence

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def growth(place, leaking):
    recipe, run_dir, kept = parse_recipe(json.loads(sys.argv[2])), RunDir(Path(place)), []
    run_dir.create(recipe)
    with Heartbeat(run_dir.path, 0) as heartbeat:
        session = Session(recipe, world, Presence(run_dir, claim(run_dir.path), heartbeat, StopFlag()))
        per_epoch, sizes, update = session.schedule.total_steps // int(sys.argv[3]), [], session.progress.update
        def watch(step, **values):
            update(step, **values)
            if step % per_epoch == 0 and not values:
                session.saver.wait()  # while a checkpoint is written, its 8 MB for reading back are resident too
                sizes.append(resident())
        session.progress.update = watch
        if leaking:
            forward_backward = session.engine.forward_backward
            def keeping(batch, **named):
                kept.append(batch.images.clone())
                return forward_backward(batch, **named)
            session.engine.forward_backward = keeping
        assert fit(session)
        session.saver.wait()
        session.close()
    assert len(sizes) == int(sys.argv[3]), sizes
    lines, saved = len(run_dir.metrics()), len(list(run_dir.checkpoints.glob("step_*")))
    settled = int(sys.argv[4])
    growth = min(sizes[-5:]) - min(sizes[settled : settled + 5])
    return {"growth": growth, "lines": lines, "saved": saved}

host.settle()
world = World.start()
folder = Path(sys.argv[1])
print(json.dumps([growth(folder / name, name == "leaking") for name in ("clean", "leaking")]))
"""


def test_thirty_epochs_do_not_grow(tmp_path: Path) -> None:
    """With validation, checkpoints, metrics and a moving average; the same with a leak is seen."""
    recipe = small(
        model={"name": "speednet", "args": {"width": 4, "stem_stride": 2}},
        data__args={"num_train": 400, "num_test": 20, "image_size": 32},
        data__val_size=80,
        train={"epochs": EPOCHS, "global_batch": 64, "ema_decay": 0.9},
    )
    command = [PYTHON, "-c", MEASURE, str(tmp_path), json.dumps(recipe), str(EPOCHS), str(SETTLED)]
    done = completed(command, CIFAR_LAB_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr[-3000:]
    clean, leaking = json.loads(done.stdout.splitlines()[-1])
    assert clean["lines"] >= 6 * EPOCHS  # a line a step and one a validation: it did all that a run does
    assert clean["saved"] == 2
    assert clean["growth"] < BOUND, clean
    assert leaking["growth"] > 10 * BOUND, leaking
