"""Contradictions between fields; each names both fields and the fix."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from cifar_lab.recipe.errors import Problem
from cifar_lab.recipe.schema import Augment, Optim, Recipe, Section

# Families whose models know the depth of each parameter.
LAYER_DECAY_FAMILIES = ("timm_zoo", "vit")
# Fields of `optim` that only some optimizers have.
OPTIMIZERS_WITH = {
    "momentum": ("sgd", "muon"),
    "nesterov": ("sgd", "muon"),
    "head_lr": ("muon",),
    "bias_lr": ("muon",),
    "rest_momentum": ("muon",),
    "betas": ("adamw",),
    "eps": ("adamw",),
    "layer_decay": ("sgd", "adamw"),
}


def contradictions(recipe: Recipe) -> Iterator[Problem]:
    """Problems that no single field shows."""
    yield from _length(recipe)
    yield from _batches(recipe)
    yield from _normalisation(recipe)
    yield from _augmentation(recipe.data.augment)
    yield from _initial_weights(recipe)
    yield from _optimizer(recipe.optim)
    yield from _schedule(recipe)
    if recipe.train.on_nonfinite == "stop" and not _is_default(recipe.train, "max_skipped"):
        yield _dead("train.max_skipped", "`train.on_nonfinite` is stop")
    if recipe.optim.layer_decay < 1 and recipe.model.name not in LAYER_DECAY_FAMILIES:
        yield Problem(
            ("optim.layer_decay", "model.name"),
            f"needs a family that knows its layers ({' or '.join(LAYER_DECAY_FAMILIES)}), and `model.name` is "
            f"{recipe.model.name}; set optim.layer_decay to 1",
        )


def _length(recipe: Recipe) -> Iterator[Problem]:
    train, checkpoint = recipe.train, recipe.checkpoint
    if train.epochs is None and train.steps is None:
        yield Problem(("train.epochs", "train.steps"), "the length is missing; give `train.epochs` or `train.steps`")
    if train.epochs is not None and train.steps is not None:
        yield Problem(
            ("train.steps", "train.epochs"),
            "`train.epochs` and `train.steps` are both given; set one of them to null "
            "(on the command line: train.epochs=null)",
        )
    if checkpoint.every_epochs is not None and checkpoint.every_steps is not None:
        yield Problem(
            ("checkpoint.every_steps", "checkpoint.every_epochs"),
            "`checkpoint.every_epochs` and `checkpoint.every_steps` are both given; set one of them to null",
        )


def _batches(recipe: Recipe) -> Iterator[Problem]:
    train, limit = recipe.train, recipe.data.limit
    if train.micro_batch is not None and train.micro_batch > train.global_batch:
        yield Problem(
            ("train.micro_batch", "train.global_batch"),
            f"{train.micro_batch} is more than `train.global_batch` ({train.global_batch}), of which it is a part; "
            "lower it or set it to null",
        )
    if limit is not None and train.global_batch > limit:
        yield Problem(
            ("train.global_batch", "data.limit"),
            f"{train.global_batch} is more than all training images (`data.limit` is {limit}), so an epoch would "
            "have no step; lower train.global_batch or raise data.limit",
        )
    augment = recipe.data.augment
    mixing = [name for name in ("mixup_alpha", "cutmix_alpha") if getattr(augment, name) > 0]
    for name in ("global_batch", "micro_batch"):
        size = getattr(train, name)
        if mixing and size is not None and size % 2:
            yield Problem(
                (f"train.{name}", f"data.augment.{mixing[0]}"),
                f"{size} is odd, and `data.augment.{mixing[0]}` mixes pictures in pairs; use {size + 1}",
            )


def _normalisation(recipe: Recipe) -> Iterator[Problem]:
    mean, std = recipe.data.mean, recipe.data.std
    if (mean is None) != (std is None):
        given, other = ("mean", "std") if std is None else ("std", "mean")
        yield Problem((f"data.{given}", f"data.{other}"), f"`data.{given}` without `data.{other}`; give both or none")
    for name, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        if len(values) not in (1, 3) and not (name == "std" and mean is not None and len(mean) == len(values)):
            yield Problem((f"data.{name}",), f"has {len(values)} values; give three (red, green, blue) or one for all")
        low = 0 if name == "mean" else 1e-6
        if any(not low <= value <= 1 for value in values):
            kind = "means are from 0 to 1" if name == "mean" else "deviations are above 0 and at most 1"
            yield Problem((f"data.{name}",), f"{kind}: the scale is 0..1, so divide values for 0..255 by 255")
    if mean is not None and std is not None and len(mean) != len(std) and {len(mean), len(std)} == {1, 3}:
        message = f"has {len(std)} values and `data.mean` has {len(mean)}; give the same number of both"
        yield Problem(("data.std", "data.mean"), message)


def _augmentation(augment: Augment) -> Iterator[Problem]:
    prefix = "data.augment."
    if augment.padding_mode != "zero" and augment.crop_padding == 0:
        yield _dead(prefix + "padding_mode", f"`{prefix}crop_padding` is 0")
    if augment.randaugment_ops == 0 and not _is_default(augment, "randaugment_magnitude"):
        yield _dead(prefix + "randaugment_magnitude", f"`{prefix}randaugment_ops` is 0")


def _initial_weights(recipe: Recipe) -> Iterator[Problem]:
    model = recipe.model
    if model.pretrained and model.weights is not None:
        yield Problem(
            ("model.weights", "model.pretrained"),
            "`model.pretrained` and `model.weights` both choose the initial weights; keep one",
        )


def _optimizer(optim: Optim) -> Iterator[Problem]:
    for name, owners in OPTIMIZERS_WITH.items():
        if optim.name not in owners and not _is_default(optim, name):
            yield Problem(
                (f"optim.{name}", "optim.name"),
                f"has no effect, since `optim.name` is {optim.name} and only {' and '.join(owners)} has it; delete it",
            )
    if optim.nesterov and optim.momentum == 0:
        yield Problem(("optim.nesterov", "optim.momentum"), "needs `optim.momentum` above 0; set one of them")
    if len(optim.betas) != 2 or any(not 0 <= beta < 1 for beta in optim.betas):
        yield Problem(("optim.betas",), "expected two numbers of at least 0 and below 1, such as [0.9, 0.999]")


def _schedule(recipe: Recipe) -> Iterator[Problem]:
    optim, train = recipe.optim, recipe.train
    step = optim.schedule == "step"
    for name in ("milestones", "gamma"):
        if not step and not _is_default(optim, name):
            yield Problem(
                (f"optim.{name}", "optim.schedule"),
                f"has no effect, since `optim.schedule` is {optim.schedule}; delete it or use `optim.schedule: step`",
            )
    if optim.schedule in ("step", "constant") and optim.min_lr_ratio > 0:
        yield Problem(
            ("optim.min_lr_ratio", "optim.schedule"),
            f"has no effect, since `optim.schedule` is {optim.schedule}; delete it or use cosine or linear",
        )
    edges = (0.0, *optim.milestones, 1.0)
    if step and any(later <= earlier for earlier, later in pairwise(edges)):
        yield Problem(("optim.milestones",), "expected increasing fractions between 0 and 1, such as [0.5, 0.75]")
    steps_per_epoch = recipe.data.limit // train.global_batch if recipe.data.limit else 0
    if train.epochs is not None and optim.warmup_epochs > train.epochs:
        yield Problem(
            ("optim.warmup_epochs", "train.epochs"),
            f"{optim.warmup_epochs:g} epochs of warm-up are longer than the run (`train.epochs` is {train.epochs:g}); "
            "lower optim.warmup_epochs",
        )
    if train.epochs is None and train.steps is not None and optim.warmup_epochs * steps_per_epoch > train.steps:
        yield Problem(
            ("optim.warmup_epochs", "train.steps"),
            f"{optim.warmup_epochs:g} epochs of warm-up are longer than the run (`train.steps` is {train.steps}, "
            f"an epoch has {steps_per_epoch}); lower optim.warmup_epochs",
        )


def _dead(key: str, reason: str) -> Problem:
    return Problem((key,), f"has no effect, since {reason}; delete it")


def _is_default(section: Section, name: str) -> bool:
    return bool(getattr(section, name) == type(section).model_fields[name].default)
