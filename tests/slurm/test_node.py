"""launch/node.sh and `cifar-lab doctor` on the nodes of a real cluster, whole and broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from support.commands import ROOT, write_recipe
from support.slurm_cluster import Cluster, ClusterError
from support.small import small

from cifar_lab.rundir.directory import RunDir

NODE_SH = str(ROOT / "launch" / "node.sh")
DOCTOR = [sys.executable, "-m", "cifar_lab", "doctor"]
INHERITED = ("SLURM", "NNODES", "NODE_RANK", "MASTER_", "GLOO_", "NCCL_", "CUDA_", "ACCELERATE_")


def environ(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(INHERITED)}
    return kept | {"OMP_NUM_THREADS": "1", "CIFAR_LAB_PYTHON": sys.executable} | more


@pytest.fixture
def srun(slurm: Cluster, tmp_path: Path) -> Callable[..., tuple[int, dict[str, str]]]:
    """Run a command on each node by srun: its status, and what each node wrote."""

    def call(*command: str, tasks: int = 1, **variables: str) -> tuple[int, dict[str, str]]:
        both_idle(slurm)
        options = ["--nodes=2", f"--ntasks-per-node={tasks}", "--label", "--kill-on-bad-exit=0", "--wait=0"]
        done = slurm.run(
            ["srun", *options, *command], cwd=tmp_path, env=environ(**variables), capture_output=True, timeout=240
        )
        lines = [line.partition(": ") for line in (done.stdout + done.stderr).splitlines()]
        return done.returncode, {task: "\n".join(t for n, _, t in lines if n == task) for task in "0123"}

    return call


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    return write_recipe(tmp_path, small(train__epochs=None, train__steps=3, optim__warmup_epochs=0))


def test_accelerate_makes_one_world_of_the_nodes(srun, recipe, slurm, tmp_path) -> None:
    """Its CPU types would let each node train alone; see docs/design.md."""
    status, said = srun(NODE_SH, recipe, "--with", "accelerate", "--nproc", "2")
    assert status == 0, said
    for rank, node in enumerate(slurm.nodes):
        line = f"node {rank} of 2 ({node}, eth0): 2 processes of 4, ddp by accelerate, talking to "
        assert line + slurm.addresses["node1"] in said[str(rank)]
    (place,) = (tmp_path / "runs" / "small").iterdir()
    env = RunDir(place).env()
    assert (env["world_size"], env["strategy"], env["hosts"]) == (4, "ddp", slurm.nodes)


def test_tasks_of_srun_are_one_world(srun, recipe, slurm, tmp_path) -> None:
    """`srun -n N cifar-lab train`, without a launcher."""
    train = [sys.executable, "-m", "cifar_lab", "train", recipe, "--run-dir"]
    for tasks in (2, 1):
        status, said = srun(*train, f"run{tasks}", tasks=tasks, ACCELERATE_USE_CPU="true")
        assert status == 0, said
        env = RunDir(tmp_path / f"run{tasks}").env()
        assert (env["world_size"], env["strategy"], env["hosts"]) == (2 * tasks, "ddp", slurm.nodes)
        assert "test error" in said["0"] and "test error" not in said["1"], said
    command = ["srun", "--nodes=1", "--ntasks=1", *train, "alone"]
    done = slurm.run(command, cwd=tmp_path, env=environ(ACCELERATE_USE_CPU="true"), timeout=240)
    assert (done.returncode, RunDir(tmp_path / "alone").env()["world_size"]) == (0, 1), done.stderr


def test_mistakes_are_told_at_once(srun, recipe) -> None:
    for command, variables, tasks, expected, word in (
        ([NODE_SH, recipe], {"GLOO_SOCKET_IFNAME": "ethx"}, 1, 2, "there is no interface ethx"),
        ([NODE_SH, recipe], {"MASTER_ADDR": "localhost"}, 1, 2, "MASTER_ADDR=localhost means a different machine"),
        ([NODE_SH, recipe], {}, 2, 2, "srun started 4 tasks on 2 nodes"),
        (["sh", "-c", f'exec "{NODE_SH}" "$1" seed=$SLURM_NODEID', "sh", recipe], {}, 1, 2, "seed=1 on node2"),
    ):
        status, said = srun(*command, tasks=tasks, **variables)
        assert (status, word in said["0"]) == (expected, True), said
        assert word in said[str(tasks)]  # the first task of the other node
    status, said = srun(NODE_SH, recipe, "optim.lrr=1")
    assert (status, said["1"]) == (2, "")
    assert said["0"].splitlines()[-1] == "override: optim.lrr: unknown key (did you mean `lr`?)"


def test_a_node_that_does_not_come_and_a_port_in_use_are_named(srun, recipe) -> None:
    leave = f'[ $SLURM_NODEID = 1 ] || exec "{NODE_SH}" "$1"'
    status, said = srun("sh", "-c", leave, "sh", recipe, CIFAR_LAB_MEETING_SECONDS="3")
    assert status == 75
    assert "node 1 (node2) did not connect to port 2" in said["0"]
    listen = (
        "import socket, subprocess, sys; s = socket.create_server(('', 21999)); sys.exit(subprocess.call(sys.argv[1:]))"
    )
    takes = f'[ $SLURM_NODEID = 1 ] && exec "{NODE_SH}" "$1"; exec {sys.executable} -c "{listen}" "{NODE_SH}" "$1"'
    status, said = srun("sh", "-c", takes, "sh", recipe, MASTER_PORT="21999", CIFAR_LAB_MEETING_SECONDS="3")
    assert status == 75
    assert "port 21999 of node1 is in use by another program" in said["0"]
    assert "node 1 (node2) cannot reach node 0 (node1) at node1 (10." in said["1"]


@contextmanager
def cut(slurm: Cluster, node: str) -> Iterator[None]:
    """The node's cable is pulled, and put back."""
    slurm.set_link(node, up=False)
    try:
        yield
    finally:
        slurm.set_link(node, up=True)
        both_idle(slurm)


def both_idle(slurm: Cluster) -> None:
    """Wait until both nodes are idle and answer: `idle*` is a node whose cable was out and is not missed yet."""
    deadline = time.monotonic() + 120
    while (states := slurm.run(["sinfo", "-h", "-N", "-p", "debug", "-o", "%T"]).stdout.split()) != ["idle"] * 2:
        assert time.monotonic() < deadline, (states, (slurm.folder / "log" / "slurmctld").read_text()[-3000:])
        for node in slurm.nodes:
            with suppress(ClusterError):  # it was not given up
                slurm.control("update", f"nodename={node}", "state=resume")
        time.sleep(0.5)


def by_hand(slurm: Cluster, command: list[str], folder: Path, **variables: str) -> list[tuple[int, str]]:
    """Run a command on both nodes past Slurm: status and output of each."""
    place = {"NNODES": "2", "MASTER_ADDR": slurm.addresses["node1"], "MASTER_PORT": "23456"} | variables
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "cwd": folder}
    with ExitStack() as stack:
        started = [
            stack.enter_context(slurm.popen_on(node, command, env=environ(NODE_RANK=str(rank), **place), **pipes))
            for rank, node in enumerate(slurm.nodes)
        ]
        outputs = [process.communicate(timeout=240)[0] for process in started]
        return [(p.returncode, text) for p, text in zip(started, outputs, strict=True)]


def test_a_cut_link_is_named(slurm, recipe, tmp_path) -> None:
    """With the patience that users have."""
    with cut(slurm, "node2"):
        (first, here), (second, there) = by_hand(slurm, [NODE_SH, recipe], tmp_path)
    assert (first, second) == (75, 75)
    assert "node 1 did not connect to port 23456 of node1 within 45 s" in here
    assert f"node 1 (node2) cannot reach node 0 at {slurm.addresses['node1']}, port 23456, by eth0" in there


def test_a_pair_that_cannot_talk_is_named_on_all(slurm, recipe, tmp_path) -> None:
    """Node 2 reaches node 1, whose packets to the interface that node 2 named get lost."""
    pair = "ip link add lab0 type veth peer name lab1 && ip link set lab1 up && ip link set lab0 up"
    add = f"{pair} && ip addr add 10.99.0.{{}}/32 dev lab0".format
    for number, node in enumerate(slurm.nodes, 1):
        done = slurm.on(node, ["sh", "-c", add(number)], capture_output=True)
        assert done.returncode == 0, done.stderr
    try:
        answers = by_hand(slurm, [NODE_SH, recipe], tmp_path, GLOO_SOCKET_IFNAME="lab0")
    finally:
        for node in slurm.nodes:
            slurm.on(node, ["ip", "link", "del", "lab0"], capture_output=True)
    for status, text in answers:
        assert status == 75, text
        assert "node 0 (node1, lab0 10.99.0.1) cannot reach node 1 (node2) at 10.99.0.2 (lab0): " in text


def test_doctor_speaks_for_all_nodes(srun, recipe, slurm) -> None:
    status, said = srun(*DOCTOR, recipe, "--json")
    assert (status, said["1"]) == (0, ""), said
    hosts = json.loads(said["0"])["hosts"]
    assert list(hosts) == slurm.nodes
    for checks in hosts.values():
        found = {check["name"]: check for check in checks}
        assert found["all-reduce (gloo)"]["state"] == "ok"
        assert "MB/s" in found["all-reduce (gloo)"]["says"]
        assert all(f"{node} (eth0 {address})" in found["links"]["says"] for node, address in slurm.addresses.items())
        assert found["batch"]["says"] == "16 = 2 processes (ddp, cpu) x 1 accumulation step x micro-batch 8"
    assert {check["name"]: check["state"] for check in hosts["node2"]}["shared runs"] == "ok"
    # What is wrong on the other node alone: it has folders of its own, and no room to write.
    away = 'if [ $SLURM_NODEID = 1 ]; then mkdir -p local; mount -t tmpfs -o ro none local; fi; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", f"mkdir -p local; {away}", "sh", *DOCTOR, recipe, "--runs", "local"]
    status, said = srun(*command)
    assert status == 1
    assert "local cannot be written: Read-only file system" in said["0"]
    assert "node2: FAIL    shared runs" in said["0"]
    assert "training cannot run" in said["0"]


def test_doctor_names_what_keeps_the_nodes_apart(srun, slurm, tmp_path) -> None:
    for variables, word in (
        ({"GLOO_SOCKET_IFNAME": "ethx"}, "there is no interface ethx"),
        ({"MASTER_ADDR": "localhost"}, "MASTER_ADDR=localhost"),
    ):
        status, said = srun(*DOCTOR, **variables)
        assert (status, word in said["0"], word in said["1"]) == (1, True, True), said
    with cut(slurm, "node2"):
        answers = by_hand(slurm, DOCTOR, tmp_path, CIFAR_LAB_MEETING_SECONDS="5")
    assert [status for status, _ in answers] == [1, 1]
    assert "node 1 did not connect" in answers[0][1]
    assert "node2: FAIL    links" in answers[1][1]
    assert "cannot reach node 0" in answers[1][1]
