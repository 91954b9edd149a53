"""Where this node stands among the nodes of its job: a pure function of the environment."""

import itertools
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cifar_lab.cluster.interfaces import interface_towards, resolve
from cifar_lab.errors import UsageError

FIRST_PORT, NUM_PORTS = 20_000, 10_000
RESOLVE_SECONDS = 10.0
PORTS_A_JOB = 16  # job ids follow each other, so steps and restarts of one do not meet those of the next
LOOPBACK = re.compile(r"localhost(\.localdomain)?|ip6-localhost|127\.\d+\.\d+\.\d+|::1|0\.0\.0\.0", re.IGNORECASE)


@dataclass(frozen=True)
class Node:
    """A node of `num_nodes`; `hosts` are their names by rank where the scheduler tells, else empty.

    `master_port` 0 stands for any free one. `token` is equal for the nodes of one launch and no other.
    """

    num_nodes: int
    rank: int
    host: str
    master_addr: str
    master_port: int
    hosts: tuple[str, ...]
    token: str

    def name(self, rank: int) -> str:
        """`node 1 (node2)`, for messages."""
        host = self.host if rank == self.rank else self.hosts[rank] if rank < len(self.hosts) else ""
        return f"node {rank} ({host})" if host else f"node {rank}"


def find_node(environ: Mapping[str, str], host: str | None = None) -> Node:
    """By NNODES and NODE_RANK if both are set, else by srun's variables, else alone. Raises UsageError.

    MASTER_ADDR and MASTER_PORT are taken where set; under srun they default to the step's first node and a port that
    follows from the job. A step of ten digits is not srun's: salloc's shell on one node has one.
    """
    host = host or environ.get("SLURMD_NODENAME") or socket.gethostname()
    if environ.get("NNODES") and environ.get("NODE_RANK"):
        return _by_hand(environ, host)
    if _tasks(environ):
        node = _by_slurm(environ, host)
        if _tasks(environ) != node.num_nodes:
            raise UsageError(
                f"srun started {_tasks(environ)} tasks on {node.num_nodes} nodes: start node.sh once a node with "
                "--ntasks-per-node=1; it starts the processes itself (--nproc)"
            )
        return node
    if _number(environ, "NNODES", 1) > 1:
        raise UsageError("NNODES is set but not NODE_RANK: set it on each node, 0 to NNODES-1")
    if _number(environ, "SLURM_JOB_NUM_NODES", 1) > 1:
        raise UsageError(
            f"this Slurm job has {environ['SLURM_JOB_NUM_NODES']} nodes but this command runs on only one of them: put "
            "`srun --ntasks-per-node=1` in front"
        )
    return Node(1, 0, host, "127.0.0.1", 0, (host,), "")


def _by_hand(environ: Mapping[str, str], host: str) -> Node:
    num_nodes, rank = _number(environ, "NNODES"), _number(environ, "NODE_RANK")
    if not 0 <= rank < num_nodes:
        raise UsageError(f"NODE_RANK={rank} with NNODES={num_nodes}: ranks are 0 to NNODES-1")
    if num_nodes == 1:
        return Node(1, 0, host, "127.0.0.1", _port(environ, 0), (host,), "")
    address = environ.get("MASTER_ADDR")
    if not address:
        raise UsageError(f"NNODES={num_nodes} needs MASTER_ADDR, the name or address of node 0")
    port = _port(environ, 29500)
    _check_address(address, "set it to the name of node 0, as the others know it")
    return Node(num_nodes, rank, host, address, port, (), f"{address}-{port}")


def _by_slurm(environ: Mapping[str, str], host: str) -> Node:
    num_nodes, rank = _number(environ, "SLURM_STEP_NUM_NODES"), _number(environ, "SLURM_NODEID")
    job, step = _number(environ, "SLURM_JOB_ID"), _number(environ, "SLURM_STEP_ID")
    restart = _number(environ, "SLURM_RESTART_COUNT", 0)
    port = FIRST_PORT + (job * PORTS_A_JOB + step + restart) % NUM_PORTS
    if num_nodes == 1:
        return Node(1, 0, host, "127.0.0.1", port, (host,), "")
    hosts = tuple(expand_hosts(environ["SLURM_STEP_NODELIST"]))
    address = environ.get("MASTER_ADDR") or hosts[0]
    _check_address(address, f"unset it, and the first node of the job ({hosts[0]}) is taken")
    port = _port(environ, port)
    token = "-".join(map(str, (environ.get("SLURM_CLUSTER_NAME", ""), job, step, restart)))
    return Node(num_nodes, rank, host, address, port, hosts, token)


def world_of_step(environ: Mapping[str, str]) -> dict[str, str]:
    """What a launcher would say to this task of a step of several, as `srun -n N` starts them: N tasks, one world.

    Empty for a single task, outside of a step of srun's, and where a launcher has spoken. Raises UsageError.
    """
    launched = {"RANK", "WORLD_SIZE", "CIFAR_LAB_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"} & environ.keys()
    if launched or "SLURM_PROCID" not in environ or _tasks(environ) < 2:
        return {}
    node = _by_slurm(environ, environ.get("SLURMD_NODENAME", "this node"))
    counts = re.findall(r"(\d+)(?:\(x(\d+)\))?", environ["SLURM_STEP_TASKS_PER_NODE"])  # 4(x2),3
    local = environ["SLURM_LOCALID"], [tasks for tasks, nodes in counts for _ in range(int(nodes or 1))][node.rank]
    if "SLURM_GPUS_PER_TASK" in environ:  # each task sees its own alone
        local = "0", "1"
    world = {"RANK": environ["SLURM_PROCID"], "WORLD_SIZE": str(_tasks(environ))}
    world |= {"LOCAL_RANK": local[0], "LOCAL_WORLD_SIZE": local[1]}
    world |= {"MASTER_ADDR": node.master_addr, "MASTER_PORT": str(node.master_port)}
    if node.num_nodes > 1 and not environ.get("GLOO_SOCKET_IFNAME"):
        try:  # a node's own name may lead to its loopback
            other = resolve(node.hosts[node.rank == 0], RESOLVE_SECONDS)
            world["GLOO_SOCKET_IFNAME"] = interface_towards(other).name
        except OSError as error:
            raise UsageError(f"{node.host} cannot reach the other nodes of this step: {error}") from error
    return world


def _tasks(environ: Mapping[str, str]) -> int:
    """How many tasks the step of srun has that this process is in; 0 in none."""
    if re.fullmatch(r"\d{1,9}", environ.get("SLURM_STEP_ID", "")) and "SLURM_STEP_NUM_NODES" in environ:
        return _number(environ, "SLURM_STEP_NUM_TASKS", _number(environ, "SLURM_STEP_NUM_NODES"))
    return 0


def _check_address(address: str, fix: str) -> None:
    if LOOPBACK.fullmatch(address):
        raise UsageError(
            f"MASTER_ADDR={address} means a different machine on each node, so the nodes cannot connect: {fix}"
        )


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name) or ("" if default is None else str(default))
    if not text.isdecimal():
        raise UsageError(f"{name}={text} is not a number")
    return int(text)


def _port(environ: Mapping[str, str], default: int) -> int:
    port = _number(environ, "MASTER_PORT", default)
    if environ.get("MASTER_PORT") and not 1 <= port < 1 << 16:
        raise UsageError(f"MASTER_PORT={port} is not a port: they are 1 to 65535")
    return port


def expand_hosts(text: str) -> list[str]:
    """The names of a Slurm host list in its order: `gpu[01-03,7],login` is gpu01 gpu02 gpu03 gpu7 login."""
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        literals, ranges = re.split(r"\[[^\]]*\]", part), re.findall(r"\[([^\]]*)\]", part)
        for numbers in itertools.product(*map(_numbers, ranges)):
            names.append("".join(itertools.chain(*itertools.zip_longest(literals, numbers, fillvalue=""))))
    return names


def _numbers(ranges: str) -> Iterator[str]:
    """`01-03,7` is 01 02 03 7."""
    for piece in ranges.split(","):
        first, _, last = piece.partition("-")
        yield from (str(n).zfill(len(first)) for n in range(int(first), int(last or first) + 1))
