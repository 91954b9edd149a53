"""The script that submit.py makes, and what it refuses before anything is queued."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from support.commands import ROOT, write_recipe
from support.small import small
from support.submitting import LAUNCH, made, sound, submit

GOLDEN = Path(__file__).with_name("golden")
GPU_NODES = ["--nodes", "2", "--gpus-per-node", "4", "--cpus-per-task=32", "--mem=64G", "--time", "1-12:00:00"]
SITE = ["--partition=gpu,long", "--account=my_lab", "--qos=high", "--constraint=a100&ib"]
# What the script relies on; sbatch takes the beginning of a name for the whole.
PROTECTED = ("--array", "--arr", "--signal", "--sig", "--output", "--ntasks", "--ntasks-per-node", "--wrap", "--tim")
SETUP = Path(__file__).with_name("golden") / "lines_of_ones_own.sh"
CALLS = {
    "one_node_gpu": ["recipes/demo.yaml", "optim.lr=0.5"],
    "one_node_cpu": ["recipes/demo.yaml", "optim.lr=0.5", "--gpus=0"],
    "modules_and_conda": ["recipes/demo.yaml", "--module=cuda/12.4", "--module=gcc", "--conda=lab", f"--setup={SETUP}"],
    "venv": ["recipes/demo.yaml", "--venv=/shared/my envs/lab"],
    "apptainer": ["recipes/demo.yaml", "--module=apptainer", "--container=/shared/lab.sif", "--runs=/shared/runs"],
    "apptainer_from_a_registry": ["recipes/demo.yaml", "--container=docker://pytorch/pytorch:2.14.1-cuda13.0"],
    "pyxis": ["recipes/demo.yaml", "--container=nvcr.io#nvidia/pytorch:26.08-py3", "--runs=/shared/runs", "--nodes=2"],
    "two_nodes_ddp": ["recipes/demo.yaml", *GPU_NODES, *SITE, "train.global_batch=512"],
    "two_nodes_zero2": [
        *["recipes/demo.yaml", "--nodes=2", "--gpus-per-node=a100:2", "--strategy=zero2", "--with=accelerate"],
        *["--signal-before=600", "--exclude=node7", "--exclusive"],
    ],
    "sweep": [
        *["recipes/demo.yaml", "train.epochs=4", "--sweep", "optim.lr=1e-3,3e-4", "seed=0,1,2"],
        *["--max-parallel", "2", "--dependency=afterany:1234:1235_2", "--nproc", "2", "--job-name", "lr_seed"],
        *["--accept-micro-batch", "--gpus=0"],
    ],
}


def body() -> str:
    """What the generated scripts share with the one to edit by hand."""
    return (ROOT / "slurm" / "train.sbatch").read_text().partition("# --- body ---\n")[2]


def check(name: str, text: str) -> None:
    """Hold a script's head against its golden file; UPDATE_GOLDEN=1 in the environment writes it anew."""
    head, marker, rest = text.partition("# --- body ---\n")
    assert marker and rest == body()
    head = re.sub(r"^export CIFAR_LAB_PYTHON=\S+", "export CIFAR_LAB_PYTHON=PYTHON", head, count=1, flags=re.MULTILINE)
    head = head.replace(str(ROOT), "CHECKOUT").replace(os.environ["CIFAR_LAB_CACHE"], "/shared/cache")
    golden = GOLDEN / f"{name}.sbatch"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(head)
    assert head == golden.read_text()


@pytest.mark.parametrize("name", CALLS)
def test_golden(name: str, tmp_path: Path) -> None:
    text = made(*CALLS[name], CIFAR_LAB_DATA="")
    assert f"\ncd {ROOT} || exit\n" in text
    check(name, text)
    sound(text, tmp_path)


def test_golden_with_spaces_and_quotes(tmp_path: Path) -> None:
    """Also: called from elsewhere, paths are seen from there; the job sees them from the checkout."""
    folder = tmp_path / 'it\'s "my" lab'
    folder.mkdir()
    recipe = Path(write_recipe(folder, small(name="small")))
    recipe.rename(folder / "a $(b) 'c'.yaml")
    call = [
        "a $(b) 'c'.yaml",
        "--runs",
        "my runs",
        "tracking.tags=['it''s', \"two words\"]",
        "tracking.wandb_project=é",
    ]
    text = made(*call, cwd=folder)
    sound(text, tmp_path)
    check("spaces_and_quotes", text.replace(str(tmp_path), "/TMP"))


def test_stdout_is_the_script_alone_and_nothing_is_written(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small())
    done = submit(recipe, "--runs", tmp_path / "runs", "--dry-run", PATH="/usr/bin:/bin")
    assert done.stdout.startswith(b"#!/usr/bin/env bash\n#SBATCH --job-name=small\n")
    assert done.stdout.endswith(body().encode())
    assert b"plan and cost: not known, name the GPU with --gpu" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train.global_batch=160", "--nodes=3"], "train.global_batch 160 does not divide over 3 processes"),
        (["optim.lr=fast"], "override: optim.lr: "),
        (["optim.learning_rate=1"], "did you mean"),
        (["--strategy=zero2", "--with=torchrun"], "--with accelerate"),
        (["--strategy=zero2", "--nodes=2", "--gpus-per-node=1", "optim.name=muon"], "does not work on zero2"),
        (["--gpus-per-node=1", "--gpu=h1000"], "h1000"),
        (["--gpus-per-node=1", "--nproc=2"], "--nproc 2 is more than the 1 GPUs"),
        (["--time=4"], "--time 4 is 240 s, not above --signal-before 300"),
        (["--max-parallel=2"], "--max-parallel is for --sweep"),
        (["--gres=gpu:2"], "--gres: give --gpus-per-node instead"),
        (["--gpu=h100-80gb", "--gpus=0"], "--gpu h100-80gb: the job asks for no GPU"),
        (["--gpus=2", "--nodes=2"], "--gpus counts those of all nodes for sbatch and those of one for us"),
        (["--conda=lab", "--container=lab.sif"], "--conda, --venv and --container bring a python each"),
        (["--setup=no/such.sh"], "--setup no/such.sh: cannot be read: No such file"),
        (["--module=-x"], "argument --module: '-x' is not a name that begins with no dash"),
        (["--runs=/a:b", "--container=x.sif"], "--container: '/a:b' cannot be mounted"),
        *((["--time=10", f"--{near}=x"], f"there is no option --{near}: did you mean --{meant}?")
          for near, meant in (("modul", "module"), ("modules", "module"), ("venvs", "venv"),
                              ("contaner", "container"), ("set-up", "setup"), ("gpu-per-node", "gpus-per-node"))),
        (["--gpus-per-node=1", "--gpu=cpu"], "a plan for this machine"),
        *((["--time=10", f"{option}=3"], f"{option}: the script sets it itself") for option in PROTECTED),
        (["--requeue"], "--requeue: the script sets it itself"),
        (["--", "-optim.lr=1"], "'-optim.lr=1' is no override"),
        (["--partition", "gpu"], "'gpu' is no override, which is dotted.key=value, such as optim.lr=1e-3; a value of"),
        (["-optim.lr=1"], "unrecognized arguments: -optim.lr=1; an override is dotted.key=value"),
        (["-p", "gpu"], "an option of sbatch is written in full, such as --partition=gpu"),
        (["--comment=a b"], "'--comment=a b' is no option of sbatch in one word without spaces and quotes"),
        (["--noddes=2"], "there is no option --noddes: did you mean --nodes?"),
        (["--strategey=zero2"], "there is no option --strategey: did you mean --strategy?"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_queued(arguments: list[str], says: str, tmp_path: Path) -> None:
    mapping = small()
    recipe = write_recipe(tmp_path, mapping)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sbatch").write_text(f"#!/bin/sh\ntouch {tmp_path}/queued\n")
    (programs / "sbatch").chmod(0o755)
    done = submit(recipe, "--runs", tmp_path / "runs", *arguments, PATH=f"{programs}:{os.environ['PATH']}")
    said = done.stderr.decode()
    assert done.returncode == 2 and not done.stdout, said
    assert said.startswith("submit.py: ") and says in said and "Traceback" not in said
    assert len(said.splitlines()) <= 2, said
    assert not (tmp_path / "queued").exists() and not (tmp_path / "runs").exists()


def test_a_recipe_that_is_not_there_or_broken(tmp_path: Path) -> None:
    done = submit("recipes/demoo.yaml", "--dry-run")
    assert done.returncode == 2 and b"did you mean `recipes/demo.yaml`" in done.stderr and not done.stdout
    done = submit("demo", "--dry-run", "--runs", tmp_path, cwd=tmp_path)  # by its name, from elsewhere
    assert done.returncode == 0 and b"demo --nproc 1" in done.stdout, done.stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    done = submit(broken, "--dry-run")
    assert done.returncode == 2 and b"broken.yaml:1" in done.stderr and not done.stdout


def test_the_plan_is_told_and_asked_with_the_gpu() -> None:
    done = submit("recipes/demo.yaml", "--gpus-per-node=2", "--gpu=t4-16gb", "--time=6", "--dry-run")
    assert done.returncode == 0
    assert re.search(rb"plan: fits on t4-16gb, about .* by ddp$", done.stderr, re.MULTILINE), done.stderr
    done = submit("recipes/demo.yaml", "--gpus-per-node=1", "--gpu=t4-16gb", "train.epochs=100000", "--time=2:00:00",
                  "--dry-run")  # fmt: skip
    assert done.returncode == 0 and b"by single, longer than --time 2:00:00: the job will save" in done.stderr
    done = submit("recipes/demo.yaml", "--gpus-per-node=1", "--gpu=t4-16gb", "train.global_batch=8192",
                  "data.image_size=224", "--dry-run")  # fmt: skip
    assert done.returncode == 2 and not done.stdout
    assert b"does not fit on t4-16gb as it stands; it does with train.micro_batch=" in done.stderr


def test_gpus_asked_for_in_another_way_are_gpus() -> None:
    done = submit("recipes/resnet18.yaml", "train.sync_batchnorm=true", "--gres=gpu:2", "--nproc=2",
                  "--dry-run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = submit("recipes/demo.yaml", "--strategy=zero2", "--gpus-per-node=1", "--gpu=t4-16gb", "--dry-run")
    assert done.returncode == 0 and b"zero2 has nothing to shard on one process" in done.stderr, done.stderr


def test_without_slurm(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small())
    (tmp_path / "empty").mkdir()
    done = submit(recipe, "--runs", tmp_path / "runs", PATH=str(tmp_path / "empty"))
    assert done.returncode == 1 and b"there is no sbatch here" in done.stderr
    assert not list((tmp_path / "runs").rglob("job.json"))


def test_a_python_without_our_packages(tmp_path: Path) -> None:
    done = submit("recipes/demo.yaml", "--dry-run", CIFAR_LAB_PYTHON="/usr/bin/python3 -S")
    assert done.returncode == 2 and b"cannot be started" in done.stderr
    bare = tmp_path / "bare"
    bare.write_text('#!/bin/sh\nexec /usr/bin/env python3 -S -I -c "import pydantic"\n')
    bare.chmod(0o755)
    done = submit("recipes/demo.yaml", "--dry-run", CIFAR_LAB_PYTHON=str(bare))
    assert done.returncode == 2 and b"run scripts/setup" in done.stderr and b"Traceback" not in done.stderr


def test_help_teaches_and_the_file_can_be_started() -> None:
    done = subprocess.run([LAUNCH / "submit.py", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count("  launch/submit.py recipes/") >= 5


def test_variables_that_would_win_over_the_header() -> None:
    from sbatch_text import overruled

    names = overruled(["partition", "time", "mem", "array", "requeue", "gpus-per-node"])
    assert names == {
        *("SBATCH_PARTITION", "SBATCH_TIMELIMIT", "SBATCH_MEM_PER_NODE", "SBATCH_ARRAY_INX", "SBATCH_NO_REQUEUE"),
        "SBATCH_GPUS_PER_NODE",
    }


@pytest.mark.parametrize(
    ("time", "limit"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("1:30:00", 5400),
        ("2-12", 216000),
        ("1-0:30", 88200),
        ("1-0:0:5", 86405),
        ("0", None),
    ],
)
def test_time_limits(time: str, limit: int | None) -> None:
    from submit_options import seconds

    assert seconds(time) == limit
