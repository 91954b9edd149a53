"""Stopping and resuming changes nothing: weights, moments, averages and metrics are bit-identical (one process)."""

import shutil

import pytest
import torch
from support.runs import lines, tensors, train
from support.small import small, with_batch_norm

from cifar_lab.checkpoint import files as checkpoint_files
from cifar_lab.checkpoint.saver import CheckpointError

RECIPES = {
    "everything": with_batch_norm(
        train__ema_decay=0.9,
        train__grad_clip=0.5,
        train__micro_batch=8,
        train__epochs=2,
        log__every_steps=4,
        eval__every_epochs=0.35,
    ),
    "muon": small(
        data__args={"num_train": 400, "num_test": 60, "image_size": 32},
        optim={"name": "muon", "lr": 0.2, "momentum": 0.6, "nesterov": True, "head_lr": 100, "bias_lr": 10},
        model={"name": "speednet", "args": {"width": 4, "whiten": True, "dirac": True, "scaled_norms": False}},
        eval__tta="translate",
    ),
    "sgd": small(optim__name="sgd", optim__weight_decay=5e-4, model__name="resnet", model__args={"width": 4}),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return {name: train(recipe, tmp_path_factory.mktemp(name) / "run") for name, recipe in RECIPES.items()}


@pytest.mark.parametrize(
    ("name", "stops"), [("everything", (3, 14, 15)), ("everything", (20,)), ("sgd", (7,)), ("muon", (7,))]
)
def test_resumed_is_bit_identical(tmp_path, monkeypatch, uninterrupted, name, stops):
    reference = uninterrupted[name]
    for stop in stops:
        stopped = train(RECIPES[name], tmp_path / "run", stop, monkeypatch)
        assert stopped.run_dir.status().state == "stopped"
        assert stopped.run_dir.status().step == stop
    resumed = train(RECIPES[name], tmp_path / "run")
    expected, found = tensors(reference), tensors(resumed)
    assert found.keys() == expected.keys() and len(expected) > 20
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert lines(resumed) == lines(reference)


def test_metrics_past_the_checkpoint_are_dropped_and_written_again(tmp_path, monkeypatch, uninterrupted):
    train(RECIPES["sgd"], tmp_path / "run", 7, monkeypatch)
    run = train(RECIPES["sgd"], tmp_path / "run", 12, monkeypatch).run_dir
    shutil.rmtree(run.checkpoints / checkpoint_files.step_name(12))  # as if it had been killed before that save
    assert max(line["step"] for line in run.metrics()) == 12
    assert lines(train(RECIPES["sgd"], run.path)) == lines(uninterrupted["sgd"])


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, monkeypatch, uninterrupted, caplog):
    for stop in (7, 12):
        run = train(RECIPES["sgd"], tmp_path / "run", stop, monkeypatch).run_dir
    newest = run.checkpoints / checkpoint_files.step_name(12)
    victim = next(newest.glob("optimizer-*"))
    victim.write_bytes(victim.read_bytes()[:-4])
    leftover = run.checkpoints / "step_00000013.partial"
    leftover.mkdir()
    resumed = train(RECIPES["sgd"], run.path)
    assert "skipping checkpoint step_00000012: optimizer-00000-of-00001.safetensors" in caplog.text
    assert not leftover.exists()
    assert lines(resumed) == lines(uninterrupted["sgd"])
    for path in run.checkpoints.glob("*/manifest.json"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"all 2 checkpoints in .* are damaged.*--fresh"):
        train(RECIPES["sgd"], run.path)


def test_other_data_are_refused(tmp_path, monkeypatch):
    train(RECIPES["sgd"], tmp_path / "run", 3, monkeypatch)
    with pytest.raises(CheckpointError, match="other data"):
        train(small(**{**RECIPES["sgd"], "data": {**RECIPES["sgd"]["data"], "val_size": 40}}), tmp_path / "run")


def test_a_checkpoint_says_in_which_layout_it_was_saved(tmp_path, monkeypatch):
    """That of this start, not of the one before."""
    for micro_batch, stop in ((16, 3), (8, 6)):
        session = train(small(train__micro_batch=micro_batch), tmp_path / "run", stop, monkeypatch)
        newest = checkpoint_files.list_checkpoints(session.run_dir.checkpoints)[-1]
        state = checkpoint_files.read_state(newest)
        assert (state["step"], state["micro_batch"], state["world_size"]) == (stop, micro_batch, 1)


def test_two_checkpoints_are_kept(tmp_path):
    session = train({**RECIPES["sgd"], "checkpoint": {"every_steps": 3}}, tmp_path / "run")
    kept = checkpoint_files.list_checkpoints(session.run_dir.checkpoints)
    assert [path.name for path in kept] == ["step_00000018", "step_00000020"]
