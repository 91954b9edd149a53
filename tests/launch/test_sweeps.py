"""recipes/sweeps: what `wandb agent` runs is what `launch/submit.py --sweep` queues, and both are good recipes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from cifar_lab.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "recipes" / "sweeps").glob("*.yaml"))
STUDY = sorted((ROOT / "recipes").glob("*.yaml"))


# W&B's own functions make the command of every member. It reads the file with PyYAML: 1e-3 would be a text.
AGENT = """
import itertools, json, sys, yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
commands = {}
for path in sys.argv[1:]:
    sweep = yaml.safe_load(open(path))
    keys, commands[path] = list(sweep["parameters"]), []
    for values in itertools.product(*(sweep["parameters"][key]["values"] for key in keys)):
        args = {key: {"value": value} for key, value in zip(keys, values)}
        macros = {**create_sweep_command_args({"args": args}), "env": ["/usr/bin/env"]}
        words = create_sweep_command(list(sweep["command"]))
        commands[path].append([word for chunk in words for word in macros.get(chunk[2:-1], [chunk])])
print(json.dumps(commands))
"""


@pytest.fixture(scope="module")
def agent_commands() -> dict[str, list[list[str]]]:
    """By the name of a sweep file, what `wandb agent` would run."""
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("wandb is not installed")
    done = subprocess.run(
        [sys.executable, "-c", AGENT, *map(str, SWEEPS)],
        env={**os.environ, "RECIPE": "recipes/resnet18.yaml"},
        capture_output=True,
        text=True,
        check=True,
    )
    return {Path(path).stem: commands for path, commands in json.loads(done.stdout).items()}


@pytest.fixture
def launch_sweep(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """launch/sweep.py, which is not in the package."""
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    return importlib.import_module("sweep")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_same_members_for_the_agent_and_the_cluster(
    path: Path, agent_commands: dict[str, list[list[str]]], launch_sweep: ModuleType
) -> None:
    recipe = ROOT / "recipes" / "resnet18.yaml"
    commands = agent_commands[path.stem]
    assert all(command[:3] == ["/usr/bin/env", "cifar-lab", "train"] for command in commands)
    assert {ROOT / command[3] for command in commands} == {recipe}
    queued = launch_sweep.members([str(path)], [], sys.executable, ROOT)
    identities = {load_recipe(recipe, command[4:]).model_dump_json() for command in commands}
    assert len(identities) == len(commands) > 1
    assert identities == {load_recipe(recipe, overrides).model_dump_json() for overrides in queued}


@pytest.mark.parametrize("recipe", STUDY, ids=lambda path: path.stem)
def test_the_seeds_go_with_every_recipe(recipe: Path, agent_commands: dict[str, list[list[str]]]) -> None:
    for command in agent_commands["seeds"]:
        assert load_recipe(recipe, command[4:]).seed in (0, 1, 2)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_it_maximises_what_runs_send(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert sweep["metric"] == {"name": "val/accuracy", "goal": "maximize"}
    assert (ROOT / sweep["program"]).exists()
