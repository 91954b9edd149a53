"""What makes two recipes the same experiment."""

from __future__ import annotations

from typing import Any

import pytest

from cifar_lab.recipe import Recipe, experiment_id, identity_fields, parse_recipe


def recipe(**changes: Any) -> Recipe:
    """A small recipe with sections changed."""
    sections: dict[str, Any] = {
        "name": "sample",
        "model": {"name": "resnet", "args": {"depth": 34}},
        "optim": {"lr": 0.1},
        "train": {"epochs": 2, "global_batch": 64},
    }
    for name, value in changes.items():
        sections[name] = sections.get(name, {}) | value if isinstance(value, dict) else value
    return parse_recipe(sections, check_files=False)


def test_only_fields_that_differ_from_their_defaults() -> None:
    assert identity_fields(recipe(optim={"momentum": 0.9}, data={"augment": {"flip": True}}, seed=3)) == {
        "seed": 3,
        "data.augment.flip": True,
        "model.name": "resnet",
        "model.args.depth": 34,
        "optim.lr": 0.1,
        "train.epochs": 2.0,
        "train.global_batch": 64,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"seed": 7},
        {"data": {"root": "/elsewhere", "max_gib": 3.0, "name": "cifar10"}},
        {"train": {"micro_batch": 8, "compile": "reduce-overhead", "channels_last": False, "grad_checkpointing": True}},
        {"checkpoint": {"every_steps": 3, "keep_last": 4}},
        {"log": {"every_steps": 1}, "eval": {"every_epochs": 2, "batch": 10}},
        {"tracking": {"wandb_project": "p", "tags": ["a"]}},
        {"model": {"args": {"depth": 34}}, "optim": {"betas": [0.9, 0.999], "milestones": (0.5, 0.75)}},
    ],
)
def test_what_does_not_change_the_experiment(changes: dict[str, Any]) -> None:
    assert experiment_id(recipe(**changes)) == experiment_id(recipe())


@pytest.mark.parametrize(
    "changes",
    [
        {"optim": {"lr": 0.2}},
        {"train": {"global_batch": 32}},
        {"train": {"precision": "bf16"}},
        {"train": {"tf32": True}},
        {"model": {"args": {"depth": 18}}},
        {"model": {"args": {"depth": 34, "width": 8}}},
        {"data": {"val_size": 0}},
        {"data": {"val_size": 0.2}},
        {"data": {"test_size": 0}},
        {"data": {"test_size": 0.1}},
        {"train": {"class_weights": "balanced"}},
        {"data": {"augment": {"flip": "alternating"}}},
        {"model": {"weights": "start.safetensors"}},
    ],
)
def test_what_changes_the_experiment(changes: dict[str, Any]) -> None:
    assert experiment_id(recipe(**changes)) != experiment_id(recipe())


def test_the_id_is_eight_hex_digits_and_stable() -> None:
    assert experiment_id(recipe()) == "3e246aa1"
    assert experiment_id(recipe(), 1) == "85fc73ff"  # as runs of that version are called
    whole, broken = ({"name": "vit", "args": {"mlp_ratio": ratio}} for ratio in (4, 4.0))
    assert experiment_id(recipe(model=whole)) == experiment_id(recipe(model=broken))
    # Arguments of a family of one's own may be lists.
    lists = [recipe().model_dump() | {"model": {"name": "mine", "args": {"sizes": s}}} for s in ([[4], 2], [[4.0], 2])]
    assert len({experiment_id(Recipe.model_validate(fields)) for fields in lists}) == 1


def test_a_tenth_of_cifar10_is_what_was_the_default_and_of_other_data_it_is_not() -> None:
    ids = [experiment_id(recipe(data={"val_size": size})) for size in (0.1, 5000)]
    assert ids == [experiment_id(recipe())] * 2
    drawn, tenth, old = (
        recipe(data={"name": "shapes", **size}) for size in ({}, {"val_size": 0.1}, {"val_size": 5000})
    )
    assert experiment_id(drawn) == experiment_id(tenth) != experiment_id(old)
    assert "data.val_size" not in identity_fields(old)  # so runs of earlier versions keep their names
    assert identity_fields(drawn)["data.val_size"] == 0.1
