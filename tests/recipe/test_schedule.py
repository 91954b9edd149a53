"""Batch arithmetic, durations and learning rates."""

import math

import pytest

from cifar_lab.errors import UsageError
from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.schedule import Schedule


def recipe(train=None, optim=None, **sections):
    return parse_recipe(
        {
            "name": "r",
            "model": {"name": "resnet"},
            "optim": {"lr": 0.1, **(optim or {})},
            "train": {"epochs": 10, "global_batch": 512, **(train or {})},
            **sections,
        }
    )


@pytest.mark.parametrize(
    ("world_size", "cap", "micro_batch", "accumulation_steps"),
    [(1, None, 512, 1), (2, None, 256, 1), (8, 16, 16, 4), (1, 100, 64, 8), (4, 512, 128, 1)],
)
def test_batch_arithmetic(world_size, cap, micro_batch, accumulation_steps):
    schedule = Schedule.make(recipe({"micro_batch": cap}), 45_000, world_size)
    assert (schedule.micro_batch, schedule.accumulation_steps) == (micro_batch, accumulation_steps)
    assert schedule.micro_batch * schedule.accumulation_steps * world_size == 512
    assert schedule.steps_per_epoch == 45_000 // 512
    assert schedule.total_steps == 10 * (45_000 // 512)


def test_every_micro_batch_belongs_to_one_process():
    schedule = Schedule.make(recipe({"micro_batch": 32}), 45_000, 4)
    owned = [m for rank in range(4) for m in schedule.micro_batches(rank)]
    assert owned == list(range(512 // 32))


def test_a_topology_that_does_not_divide_is_refused_with_the_nearest_that_do():
    with pytest.raises(UsageError, match=r"512 does not divide over 3 processes.*over 1 or 2 or 4.*510 or 513"):
        Schedule.make(recipe(), 45_000, 3)
    with pytest.raises(UsageError, match=r"over 100 processes.*over 32 or 64 or 128;"):
        Schedule.make(recipe(), 45_000, 100)


def test_mixing_needs_pairs():
    mixing = {"data": {"augment": {"mixup_alpha": 0.2}}}
    with pytest.raises(UsageError, match="in pairs"):
        Schedule.make(recipe({"global_batch": 6}, **mixing), 45_000, 2)
    assert Schedule.make(recipe({"global_batch": 12, "micro_batch": 4}, **mixing), 45_000, 2).micro_batch == 2


@pytest.mark.parametrize(
    ("train", "optim", "num_train", "message"),
    [
        ({}, {}, 511, "only 511 training images"),
        ({"epochs": 0.001}, {}, 45_000, "less than one step"),
        ({}, {"warmup_epochs": 9.999}, 45_000, "whole run has 870 steps"),
    ],
)
def test_impossible_durations(train, optim, num_train, message):
    with pytest.raises(UsageError, match=message):
        Schedule.make(recipe(train, optim), num_train, 1)


def lrs(**optim):
    schedule = Schedule.make(recipe(optim=optim), 5120, 1)
    assert schedule.total_steps == 100
    return [schedule.lr_at(step) for step in range(100)]


def test_cosine_after_warmup():
    rates = lrs(warmup_epochs=1, min_lr_ratio=0.1)
    assert rates[:10] == pytest.approx([0.1 * (i + 1) / 10 for i in range(10)])
    assert rates[10] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.1 * (0.1 + 0.9 * 0.5))
    assert rates[99] == pytest.approx(0.1 * (0.1 + 0.9 * (1 + math.cos(math.pi * 89 / 90)) / 2))


def test_linear_step_and_constant():
    assert lrs(schedule="linear")[50] == pytest.approx(0.05)
    assert lrs(schedule="linear", min_lr_ratio=0.2)[50] == pytest.approx(0.1 * (0.2 + 0.8 * 0.5))
    stepped = lrs(schedule="step", milestones=[0.5, 0.75], gamma=0.1)
    assert [stepped[i] for i in (0, 49, 50, 74, 75, 99)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert set(lrs(schedule="constant")) == {0.1}


def test_what_is_due():
    schedule = Schedule.make(recipe({"epochs": 2.5}, log={"every_steps": 4}, eval={"every_epochs": 0.5}), 5120, 1)
    assert [s for s in range(1, 26) if schedule.logs(s)] == [4, 8, 10, 12, 16, 20, 24, 25]
    assert [s for s in range(1, 26) if schedule.due(s, schedule.eval_every)] == [5, 10, 15, 20, 25]
    assert schedule.epoch_at(25) == 2.5


def test_durations_are_the_nearest_whole_steps():
    """Ten steps an epoch."""

    def made(epochs=2.5, optim=None, **sections):
        return Schedule.make(recipe({"epochs": epochs}, optim, **sections), 5120)

    assert made(epochs=1.28).total_steps == 13
    assert made(optim={"warmup_epochs": 0.18}).warmup_steps == 2
    assert [made(eval={"every_epochs": epochs}).eval_every for epochs in (0.001, 0.37, 2)] == [1, 4, 20]
    assert [made(checkpoint={"every_epochs": epochs}).save_every for epochs in (0.001, 1.28)] == [1, 13]
    assert (made(checkpoint={"every_steps": 7}).save_every, made().save_every) == (7, 10)
    stepped = made(optim={"schedule": "step", "milestones": [0.35], "gamma": 0.5})  # 8.75 of 25
    assert [stepped.lr_at(step) for step in (8, 9)] == [0.1, 0.05]


def test_a_huge_global_batch_is_refused_at_once():
    with pytest.raises(UsageError, match="at most 100"):
        Schedule.make(recipe({"global_batch": 99_999_999_999}), 100)
