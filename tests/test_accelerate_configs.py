from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "accelerate_configs").glob("*.yaml"))
NAMES = ["cpu", "ddp", "ddp_multi_node", "fsdp2", "single_gpu", "zero1", "zero2", "zero3", "zero3_offload"]

# The recipe says these; in a config they would override it in silence.
OF_THE_RECIPE = {
    "gradient_accumulation_steps",
    "gradient_clipping",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "learning_rate",
    "lr",
    "optimizer",
    "scheduler",
    "deepspeed_config_file",
    "dynamo_config",
    "downcast_bf16",
    "fp8_config",
}

WORLD = """
import os, torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
several = int(os.environ.get("WORLD_SIZE", 1)) > 1
accelerator = Accelerator(
    cpu=not torch.cuda.is_available(), kwargs_handlers=[InitProcessGroupKwargs(backend="gloo")] if several else []
)
total = torch.ones(1)
if several:
    torch.distributed.all_reduce(total)
line = f"rank {accelerator.process_index} of {accelerator.num_processes}, sum {int(total)}"
if several:
    torch.distributed.destroy_process_group()
print(line + chr(10), end="", flush=True)
"""


def items(node: Any) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        yield key, value
        if isinstance(value, dict):
            yield from items(value)


def test_all_are_there() -> None:
    assert [path.stem for path in CONFIGS] == NAMES


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_hardware_only(path: Path) -> None:
    entries = dict(items(yaml.safe_load(path.read_text())))
    assert not entries.keys() & OF_THE_RECIPE
    assert entries["mixed_precision"] == "no"
    config = load_config_from_file(str(path))  # refuses unknown keys
    if path.stem.startswith("zero"):
        assert config.deepspeed_config["zero_stage"] == int(path.stem[4])
        assert config.deepspeed_config["deepspeed_multinode_launcher"] == "standard"
        offloads = {config.deepspeed_config.get(f"offload_{what}_device", "none") for what in ("optimizer", "param")}
        assert offloads == {"cpu" if path.stem == "zero3_offload" else "none"}


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_header_names_its_own_command(path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"--config_file accelerate_configs/{path.name} " in line for line in header)


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_those_of_one_machine_take_a_free_port(path: Path) -> None:
    """0 stands for it; between several machines the port must be agreed on, and is named on the command line."""
    config = yaml.safe_load(path.read_text())
    assert config.get("main_process_port") == (0 if config.get("num_machines") == 1 else None)


@pytest.mark.launch
def test_two_launches_at_the_same_time(tmp_path: Path) -> None:
    """Each would take 29500 while neither listens there yet."""
    script = tmp_path / "world.py"
    script.write_text(f"import os, sys{WORLD}print('port', os.environ['MASTER_PORT'], flush=True)\n")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS[0])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environ = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    with ExitStack() as stack:
        both = [
            stack.enter_context(subprocess.Popen([*command, "--num_processes", "2", script], env=environ, **pipes))
            for _ in range(2)
        ]
        said = [launch.communicate(timeout=240) for launch in both]
    assert [launch.returncode for launch in both] == [0, 0], said
    assert all(text.count("of 2, sum 2") == 2 and "is already in use" not in errors for text, errors in said), said
    ports = [set(re.findall(r"port (\d+)", text)) for text, _ in said]
    assert [len(found) for found in ports] == [1, 1] and not ports[0] & ports[1] and "29500" not in ports[0] | ports[1]


@pytest.mark.launch
@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_two_processes_are_one_world(launcher: str, tmp_path: Path) -> None:
    script = tmp_path / "world.py"
    script.write_text(WORLD)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    accelerate = ["accelerate.commands.launch", "--config_file", str(CONFIGS[0]), "--main_process_port", port]
    command = {
        "accelerate": ["-m", *accelerate, "--num_processes", "2"],
        "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port],
    }[launcher]
    result = subprocess.run(
        [sys.executable, *command, str(script)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.split("\n")[:2]) == ["rank 0 of 2, sum 2", "rank 1 of 2, sum 2"]
