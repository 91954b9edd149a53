"""Put small faults into the code; report which of them the tests notice.

    .venv/bin/pip install -e '.[mutation]'
    .venv/bin/python scripts/mutation.py [--mutants 240] [--minutes 50]
        [--seed 0] [--jobs 2] [--out mutation.md]

Cosmic Ray makes the faults: other operators and numbers, negated conditions,
removed decorators, handlers and loops. The seed decides which places are drawn,
from each room in turn, and which of the possible faults is made there. Each
fault is tested in a copy of the tree (one copy for each job): first the tests
with the name of the module, then those of its room, until one fails.

First all tests run without a fault. A test that fails then is left out and
named; three times its CPU time is its limit. Faults are tested in the order of
the draw, so that the part that fits into the time is a random sample too. The
report has the share of faults that were noticed, and a diff of each other one.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Modules of a room, and the folders of tests that they face.
ROOMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "recipe": ("*", ("recipe",)),
    "data": ("*", ("data",)),
    "optim": ("*", ("optim", "training")),
    "runtime": ("*", ("runtime", "training")),
    "checkpoint": ("*", ("checkpoint", "training")),
    "rundir": ("*", ("rundir",)),
    "planning": ("activations footprint hardware memory remedy speed", ("planning",)),
    "report": ("claims curves groups stats", ("report",)),
}
OPTIONS = "-q -p no:cacheprovider --tb=line -m 'not (launch or slurm or wandb or browser or figures)'"
# Of the limit of processor time, so that other work on the machine ends no test; what only waits is ended by it.
WAIT = 10
KILLED, TIMED_OUT, SURVIVED = "killed", "timed out", "survived"


@dataclass(frozen=True)
class Tested:
    """What became of a fault, and the first test that failed."""

    module: str
    outcome: str
    by: str
    diff: str
    seconds: float


def modules() -> list[str]:
    """The files that get faults, seen from the root."""
    found = []
    for room, (names, _) in ROOMS.items():
        for name in names.split():
            below = (ROOT / "cifar_lab" / room).rglob(f"{name}.py")
            found += [str(path.relative_to(ROOT)) for path in below]
    return sorted(found)


def faced(room: str, module: str = "") -> list[str]:
    """Files that a room's faults face: those of the module's name, others that import it, the rest of the room's."""
    dotted, stem = module.removesuffix(".py").replace("/", "."), Path(module).stem

    def imports(file: Path) -> bool:
        return bool(module) and dotted in file.read_text(encoding="utf-8")

    of_room = [file for folder in ROOMS[room][1] for file in sorted((ROOT / "tests" / folder).rglob("test_*.py"))]
    elsewhere = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if file not in of_room and imports(file)]
    files = sorted([*of_room, *elsewhere], key=lambda file: (stem not in file.stem, not imports(file)))
    return [str(file.relative_to(ROOT)) for file in files]


def hints(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations start and end: their `|` is never computed."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            hint = getattr(node, name, None)
            if hint is not None:
                found.append(((hint.lineno, hint.col_offset), (hint.end_lineno, hint.end_col_offset)))
    return found


def faults(module: str) -> Iterator[Any]:
    """Every fault that Cosmic Ray can make in a module, as its MutationSpec."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names
    from cosmic_ray.work_item import MutationSpec

    nodes = list(ast_nodes(get_ast_from_path(ROOT / module)))
    annotations = hints((ROOT / module).read_text(encoding="utf-8"))
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments() or name.endswith("/NoOp"):
            continue
        positions = [position for node in nodes for position in operator().mutation_positions(node)]
        for occurrence, (start, end) in enumerate(positions):
            if "BinaryOperator_BitOr" not in name or not any(low <= start < high for low, high in annotations):
                yield MutationSpec(module, name, occurrence, start, end)


def sample(seed: int, count: int) -> list[Any]:
    """One fault at each of up to `count` places, of every room in turn."""
    places: dict[str, dict[tuple[str, tuple[int, int]], list[Any]]] = {room: {} for room in ROOMS}
    for module in modules():
        for fault in faults(module):
            places[Path(module).parts[1]].setdefault((module, fault.start_pos), []).append(fault)
    print("places:", ", ".join(f"{room} {len(found):,}" for room, found in places.items()), flush=True)
    chance = random.Random(seed)
    drawn = {room: chance.sample(list(found.values()), len(found)) for room, found in places.items()}
    turns = [found[turn] for turn in range(count) for found in drawn.values() if turn < len(found)]
    return [chance.choice(possible) for possible in turns[:count]]


def copy_tree(place: Path) -> None:
    """What git knows, as it is now, and new files."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)


def command(copy: Path, paths: Sequence[str], more: str = "", cpu_seconds: float = 3600) -> str:
    """pytest in a copy, which is imported in processes that tests start too; ended after so much processor time."""
    limited = f"bash -c 'ulimit -t {cpu_seconds:.0f} && exec \"$@\"' limited env -C {copy} PYTHONPATH={copy}"
    return f"{limited} {sys.executable} -m pytest {OPTIONS} {more} {' '.join(paths)}"


def failures(output: str | None) -> list[str]:
    """The tests that failed, by pytest's summary."""
    return re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", output or "", re.MULTILINE)


def without_fault(copies: SimpleQueue[Path], folder: str) -> tuple[float, list[str]]:
    """How long a folder's tests take on the unchanged tree, and which of them fail already."""
    from cosmic_ray.testing import TestOutcome, run_tests

    copy = copies.get()
    started = time.monotonic()
    outcome, output = run_tests(command(copy, [f"tests/{folder}"]), 3600)
    copies.put(copy)
    seconds, failed = time.monotonic() - started, failures(output)
    if outcome is not TestOutcome.SURVIVED and not failed:
        raise SystemExit(f"tests/{folder} cannot be run without a fault:\n{output[-3000:]}")
    print(
        f"tests/{folder}: {seconds:.0f} s without a fault",
        *(f"left out, it fails: {name}" for name in failed),
        sep="\n  ",
        flush=True,
    )
    return seconds, failed


def tested(copies: SimpleQueue[Path], fault: Any, limit: float, left_out: Sequence[str]) -> Tested:
    """One fault in a copy, which is whole again afterwards."""
    from cosmic_ray.mutating import mutate_and_test
    from cosmic_ray.work_item import MutationSpec, TestOutcome

    copy, module = copies.get(), str(fault.module_path)
    spec = MutationSpec(copy / module, fault.operator_name, fault.occurrence, fault.start_pos, fault.end_pos)
    started = time.monotonic()
    more = " ".join(["-x", *(f"--deselect={shlex.quote(name)}" for name in left_out)])
    tests = command(copy, faced(fault.module_path.parts[1], module), more, limit)
    result = mutate_and_test([spec], tests, WAIT * limit)
    copies.put(copy)
    outcome = SURVIVED if result.test_outcome is TestOutcome.SURVIVED else KILLED
    if result.test_outcome is TestOutcome.INCOMPETENT or result.diff is None:
        raise RuntimeError(f"{fault}: {result.output}")
    failed = failures(result.output)
    if outcome is KILLED and not failed:  # no summary: it was ended
        outcome = TIMED_OUT
    diff = result.diff.replace(f"{copy}/", "").partition("\n")[2]
    return Tested(module, outcome, failed[0] if failed else "", diff, time.monotonic() - started)


def report(results: Sequence[Tested], head: str) -> str:
    """Shares by room, every fault that was not noticed as a diff, and which test noticed each of the others."""
    rooms = [Path(one.module).parts[1] for one in results]
    counts = Counter(zip(rooms, (one.outcome for one in results), strict=True))
    lines = ["# Mutation run", "", head, ""]
    lines += ["| room | faults | killed | timed out | survived |", "|---|---:|---:|---:|---:|"]
    for room in ROOMS:
        cells = [counts[room, outcome] for outcome in (KILLED, TIMED_OUT, SURVIVED)]
        lines.append(f"| {room} | {sum(cells)} | {' | '.join(map(str, cells))} |")
    for outcome in (SURVIVED, TIMED_OUT):
        for one in sorted((one for one in results if one.outcome == outcome), key=lambda one: one.module):
            lines += ["", f"## {outcome}: {one.module}", "", "```diff", one.diff, "```"]
    lines += ["", "## killed", ""]
    lines += [f"- {one.module} by {one.by} in {one.seconds:.0f} s" for one in results if one.outcome == KILLED]
    return "\n".join([*lines, ""])


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the sample, test it, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=240, help="size of the sample (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=50, help="no fault is begun later (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("mutation.md"))
    options = parser.parse_args(argv)
    started = time.monotonic()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    drawn = sample(options.seed, options.mutants)
    results: list[Tested] = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for index in range(options.jobs):
            copy_tree(Path(folder, str(index)))
            copies.put(Path(folder, str(index)))
        folders = list(dict.fromkeys(name for fault in drawn for name in ROOMS[fault.module_path.parts[1]][1]))
        usual = dict(zip(folders, pool.map(lambda folder: without_fault(copies, folder), folders), strict=True))
        left_out = [name for _, failed in usual.values() for name in failed]

        def turn(fault: Any) -> None:
            if time.monotonic() - started < 60 * options.minutes:
                seconds = sum(usual[folder][0] for folder in ROOMS[fault.module_path.parts[1]][1])
                one = tested(copies, fault, 30 + 3 * seconds, left_out)
                results.append(one)
                told = f"{len(results)}/{len(drawn)} {one.outcome}: {one.module} {one.by}"
                print(f"{told} {one.seconds:.0f} s", flush=True)

        list(pool.map(turn, drawn))
    noticed = sum(one.outcome != SURVIVED for one in results)
    head = f"{len(results)} of {len(drawn)} faults drawn with seed {options.seed}: {noticed} noticed"
    head += f" ({100 * noticed / max(len(results), 1):.0f} %), {len(results) - noticed} not. "
    head += f"{(time.monotonic() - started) / 60:.0f} minutes, {options.jobs} at a time."
    head += "".join(f" Left out, since it fails without a fault: {name}." for name in left_out)
    options.out.write_text(report(results, head), encoding="utf-8")
    print(f"{head}\nreport: {options.out}")


if __name__ == "__main__":
    main()
