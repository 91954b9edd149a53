"""`cifar-lab COMMAND`: finds the command's module and runs its `main(argv)`."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cifar_lab import __version__

EXIT_USAGE = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_BROKEN_PIPE = 128 + 13


@dataclass(frozen=True)
class Command:
    """A module with `main(argv) -> int`, imported only when it is asked for, and its line in the help."""

    module: str
    help: str


COMMANDS = {
    "train": Command("cifar_lab.train", "train a recipe, or continue its run; --dry-run only says what would be done"),
    "plan": Command("cifar_lab.plan", "what fits on which GPUs, how long it takes, how to start it; needs no GPU"),
    "status": Command("cifar_lab.status", "what runs and their jobs do now: progress, pace, and why one ended"),
    "sync": Command("cifar_lab.sync", "send to W&B what it has not got yet of runs"),
    "checkpoint": Command("cifar_lab.checkpoints", "list, verify and show the checkpoints of a run"),
    "verify-resume": Command("cifar_lab.verify_resume", "prove that kill -9 and resuming change nothing"),
    "doctor": Command("cifar_lab.doctor.__main__", "can training run here, on these nodes, and what to do if not"),
    "evaluate": Command("cifar_lab.evaluate", "how good a trained model is: classes, calibration, confusions"),
    "predict": Command("cifar_lab.predict", "what a trained model sees in picture files, with a contact sheet"),
    "export": Command("cifar_lab.export", "a trained model as a folder for timm and the hub, or as an ONNX file"),
    "recipes": Command("cifar_lab.recipes", "list, show, compare and begin recipes; what they cost and reach"),
    "report": Command("cifar_lab.report.__main__", "runs on one page: ranked, drawn, claims checked; or in a terminal"),
}

USAGE = f"""\
usage: cifar-lab COMMAND [arguments]

Train image classifiers from recipes: a recipe says what is trained, the launcher on what.

commands:
{chr(10).join(f"  {name:14}{command.help}" for name, command in COMMANDS.items())}

  cifar-lab COMMAND --help    the arguments of a command
  cifar-lab --version

examples:
  cifar-lab train recipes/demo.yaml
  cifar-lab train recipes/demo.yaml --dry-run
  cifar-lab train recipes/demo.yaml optim.lr=0.1 seed=1
  cifar-lab report runs/demo
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status, 130 after Ctrl-C, 141 when the reader of the output went away."""
    try:
        status = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


def _dispatch(argv: list[str]) -> int:
    name, *rest = argv or [""]
    if name == "help" and rest:
        name, rest = rest[0], ["--help"]
    if name in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if name in ("-V", "--version"):
        print(f"cifar-lab {__version__}")
        return 0
    if not name:
        print(USAGE, end="", file=sys.stderr)
        return EXIT_USAGE
    if name not in COMMANDS:
        print(f"cifar-lab: {_unknown(name)}", file=sys.stderr)
        return EXIT_USAGE
    module = importlib.import_module(COMMANDS[name].module)
    status: int = module.main(rest)
    return status


def _unknown(name: str) -> str:
    if name.endswith((".yaml", ".yml")):
        return f"to train a recipe: cifar-lab train {name}"
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"the commands are {', '.join(COMMANDS)}"
    return f"there is no command `{name}`: {hint}"


if __name__ == "__main__":
    sys.exit(main())
