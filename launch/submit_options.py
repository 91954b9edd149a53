"""What `submit.py` is asked for: its options, each checked before anything else happens."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "zero3_offload", "fsdp2")
LAUNCHERS = ("torchrun", "accelerate")
# Of sbatch: what the script or an option of ours sets, and what another way of asking for GPUs is called.
OWN = (
    *("array", "chdir", "gpus-per-node", "job-name", "nodes", "ntasks", "ntasks-per-node", "open-mode"),
    *("no-requeue", "output", "requeue", "signal", "time", "wait", "wrap"),
)
GPU_OPTION = re.compile(r"gres|gpus-per-.*")

DESCRIPTION = """\
Queue a recipe on a Slurm cluster: on one node, on many, or as a sweep (one job
array). Before anything is queued, the recipe and the division of its batch are
checked; with --gpu also whether it fits. When the job is preempted or reaches
its time limit, it saves and goes back into the queue by itself. The same
command again queues only what is neither completed nor queued.
"""

EPILOG = """\
examples:
  launch/submit.py recipes/vit_tiny.yaml --gpus-per-node 4 --time 4:00:00 \\
    --partition=gpu --account=my_lab --mem=64G
  launch/submit.py recipes/vit_tiny.yaml --module cuda --conda lab --dry-run
  launch/submit.py recipes/eva02_large.yaml --nodes 2 --gpus-per-node 8 \\
    --gpu a100-80gb --strategy zero2
  launch/submit.py recipes/resnet18.yaml \\
    --sweep optim.lr=1e-3,3e-4 seed=0,1,2 --max-parallel 3
  launch/submit.py recipes/resnet18.yaml --sweep recipes/sweeps/lr_seed.yaml
  launch/submit.py recipes/demo.yaml --gpus 0 --dependency=afterany:1234

Options of sbatch that are not listed go into the script as they are; write each
as one word, with =. --cpus-per-task and --mem are for all processes of a node.
Paths in overrides are relative to the checkout, where the job runs. All words
between --sweep and the next option belong to the sweep. To change more of the
script: --dry-run > my.sbatch, edit it, then sbatch my.sbatch in the checkout.

Exit status: 0 queued, or nothing was left to queue; 1 Slurm refused; 2 wrong
recipe or call (then nothing is queued).
"""


class SubmitError(Exception):
    """What the user must mend; nothing was queued."""

    exit_status = 2


class SlurmError(SubmitError):
    """Slurm refused, or is not here."""

    exit_status = 1


class Options(argparse.Namespace):
    """A call of `submit.py`, its options by their names; None is what was not given."""

    @property
    def num_gpus(self) -> int:
        """GPUs of a node, 0 without."""
        asked = self.gpus_per_node or (0 if self.other_gpus else self.nproc or 1)
        return int(str(asked).rpartition(":")[2])

    @property
    def others(self) -> dict[str, str | None]:
        """Options that are handed to sbatch as they are, without their dashes; None for one that stands alone."""
        words = [word[2:].partition("=") for word in self.sbatch]
        return {name: value if equals else None for name, equals, value in words}

    @property
    def other_gpus(self) -> list[str]:
        """Options of sbatch that ask for GPUs in another way."""
        return list(filter(GPU_OPTION.fullmatch, self.others))

    @property
    def uses_gpus(self) -> bool:
        """Whether the job asks for GPUs in one way or the other."""
        return bool(self.num_gpus or self.other_gpus)

    @property
    def processes(self) -> int:
        """Processes of a node: one a GPU, unless said otherwise."""
        return self.nproc or self.num_gpus or 1

    @property
    def world_size(self) -> int:
        """Processes of the job."""
        return self.nodes * self.processes


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments"):
            message += (
                "; an override is dotted.key=value, an option of sbatch is written in full, such as --partition=gpu, a "
                "recipe that begins with a dash is ./-name.yaml"
            )
        self.exit(2, f"submit.py: {message.replace('RECIPE, key=value', 'RECIPE')} (see --help)\n")


def parse(argv: list[str]) -> Options:
    """The options of a call; leaves by SystemExit for --help (0) and for what is refused (2)."""
    parser = _parser()
    ours = parser._option_string_actions
    known = [word[:2] != "--" or word == "--" or word.partition("=")[0] in ours for word in argv]
    words = [word if is_known else f"--sbatch={word}" for word, is_known in zip(argv, known, strict=True)]
    options = parser.parse_intermixed_args(words, namespace=Options())
    if options.nodes > 1 and options.num_gpus and any(word.partition("=")[0] == "--gpus" for word in argv):
        parser.error("--gpus counts those of all nodes for sbatch and those of one for us: say --gpus-per-node")
    problem = next(filter(None, (_other(word, ours) for word in options.sbatch)), None) or _problem(options)
    if problem:
        parser.error(problem)
    return options


def _other(word: str, ours: Iterable[str]) -> str | None:
    """Why a word that is no option of ours cannot be one of sbatch's."""
    # Nothing can be quoted safely in a line of #SBATCH.
    if not re.fullmatch(r"--[a-z][a-z-]{1,40}(=[A-Za-z0-9_.,:/@%+=*&|()\[\]-]{1,255})?", word):
        return f"{word!r} is no option of sbatch in one word without spaces and quotes, such as --exclude=node7"
    name = word[2:].partition("=")[0]
    if any(own.startswith(name) for own in OWN):  # sbatch takes the beginning of a name for the whole
        return f"--{name}: the script sets it itself; see the options that change it"
    near = [] if GPU_OPTION.fullmatch(name) else difflib.get_close_matches(f"--{name}", ours, 1, 0.85)
    return f"there is no option --{name}: did you mean {near[0]}?" if near else None


def seconds(time: str | None) -> int | None:
    """Seconds of a time limit in Slurm's notation; None for no limit."""
    if time is None:
        return None
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, secs = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, secs = parts
    else:
        hours, (minutes, secs) = 0, [*parts, 0][:2]
    total = int(days or 0) * 86400 + hours * 3600 + minutes * 60 + secs
    return total or None


def _problem(options: Options) -> str | None:
    """The first contradiction in a call."""
    limit = seconds(options.time)
    if options.launcher == "torchrun" and (options.strategy or "ddp").startswith("zero"):
        return f"--with torchrun starts ddp and fsdp2 only: use --with accelerate with --strategy {options.strategy}"
    if options.num_gpus and options.processes > options.num_gpus:
        return (
            f"--nproc {options.processes} is more than the {options.num_gpus} GPUs of a node: each process needs one; "
            f"give --nproc {options.num_gpus} or less"
        )
    if limit is not None and limit <= options.signal_before:
        return (
            f"--time {options.time} is {limit} s, not above --signal-before {options.signal_before}: the job would be "
            "told to save and stop at its start; give it longer, or a smaller --signal-before"
        )
    if sum(map(bool, (options.conda, options.venv, options.container))) > 1:
        return "--conda, --venv and --container bring a python each: give one of them"
    if options.max_parallel and not options.sweep:
        return "--max-parallel is for --sweep"
    if options.member is not None and not options.sweep:
        return "--member is for --sweep"
    if options.other_gpus and options.nproc is None:
        return f"--{options.other_gpus[0]}: give --gpus-per-node instead, or --nproc with it: processes a node"
    if options.gpu is not None and not options.uses_gpus:
        return f"--gpu {options.gpu}: the job asks for no GPU and would train on CPUs; leave --gpus 0 away"
    if options.gpu == "cpu":
        return "--gpu cpu: that would be a plan for this machine and not for the job's; leave it away"
    for text in options.overrides:
        if text.startswith("-") or "=" not in text:
            return (
                f"{text!r} is no override, which is dotted.key=value, such as optim.lr=1e-3; a value of an option of "
                "sbatch stands in the same word: --partition=gpu"
            )
    return None


def _form(pattern: str, example: str, kind: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """The values of an option, and how to say what they are."""

    def read(text: str) -> Any:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise argparse.ArgumentTypeError(f"{text!r} is not {example}")
        return kind(text)

    return read


NUMBER = _form(r"\d{1,6}", "a number from 0", int)
COUNT = _form(r"[1-9]\d{0,5}", "a number from 1", int)
GPUS = _form(r"0|([A-Za-z0-9][A-Za-z0-9_.-]{0,63}:)?[1-9]\d{0,3}", "of the form 4 or a100:4, nor 0")
TIME = _form(r"\d{1,7}(:\d{1,2}){0,2}|\d{1,4}-\d{1,2}(:\d{1,2}){0,2}", "90 (minutes), 1:30:00 or 2-12:00:00")
NAME = _form(r"[^-\s][^\r\n]*", "a name that begins with no dash, in one line")
PATH = _form(r"[^\r\n]+", "a name in one line")
JOB_NAME = _form(r"\w[\w.+-]{0,63}", "a name of at most 64 letters, digits and _ . + -")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="launch/submit.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="a YAML file, such as recipes/resnet18.yaml")
    add("overrides", metavar="key=value", nargs="*", help="change the recipe, such as optim.lr=0.05")
    add("--nodes", metavar="N", type=COUNT, default=1, help="number of nodes (default: 1)")
    add("--gpus-per-node", "--gpus", metavar="[TYPE:]N", type=GPUS, help="0: train on CPUs (default: one a process)")
    add("--nproc", metavar="N", type=COUNT, help="processes on each node (default: one per GPU, else 1)")
    add("--module", metavar="NAME", type=NAME, action="append", default=[], help="`module load` it; may be repeated")
    add("--conda", metavar="ENV", type=NAME, help="train in this environment of conda")
    add("--venv", metavar="DIR", type=PATH, help="train in this virtual environment (default: .venv of the checkout)")
    add("--container", metavar="IMAGE", type=PATH, help="by Apptainer (FILE.sif, folder, SCHEME://...), else by pyxis")
    add("--setup", metavar="FILE", type=PATH, help="lines of your own for the script, after those of the options above")
    add("--time", metavar="T", type=TIME, help="time limit: 90 (minutes), 4:00:00 or 2-12:00:00")
    add("--job-name", metavar="J", type=JOB_NAME, help="default: the recipe's name")
    add("--sbatch", action="append", default=[], help=argparse.SUPPRESS)  # `parse` writes it before unlisted options
    add("--strategy", choices=STRATEGIES, help="default: ddp")
    add("--with", dest="launcher", choices=LAUNCHERS, help="default: torchrun for ddp, accelerate for zero*")
    add("--gpu", metavar="NAME", help="GPU type, such as h100-80gb: check that the recipe fits and how long it takes")
    add("--signal-before", metavar="S", type=COUNT, default=300, help="seconds to save before the limit (default: 300)")
    add("--runs", metavar="DIR", help="where run directories are made (default: runs in the checkout)")
    add("--accept-micro-batch", action="store_true", help="as for `cifar-lab train`")
    add("--sweep", metavar="key=v1,v2", nargs="+", help="queue all combinations as one array; or a W&B grid, FILE.yaml")
    add("--max-parallel", metavar="K", type=COUNT, help="with --sweep: at most K jobs at the same time")
    add("--dry-run", action="store_true", help="print the script for sbatch; queue nothing")
    add("--member", metavar="N", type=NUMBER, help="print the overrides of member N, each with a NUL; queue nothing")
    return parser
