"""What `submit.py` is asked for: its options, each checked before anything else happens."""

from __future__ import annotations

import argparse
from typing import NoReturn

import header_forms as forms

STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "zero3_offload")
LAUNCHERS = ("torchrun", "accelerate")

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
    --partition gpu --account my_lab
  launch/submit.py recipes/vit_tiny.yaml --gpus-per-node 4 seed=1 --dry-run
  launch/submit.py recipes/eva02_large.yaml --nodes 2 --gpus-per-node 8 \\
    --gpu a100-80gb --strategy zero2
  launch/submit.py recipes/resnet18.yaml --gpus-per-node 1 \\
    --sweep optim.lr=1e-3,3e-4 seed=0,1,2 --max-parallel 3
  launch/submit.py recipes/resnet18.yaml --gpus-per-node 1 \\
    --sweep recipes/sweeps/lr_seed.yaml
  launch/submit.py recipes/demo.yaml --after 1234 --watch \\
    --sbatch-option exclude=node7

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
        return int(self.gpus_per_node.rpartition(":")[2]) if self.gpus_per_node else 0

    @property
    def uses_gpus(self) -> bool:
        """Whether the job asks for GPUs in one way or the other."""
        return bool(self.num_gpus) or any(forms.GPU_OPTION.fullmatch(_name(option)) for option in self.sbatch_option)

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
            message += "; an override is dotted.key=value, a recipe that begins with a dash is ./-name.yaml"
        self.exit(2, f"submit.py: {message.replace('RECIPE, key=value', 'RECIPE')} (see --help)\n")


def parse(argv: list[str]) -> Options:
    """The options of a call; leaves by SystemExit for --help (0) and for what argparse refuses (2)."""
    parser = _parser()
    options = parser.parse_intermixed_args(_joined(argv), namespace=Options())
    problem = _problem(options)
    if problem:
        parser.error(problem)
    return options


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
    other = [_name(option) for option in options.sbatch_option]
    if options.launcher == "torchrun" and (options.strategy or "ddp") != "ddp":
        return f"--with torchrun starts ddp only: use --with accelerate with --strategy {options.strategy}"
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
    if options.max_parallel and not options.sweep:
        return "--max-parallel is for --sweep"
    if options.member is not None and not options.sweep:
        return "--member is for --sweep"
    for name in other:
        if forms.OWN.fullmatch(name):
            return f"--sbatch-option {name}: the script sets it itself; see --help for the option that changes it"
        if forms.GPU_OPTION.fullmatch(name) and options.nproc is None:
            return f"--sbatch-option {name}: give --gpus-per-node instead, or --nproc with it: processes a node"
    if options.gpu is not None and not options.uses_gpus:
        return f"--gpu {options.gpu}: the job asks for no GPU and would train on CPUs; give --gpus-per-node too"
    if options.gpu == "cpu":
        return "--gpu cpu: that would be a plan for this machine and not for the job's; leave it away"
    dashed = [text for text in options.overrides + (options.sweep or []) if text.startswith("-")]
    if dashed:
        return f"{dashed[0]!r} starts with a dash: an override is dotted.key=value, such as optim.lr=1e-3"
    return None


def _name(option: str) -> str:
    return option.removeprefix("--").partition("=")[0]


def _joined(argv: list[str]) -> list[str]:
    """`--sbatch-option --exclude=node7` as one word, or argparse would take the second for an option of its own."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] == "--sbatch-option":
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


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
    add("--nodes", metavar="N", type=forms.count, default=1, help="number of nodes (default: 1)")
    add("--gpus-per-node", metavar="[TYPE:]N", type=forms.GPUS, help="GPUs on each node (default: none, train on CPUs)")
    add("--nproc", metavar="N", type=forms.count, help="processes on each node (default: one per GPU, else 1)")
    add("--cpus-per-task", metavar="N", type=forms.count, help="CPU cores on each node, for all its processes")
    add("--mem", metavar="M", type=forms.MEMORY, help="memory of each node, such as 64G")
    add("--time", metavar="T", type=forms.TIME, help="time limit: 90 (minutes), 4:00:00 or 2-12:00:00")
    add("--partition", metavar="P", type=forms.NAMES)
    add("--account", metavar="A", type=forms.NAME)
    add("--qos", metavar="Q", type=forms.NAME)
    add("--constraint", metavar="C", type=forms.CONSTRAINT, help='such as "a100&ib"')
    add("--job-name", metavar="J", type=forms.JOB_NAME, help="default: the recipe's name")
    add(
        "--sbatch-option",
        metavar="OPT",
        type=forms.SBATCH_OPTION,
        action="append",
        default=[],
        help="any other option of sbatch; may be given several times",
    )
    add("--strategy", choices=STRATEGIES, help="default: ddp")
    add("--with", dest="launcher", choices=LAUNCHERS, help="default: torchrun for ddp, accelerate for zero*")
    add("--gpu", metavar="NAME", help="GPU type, such as h100-80gb: check that the recipe fits and how long it takes")
    add(
        "--signal-before",
        metavar="SECONDS",
        type=forms.count,
        default=300,
        help="save so long before the limit (default: 300)",
    )
    add("--runs", metavar="DIR", help="where run directories are made (default: runs in the checkout)")
    add("--accept-micro-batch", action="store_true", help="as for `cifar-lab train`")
    add("--sweep", metavar="key=v1,v2", nargs="+", help="queue all combinations as one array; or a W&B grid, FILE.yaml")
    add("--max-parallel", metavar="K", type=forms.count, help="with --sweep: at most K jobs at the same time")
    add("--after", metavar="JOB", type=forms.JOBS, help="start after these jobs ended, in any way: 1234 or 1234,1235")
    add("--watch", action="store_true", help="after queueing show the live table of the runs")
    add("--dry-run", action="store_true", help="print the script for sbatch; queue nothing")
    add(
        "--member",
        metavar="N",
        type=forms.number,
        help="print the overrides of sweep member N, each with a NUL; queue nothing",
    )
    return parser
