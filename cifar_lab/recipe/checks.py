"""Contradictions between fields, each naming both and the fix, and references to what is not there."""

import json
from collections.abc import Iterator
from pathlib import Path

from cifar_lab.recipe import plugins
from cifar_lab.recipe.errors import Problem, did_you_mean
from cifar_lab.recipe.identity import defaults, flatten
from cifar_lab.recipe.outside import is_outside
from cifar_lab.recipe.schema import Recipe

# A key has an effect only where another one has one of these values (None: any but 0 and false).
NEEDS: tuple[tuple[str, str, tuple[str, ...] | None], ...] = (
    ("data.augment.padding_mode", "data.augment.crop_padding", None),
    ("data.augment.crop_ratio", "data.augment.random_resized_crop", None),
    ("data.augment.erase_value", "data.augment.erase_prob", None),
    ("data.augment.randaugment_magnitude", "data.augment.randaugment_ops", None),
    ("data.augment.randaugment_prob", "data.augment.randaugment_ops", None),
    ("data.augment.randaugment_std", "data.augment.randaugment_ops", None),
    ("optim.momentum", "optim.name", ("sgd", "muon")),
    ("optim.nesterov", "optim.name", ("sgd", "muon")),
    ("optim.nesterov", "optim.momentum", None),
    ("optim.head_lr", "optim.name", ("muon",)),
    ("optim.bias_lr", "optim.name", ("muon",)),
    ("optim.rest_momentum", "optim.name", ("muon",)),
    ("optim.betas", "optim.name", ("adamw",)),
    ("optim.eps", "optim.name", ("adamw",)),
    ("optim.layer_decay", "optim.name", ("sgd", "adamw")),
    ("optim.layer_decay", "model.name", ("timm_zoo", "vit")),  # families that know the depth of each parameter
    ("optim.milestones", "optim.schedule", ("step",)),
    ("optim.gamma", "optim.schedule", ("step",)),
    ("optim.min_lr_ratio", "optim.schedule", ("cosine", "linear")),
    ("train.on_nonfinite", "train.precision", ("fp32", "bf16")),  # the loss scale of fp16 skips by itself
    ("train.max_skipped", "train.on_nonfinite", ("skip",)),
)
# Two ways to say one thing.
EXCLUSIVE = (
    ("data.augment.random_resized_crop", "data.augment.crop_padding"),
    ("train.steps", "train.epochs"),
    ("checkpoint.every_steps", "checkpoint.every_epochs"),
    ("model.weights", "model.pretrained"),
)


def contradictions(recipe: Recipe) -> Iterator[Problem]:
    """Problems that no single field shows."""
    values, default = flatten(recipe), defaults()
    for key, other, wanted in NEEDS:
        works = values[other] in wanted if wanted else bool(values[other])
        if values[key] != default[key] and not works:
            fix = f"set `{other}` to {' or '.join(wanted)}" if wanted else f"raise `{other}`"
            yield Problem((key, other), f"has no effect, since `{other}` is {values[other]}; delete it or {fix}")
    for key, other in EXCLUSIVE:
        if values[key] and values[other]:
            off = json.dumps(default[other])
            message = f"`{other}` and `{key}` are both given; delete one (on the command line: {other}={off})"
            yield Problem((key, other), message)
    if recipe.data.augment.cutout == 1:
        message = "1 erases nothing, since an odd side counts as one less; give an even side, or 0"
        yield Problem(("data.augment.cutout",), message)
    for split in ("val", "test"):
        key, named = f"data.{split}_size", f"data.args.{split}_split"
        if values.get(named) is not None and values[key] != default[key]:
            yield Problem((key, named), f"has no effect, since `{named}` names these pictures; delete one of them")
    yield from _length(recipe)
    yield from _batches(recipe)
    yield from _normalisation(recipe)


def _length(recipe: Recipe) -> Iterator[Problem]:
    train, optim = recipe.train, recipe.optim
    if train.epochs is None and train.steps is None:
        yield Problem(("train.epochs", "train.steps"), "the length is missing; give `train.epochs` or `train.steps`")
    if train.epochs is not None and optim.warmup_epochs > train.epochs:
        yield Problem(
            ("optim.warmup_epochs", "train.epochs"),
            f"{optim.warmup_epochs:g} epochs of warm-up are longer than the run (`train.epochs` is {train.epochs:g}); "
            "lower optim.warmup_epochs",
        )
    if list(optim.milestones) != sorted(set(optim.milestones)):
        yield Problem(("optim.milestones",), "expected increasing fractions of the run, such as [0.5, 0.75]")


def _batches(recipe: Recipe) -> Iterator[Problem]:
    batch, limit, augment = recipe.train.global_batch, recipe.data.limit, recipe.data.augment
    if limit is not None and batch > limit:
        yield Problem(
            ("train.global_batch", "data.limit"),
            f"{batch} is more than all training images (`data.limit` is {limit}), so an epoch would have no step; "
            "lower train.global_batch or raise data.limit",
        )
    mixing = [name for name in ("mixup_alpha", "cutmix_alpha") if getattr(augment, name) > 0]
    if mixing and batch % 2:
        yield Problem(
            ("train.global_batch", f"data.augment.{mixing[0]}"),
            f"{batch} is odd, and `data.augment.{mixing[0]}` mixes pictures in pairs; use {batch + 1}",
        )


def _normalisation(recipe: Recipe) -> Iterator[Problem]:
    mean, std = recipe.data.mean, recipe.data.std
    if (mean is None) != (std is None):
        given, other = ("mean", "std") if std is None else ("std", "mean")
        yield Problem((f"data.{given}", f"data.{other}"), f"`data.{given}` without `data.{other}`; give both or none")


def references(recipe: Recipe) -> Iterator[Problem]:
    """Unknown families, sources and architectures, and wrong arguments."""
    model, data = recipe.model, recipe.data
    yield from plugins.FAMILIES.problems(model.name, model.args)
    yield from plugins.SOURCES.problems(data.name, data.args)
    known = is_outside(model.name) or model.name in plugins.FAMILIES.names()
    if model.pretrained and known and model.name not in plugins.ZOOS:
        yield Problem(
            ("model.pretrained", "model.name"),
            f"the family {model.name} has no published weights; set it to false, or use `model.name: timm_zoo`",
        )
    if is_outside(model.name) and data.name != model.name and data.name[:-17] == model.name[:-17]:
        yield Problem(("model.name", "data.name"), "are two files of one name, of which a run keeps both; rename one")
    if model.name in plugins.ZOOS and isinstance(model.args.get("arch"), str):
        problem = plugins.arch_problem(model.name, model.args["arch"])
        if problem:
            yield Problem(("model.args.arch",), problem)


def missing_files(recipe: Recipe) -> Iterator[Problem]:
    """Weights and data that are not there."""
    if recipe.model.weights is not None:
        problem = _weights_problem(Path(recipe.model.weights))
        if problem:
            yield Problem(("model.weights",), problem)
    if recipe.data.root is not None and not Path(recipe.data.root).exists():
        yield Problem(
            ("data.root",),
            f"{recipe.data.root} does not exist{_seen_from(Path(recipe.data.root))}; correct it, or leave it "
            "out to look in $CIFAR_LAB_DATA and ./data",
        )


def _weights_problem(path: Path) -> str | None:
    if path.is_dir():
        if (path / "model.safetensors").is_file():
            return None
        return f"the directory {path} holds no model.safetensors; name a finished run or a .safetensors file"
    if not path.exists():
        near = did_you_mean(path.name, [child.name for child in path.parent.glob("*.safetensors")])
        return f"{path} does not exist{_seen_from(path)}{near}; name a .safetensors file or a finished run's directory"
    if path.suffix != ".safetensors":
        return f"{path} is not a .safetensors file; pickled weights are refused, convert them with safetensors"
    return None


def _seen_from(path: Path) -> str:
    return "" if path.is_absolute() else f" (seen from {Path.cwd()})"
