"""A whole run on a device that is not the host and has no float64: it trains, and its numbers are the host's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.played_device import DEVICE, NAME, PEAK, Played, played
from support.runs import closed, lines, opened, tensors, train
from support.small import small, with_batch_norm

from cifar_lab.data import augment
from cifar_lab.runtime import guard, plain
from cifar_lab.runtime.world import World
from cifar_lab.trained.model import open_saved
from cifar_lab.trained.network import SavedNetwork
from cifar_lab.training.evaluation import evaluate
from cifar_lab.training.finish import finish
from cifar_lab.training.loop import fit

SAME = {"rtol": 1e-5, "atol": 1e-6}
BAD_STEP = 9
OPTIONS = {
    "train__ema_decay": 0.9,
    "train__grad_clip": 0.5,
    "train__micro_batch": 8,
    "train__on_nonfinite": "skip",
    "train__max_skipped": 1,
    "checkpoint__every_steps": 5,
}
SGD = {"name": "sgd", "lr": 0.02, "momentum": 0.9}
RECIPES = {
    "adamw": small(data__augment__randaugment_ops=1, data__image_size=24, eval__tta="translate", **OPTIONS),
    "batchnorm": with_batch_norm(optim=SGD, **OPTIONS),
    "sgd": small(optim=SGD, data__augment__cutout=4, **OPTIONS),
}


def poisoned(session):
    """A gradient that is not finite at BAD_STEP."""
    micro_batch = session.stream.micro_batch

    def of_bad_step(step, m):
        batch = micro_batch(step, m)
        if step == BAD_STEP:
            batch.images.fill_(float("nan"))
        return batch

    session.stream.micro_batch = of_bad_step


def whole_run(mapping, path, monkeypatch, device):
    """Trained with a stop in the middle, resumed and finished: the session and all tensors of its state."""
    world = replace(World.start(), device=device)
    train(mapping, path, stop_at=7, monkeypatch=monkeypatch, world=world)
    session = opened(mapping, path, world)
    assert session.state.step == 7
    poisoned(session)
    assert fit(session) and finish(session)
    state = {name: t.cpu() for name, t in tensors(session).items()}
    closed(session)
    return session, state


def predictions(session):
    """What the run keeps of the test split, column by column."""
    with np.load(session.run_dir.path / "predictions.npz") as columns:
        return {name: torch.from_numpy(columns[name]) for name in columns}


@pytest.mark.parametrize(
    ("recipe", "heedless"), [("adamw", False), ("adamw", True), ("batchnorm", False), ("sgd", True)]
)
def test_a_whole_run_equals_the_hosts(tmp_path, monkeypatch, recipe, heedless):
    """`heedless`: on Metal, whose fused optimizers neither clip nor skip, and which takes no overlapping views."""
    host, expected = whole_run(RECIPES[recipe], tmp_path / "host", monkeypatch, torch.device("cpu"))
    if heedless:
        for module, rule in ((guard, "HEEDLESS"), (plain, "HEEDLESS"), (augment, "NO_OVERLAP")):
            monkeypatch.setattr(module, rule, (DEVICE.type,))
    with played(monkeypatch, heedless=heedless) as device:
        session, found = whole_run(RECIPES[recipe], tmp_path / "played", monkeypatch, device)
        assert all(isinstance(p.data, Played) for p in session.engine.module.parameters())
        network = SavedNetwork(open_saved(session.run_dir.path), device)
        asked = evaluate(network, session.world, session.eval_stream(session.splits.test), tta=session.recipe.eval.tta)
    assert host.state.skipped == session.state.skipped == 1
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **SAME)
    for name, column in predictions(host).items():
        torch.testing.assert_close(predictions(session)[name], column, **SAME)
    for one, other in zip(lines(session), lines(host), strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():  # None is the loss of the bad step
            assert one[key] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)
    summaries = [run.run_dir.summary() for run in (host, session)]
    assert summaries[1]["test"] == pytest.approx(summaries[0]["test"], rel=1e-6)
    assert asked.loss == pytest.approx(summaries[0]["test"]["loss"], rel=1e-5)
    assert summaries[1]["peak_memory_bytes"] == PEAK
    assert session.run_dir.env()["device"] == NAME
