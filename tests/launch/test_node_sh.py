"""launch/node.sh on one machine: what it refuses, the launch that it makes of its options, and a real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.commands import ROOT
from support.node_sh import after, run

from cifar_lab.rundir.directory import RunDir


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RECIPE is missing"),
        (["--bogus"], "unknown option --bogus"),
        (["-x"], "unknown option -x"),
        (["R", "--nproc"], "--nproc needs a value"),
        (["R", "--nproc", "two"], "--nproc two is not a number of processes"),
        (["R", "--nproc=0x"], "--nproc 0x is not"),
        (["R", "--nproc", "1;touch pwned"], "--nproc 1;touch pwned is not a number"),
        (["R", "--strategy", "zero4"], "--strategy zero4: choose ddp, zero1"),
        (["R", "--with", "mpirun"], "--with mpirun: choose torchrun or accelerate"),
        (["R", "--strategy", "zero2", "--with", "torchrun"], "--strategy zero2 needs --with accelerate"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"node.sh: {message}")
    assert "launch/node.sh RECIPE [--nproc N]" in done.stderr
    assert run(*arguments, SLURM_PROCID="1").stderr == ""  # one node speaks for all


def test_help() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "launch/node.sh RECIPE [--nproc N]" in done.stdout
    assert "set -e" not in done.stdout


def test_a_bad_recipe_is_told_before_anything_starts(recipe: str, tmp_path: Path) -> None:
    done = run(recipe, "optim.lrr=1", "--runs", str(tmp_path / "runs"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "override: optim.lrr: unknown key (did you mean `lr`?)\n"
    done = run(recipe, GLOO_SOCKET_IFNAME="ethx")
    assert (done.returncode, done.stdout) == (2, "")
    assert "GLOO_SOCKET_IFNAME=ethx: there is no interface ethx" in done.stderr


def test_torchrun_on_cpus(shown, recipe) -> None:
    line, launch = shown("--nproc", "2", "seed=1", "--fresh", "--accept-micro-batch")
    port = after(launch["argv"], "--master-port")
    head = f"node 0 of 1 ({os.uname().nodename}, lo): "
    assert line == f"{head}2 processes of 2, ddp by torchrun, talking to 127.0.0.1:{port}, on CPUs"
    assert launch["argv"] == [
        "-m", "torch.distributed.run", "--nnodes", "1", "--node-rank", "0", "--nproc-per-node", "2",
        "--master-addr", "127.0.0.1", "--master-port", port, "-m", "cifar_lab.train",
        "--fresh", "--accept-micro-batch", recipe, "seed=1",
    ]  # fmt: skip
    expected = {"CIFAR_LAB_WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    expected |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    assert launch["environ"] | expected == launch["environ"]
    assert launch["ignores_usr1"]


@pytest.mark.parametrize(
    ("arguments", "gpus", "config", "processes", "launcher"),
    [
        (["--with", "accelerate", "--nproc", "2"], 0, "cpu", "2", "ddp by accelerate"),
        (["--with", "accelerate"], 0, "cpu", "1", "ddp by accelerate"),
        (["--with", "accelerate"], 4, "ddp", "4", "ddp by accelerate"),
        (["--with=accelerate"], 1, "single_gpu", "1", "ddp by accelerate"),
        (["--strategy", "zero2", "--nproc", "2"], 0, "zero2", "2", "zero2 by accelerate"),
        (["--strategy", "zero3_offload"], 1, "zero3_offload", "1", "zero3_offload by accelerate"),
        (["--strategy", "zero3"], 8, "zero3", "8", "zero3 by accelerate"),
    ],
)
def test_accelerate_configs(shown, arguments, gpus, config, processes, launcher) -> None:
    # Set by the user or not; under DeepSpeed it would be taken for DDP.
    variables = {} if gpus else {"ACCELERATE_USE_CPU": "true"}
    line, launch = shown(*arguments, gpus=gpus, **variables)
    assert launcher in line
    assert line.endswith(", on CPUs") == (gpus == 0)
    argv, environ = launch["argv"], launch["environ"]
    assert argv[:2] == ["-m", "accelerate.commands.launch"]
    assert after(argv, "--config_file") == str(ROOT / "accelerate_configs" / f"{config}.yaml")
    assert Path(after(argv, "--config_file")).is_file()
    assert after(argv, "--num_processes") == processes == environ["CIFAR_LAB_WORLD_SIZE"]
    assert environ.get("ACCELERATE_USE_CPU") == ("true" if config == "cpu" else None)
    assert environ.get("DS_ACCELERATOR") == (None if gpus else "cpu")


def test_threads_and_interfaces_are_the_users_if_set(shown) -> None:
    cores = len(os.sched_getaffinity(0))
    assert shown("--nproc", "2", OMP_NUM_THREADS="")[1]["environ"]["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    environ = shown("--nproc", "1", OMP_NUM_THREADS="", SLURM_CPUS_ON_NODE="1")[1]["environ"]
    assert environ["OMP_NUM_THREADS"] == "1"
    environ = shown(OMP_NUM_THREADS="7", NCCL_SOCKET_IFNAME="ib0", GLOO_SOCKET_IFNAME="lo")[1]["environ"]
    assert (environ["OMP_NUM_THREADS"], environ["NCCL_SOCKET_IFNAME"]) == ("7", "ib0")


def test_every_value_is_inert(shown, tmp_path) -> None:
    mark = tmp_path / "pwned"
    evil = ["$(touch {0})", "`touch {0}`", "a b", "-x", "--fresh", "'; touch {0}; '", '"', "*", "new\nline", "&", "\\"]
    for text in (value.format(mark) for value in evil):
        _, launch = shown("--runs", text)
        assert launch["argv"][-2] == f"--runs={text}"
    _, launch = shown(f"tracking.wandb_project=$(touch {mark}) 'x' *")
    assert launch["argv"][-1] == f"tracking.wandb_project=$(touch {mark}) 'x' *"
    assert not mark.exists()


@pytest.mark.launch
def test_a_real_launch(recipe, tmp_path) -> None:
    runs = tmp_path / "my runs"
    done = run(
        recipe, "--nproc", "2", "--runs", str(runs), "train.steps=2", "train.epochs=null", "optim.warmup_epochs=0"
    )
    assert done.returncode == 0, done.stderr
    (place,) = (runs / "small").iterdir()
    run_dir = RunDir(place)
    status = run_dir.status()
    assert status is not None
    assert (status.state, status.world_size, run_dir.env()["strategy"]) == ("completed", 2, "ddp")
