"""Run the loop in this process, with a stop after a chosen step."""

from __future__ import annotations

from cifar_lab.recipe import parse_recipe
from cifar_lab.rundir.attempt import claim
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.runtime import vote
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.runtime.world import World
from cifar_lab.training.loop import fit
from cifar_lab.training.session import Session
from cifar_lab.training.watchdog import Presence


def opened(mapping, path, world=None) -> Session:
    """A session of the recipe `mapping` in the run directory `path`; called by every rank of `world`."""
    world = world or World.start()
    recipe, run_dir = parse_recipe(mapping), RunDir(path)
    world.from_main(lambda: run_dir.create(recipe))
    attempt = world.from_main(lambda: claim(run_dir.path))
    heartbeat = Heartbeat(run_dir.path, world.rank)  # not started: no thread, no file
    return Session(recipe, world, Presence(run_dir, attempt, heartbeat, StopFlag()))


def closed(session) -> None:
    """Finish saving, close the session and let go of its run directory."""
    session.saver.wait()
    session.close()
    if session.world.is_main:
        session.presence.attempt.release()


def train(mapping, path, stop_at=None, monkeypatch=None, change=None, world=None) -> Session:
    """Train until the end, or until a stop is asked for after step `stop_at` is done; `change` the session before."""
    session = opened(mapping, path, world)
    if change is not None:
        change(session)
    if stop_at is not None:
        monkeypatch.setattr(vote, "SECONDS_BETWEEN_VOTES", 0.0)
        update = session.progress.update

        def ask(step, **values):
            if step == stop_at:
                session.presence.flag.reason = "TEST"
            update(step, **values)

        session.progress.update = ask
    assert fit(session) == (stop_at is None)
    closed(session)
    return session


def tensors(session) -> dict[str, object]:
    """All tensors of the training state by kind and name."""
    kinds = ("weights", "optimizer", "ema", "buffers")
    return {f"{kind}:{name}": t.clone() for kind in kinds for name, t in session.engine.named_state(kind)}


def lines(session) -> list[dict[str, object]]:
    """metrics.jsonl without what a clock decides."""
    return [
        {key: value for key, value in line.items() if key not in ("time", "images_per_second")}
        for line in session.run_dir.metrics()
    ]
