"""Layouts of a run for tests: starting jobs of workers/zero_jobs.py on each, and reading what they left."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from support.small import small

from cifar_lab.checkpoint.files import step_name

WORKER = Path(__file__).parents[1] / "workers" / "zero_jobs.py"
STAGES = (1, 2, 3)
# Twenty steps, clipped, accumulated, averaged; a checkpoint and a validation after ten and twenty.
RECIPE: dict[str, Any] = {
    "train__ema_decay": 0.9,
    "train__grad_clip": 0.5,
    "train__micro_batch": 4,
    "train__epochs": None,
    "train__steps": 20,
    "optim__warmup_epochs": 0,
    "eval__every_epochs": 0.5,
    "checkpoint__every_steps": 10,
    "checkpoint__keep_last": 3,
}


def recipe(**overrides: Any) -> dict[str, Any]:
    """The mapping of a small ViT's recipe as above."""
    return small(**{**RECIPE, **overrides})


def launcher(kind: str, *options: str, processes: int = 2) -> list[str]:
    """The command in front of a script: `single`, or processes of `ddp`, `zero` or `fsdp2`."""
    if kind == "single":
        return [sys.executable]
    if kind == "ddp":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    given = options or ("--use_deepspeed", "--zero_stage", "2", "--num_machines", "1", "--mixed_precision", "no")
    if kind == "fsdp2":
        given = "--config_file", str(Path(__file__).parents[2] / "accelerate_configs" / "fsdp2.yaml")
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    return [*accelerate, "--main_process_port", port, "--dynamo_backend", "no", *given]


def start(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command on CPUs, one thread a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    return subprocess.run(
        command, env=environment | variables, capture_output=True, text=True, timeout=300, check=False
    )


class Runs:
    """Run directories below one folder, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def job(self, name: str, mapping: dict[str, Any], **how: Any) -> dict[str, Any]:
        """A job of the worker, whose run directory is `name`."""
        return {"run": str(self.folder / name), "recipe": mapping, **how}

    def train(self, kind: str, jobs: list[dict[str, Any]], processes: int = 2) -> str:
        """Start a worker on `kind` for all jobs, one after another; what it printed."""
        listing = self.folder / f"{kind}.json"
        listing.write_text(json.dumps(jobs))
        done = start([*launcher(kind, processes=processes), str(WORKER), str(listing)])
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def fork(self, source: str, name: str, step: int) -> None:
        """Copy run `source` to `name`, without its checkpoints past `step`: that is where `name` will continue."""
        shutil.copytree(self.folder / source, self.folder / name)
        for checkpoint in (self.folder / name / "checkpoints").iterdir():
            if checkpoint.name > step_name(step):
                shutil.rmtree(checkpoint)

    def report(self, name: str) -> dict[str, Any]:
        """What the worker found out."""
        content: dict[str, Any] = json.loads((self.folder / name / "report.json").read_text())
        return content

    def lines(self, name: str, split: str) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl."""
        lines = [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if line["split"] == split]

    def losses(self, name: str, split: str = "train", after: int = 0) -> list[float]:
        """Losses of the steps past `after`."""
        return [line["loss"] for line in self.lines(name, split) if line["step"] > after]

    def tensors(self, name: str, step: int) -> dict[str, torch.Tensor]:
        """All tensors of a checkpoint, in order of file and name."""
        files = sorted((self.folder / name / "checkpoints" / step_name(step)).glob("*.safetensors"))
        return {f"{file.name.split('-')[0]}:{key}": t for file in files for key, t in load_file(file).items()}


def assert_same_tensors(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-6
) -> None:
    """Of two checkpoints, in the same order."""
    assert list(found) == list(expected) and len(expected) > 20
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )
