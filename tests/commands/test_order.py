"""Options may stand before, between and behind the rest of a command line."""

import argparse
import importlib

import pytest

from cifar_lab.cli.command import parse
from cifar_lab.commands import recipes
from cifar_lab.commands.dispatch import COMMANDS, SCRIPTS

RECIPE = ["demo", "optim.lr=1", "seed=2"]
# What stands on a line besides the options.
REST = {
    "train": RECIPE,
    "plan": RECIPE,
    "verify-resume": RECIPE,
    "profile": RECIPE,
    "doctor": RECIPE,
    "status": ["runs/demo", "runs/vit"],
    "sync": ["runs/demo", "runs/vit"],
    "report": ["runs/demo", "runs/vit"],
    "checkpoint": ["ls", "runs/demo"],
    "data": ["rm", "cifar10-1a2b3c4d", "hub-1a2b3c4d"],
    "evaluate": ["runs/demo", "data.root=x"],
    "predict": ["runs/demo", "cat.jpg", "dogs"],
    "export": ["runs/demo"],
    "recipes": ["show", *RECIPE],
}


def parser_of(command: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser with which the command reads its line."""
    module = importlib.import_module(
        "cifar_lab.train" if command == "train" else f"cifar_lab.commands.{command.replace('-', '_')}"
    )
    found: list[argparse.ArgumentParser] = []
    monkeypatch.setattr(module, "answer", lambda parser, run, argv: found.append(parser) or 0)
    module.main(REST[command])
    return found[0]


def lines(parser: argparse.ArgumentParser) -> list[tuple[str, list[str]]]:
    """Each option with a name of it, as the words that people write; one that may lack its value without it too."""
    found = []
    for action in parser._actions:
        if action.option_strings and action.nargs != 0 and not isinstance(action, argparse._HelpAction):
            value = str(next(iter(action.choices))) if action.choices else "3"
            found.append((action.dest, [action.option_strings[-1], value]))
        if action.option_strings and action.nargs in (0, "?") and not isinstance(action, argparse._HelpAction):
            found.append((action.dest, [action.option_strings[-1]]))
    return found


def check(parser: argparse.ArgumentParser, rest: list[str]) -> None:
    required = [f"{action.option_strings[-1]}={action.choices[0]}" for action in parser._actions if needed(action)]
    plain = vars(parse(parser, [*rest, *required]))
    for name, words in lines(parser):
        behind = vars(parse(parser, [*rest, *required, *words]))
        assert {key for key in plain if plain[key] != behind[key]} <= {name}, words
        for place in range(len(rest)):
            line = [*rest[:place], *words, *rest[place:], *required]
            assert vars(parse(parser, line)) == behind, line


def needed(action: argparse.Action) -> bool:
    return bool(action.option_strings) and action.required


def test_the_table_has_every_command() -> None:
    assert set(REST) == COMMANDS.keys() - SCRIPTS.keys()


@pytest.mark.parametrize("command", REST)
def test_options_may_stand_anywhere(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(parser_of(command, monkeypatch), REST[command])


def test_an_action_may_follow_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for line in (
        "show demo optim.lr=0.7 --runs x",
        "show --runs x demo optim.lr=0.7",
        "--runs x show demo optim.lr=0.7",
    ):
        assert recipes.main(line.split()) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] == told[2]
    assert "0.7" in told[0]


@pytest.mark.parametrize(
    ("command", "line", "key", "value"),
    [
        ("evaluate", "--tta runs/demo", "tta", "mirror"),
        ("evaluate", "--tta translate runs/demo", "tta", "translate"),
        ("evaluate", "runs/demo --tta --json", "tta", "mirror"),
    ],
)
def test_an_option_takes_only_what_can_be_its_value(
    monkeypatch: pytest.MonkeyPatch, command: str, line: str, key: str, value: object
) -> None:
    options = parse(parser_of(command, monkeypatch), line.split())
    assert getattr(options, key) == value
