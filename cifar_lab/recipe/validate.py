"""From given values to a Recipe, with pydantic's errors at their lines."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cifar_lab.recipe.errors import Problem, grouped, nearest, said
from cifar_lab.recipe.schema import Recipe, dotted, fields, sections
from cifar_lab.recipe.source import Source

# Fields by what other trainers call them, a name or, where that is too common, a dotted key.
_CALLED = {
    "seed": "random_seed seed_everything",
    "data.name": "dataset",
    "data.root": "data_dir data.dir data.path",
    "data.image_size": "resolution",
    "data.augment": "augmentation",
    "data.augment.crop_padding": "random_crop",
    "model.name": "model.type",
    "model.weights": "model.checkpoint",
    "optim.lr": "learning_rate",
    "optim.name": "opt optimizer optim.type",
    "optim.schedule": "scheduler lr_scheduler",
    "optim.weight_decay": "wd",
    "train.epochs": "num_epochs num_train_epochs",
    "train.global_batch": "batch_size train.batch data.batch train_batch_size per_device_train_batch_size",
    "train.grad_clip": "clip_grad max_grad_norm",
    "train.label_smoothing": "smoothing",
    "train.micro_batch": "accumulate_grad_batches gradient_accumulation_steps",
    "train.precision": "amp bf16 dtype fp16",
    "train.steps": "max_steps",
    "eval.batch": "eval.batch_size",
    "eval.every_epochs": "eval_steps eval.every",
    "checkpoint.every_steps": "save_steps",
    "tracking.to": "log_with report_to",
    "tracking.wandb_project": "project wandb",
    # what no recipe says
    "not needed: all pictures are kept on the device": "num_workers workers pin_memory",
    "the classes of the data are counted": "num_classes",
    "the launcher says it, see `launch/node.sh --help`": "device devices gpus num_nodes strategy world_size",
    "say it with the option --runs DIR": "output_dir",
    "starting the same recipe again continues its run": "resume",
}
_FOREIGN_NAMES = {name: key for key, names in _CALLED.items() for name in names.split()}
_FOREIGN_NAMES |= {name: f"model.args.{name}" for name in ("arch", "depth", "drop_path", "width")}
_STAND_INS = {"name": "unnamed", "model": {"name": ""}, "optim": {"lr": 1.0}, "train": {"global_batch": 2**20}}


def validate(source: Source) -> tuple[Recipe | None, set[str]]:
    """The recipe, and the keys that are wrong and hold stand-ins in it so that other checks can go on.

    Each mistake is noted in `source`. The recipe is None if even the stand-ins do not help.
    """
    try:
        return Recipe.model_validate(source.values), set()
    except ValidationError as error:
        found = grouped(error.errors(include_url=False), _names)
    meant = {key: _meant(key) for key, details in found.items() if details[0]["type"] == "extra_forbidden"}
    guessed = [guess for guesses in meant.values() for guess in guesses]
    for key, details in found.items():
        if key in meant:
            message = _unknown(key, meant[key])
        elif details[0]["type"] != "missing" or "[" in key:
            message = said(details)
        elif any(f"{guess}.".startswith(f"{key}.") for guess in guessed):
            continue
        elif key in sections():
            needs = [f"`{name}`" for name, field in sections()[key].model_fields.items() if field.is_required()]
            message = f"this section is missing; it needs at least {', '.join(needs)}"
        else:
            message = f"is missing; give its value: {fields()[key].description}"
        source.report(Problem((key,), message))
    wrong = {key.partition("[")[0] for key in found}
    try:
        return Recipe.model_validate(_repaired(_STAND_INS, source.values, wrong, "")), wrong
    except ValidationError:
        return None, wrong


def _names(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """What of pydantic's place of an error leads to a field."""
    depth = 0
    while depth < len(loc) and ".".join(map(str, loc[:depth])) in sections():
        depth += 1
    return loc[:depth]


def _meant(key: str) -> list[str]:
    """The keys for which an unknown one may stand, or a sentence about it."""
    section, _, name = key.rpartition(".")
    known = [*sections(), *fields()]

    def called(name: str | None) -> list[str]:
        return [key for key in known if key.rpartition(".")[2] == name]

    if section not in sections():  # `model.args.width: 3`, written in one line
        return []
    foreign = _FOREIGN_NAMES.get(key) or _FOREIGN_NAMES.get(name, "")
    if foreign and (key in _FOREIGN_NAMES or not called(name)):
        return [foreign]
    own = sections()[section].model_fields
    near = nearest(name, own)
    if near and (name == "name" or not called(name)):
        return [dotted(section, near)]
    words = [dotted(section, field) for field in own if name in field.split("_")]  # `every`, `mixup`
    # Of the names of all sections some are near to any short word.
    elsewhere = nearest(name, [key.rpartition(".")[2] for key in known if key], 0.8) if len(name) > 4 else None
    return called(name) or words or called(elsewhere)


def _unknown(key: str, meant: list[str]) -> str:
    section, _, _name = key.rpartition(".")
    if section not in sections():
        return "unknown key; write sections as nested mappings"
    if key in ("base", "defaults", "extends", "inherit"):
        return "unknown key; a recipe has no base: one file describes the whole experiment"
    if meant and " " in meant[0]:
        return f"unknown key; {meant[0]}"
    if not meant:
        owner = f"`{section}`" if section else "a recipe"
        return f"unknown key; {owner} has {', '.join(sections()[section].model_fields)}"
    guesses = [guess.removeprefix(f"{section}.") if section else guess for guess in meant]
    return f"unknown key (did you mean {' or '.join(f'`{guess}`' for guess in guesses)}?)"


def _repaired(stand_in: Mapping[str, Any], given: Mapping[str, Any], wrong: set[str], section: str) -> dict[str, Any]:
    """What is given and not wrong, over stand-ins for what is required."""
    repaired = dict(stand_in)
    for name, value in given.items():
        key = dotted(section, name)
        if key in sections() and key not in wrong:
            repaired[name] = _repaired(stand_in.get(name, {}), value, wrong, key)
        elif key not in wrong:
            repaired[name] = value
    return repaired
