"""`cifar-lab COMMAND`: finds the command's module and runs its `main(argv)`."""

from __future__ import annotations

import codecs
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cifar_lab import __version__
from cifar_lab.cli.interrupt import EXIT_INTERRUPTED, interrupts
from cifar_lab.cli.printable import shown

EXIT_USAGE = 2
EXIT_BROKEN_PIPE = 128 + 13


@dataclass(frozen=True)
class Command:
    """A module with `main(argv) -> int`, imported only when it is asked for, and its line in the help."""

    module: str
    help: str


COMMANDS = {
    "train": Command("cifar_lab.train", "train a recipe, or continue its run; --dry-run only says what would be done"),
    "plan": Command(
        "cifar_lab.commands.plan", "what fits on which GPUs, how long it takes, how to start it; needs no GPU"
    ),
    "status": Command(
        "cifar_lab.commands.status", "what runs and their jobs do now: progress, pace, and why one ended"
    ),
    "sync": Command("cifar_lab.commands.sync", "send to W&B what it has not got yet of runs"),
    "checkpoint": Command("cifar_lab.commands.checkpoint", "list, verify and show the checkpoints of a run"),
    "verify-resume": Command("cifar_lab.commands.verify_resume", "prove that kill -9 and resuming change nothing"),
    "profile": Command("cifar_lab.commands.profile", "where a training step's time goes, as a table and a trace"),
    "doctor": Command("cifar_lab.commands.doctor", "can training run here, on these nodes, and what to do if not"),
    "evaluate": Command("cifar_lab.commands.evaluate", "how good a trained model is: classes, calibration, confusions"),
    "predict": Command(
        "cifar_lab.commands.predict", "what a trained model sees in picture files, with a contact sheet"
    ),
    "export": Command(
        "cifar_lab.commands.export", "a trained model as a folder for timm and the hub, or as an ONNX file"
    ),
    "recipes": Command("cifar_lab.commands.recipes", "list, show, compare and begin recipes; what they cost and reach"),
    "report": Command("cifar_lab.commands.report", "runs on one page: ranked, drawn, claims checked; or in a terminal"),
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
    """Run a command; returns its exit status, 130 after Ctrl-C, 141 when the reader of the output went away.

    Without `argv` it is the process's own command: Ctrl-C after its end does nothing more.
    """
    _open_closed_streams()
    _print_any_text()
    words = list(sys.argv[1:] if argv is None else argv)
    with interrupts() as interrupt:
        try:
            status = _answer(words)
            if interrupt.came:  # and was lost: torch goes on without numpy when that cannot be imported
                raise KeyboardInterrupt
            return status
        except BaseException as error:
            # What is interrupted may fail in other ways: numpy's import ends in a RecursionError.
            if not (interrupt.came or isinstance(error, KeyboardInterrupt)):
                raise
            print("interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        finally:
            if argv is None:
                interrupt.ignore()


def _answer(words: list[str]) -> int:
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _leave_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as error:  # a disk that is full, a file that went away between two looks
        _leave_stdout()
        where = os.fsdecode(error.filename) if error.filename else "the output cannot be written"
        with contextlib.suppress(OSError):
            print(f"cifar-lab {' '.join(words[:1])}: {shown(where)}: {error.strerror or error}", file=sys.stderr)
        return 1


def _leave_stdout() -> None:
    """Python flushes standard output once more at exit, which must not fail again."""
    with contextlib.suppress(OSError, ValueError):  # one that has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """What the shell closed (`>&-`) goes nowhere; else the next file that is opened would get its descriptor."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))


def _print_any_text() -> None:
    """Names of files that are not text are printed as the bytes that they are, and nothing fails to be printed."""
    codecs.register_error("cifar_lab", _as_it_is)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="cifar_lab")


def _as_it_is(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


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
        return f"to train a recipe: cifar-lab train {shown(name)}"
    import difflib  # takes longer than all that a good call needs

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"the commands are {', '.join(COMMANDS)}"
    return f"there is no command `{shown(name)}`: {hint}"
