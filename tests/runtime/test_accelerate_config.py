"""What `accelerate config` writes where its questions are answered by Enter is no obstacle to a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config import cluster
from support.commands import ROOT
from support.launching import arguments, problems, said

from cifar_lab.recipe import load_recipe

MULTI_GPU = 4  # its place in the menu of kinds of machines


def answered(monkeypatch: pytest.MonkeyPatch, path: Path, machine: int = 0, **answers: Any) -> list[str]:
    """The file that `accelerate config` writes where all other questions are answered by Enter, as options of a launch.

    `answers` go by a word of the question. Menus read from a terminal, so they are told their default, but for the kind
    of `machine`.
    """
    asked = []

    def field(text: str, convert_value: Any = None, default: Any = None, *_: Any, **__: Any) -> Any:
        asked.append(text)
        return next((value for word, value in answers.items() if word in text), default)

    def menu(text: str, options: list[Any], convert_value: Any = None, default: int = 0) -> Any:
        place = machine if "type of machine" in text else default
        return convert_value(place) if convert_value else place

    monkeypatch.setattr(cluster, "_ask_field", field)
    monkeypatch.setattr(cluster, "_ask_options", menu)
    cluster.get_cluster_input().to_yaml_file(path)
    assert all(any(word in text for text in asked) for word in answers)
    return [f"--config_file={path}"]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"CPU": True}, {"use_cpu": True, "num_processes": 1, "distributed_type": "NO"}),
        ({}, {"use_cpu": False, "num_processes": 1, "distributed_type": "NO"}),
        (
            {"machine": MULTI_GPU, "How many GPU(s)": 8},
            {"use_cpu": False, "num_processes": 8, "distributed_type": "MULTI_GPU"},
        ),
        ({"machine": MULTI_GPU, "How many GPU(s)": 8, "DeepSpeed?": True}, {"distributed_type": "DEEPSPEED"}),
    ],
    ids=["one CPU", "one GPU", "eight GPUs", "eight GPUs with DeepSpeed"],
)
def test_what_accelerate_config_writes_starts_vit_tiny(
    answers: dict[str, Any], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = answered(monkeypatch, tmp_path / "default.yaml", **answers)
    written = yaml.safe_load((tmp_path / "default.yaml").read_text())
    assert {key: written[key] for key in expected} == expected
    args = arguments(*options)
    args.deepspeed_fields_from_accelerate_config = ",".join(written.get("deepspeed_config", {}))
    environ = said(args)
    assert environ["ACCELERATE_MIXED_PRECISION"] == "no"
    assert problems(environ, load_recipe(ROOT / "recipes" / "vit_tiny.yaml")) == []
    # Under DeepSpeed the launcher itself forgets the latter.
    for change in ["--mixed_precision=fp16", "--dynamo_backend=inductor"][: 1 if args.use_deepspeed else 2]:
        monkeypatch.setattr("accelerate.commands.launch.is_bf16_available", lambda *_: True)
        changed = said(argparse.Namespace(**{**vars(arguments(*options, change)), **deepspeed_fields(args)}))
        assert len(problems(changed, load_recipe(ROOT / "recipes" / "vit_tiny.yaml"))) == 1, change


def deepspeed_fields(args: argparse.Namespace) -> dict[str, str]:
    return {"deepspeed_fields_from_accelerate_config": args.deepspeed_fields_from_accelerate_config}
