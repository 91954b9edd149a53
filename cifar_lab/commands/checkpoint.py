"""`cifar-lab checkpoint ls|verify|show RUN`: what checkpoints a run has, whether they are whole, what they hold."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.checkpoint.files import CheckpointError, list_checkpoints, read_header, read_state, verify
from cifar_lab.cli.command import answer, make_parser
from cifar_lab.rundir.directory import RunDir

EPILOG = """\
examples:
  cifar-lab checkpoint ls runs/demo/0-1a2b3c4d
  cifar-lab checkpoint verify runs/demo/0-1a2b3c4d
  cifar-lab checkpoint show runs/demo/0-1a2b3c4d --step 900
ls: list them. verify: compare each file with its recorded size and sha256. show: print the state and every tensor.
Exit status: 0 done, 1 a checkpoint is damaged, or there is none.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser("checkpoint", "List, verify or show the checkpoints of a run.", EPILOG)
    parser.add_argument("action", choices=("ls", "verify", "show"))
    parser.add_argument("run", metavar="RUN", help="a run directory, or a folder with one run in it")
    parser.add_argument("--step", type=int, metavar="N", help="only step N (for show: default the newest)")
    return answer(parser, _answer, argv)


def _answer(options: argparse.Namespace) -> int:
    chosen = _choose(RunDir.open(options.run), options.step)
    if options.action == "verify":
        return _verify(chosen)
    lines = [_show(chosen[-1])] if options.action == "show" else map(_line, chosen)
    print(*lines, sep="\n")
    return 0


def _choose(run_dir: RunDir, step: int | None) -> list[Path]:
    """The run's checkpoints, or the one of `step`. Raises CheckpointError when there is none."""
    found = list_checkpoints(run_dir.checkpoints)
    if not found:
        raise CheckpointError(f"{run_dir.path} has no checkpoint yet")
    chosen = [path for path in found if step is None or int(path.name.removeprefix("step_")) == step]
    if not chosen:
        raise CheckpointError(f"there is no checkpoint of step {step}; there are {', '.join(p.name for p in found)}")
    return chosen


def _verify(checkpoints: list[Path]) -> int:
    found = {checkpoint.name: verify(checkpoint) for checkpoint in checkpoints}
    for name, problems in found.items():
        print(f"{name}: {'; '.join(problems) or 'whole'}")
    return 1 if any(found.values()) else 0


def _line(checkpoint: Path) -> str:
    size = sum(path.stat().st_size for path in checkpoint.iterdir()) / 2**20
    try:
        state = read_state(checkpoint)
        made = f"{state['strategy']} on {state['world_size']}, skipped {state['skipped']}"
    except (CheckpointError, KeyError) as error:
        made = f"damaged: {error}"
    return f"{checkpoint.name}  {size:,.1f} MiB  {made}"


def _show(checkpoint: Path) -> str:
    """state.json and every tensor: file, name, type and shape."""
    problems = verify(checkpoint)
    if problems:
        raise CheckpointError(f"{checkpoint.name} is damaged: {'; '.join(problems)}")
    lines = [str(checkpoint), json.dumps(read_state(checkpoint), indent=2)]
    for path in sorted(checkpoint.glob("*.safetensors")):
        lines.append(path.name)
        lines += [f"  {name}  {dtype}  {shape}" for name, (dtype, shape) in sorted(read_header(path).items())]
    return "\n".join(lines)
