"""What the loop does besides training: it finds non-finite gradients, warns, and leaves the device alone."""

import numpy as np
import pytest
import torch
from support.host_syncs import HostSyncs
from support.runs import lines, opened, tensors, train
from support.small import small, with_batch_norm

from cifar_lab.checkpoint import saver as checkpoint
from cifar_lab.training.loop import NonFiniteError, fit


def poison_at(session, bad_steps):
    """Make the loss NaN at `bad_steps`."""
    forward_backward = session.engine.forward_backward

    def poison(batch, **how):
        if session.state.step in bad_steps:
            batch.images.fill_(float("nan"))
        return forward_backward(batch, **how)

    session.engine.forward_backward = poison


def poisoned(mapping, path, bad_steps):
    """A session whose loss is NaN at `bad_steps`."""
    session = opened(mapping, path)
    poison_at(session, bad_steps)
    return session


def test_a_non_finite_gradient_stops_the_run_at_the_last_good_weights(tmp_path):
    recipe = small(log__every_steps=4, checkpoint__every_steps=4)
    good = train({**recipe, "train": {**recipe["train"], "epochs": None, "steps": 9}}, tmp_path / "good")
    session = poisoned(recipe, tmp_path / "bad", {9})
    with pytest.raises(
        NonFiniteError,
        match=r"step 9: the gradient of .* is not finite.*last good checkpoint is step_00000008.*on_nonfinite=skip",
    ):
        fit(session)
    session.close()
    assert session.state.step == 12  # the next log line
    weights = tensors(session)
    assert all(torch.isfinite(t).all() for t in weights.values())
    # The rates of the two runs differ by their length; equal keys are all that is compared here.
    assert weights.keys() == tensors(good).keys()


def test_skipping_goes_on_counts_and_has_a_cap(tmp_path):
    recipe = small(train__on_nonfinite="skip", train__max_skipped=2, train__ema_decay=0.9)
    session = poisoned(recipe, tmp_path / "skips", {5, 6})
    assert fit(session)
    session.close()
    assert [line["skipped"] for line in lines(session) if line["split"] == "train"][3:8] == [0, 0, 1, 2, 2]
    assert session.state.skipped == 2
    optimizer = session.engine.optimizer
    assert {int(state["step"]) for state in optimizer.state.values()} == {18}
    assert all(torch.isfinite(t).all() for t in tensors(session).values())
    over = poisoned(recipe, tmp_path / "over", {5, 6, 7})
    with pytest.raises(NonFiniteError, match="3 such steps, 2 allowed") as error:
        fit(over)
    over.close()
    # Never what is set already.
    assert str(error.value).endswith("a lower optim.lr, a longer optim.warmup_epochs, a lower train.grad_clip")


def test_skipping_spares_running_statistics_and_can_be_saved_in_between(tmp_path):
    """A NaN picture reaches batch norm before any gradient exists, and the sum of losses before a log line."""
    recipe = with_batch_norm(
        train__on_nonfinite="skip", train__ema_decay=0.9, log__every_steps=10, checkpoint__every_steps=4
    )
    session = poisoned(recipe, tmp_path / "run", {5})
    assert fit(session)
    session.saver.wait()
    session.close()
    assert session.state.skipped == 1
    assert all(torch.isfinite(t).all() for t in tensors(session).values())
    train, val = ([line["loss"] for line in lines(session) if line["split"] == split] for split in ("train", "val"))
    assert train[0] is None
    assert all(np.isfinite(train[1:] + val))
    _, state = checkpoint.newest(session.run_dir.checkpoints)
    assert state.step == 20


def test_resumed_after_a_skipped_step_and_right_before_one_is_bit_identical(tmp_path, monkeypatch):
    """Counts of steps that were taken, and the statistics to go back to, are those of an unbroken run."""
    recipe = with_batch_norm(train__on_nonfinite="skip", train__ema_decay=0.9, train__epochs=0.6)

    def poison(session):
        poison_at(session, {3, 8})

    whole = train(recipe, tmp_path / "whole", change=poison)
    train(recipe, tmp_path / "halves", 8, monkeypatch, change=poison)
    halves = train(recipe, tmp_path / "halves", change=poison)
    expected, found = tensors(whole), tensors(halves)
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert lines(halves) == lines(whole)
    counted = [{float(s["step"]) for s in session.engine.optimizer.state.values()} for session in (whole, halves)]
    assert counted == [{whole.state.step - 2}] * 2


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_no_host_synchronisation_between_log_lines(tmp_path, precision):
    """Reading a value from a device waits for it; the loop may do so at log lines only."""
    recipe = small(
        log__every_steps=10,
        train__precision=precision,
        train__epochs=1,
        train__ema_decay=0.9,
        train__grad_clip=1.0,
        train__micro_batch=8,
        data__val_size=0,
        data__augment__mixup_alpha=0.2,
        data__augment__cutmix_alpha=1.0,
        data__augment__randaugment_ops=2,
        data__augment__erase_prob=0.3,
        data__augment__cutout=4,
    )
    session = opened(recipe, tmp_path / "run")
    session.engine.guard.reads = False  # as on an accelerator
    seen = {}
    update = session.progress.update

    def note(step, **values):
        seen.setdefault(step, len(counter.found))
        update(step, **values)

    session.progress.update = note
    with HostSyncs() as counter:
        assert fit(session)
    session.close()
    per_step = [seen[step + 1] - seen[step] for step in range(2, 9)]
    assert per_step == [0] * 7
    assert seen[11] > seen[10]  # the log line itself reads; a counter that sees nothing would prove nothing
