"""Whether a killed and resumed run equals an undisturbed one: samples, metrics and tensors."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from cifar_lab.checkpoint.files import list_checkpoints, tensor_files
from cifar_lab.data.index_log import read_index_logs
from cifar_lab.rundir.directory import RunDir

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Verdict:
    """Largest relative difference of any number, and everything that speaks against equality."""

    problems: tuple[str, ...]
    steps: int
    tensors: int
    largest_difference: float

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def lines(self) -> list[str]:
        """The verdict in words."""
        what = f"{self.steps} steps, {self.tensors} tensors, largest relative difference {self.largest_difference:.2g}"
        return [f"different: {problem}" for problem in self.problems] + [
            f"verdict: {'equal' if self.holds else 'NOT EQUAL'} ({what})"
        ]


def compare(folder: Path, *, exact: bool) -> Verdict:
    """Compare the runs `undisturbed` and `killed` in `folder`: bit for bit if `exact`, else losses within 1e-5."""
    reference, resumed = RunDir(folder / "undisturbed"), RunDir(folder / "killed")
    problems = _sample_problems(folder)
    expected, found = reference.metrics(), resumed.metrics()
    keys = [(line["split"], line["step"]) for line in found]
    if keys != [(line["split"], line["step"]) for line in expected]:
        problems.append(f"metrics.jsonl has {len(keys)} lines; undisturbed it has {len(expected)}, or others")
    largest = 0.0
    for one, other in zip(expected, found, strict=False):
        for key in ("loss", "accuracy", "count"):  # what no clock decides
            before, after = one.get(key), other.get(key)
            if before != after:
                if before is None or after is None:
                    difference = math.inf
                else:
                    difference = abs(before - after) / max(abs(before), 1e-12)
                largest = max(largest, difference)
                if difference > (0 if exact else TOLERANCE):
                    problems.append(f"{key} of {one['split']} at step {one['step']}: {before} and {after}")
    tensors, other_tensors = (_tensors(run) for run in (reference, resumed))
    if tensors.keys() != other_tensors.keys():
        problems.append("the final checkpoints hold different tensors")
    elif exact:
        problems += [f"tensor {n}" for n, t in tensors.items() if t.tobytes() != other_tensors[n].tobytes()]
    return Verdict(tuple(problems), max((line["step"] for line in expected), default=0), len(tensors), largest)


def _sample_problems(folder: Path) -> list[str]:
    """Micro-batches that were computed from other samples, as often as they were computed."""
    expected = {(step, m): ids for step, m, ids in read_index_logs(folder / "undisturbed.samples")}
    found: dict[tuple[int, int], set[tuple[int, ...]]] = {}
    for step, m, ids in read_index_logs(folder / "killed.samples"):
        found.setdefault((step, m), set()).add(ids)
    wrong = [key for key in sorted(expected.keys() | found.keys()) if found.get(key) != {expected.get(key, ())}]
    return [f"samples of step {step}, micro-batch {m}" for step, m in wrong[:5]]


def _tensors(run_dir: RunDir) -> dict[str, npt.NDArray[Any]]:
    """All tensors of the newest checkpoint and of the final model."""
    checkpoint = list_checkpoints(run_dir.checkpoints)[-1]
    found: dict[str, npt.NDArray[Any]] = {}
    for kind in ("weights", "optimizer", "ema"):
        for path in tensor_files(checkpoint, kind):
            found |= {f"{kind}:{name}": np.asarray(tensor) for name, tensor in load_file(path).items()}
    return found | {f"model:{name}": tensor for name, tensor in load_file(run_dir.path / "model.safetensors").items()}
