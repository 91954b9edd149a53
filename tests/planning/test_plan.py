"""The plan command, from recipe to the command that starts it, without torch in its process."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cifar_lab.commands import plan
from cifar_lab.errors import UsageError
from cifar_lab.planning import footprint as footprints
from cifar_lab.planning import kept_answer
from cifar_lab.planning.hardware import FILL
from cifar_lab.planning.remedy import fits
from cifar_lab.recipe import load_recipe
from cifar_lab.recipe.schedule import Schedule

ROOT = Path(__file__).resolve().parents[2]
MODEL = {"name": "vit", "args": {"width": 64, "depth": 2, "heads": 2}}
RECIPE = {
    "name": "planned",
    "data": {"name": "cifar10", "val_size": 5000, "augment": {"flip": True}},
    "model": MODEL,
    "optim": {"name": "adamw", "lr": 1e-3},
    "train": {"epochs": 10, "global_batch": 512, "precision": "bf16"},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("plan") / "planned.yaml"
    file.write_text(yaml.safe_dump(RECIPE))
    return str(file)


@pytest.fixture(scope="module")
def measured(path) -> str:
    """The recipe, its model measured by the child and kept."""
    recipe = load_recipe(path)
    footprints.model_footprint(recipe, footprints.known_sizes(recipe))
    return path


def planned(capsys, *arguments: str) -> dict:
    assert plan.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_imports_no_torch(measured) -> None:
    code = (
        "import sys; from cifar_lab.commands.plan import main\n"
        f"assert main([{measured!r}, '--gpus', '2']) == 0\n"
        "assert not {'torch', 'timm', 'accelerate'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "train" in result.stdout


def test_json_has_every_part(measured, capsys) -> None:
    found = planned(capsys, measured, "--gpus", "4", "--nodes", "2", "--gpu", "a100-40gb", "--link", "eth-10g")
    assert (found["world_size"], found["links"]) == (8, {"inside": "nvlink3", "between": "eth-10g"})
    assert {(p["strategy"], p["grad_checkpointing"]) for p in found["plans"]} == {
        (strategy, checkpointing)
        for strategy in ("ddp", "zero1", "zero2", "zero3", "fsdp2", "zero3_offload")
        for checkpointing in (False, True)
    }
    for option in found["plans"]:
        memory, seconds = option["memory"], option["seconds"]
        parts = ("parameters", "gradients", "optimizer", "ema", "activations", "data", "workspace")
        training = sum(memory[part] for part in parts)
        state = training - memory["gradients"] - memory["activations"]
        assert memory["total"] == max(training, state + memory["evaluation"])
        assert option["micro_batch"] * option["accumulation_steps"] * 8 == 512
        assert seconds["run"] == pytest.approx(seconds["epoch"] * 10) == pytest.approx(seconds["step"] * 870)
        assert option["communication"]["bottleneck"] == "eth-10g"
    size = found["model"]["num_parameters"]
    assert found["model"]["checkpoint_bytes"] == 3 * 4 * size
    assert found["plans"][found["choice"]]["seconds"]["step"] <= 1.02 * min(
        option["seconds"]["step"] for option in found["plans"]
    )


@pytest.mark.parametrize(
    "arguments",
    [["--gpus", "1"], ["--gpus", "8", "--gpu", "t4-16gb"], ["--gpus", "2", "--nodes", "2"], ["--gpu", "cpu"]],
)
def test_commands_start_what_was_planned(arguments, measured, capsys) -> None:
    found = planned(capsys, measured, *arguments, "train.ema_decay=null")
    for option in found["plans"]:
        words = [word for word in shlex.split(option["command"]) if word != "ACCELERATE_USE_CPU=true"]
        assert words[:3] == ["accelerate", "launch", "--config_file"]
        config = yaml.safe_load((ROOT / words[3]).read_text())
        assert (config["distributed_type"] == "DEEPSPEED") == option["strategy"].startswith("zero")
        assert (config["distributed_type"] == "FSDP") == (option["strategy"] == "fsdp2")
        if "--num_processes" in words:
            assert words[words.index("--num_processes") + 1] == str(found["world_size"])
        start = words.index("cifar_lab.train")
        recipe = load_recipe(words[start + 1], words[start + 2 :])
        assert recipe.train.grad_checkpointing == option["grad_checkpointing"]
        assert Schedule.make(recipe, 45_000, found["world_size"]).micro_batch == option["micro_batch"]
        assert recipe.eval.batch == option["eval_batch"]


def test_text_names_strategies_and_assumptions(measured, capsys) -> None:
    assert plan.main([measured, "--gpus", "2", "--strategy", "zero2", "train.micro_batch=64"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^\* zero2 +no +64x4 ", text, re.MULTILINE)
    assert "zero3" not in text
    for words in ("CUDA context", "40% of the peak FLOP/s", "checkpoint"):
        assert words in text
    assert text.rstrip().splitlines()[-1].startswith("accelerate launch --config_file accelerate_configs/zero2.yaml")


def test_a_model_that_is_not_known_yet_is_announced_before_it_is_measured(path, capsys) -> None:
    arguments = [path, "--gpus", "2", "--json", "model.args.width=32"]
    for told in ("measuring vit without memory, once: 10 s of an idle core", ""):
        assert plan.main(arguments) == 0
        said = capsys.readouterr()
        assert said.err.startswith(told) and said.err.count("\n") == bool(told)
        json.loads(said.out)


def test_the_star_and_its_rule(measured, capsys) -> None:
    assert plan.main([measured, "--gpus", "2"]) == 0
    text = capsys.readouterr().out
    assert "* the one to take: the shortest step; of those within 2 % of it the simplest" in text
    assert text.count("the fastest") == 0


def test_an_old_gpu_is_told_of(measured, capsys) -> None:
    """The recipe is in bf16; T4s have kernels in the usual wheels, V100s do not."""
    for gpu, count in (("a100-40gb", 0), ("t4-16gb", 1), ("v100-16gb", 2), ("cpu", 0)):
        assert len(planned(capsys, measured, "--gpu", gpu)["notes"]) == count
    assert planned(capsys, measured, "--gpu", "t4-16gb", "train.precision=fp16")["notes"] == []
    assert plan.main([measured, "--gpu", "v100-16gb"]) == 0
    text = capsys.readouterr().out
    assert "note: torch from PyPI has no kernels for v100-16gb (compute capability 7.0)" in text
    assert re.search(r"^-> pip install .*'torch<2.15' torchvision .*/whl/cu126$", text, re.MULTILINE)
    assert re.search(r"^-> set train.precision=fp16, which is fast there", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "h100"], "did you mean `h100-80gb`"),
        (["--link", "carrier-pigeon"], "--link carrier-pigeon: there is no such link"),
        (["--mfu", "40"], "--mfu 40: it is a part of the peak rate"),
        (["--gpus", "3"], "does not divide over 3 processes. It does over 1 or 2 or 4"),
        (["--gpus", "2", "--strategy", "single"], "--strategy single is not for 2 processes: use ddp or"),
        (["data.name=hub", "data.args.id=a/b"], "sizes are known only after the data are read"),
        (["train.precison=fp32"], "train.precison: unknown key (did you mean `precision`?)"),
        (["model.args.heads=7"], "heads 7 does not divide width 64"),
        (["--strategy", "zero3_offload", "train.ema_decay=0.9"], "what works: 1 x h100-80gb, single"),
    ],
)
def test_impossible_set_ups(arguments, message, measured, capsys) -> None:
    assert plan.main([measured, *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.out == ""


def test_what_was_measured_is_kept(measured, monkeypatch) -> None:
    monkeypatch.setattr(kept_answer.subprocess, "run", None)  # a child would be a TypeError
    recipe = load_recipe(measured, ["optim.lr=0.5", "model.weights=null", "train.global_batch=256"])
    assert footprints.model_footprint(recipe, footprints.known_sizes(recipe)).num_parameters > 50_000
    with pytest.raises(UsageError, match="not measured yet"):
        footprints.model_footprint(
            load_recipe(measured, ["model.args.depth=3"]), footprints.known_sizes(recipe), measure=False
        )


def test_a_run_is_warned(measured, capsys, monkeypatch) -> None:
    monkeypatch.setattr(kept_answer.subprocess, "run", None)
    small_eval = "eval.batch=1"
    ddp = [measured, small_eval, "--gpus", "2", "--strategy", "ddp"]
    whole, half = (
        planned(capsys, *ddp, f"train.micro_batch={size}")["plans"][0]["memory"]["total"] for size in ("256", "128")
    )
    whole, between = (
        round(size / FILL) + 2 for size in (whole, (whole + half) // 2)
    )  # a GPU is not filled to the brim
    recipe = load_recipe(measured, [small_eval])
    assert fits(recipe, 2, whole, "ddp") is None
    warning = fits(recipe, 2, between, "ddp")
    told = "the plan says that this will not fit under ddp: set train.micro_batch=128; `cifar-lab plan` tells more"
    assert warning == told
    assert fits(load_recipe(measured, [small_eval, "train.micro_batch=128"]), 2, between, "ddp") is None
    assert "GiB at micro-batch 1, " in str(fits(recipe, 2, 2**20, "ddp"))
    many = load_recipe(measured, ["eval.batch=50000"])
    fewer = str(fits(many, 2, 2 * whole, "ddp")).partition("set eval.batch=")[2].partition(";")[0]
    assert fits(load_recipe(measured, [f"eval.batch={fewer}"]), 2, 2 * whole, "ddp") is None
    assert 1 < int(fewer) < 50_000
    # Where the evaluation is too large for the smaller micro-batch too, both are named.
    both = str(fits(many, 2, between, "ddp")).partition(": set ")[2].partition(";")[0].split(" ")
    assert [word.partition("=")[0] for word in both] == ["train.micro_batch", "eval.batch"]
    assert fits(load_recipe(measured, both), 2, between, "ddp") is None
    # Not measured yet: no opinion, and nothing is started.
    assert fits(load_recipe(measured, ["model.args.depth=3"]), 2, 2**20, "ddp") is None


def test_the_test_split_counts_where_there_is_no_validation(measured, capsys) -> None:
    with_validation, without = (
        planned(capsys, measured, "--gpus", "2", "--strategy", "ddp", "eval.batch=5000", *more)["plans"][0]["memory"]
        for more in ([], ["data.val_size=0"])
    )
    assert without["evaluation"] == with_validation["evaluation"] > 0
    assert without["data"] == with_validation["data"]


@pytest.mark.figures
@pytest.mark.parametrize("name", ["eva02_large", "strong/eva02_large"])
def test_headers_say_what_the_plan_says(name, capsys) -> None:
    file = ROOT / "recipes" / f"{name}.yaml"
    found = planned(capsys, str(file), "--gpus", "8", "--gpu", "h100-80gb")
    choice = found["plans"][found["choice"]]
    memory, seconds = choice["memory"]["total"] / 2**30, choice["seconds"]["run"] / 60
    checkpointing = "with" if choice["grad_checkpointing"] else "without"
    told = (
        f"8 x h100-80gb: {choice['strategy']} {checkpointing} gradient checkpointing, "
        f"micro-batch {choice['micro_batch']}, {memory:.0f} GiB, {seconds:.0f} min"
    )
    assert told in file.read_text()


@pytest.mark.launch
def test_plan_and_reality() -> None:
    """One row of the benchmark: a real training process against the plan of its memory."""
    script = [sys.executable, str(ROOT / "benchmarks" / "plan_memory.py"), "--rows", "vit_tiny_32_checkpointing"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(done.stdout.splitlines()[-1]).values()
    assert abs(row["error"]) <= 0.15
