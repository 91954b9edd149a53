"""`cifar-lab COMMAND`: finds the command's module and runs its `main(argv)`."""

import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from cifar_lab import __version__
from cifar_lab.cli.printable import leave, shown

EXIT_USAGE = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE

# Their modules, which have a `main(argv) -> int`, are imported only when they are asked for.
COMMANDS = {
    "train": "train a recipe or continue its run; --dry-run only checks it",
    "plan": "memory, time and start command on a GPU that you name; needs no GPU",
    "status": "progress of runs and their jobs, and why a run ended",
    "sync": "send runs to Weights & Biases; only what is missing there",
    "checkpoint": "list, verify and show the checkpoints of a run",
    "verify-resume": "prove that kill -9 and resuming do not change the result",
    "profile": "measure the time of each part of a training step",
    "data": "list or remove the decoded data sets in the cache",
    "doctor": "check whether training can run on this machine; name what to fix",
    "evaluate": "measure a trained model: accuracy, calibration, confusion matrix",
    "predict": "classify picture files with a trained model",
    "export": "save a trained model for timm and the hub, or as an ONNX file",
    "recipes": "list, show, copy, compare and create recipes",
    "report": "compare runs on one page: ranking, figures, checked claims",
    "launch": "start the processes of a recipe on this machine, or on each node",
    "submit": "queue a recipe or a sweep on a Slurm cluster",
}
SCRIPTS = {"launch": ("bash", "node.sh"), "submit": (sys.executable, "submit.py")}  # of the folder launch

USAGE = f"""\
usage: cifar-lab COMMAND [arguments]

Train image classifiers. A recipe says what to train; the launcher says on which
hardware.

commands:
{chr(10).join(f"  {name:14}{what}" for name, what in COMMANDS.items())}

  cifar-lab COMMAND --help    the arguments of a command
  cifar-lab --version

examples:
  cifar-lab train recipes/demo.yaml
  cifar-lab train recipes/demo.yaml --dry-run
  cifar-lab train recipes/demo.yaml optim.lr=0.1 seed=1
  cifar-lab report runs/demo
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status, 141 when the reader of the output went away.

    Without `argv` it is the process's own command, which ends with 130 after Ctrl-C.
    """
    _open_closed_streams()
    if argv is not None:
        return _answer(list(argv))
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        interrupts.append(number)
        sys.unraisablehook = lambda _: None  # an object that was being made may complain when it goes
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell ignores it for `&`
        signal.signal(signal.SIGINT, interrupt)
    try:
        status = _answer(sys.argv[1:])
        if not interrupts:  # else it was lost: torch goes on without numpy when that cannot be imported
            return status
    except BaseException:  # what is interrupted may fail in other ways: numpy's import ends in a RecursionError
        if not interrupts:
            raise
    finally:
        if (
            signal.getsignal(signal.SIGINT) is interrupt
        ):  # what the end does, such as joining threads, would print errors
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("interrupted", file=sys.stderr)
    return EXIT_INTERRUPTED


def _answer(words: list[str]) -> int:
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        leave(sys.stdout)
        return EXIT_BROKEN_PIPE
    except ModuleNotFoundError as error:  # the command's own module needs it
        from cifar_lab.cli.missing import missing_package  # loads more than a good call

        print(f"cifar-lab {words[0]}: {missing_package(error)}", file=sys.stderr)
        return 1
    except OSError as error:  # a disk that is full, a file that went away between two looks
        leave(sys.stdout)
        where = os.fsdecode(error.filename) if error.filename else "the output cannot be written"
        with contextlib.suppress(OSError):
            print(f"cifar-lab {' '.join(words[:1])}: {shown(where)}: {error.strerror or error}", file=sys.stderr)
        return 1


def _open_closed_streams() -> None:
    """What the shell closed (`>&-`) goes nowhere; else the next file that is opened would get its descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that is not text is printed, too


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
    if name in SCRIPTS:  # they take the place of this process, so that signals reach them
        from cifar_lab.files.shipped import shipped

        program, script = SCRIPTS[name]
        os.environ |= {"CIFAR_LAB_PYTHON": sys.executable, **os.environ} if name == "launch" else {}
        os.execvp(program, [program, str(shipped("launch", script)), *rest])
    module = "cifar_lab.train" if name == "train" else f"cifar_lab.commands.{name.replace('-', '_')}"
    status: int = importlib.import_module(module).main(rest)
    return status


def _unknown(name: str) -> str:
    if name.endswith((".yaml", ".yml")):
        return f"to train a recipe: cifar-lab train {shown(name)}"
    import difflib  # takes longer than all that a good call needs

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"the commands are {', '.join(COMMANDS)}"
    return f"there is no command `{shown(name)}`: {hint}"
