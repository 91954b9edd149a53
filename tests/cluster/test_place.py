from __future__ import annotations

import socket

import pytest

from cifar_lab.cluster.place import expand_hosts, find_node, world_of_step
from cifar_lab.errors import UsageError

SLURM = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "node[09-10]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NODEID": "1",
    "SLURMD_NODENAME": "node10",
    "SLURM_CLUSTER_NAME": "c",
}
HAND = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "host0", "MASTER_PORT": "29511"}


def without(mapping: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in mapping.items() if name not in names}


def test_alone() -> None:
    node = find_node({}, "here")
    assert (node.num_nodes, node.rank, node.master_addr, node.master_port) == (1, 0, "127.0.0.1", 0)
    assert find_node({"NNODES": "1", "NODE_RANK": "0", "MASTER_ADDR": "localhost"}).num_nodes == 1
    # In a job's batch script of one node, without srun, the shell's variables alone say nothing.
    assert find_node({"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0"}).num_nodes == 1


def test_slurm() -> None:
    node = find_node(SLURM)
    assert (node.num_nodes, node.rank, node.host) == (2, 1, "node10")
    assert (node.master_addr, node.master_port) == ("node09", 20000 + 17 * 16 + 3)
    assert node.name(0) == "node 0 (node09)"
    assert node.name(1) == "node 1 (node10)"
    chosen = find_node({**SLURM, "MASTER_ADDR": "10.0.0.9", "MASTER_PORT": "1234"})
    assert (chosen.master_addr, chosen.master_port) == ("10.0.0.9", 1234)
    alone = find_node({**SLURM, "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "1", "MASTER_ADDR": "localhost"})
    assert (alone.num_nodes, alone.master_addr) == (1, "127.0.0.1")


def test_port_and_token_follow_the_launch() -> None:
    """Neither a restart, nor another step, nor the next jobs meet the first."""
    others = [
        {**SLURM, "SLURM_RESTART_COUNT": "1"},
        {**SLURM, "SLURM_STEP_ID": "4"},
        {**SLURM, "SLURM_JOB_ID": "18", "SLURM_STEP_ID": "0"},
    ]
    nodes = [find_node(environ) for environ in (SLURM, *others)]
    assert len({node.token for node in nodes}) == 4
    assert all(node.master_port != nodes[0].master_port for node in nodes[1:])
    assert find_node({**SLURM, "SLURM_NODEID": "0"}).token == nodes[0].token
    assert find_node({**SLURM, "SLURM_JOB_ID": "4000000"}).master_port < 30000


def test_by_hand() -> None:
    node = find_node(HAND, "me")
    assert (node.num_nodes, node.rank, node.host, node.master_addr, node.master_port) == (2, 1, "me", "host0", 29511)
    assert find_node({**SLURM, **HAND, "NNODES": "3"}).num_nodes == 3  # what the user says comes first
    assert find_node(without(HAND, "MASTER_PORT")).master_port == 29500


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "4"}, "srun started 4 tasks on 2 nodes: .* --ntasks-per-node=1"),
        ({**SLURM, "MASTER_ADDR": "localhost"}, "MASTER_ADDR=localhost .* unset it, and the first node .*node09"),
        ({**SLURM, "MASTER_ADDR": "127.0.1.1"}, "MASTER_ADDR=127.0.1.1"),
        (without(SLURM, "SLURM_STEP_ID"), "2 nodes but .* only one .* put `srun --ntasks-per-node=1` in front"),
        ({**HAND, "MASTER_ADDR": "LOCALHOST"}, "set it to the name of node 0"),
        ({**HAND, "NODE_RANK": "2"}, "NODE_RANK=2 with NNODES=2: ranks are 0 to NNODES-1"),
        ({**HAND, "NODE_RANK": "-1"}, "NODE_RANK=-1 is not a number"),
        ({**HAND, "MASTER_PORT": "http"}, "MASTER_PORT=http is not a number"),
        ({**HAND, "MASTER_PORT": "99999"}, "MASTER_PORT=99999 is not a port: they are 1 to 65535"),
        ({**HAND, "NNODES": "1", "NODE_RANK": "0", "MASTER_PORT": "99999"}, "MASTER_PORT=99999 is not a port"),
        ({**SLURM, "MASTER_PORT": "0"}, "MASTER_PORT=0 is not a port"),
        (without(HAND, "MASTER_ADDR"), "NNODES=2 needs MASTER_ADDR"),
        (without(HAND, "NODE_RANK"), "NNODES is set but not NODE_RANK"),
    ],
)
def test_what_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        find_node(environ)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", ["node1"]),
        ("node[1-2,5]", ["node1", "node2", "node5"]),
        ("gpu[08-10],login", ["gpu08", "gpu09", "gpu10", "login"]),
        ("r[1-2]n[3-4]-ib", ["r1n3-ib", "r1n4-ib", "r2n3-ib", "r2n4-ib"]),
        ("a-b[1,3],c[2]", ["a-b1", "a-b3", "c2"]),
    ],
)
def test_host_lists(text: str, names: list[str]) -> None:
    assert expand_hosts(text) == names


TASKS = {
    **SLURM,
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "4",
    "SLURM_STEP_NODELIST": "node10",
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "3",
}


def test_tasks_of_a_step_are_one_world() -> None:
    world = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "4"}
    assert world_of_step(TASKS) == {**world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + 17 * 16 + 3)}
    each_its_own = world_of_step({**TASKS, "SLURM_GPUS_PER_TASK": "1"})
    assert (each_its_own["RANK"], each_its_own["LOCAL_RANK"], each_its_own["LOCAL_WORLD_SIZE"]) == ("3", "0", "1")
    several = {
        **TASKS,
        "SLURM_STEP_NUM_TASKS": "7",
        "SLURM_STEP_NUM_NODES": "3",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),3",
        "SLURM_STEP_NODELIST": f"{socket.gethostname()},node[10-11]",
        "SLURM_NODEID": "2",
        "SLURM_PROCID": "6",
        "SLURM_LOCALID": "2",
    }
    found = world_of_step(several)
    assert (found["WORLD_SIZE"], found["LOCAL_WORLD_SIZE"], found["MASTER_ADDR"]) == ("7", "3", socket.gethostname())
    assert found["GLOO_SOCKET_IFNAME"] == "lo"  # the way to the first node


@pytest.mark.parametrize(
    "other",
    [
        {"SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_STEP_ID": "4294967290"},  # the shell of salloc
        {"SLURM_STEP_ID": ""},  # a batch script
        {"RANK": "0"},
        {"ACCELERATE_MIXED_PRECISION": "no"},
        {"CIFAR_LAB_WORLD_SIZE": "4"},
    ],
)
def test_no_world_where_srun_did_not_start_several(other: dict[str, str]) -> None:
    assert world_of_step(TASKS | other) == {}
    assert world_of_step(without(TASKS, "SLURM_PROCID")) == {}


def test_a_step_that_cannot_meet_is_one_line() -> None:
    several = {**TASKS, "SLURM_STEP_NODELIST": "no.such.host.invalid,node10", "SLURM_NODEID": "1"}
    several |= {"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_STEP_NUM_NODES": "2"}
    with pytest.raises(UsageError, match="node10 cannot reach the other nodes of this step"):
        world_of_step(several)
    with pytest.raises(UsageError, match=r"MASTER_ADDR=127\.0\.0\.1 means a different machine on each node"):
        world_of_step({**several, "MASTER_ADDR": "127.0.0.1"})
