"""The DeepSpeed configuration comes from the recipe alone, is complete, and nothing contradicts it in silence."""

import importlib.util
import json
import re

import pytest
from accelerate.utils import DeepSpeedPlugin
from support.small import small

from cifar_lab.errors import UsageError
from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.support import unsupported
from cifar_lab.runtime.start import start_world
from cifar_lab.runtime.zero_config import ZeroSetup, deepspeed_config


def config_of(setup, **overrides):
    recipe = parse_recipe(small(**overrides))
    return deepspeed_config(recipe, setup, world_size=2, accumulation_steps=4, num_parameters=300_000_000)


def test_everything_is_written_out():
    assert config_of(ZeroSetup(2), train__grad_clip=0.5, train__precision="bf16") == {
        "steps_per_print": None,
        "wall_clock_breakdown": False,
        "timers": {"throughput": {"enabled": False}},
        "train_batch_size": 16,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 4,
        "gradient_clipping": 0.5,
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        "torch_autocast": {"enabled": True, "dtype": "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": 2,
            "overlap_comm": False,
            "contiguous_gradients": True,
            "reduce_bucket_size": 10_000_000,
            "allgather_bucket_size": 10_000_000,
        },
    }


def test_precision_clipping_and_offload():
    config = config_of(ZeroSetup(3, offload_optimizer=True, offload_param=True))
    assert config["gradient_clipping"] == 0  # off, and not Accelerate's 1.0
    assert config["torch_autocast"]["enabled"] is False
    section = config["zero_optimization"]
    assert section["offload_optimizer"] == section["offload_param"] == {"device": "cpu", "pin_memory": True}
    assert section["stage3_param_persistence_threshold"] == 100_000
    assert '"auto"' not in json.dumps(config)


def test_strategies_have_names():
    setups = ZeroSetup(1), ZeroSetup(2, offload_optimizer=True), ZeroSetup(3, offload_param=True)
    assert [setup.strategy for setup in setups] == ["zero1", "zero2_offload", "zero3_offload"]


def test_a_file_may_tune_the_hardware():
    file = {
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 1000},
        "comms_logger": {"enabled": True},
        "bf16": {"enabled": False},
        "torch_autocast": {"enabled": False},
    }
    config = config_of(ZeroSetup(3, asked=file))
    assert config["zero_optimization"]["reduce_bucket_size"] == 1000
    assert config["zero_optimization"]["contiguous_gradients"] is True
    assert config["comms_logger"] == {"enabled": True}
    assert config["bf16"] == {"enabled": False}


def test_the_setup_is_read_from_accelerate(tmp_path, monkeypatch):
    assert ZeroSetup.from_accelerate(DeepSpeedPlugin(zero_stage=2)) == ZeroSetup(2)
    offload = DeepSpeedPlugin(zero_stage=3, offload_optimizer_device="cpu", offload_param_device="cpu")
    assert ZeroSetup.from_accelerate(offload).strategy == "zero3_offload"

    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"train_batch_size": "auto", "zero_optimization": {"stage": 3, "x": "auto", "y": 1}}))
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(path))
    # What the file does not say, Accelerate adds to its own copy of it; that must not count as said.
    setup = ZeroSetup.from_accelerate(DeepSpeedPlugin())
    assert setup == ZeroSetup(3, asked={"zero_optimization": {"stage": 3, "y": 1}})


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ({"zero_stage": 0}, r"zero_stage: 0 shards nothing; take 1, 2 or 3, or accelerate_configs/ddp\.yaml"),
        (
            {"zero_stage": 3, "offload_param_device": "nvme"},
            "offload_param_device: nvme is not supported; cpu and none",
        ),
    ],
)
def test_setups_that_cannot_be_run(plugin, message):
    with pytest.raises(UsageError, match=message):
        ZeroSetup.from_accelerate(DeepSpeedPlugin(**plugin))


def test_what_accelerate_refuses_is_one_message_before_anything_starts(tmp_path, monkeypatch):
    path = tmp_path / "ds.json"
    path.write_text("{}")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(path))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UsageError, match="accelerate refuses the DeepSpeed configuration: Please specify the ZeRO"):
        start_world()


def test_without_the_extra_one_message_says_what_to_install(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "deepspeed" else find_spec(name))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UsageError, match=r"deepspeed cannot be found: pip install -e \S+\[deepspeed\]'") as error:
        start_world()
    assert error.value.exit_status == 2


@pytest.mark.parametrize(
    ("overrides", "refused", "allowed"),
    [
        ({"train__compile": True}, ("zero3", "zero3_offload"), ("ddp", "zero1", "zero2", "zero2_offload")),
        ({"train__ema_decay": 0.9}, ("zero2_offload", "zero3_offload"), ("ddp", "zero1", "zero2", "zero3")),
    ],
)
def test_what_a_strategy_cannot_do_is_refused_with_what_can(overrides, refused, allowed):
    recipe = parse_recipe(small(**overrides))
    for strategy in refused:
        (problem,) = unsupported(recipe, device="cuda", strategy=strategy)
        assert f"does not work on {strategy}" in problem
        assert re.search(r"accelerate_configs/(zero|fsdp)", problem)
    assert [problem for s in allowed for problem in unsupported(recipe, device="cuda", strategy=s)] == []
