"""What is asked before anything is queued: is the recipe good, does its batch divide, does its plan fit, where is it.

All of it by subprocess from the checkout, as the job will see it: `cifar-lab train --dry-run`, `plan` and `status`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submit_options import Options, SubmitError, seconds

FILES = Path(__file__).resolve().parents[1]
# Where jobs run and write: an installed package has the files without a checkout around them.
CHECKOUT = FILES if (FILES / "cifar_lab").is_dir() else Path.cwd()
# What of a recipe decides on memory and time; members of a sweep that agree here share one plan.
SHAPE = ("data.", "model.", "train.", "eval.", "optim.name")
UNSUPPORTED = """
import sys
from cifar_lab.recipe import load_recipe
from cifar_lab.recipe.support import unsupported
strategy, device, path, *overrides = sys.argv[1:]
print("\\n".join(unsupported(load_recipe(path, overrides, check_files=False), device=device, strategy=strategy)))
"""


@dataclass(frozen=True)
class Member:
    """One run to be: its overrides, what `train --dry-run` says of it, and why it need not be queued."""

    overrides: Sequence[str]
    described: Mapping[str, Any]
    settled: str | None

    @property
    def run_dir(self) -> Path:
        """Where it lives or will live."""
        return Path(self.described["run_dir"])


def find_python(options: Options) -> tuple[str, str | None]:
    """The python to ask here, and the one that the script must name, None where jobs find theirs without."""
    chosen = os.environ.get("CIFAR_LAB_PYTHON")
    if chosen:
        return shutil.which(chosen) or chosen, shutil.which(chosen) or chosen
    own = Path(options.venv or CHECKOUT / ".venv").absolute() / "bin" / "python"
    if os.access(own, os.X_OK):
        return str(own), None
    brought = options.module or options.conda or options.venv or options.container or options.setup
    return sys.executable, None if brought else sys.executable


def from_checkout(path: str) -> str:
    """A path of the user's as the job sees it from the checkout; never with a leading dash. A recipe's name is one."""
    if not os.path.exists(path) and os.path.exists(FILES / "recipes" / f"{path}.yaml"):
        return path
    absolute = os.path.abspath(path)
    inside = os.path.relpath(absolute, CHECKOUT)
    if inside == os.pardir or inside.startswith(os.pardir + os.sep):
        return absolute
    return os.path.join(os.curdir, inside) if inside.startswith("-") else inside


class LackingError(SubmitError):
    """The python that was asked lacks a package."""


class Questions:
    """Asks the checkout's python about one recipe."""

    def __init__(self, options: Options, recipe: str, runs: str | None, python: str) -> None:
        self.options, self.recipe, self.python = options, recipe, python
        self.runs = [] if runs is None else [f"--runs={runs}"]

    def members(self, all_overrides: Sequence[Sequence[str]]) -> list[Member]:
        """Every member, checked. Raises SubmitError with the problems of all that are refused."""
        first, *others = all_overrides
        # The first one measures the model, and the others find the answer kept.
        found: list[Member | SubmitError] = [self._tried(first)]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            found += pool.map(self._tried, others)
        refused = dict.fromkeys(str(answer) for answer in found if isinstance(answer, SubmitError))
        if refused:
            raise SubmitError("\n".join(refused))
        return [answer for answer in found if isinstance(answer, Member)]

    def _tried(self, overrides: Sequence[str]) -> Member | SubmitError:
        try:
            return self._member(overrides)
        except SubmitError as error:
            return error

    def _member(self, overrides: Sequence[str]) -> Member:
        world_size = f"--world-size={self.options.world_size}"
        described = self._json("train", [*overrides, "--dry-run", "--json", world_size, *self.runs])
        # A run without a directory was never queued; job.json is written there once sbatch accepted it.
        if not Path(described["run_dir"]).is_dir():
            return Member(overrides, described, None)
        return Member(overrides, described, _settled(self._json("status", [*overrides, "--json", *self.runs])))

    def check_strategy(self, members: Sequence[Member]) -> None:
        """Refuse what the strategy or the device cannot do."""
        strategy = self._strategy()
        device = "cuda" if self.options.uses_gpus else "cpu"
        for member, *_ in _alike(members):
            problems = self._python(["-c", UNSUPPORTED, strategy, device, self.recipe, *member.overrides]).strip()
            if problems:
                raise SubmitError(problems)

    def check_plan(self, members: Sequence[Member]) -> list[str]:
        """Notes on how long the runs take and what they cost. Raises SubmitError where one does not fit."""
        options = self.options
        if options.gpu is None:
            return ["plan and cost: not known, name the GPU with --gpu, such as --gpu h100-80gb"]
        strategy = self._strategy()
        if options.world_size == 1 and strategy in ("zero1", "zero2", "zero3", "fsdp2"):
            return [f"plan: none, {strategy} has nothing to shard on one process; leave --strategy away there"]
        call = [f"--gpu={options.gpu}", f"--nodes={options.nodes}", f"--gpus={options.processes}"]
        call += [f"--strategy={strategy}", "--json"]
        notes, total = [], 0.0
        for alike in _alike(members):
            try:
                plan = self._json("plan", [*alike[0].overrides, *call])
            except LackingError as error:
                return [f"plan and cost: not known here, {error}"]
            note, each = self._planned(alike[0], plan)
            notes.append(note)
            total += each * len(alike) * options.world_size / 3600
        of = f" for {len(members)} runs" if options.sweep else ""
        return [*dict.fromkeys(notes), f"cost: about {total:.3g} GPU-hours{of}, by the plan"]

    def _strategy(self) -> str:
        chosen = self.options.strategy or "ddp"
        return "single" if chosen == "ddp" and self.options.world_size == 1 else chosen

    def _planned(self, member: Member, plan: Mapping[str, Any]) -> tuple[str, float]:
        """What to say of the plan, and the seconds of a run."""
        fits = [option for option in plan["plans"] if option["fits"]]
        given = [self.recipe, *member.overrides]
        # What the plan adds to a recipe stands at the end of its command.
        as_it_is = [option for option in fits if shlex.split(option["command"])[-len(given) :] == given]
        if not as_it_is:
            words = shlex.split(plan["plans"][plan["choice"]]["command"])
            added = words[words.index(self.recipe) + len(given) :]
            raise SubmitError(
                f"the plan says that this does not fit on {self.options.gpu} as it stands; it does with "
                f"{shlex.join(added)} (see `cifar-lab plan`)"
            )
        best = min(as_it_is, key=lambda option: option["seconds"]["run"])
        estimate, limit = best["seconds"]["run"], seconds(self.options.time)
        note = f"plan: fits on {self.options.gpu}, about {_hours(estimate)} by {best['strategy']}"
        if limit is not None and estimate > limit:
            note += (
                f", longer than --time {self.options.time}: the job will save at its limit, be requeued and continue"
            )
        return note, estimate

    def _json(self, command: str, arguments: Sequence[str]) -> Any:
        text = self._python(["-m", "cifar_lab", command, self.recipe, *arguments])
        try:
            return json.loads(text)
        except ValueError:
            raise SubmitError(f"cifar-lab {command} gave no JSON: {text[:300]!r}") from None

    def _python(self, arguments: Sequence[str]) -> str:
        try:
            answer = subprocess.run([self.python, *arguments], cwd=CHECKOUT, capture_output=True, check=False)
        except OSError as error:
            raise SubmitError(f"{self.python} cannot be started: {error.strerror}; set CIFAR_LAB_PYTHON") from None
        said = answer.stderr.decode(errors="replace").strip()
        lacks = re.search(r"No module named .*|the Python package \S+ is not installed", said)
        if lacks:
            raise LackingError(
                f"{self.python}: {lacks[0]}; run scripts/setup, or set CIFAR_LAB_PYTHON to another python"
            )
        if answer.returncode:
            raise SubmitError(said or f"{self.python} ended with status {answer.returncode}")
        return answer.stdout.decode(errors="replace")


def _settled(status: Mapping[str, Any]) -> str | None:
    """Why a run need not be queued, None if it must be."""
    if status["state"] == "completed":
        return "completed"
    if not status["active"]:
        return None
    job = status["job"]
    return f"{status['effective_state']}, job {job['id']} is {job['state']}" if job else status["effective_state"]


def _alike(members: Sequence[Member]) -> list[list[Member]]:
    """The members by their shape."""
    shapes: dict[str, list[Member]] = {}
    for member in members:
        values = {k: v["value"] for k, v in member.described["recipe"].items() if k.startswith(SHAPE)}
        shapes.setdefault(json.dumps(values, sort_keys=True, default=str), []).append(member)
    return list(shapes.values())


def _hours(number: float) -> str:
    return f"{number / 3600:.1f} hours" if number >= 3600 else f"{max(1, round(number / 60))} minutes"
