"""What a launcher says is obeyed, refused by name, or neutral: the table knows all of it, and the docs show it."""

from __future__ import annotations

import json
import logging
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import pytest
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import launch as prepare
from support.commands import ROOT
from support.launching import arguments, problems, recipe, said

from cifar_lab.runtime.launcher import OF_THE_RECIPE, SETTINGS, check_launch, find_setting

# What reaches PyTorch, Python and the libraries below them without a word of ours.
OF_LIBRARIES = {
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MASTER_ADDR", "MASTER_PORT", "KMP_AFFINITY", "KMP_BLOCKTIME",
    "PYTHONPATH",
}  # fmt: skip
# Of what the launcher says, all that it can say without another program (mpirun, a TPU, SageMaker).
EVERYTHING = [
    "--num_processes=2", "--num_machines=1", "--gpu_ids=0,1", "--debug", "--enable_cpu_affinity",
    "--mixed_precision=fp8", "--fp8_backend=te", "--dynamo_backend=inductor", "--dynamo_use_fullgraph",
    "--fsdp_auto_wrap_policy=X", "--fsdp_transformer_layer_cls_to_wrap=X", "--fsdp_backward_prefetch=X",
    "--fsdp_state_dict_type=X", "--fsdp_version=2",
    "--parallelism_config_cp_size=2", "--parallelism_config_sp_size=2", "--zero_stage=3",
    "--gradient_accumulation_steps=2", "--gradient_clipping=1", "--offload_optimizer_device=cpu",
    "--offload_param_device=cpu", "--zero3_init_flag=true", "--zero3_save_16bit_model=true",
    "--deepspeed_config_file=X", "--deepspeed_moe_layer_cls_names=X",
]  # fmt: skip


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """All variables that the launcher can set."""
    monkeypatch.setattr(prepare, "is_fp8_available", lambda: True)
    monkeypatch.setattr("accelerate.commands.launch.is_bf16_available", lambda *_: True)
    found: dict[str, str] = {}
    megatron = [
        f"{option}=1"
        for action in launch_command_parser()._actions
        for option in action.option_strings
        if option.startswith("--megatron_lm")
    ]
    for mode in (
        ["--cpu"],
        ["--use_fsdp", "--use_parallelism_config"],
        ["--use_megatron_lm", *megatron],
        ["--use_deepspeed"],
    ):
        args = arguments(*EVERYTHING, *mode)
        args.deepspeed_fields_from_accelerate_config = "zero_stage"
        found |= said(args)
    return found


def test_all_that_the_launcher_sets_is_known(everything: dict[str, str]) -> None:
    assert {name for name in everything if find_setting(name) is None} - OF_LIBRARIES == set()
    # Else the launch above would be a poor one.
    assert len(everything) > 80
    for family in ("FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "ACCELERATE_FP8_", "ACCELERATE_DEEPSPEED_"):
        assert sum(name.startswith(family) for name in everything) > 5, family


def test_all_of_it_at_once_is_refused_line_by_line(everything: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text("{}")
    lines = problems({**everything, "WORLD_SIZE": "2", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)})
    named = {line.split("=")[0].removeprefix("ACCELERATE_") for line in lines[1:]}
    assert named == {
        *(
            "DEEPSPEED_MOE_LAYER_CLS_NAMES", "DEEPSPEED_ZERO3_INIT", "DEEPSPEED_ZERO3_SAVE_16BIT_MODEL",
            "DYNAMO_BACKEND", "FP8_BACKEND", "GRADIENT_ACCUMULATION_STEPS", "GRADIENT_CLIPPING", "MIXED_PRECISION",
            "USE_MEGATRON_LM", "USE_PARALLELISM_CONFIG", "FSDP_AUTO_WRAP_POLICY", "FSDP_TRANSFORMER_CLS_TO_WRAP",
        )
    }  # fmt: skip
    assert lines[0].startswith("ACCELERATE_USE_CPU turns DeepSpeed into DDP")


def test_all_that_accelerate_reads_is_known() -> None:
    folder = Path(accelerate.__file__).parent
    files = [path for path in folder.rglob("*.py") if "test_utils" not in path.parts]
    names = {name for path in files for name in re.findall(r'"(ACCELERATE_[A-Z0-9_]+)"', path.read_text("utf-8"))}
    assert len(names) > 30
    assert {name for name in names if find_setting(name) is None} == set()
    # And the table has nothing that Accelerate does not know.
    text = "".join(path.read_text("utf-8") for path in files)
    for setting in SETTINGS:
        name = setting.variable.rstrip("*")
        assert name in text or name.replace("ACCELERATE_DYNAMO_", "prefix") in text, name


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.verdict == "refused"], ids=lambda s: s.variable)
def test_a_refusal_names_both_places_and_what_passes_passes(setting: Any) -> None:
    if setting.variable.endswith("*"):
        # Nobody reads these without the setting that is refused for them.
        assert problems({setting.variable.replace("*", "X"): "true"}) == []
        return
    used = {"ACCELERATE_USE_FSDP": "true"} if setting.variable.startswith("FSDP_") else {}
    (line,) = problems({setting.variable: "2.5", **used})
    assert line.startswith(f"{setting.variable}=2.5")
    assert setting.place in line
    for value in setting.passes:
        assert problems({setting.variable: value, **used}) == []
    assert not used or problems({setting.variable: "2.5"}) == []  # left over in a shell
    named = re.findall(r"train\.[a-z_]+", setting.why)
    assert all(key in line for key in named)
    assert bool(named) == ("recipe" in setting.why)


def test_precision_passes_where_it_is_that_of_the_recipe() -> None:
    bf16 = recipe(train__precision="bf16")
    for of, value, fine in (
        (recipe(), "no", True),
        (recipe(), "bf16", False),
        (bf16, "bf16", True),
        (bf16, "no", True),
    ):
        assert (problems({"ACCELERATE_MIXED_PRECISION": value}, of) == []) == fine
    (line,) = problems({"ACCELERATE_MIXED_PRECISION": "fp16"}, bf16)
    assert line == (
        "ACCELERATE_MIXED_PRECISION=fp16 (of accelerate launch or its configuration: --mixed_precision, "
        "mixed_precision): decided by train.precision of the recipe, which says bf16; leave it out"
    )


@pytest.mark.parametrize(
    ("clip", "value", "fine"),
    [(None, "0.0", True), (None, "1.0", False), (1.0, "1", True), (1.0, "0.0", False), (0.5, "auto", True)],
)
def test_clipping_passes_where_it_is_that_of_the_recipe(clip: float | None, value: str, fine: bool) -> None:
    assert (problems({"ACCELERATE_GRADIENT_CLIPPING": value}, recipe(train__grad_clip=clip)) == []) == fine


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ({"MASTER_ADDR": "127.0.0.1"}, True),
        ({}, False),  # --num_processes 1
        ({"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}, False),
        ({"MASTER_ADDR": "node1", "CIFAR_LAB_WORLD_SIZE": "1"}, False),  # a job of one process; World.start compares
        ({"PMI_SIZE": "2"}, True),  # mpirun or srun around plain python
        ({"PMI_SIZE": "2", "WORLD_SIZE": "4"}, False),  # torchrun on each of two nodes
        ({"PMI_SIZE": "1"}, False),
    ],
)
def test_what_a_lonely_launch_looks_like(more: dict[str, str], refused: bool) -> None:
    environ = {"ACCELERATE_USE_CPU": "True", "ACCELERATE_MIXED_PRECISION": "no", **more}
    assert (problems(environ) != []) == refused
    assert problems({"MASTER_ADDR": "node1"}) == []  # a job script's own, around plain python


def test_deepspeed_on_cpus_does_not_become_ddp() -> None:
    both = {"ACCELERATE_USE_DEEPSPEED": "True", "ACCELERATE_USE_CPU": "1"}
    assert [line[:41] for line in problems(both)] == ["ACCELERATE_USE_CPU turns DeepSpeed into D"]
    assert problems({**both, "ACCELERATE_USE_CPU": "false"}) == []


def test_what_nobody_knows_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"ACCELERATE_NEW_THING": "1", "ACCELERATE_LOG_LEVEL": "info", "OTHER": "1"}
    with caplog.at_level(logging.WARNING, logger="cifar_lab"):
        check_launch(environ, recipe())
        check_launch({**environ, "RANK": "1"}, recipe())
    assert [record.getMessage() for record in caplog.records] == [
        "ACCELERATE_NEW_THING: not known here and without effect (docs/launchers.md lists known settings)"
    ]


def test_all_of_a_deepspeed_file_that_the_recipe_decides_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    environ = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(path)}
    assert problems(environ)[0].startswith(f"the DeepSpeed file of the launch, {path}, cannot be read")
    file: dict[str, Any] = dict.fromkeys(OF_THE_RECIPE, 1)
    file["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    path.write_text(json.dumps({**file, "zero_optimization": {"stage": 2}, "comms_logger": {"enabled": True}}))
    assert problems(environ) == [
        f"{path}: {key} is for the recipe to decide ({by}): remove it, or set it to auto"
        for key, by in OF_THE_RECIPE.items()
    ]
    path.write_text(json.dumps({**dict.fromkeys(file, "auto"), "fp16": {"enabled": False}, "optimizer": {}}))
    assert problems(environ) == []


def test_the_docs_are_current() -> None:
    script = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "launcher_reference.py")))
    assert script.PATH.read_text("utf-8") == script.launcher_text(), "run: python scripts/launcher_reference.py"
    rows = re.findall(r"^\| `([A-Z0-9_*]+)` \|", script.launcher_text(), re.MULTILINE)
    assert rows == [setting.variable for setting in SETTINGS]
    assert all(setting.why for setting in SETTINGS)
