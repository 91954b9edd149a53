"""What the real `accelerate launch` and `torchrun` say to the processes, and what comes of it."""

from __future__ import annotations

import re
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.default import write_basic_config
from support.commands import ROOT, completed, write_recipe
from support.small import small

from cifar_lab.errors import UsageError
from cifar_lab.runtime import start
from cifar_lab.runtime.launcher import MPI

LAUNCH = ["accelerate", "launch", "--num_processes", "1", "--num_machines", "1"]
WORKER = str(ROOT / "tests" / "workers" / "devices.py")

# What is said (options, environment), and the settings that the one message of the start names, in order.
REFUSED: dict[str, tuple[list[str], dict[str, str], list[str]]] = {
    "one process": (
        ["--mixed_precision", "bf16", "--dynamo_backend", "inductor", "--dynamo_mode", "max-autotune", "--debug"],
        {"ACCELERATE_TORCH_DEVICE": "cpu", "ACCELERATE_LOG_LEVEL": "info"},
        ["ACCELERATE_DYNAMO_BACKEND=INDUCTOR", "ACCELERATE_MIXED_PRECISION=bf16", "ACCELERATE_TORCH_DEVICE=cpu"],
    ),
    "fsdp": (
        ["--use_fsdp", "--fsdp_version", "2", "--use_parallelism_config", "--parallelism_config_dp_shard_size", "2"],
        {},
        ["ACCELERATE_USE_PARALLELISM_CONFIG=true"],
    ),
    "fsdp1": (
        ["--use_fsdp", "--fsdp_offload_params", "true", "--fsdp_transformer_layer_cls_to_wrap", "Block",
         "--fsdp_auto_wrap_policy", "SIZE_BASED_WRAP"],
        {},
        ["FSDP_AUTO_WRAP_POLICY=SIZE_BASED_WRAP", "FSDP_OFFLOAD_PARAMS=true", "FSDP_TRANSFORMER_CLS_TO_WRAP=Block",
         "FSDP_VERSION=1"],
    ),
    "megatron": (["--use_megatron_lm"], {}, ["ACCELERATE_USE_MEGATRON_LM=true"]),
    "deepspeed": (
        ["--use_deepspeed", "--zero_stage", "3", "--offload_param_device", "cpu", "--gradient_accumulation_steps", "4",
         "--gradient_clipping", "1.0", "--zero3_init_flag", "true", "--zero3_save_16bit_model", "true",
         "--deepspeed_moe_layer_cls_names", "Expert"],
        {},
        ["ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES=Expert", "ACCELERATE_DEEPSPEED_ZERO3_INIT=true",
         "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL=true", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4",
         "ACCELERATE_GRADIENT_CLIPPING=1.0"],
    ),
}  # fmt: skip


@pytest.mark.launch
@pytest.mark.parametrize("kind", REFUSED)
def test_accelerate_launch_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    options, environ, named = REFUSED[kind]
    command = [*LAUNCH, *options, "-m", "cifar_lab.train", write_recipe(tmp_path, small())]
    done = completed([*command, "--runs", str(tmp_path / "runs")], HF_HOME=str(tmp_path), **environ)
    assert done.returncode != 0
    assert re.findall(r"^(?:\S*error: |)((?:ACCELERATE|FSDP)_\w+=[^\s:]+)", done.stderr, re.MULTILINE) == named, (
        done.stderr
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.launch
@pytest.mark.parametrize("written", ["for one CPU", "for one GPU"])
def test_what_accelerate_config_writes_trains_vit_tiny(written: str, tmp_path: Path) -> None:
    """As short as it can be; bf16, which the recipe says too, and neutral and unknown settings are no obstacle."""
    config = tmp_path / "default_config.json"
    write_basic_config(save_location=str(config))
    if written == "for one GPU":  # which is not here: it goes on without
        entries = yaml.safe_load(config.read_text())
        config.write_text(yaml.safe_dump({**entries, "use_cpu": False}).replace("'", '"'))
        config = config.rename(tmp_path / "default_config.yaml")
    short = [
        "data.name=shapes", "data.args={num_train: 40, num_test: 10, image_size: 32}", "data.val_size=10",
        "model.pretrained=false", "train.epochs=null", "train.steps=1", "train.global_batch=8",
        "optim.warmup_epochs=0", "tracking.wandb_project=null",
    ]  # fmt: skip
    said = ["--mixed_precision", "bf16", "--dynamo_mode", "max-autotune", "--debug"]
    command = ["accelerate", "launch", "--config_file", str(config), *said, "-m", "cifar_lab.train"]
    done = completed(
        [*command, str(ROOT / "recipes" / "vit_tiny.yaml"), *short, "--run-dir", str(tmp_path / "run")],
        ACCELERATE_LOG_LEVEL="warning",
        ACCELERATE_NEW_THING="1",
    )
    assert done.returncode == 0, done.stderr
    assert "ACCELERATE_NEW_THING: not known here" in done.stderr
    assert '"state": "completed"' in (tmp_path / "run" / "status.json").read_text()


@pytest.mark.launch
@pytest.mark.parametrize(
    ("launcher", "environ", "expected"),
    [
        (["torchrun", "--nproc-per-node", "2"], {"ACCELERATE_USE_CPU": "true"}, ["cpu, 2 of 2"] * 2),
        ([sys.executable], {"ACCELERATE_USE_CPU": "true"}, ["cpu, 1 of 1"]),
        (["torchrun", "--nproc-per-node", "2"], {}, ["2 processes were started on this machine"]),
    ],
    ids=["torchrun on CPUs", "python on CPUs", "torchrun with more processes than GPUs"],
)
def test_a_machine_with_one_gpu(launcher: list[str], environ: dict[str, str], expected: list[str]) -> None:
    done = completed([*launcher, WORKER, "1"], **environ)
    # Two processes may write one line.
    found = re.findall("|".join(re.escape(line) for line in set(expected)), done.stdout + done.stderr)
    assert found == expected, done.stdout + done.stderr
    assert done.stderr.count("Traceback") == (done.returncode != 0)  # the one of torchrun


@pytest.mark.parametrize(
    ("devices", "processes", "environ", "refused"),
    [
        (1, 2, {}, True),
        (2, 8, {}, True),
        (8, 8, {}, False),
        (0, 8, {}, False),  # CPUs
        (1, 2, {"ACCELERATE_USE_CPU": "true"}, False),
    ],
)
def test_more_processes_than_devices(
    devices: int, processes: int, environ: dict[str, str], refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.accelerator.device_count", lambda: devices)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: "cuda")
    for name, value in {"LOCAL_WORLD_SIZE": str(processes), **environ}.items():
        monkeypatch.setenv(name, value)
    if not refused:
        start._check_devices()
        return
    with pytest.raises(UsageError, match=r"start as many .* or set ACCELERATE_USE_CPU=true") as error:
        start._check_devices()
    assert f"{processes} processes were started on this machine, which has {devices} cuda device" in str(error.value)


@pytest.mark.parametrize(("rank", "local_rank", "told"), [("0", "0", False), ("8", "0", True), ("9", "1", False)])
def test_a_machine_with_too_few_devices_says_so_itself(
    rank: str, local_rank: str, told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What rank 0 meets, its command tells."""
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 4)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: "cuda")
    for name, value in {"LOCAL_WORLD_SIZE": "8", "LOCAL_RANK": local_rank, "RANK": rank}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError):
        start._check_devices()
    assert ("8 processes were started" in caplog.text) == told


@pytest.fixture
def taken() -> Any:
    """A port of this machine that somebody listens on."""
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        yield str(other.getsockname()[1])


@pytest.mark.launch
def test_a_port_that_is_taken_is_one_message(taken: str, tmp_path: Path) -> None:
    given = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": taken}
    done = completed([sys.executable, "-m", "cifar_lab.train", write_recipe(tmp_path, small())], **given)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"port {taken} of this machine is taken" in done.stderr
    assert "--main_process_port 0" in done.stderr


@pytest.mark.launch
def test_two_launches_at_once_on_one_machine(tmp_path: Path) -> None:
    """Both by the launchers' default port, 29500, which the first holds until the second has ended."""
    config = ["--config_file", str(ROOT / "accelerate_configs" / "cpu.yaml"), "--num_processes", "2"]
    with socket.socket() as first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # somebody else holds it already
            first.bind(("", 29500))
            first.listen()
        for launcher in (["torchrun", "--nproc-per-node", "2"], ["accelerate", "launch", *config]):
            done = completed([*launcher, WORKER, "0"], ACCELERATE_USE_CPU="true")
            assert done.stdout.count("cpu, 2 of 2") == 2, done.stdout + done.stderr


@pytest.mark.parametrize("size", MPI)
def test_processes_of_mpirun_do_not_train_alone(size: str, tmp_path: Path) -> None:
    done = completed([sys.executable, "-m", "cifar_lab.train", write_recipe(tmp_path, small())], **{size: "2"})
    assert done.returncode == 2
    assert "use torchrun" in done.stderr
