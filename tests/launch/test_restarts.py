"""`launch/node.sh --max-restarts`: a killed process costs the steps since the last checkpoint, and nothing else."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.node_sh import NODE_SH
from support.small import small

RECIPE = small(train__epochs=None, train__steps=2400, train__ema_decay=0.99, checkpoint__every_steps=100)
RECIPE["log"]["every_steps"] = 20
OF_TIME = ("images_per_second", "time", "seconds")


class Launch:
    """node.sh on two processes of this machine."""

    def __init__(self, folder: Path, mapping: dict[str, Any], *options: str) -> None:
        folder.mkdir()
        (folder / "r.yaml").write_text(yaml.safe_dump(mapping))
        self.log, self.run = folder / "log", folder / "run"
        environ = {**os.environ, "ACCELERATE_USE_CPU": "true", "CIFAR_LAB_PYTHON": sys.executable}
        command = [NODE_SH, str(folder / "r.yaml"), "--nproc", "2", "--run-dir", str(self.run), *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)

    def workers(self) -> list[psutil.Process]:
        return [p for p in psutil.Process(self.process.pid).children() if "cifar_lab.train" in p.cmdline()]

    def step(self) -> int:
        """That of the newest checkpoint, 0 without one."""
        return max((int(p.name[5:]) for p in self.run.glob("checkpoints/step_*[0-9]")), default=0)

    def ended(self) -> int:
        try:
            return self.process.wait(240)
        finally:
            self.process.kill()

    def lines(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key not in OF_TIME} for line in lines]


@pytest.mark.launch
def test_killed_processes_do_not_change_the_run(tmp_path: Path) -> None:
    whole = Launch(tmp_path / "whole", RECIPE)
    assert whole.ended() == 0, whole.log.read_text()[-3000:]
    killed = Launch(tmp_path / "killed", RECIPE, "--max-restarts", "5")
    draw, before = random.Random(0), 0
    for _ in range(2):
        deadline = time.monotonic() + 120
        while killed.step() <= before and killed.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(draw.random() / 2)
        before = killed.step()
        draw.choice(killed.workers()).kill()
        time.sleep(1)
    assert killed.ended() == 0, killed.log.read_text()[-3000:]
    assert killed.lines() == whole.lines()
    assert json.loads((killed.run / "status.json").read_text())["attempt"] == 3
    found, expected = (load_file(launch.run / "model.safetensors") for launch in (killed, whole))
    assert expected and all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.launch
def test_what_would_fail_again_is_not_started_again(tmp_path: Path) -> None:
    diverging = Launch(
        tmp_path / "diverging", {**RECIPE, "optim": {**RECIPE["optim"], "lr": 1e30}}, "--max-restarts", "5"
    )
    assert diverging.ended() != 0
    log = diverging.log.read_text()
    assert log.count("not started again, since the run failed") == 1, log[-3000:]
    assert json.loads((diverging.run / "status.json").read_text())["attempt"] == 1
