"""A real Slurm cluster on this machine: each node in a network and a host name of its own, everything in one folder.

Needs root, and Debian's packages slurm-wlm, munge and iproute2.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import slurm_network
from support.slurm_network import Network, NetworkError

TEMPLATE = Path(__file__).with_name("slurm.conf.in")
PROGRAMS = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm", "munged": "munge", "ip": "iproute2"}
TIMINGS = {"cred_expire": 5, "kill_wait": 8, "grace": 10}
MUNGE_FILES = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
SECONDS_TO_START = 60
# As /dev/null, since Slurm wants a device for a GPU.
NULL_DEVICE = os.makedev(1, 3)


class ClusterError(Exception):
    """The cluster did not start; the message says why."""


@dataclass
class Cluster:
    """A running cluster; `env` is what a command on the controller's side needs to find it."""

    folder: Path
    network: Network
    nodes: list[str]
    env: dict[str, str] = field(default_factory=dict)

    @property
    def addresses(self) -> dict[str, str]:
        return {node: self.network.address(i) for i, node in enumerate(self.nodes, 1)}

    def run(self, command: Sequence[str], **how: Any) -> subprocess.CompletedProcess[str]:
        """Run `command` outside of the nodes, as on a login node."""
        return subprocess.run(command, **_texts(how), env=self._env(how))

    def on(self, node: str, command: Sequence[str], **how: Any) -> subprocess.CompletedProcess[str]:
        """Run `command` on a node, past Slurm."""
        return subprocess.run(self._inside(node, command), **_texts(how), env=self._env(how))

    def popen_on(self, node: str, command: Sequence[str], **how: Any) -> subprocess.Popen[str]:
        """Start `command` on a node, past Slurm."""
        return subprocess.Popen(self._inside(node, command), text=True, env=self._env(how), **how)

    def set_link(self, node: str, *, up: bool) -> None:
        """Pull the node's cable, or plug it in again."""
        self.network.set_link(self._index(node), up=up)

    def sbatch(self, *arguments: str | Path, **how: Any) -> str:
        """Submit; returns the job's id. Raises ClusterError with Slurm's message."""
        return self._asked("sbatch", "--parsable", *map(str, arguments), **how).strip()

    def state(self, job: str) -> str:
        """Slurm's state of a job, such as RUNNING; those of an array's members joined by commas."""
        return ",".join(self._asked("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").split())

    def show(self, job: str) -> dict[str, str]:
        """The fields of `scontrol show job`."""
        words = self._asked("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def control(self, *arguments: str) -> None:
        """`scontrol` with these arguments."""
        self._asked("scontrol", *arguments)

    def until(self, job: str, *states: str, seconds: float = 180) -> str:
        """Wait for a job to be in one of `states`; returns which."""
        deadline = time.monotonic() + seconds
        while (state := self.state(job)) not in states:
            if time.monotonic() > deadline:
                raise ClusterError(f"job {job} is {state} and not {' or '.join(states)} after {seconds} s")
            time.sleep(0.2)
        return state

    def _asked(self, *command: str, **how: Any) -> str:
        done = self.run(command, **{"timeout": 60, **how})
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def _env(self, how: dict[str, Any]) -> dict[str, str]:
        return {**(how.pop("env", None) or os.environ), **self.env}

    def _index(self, node: str) -> int:
        return self.nodes.index(node) + 1

    def _inside(self, node: str, command: Sequence[str]) -> list[str]:
        # Not `ip netns exec`: it mounts a new /sys, without the cgroup tree that slurmd looks for.
        enter = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'
        where = f"/run/netns/{self.network.space(self._index(node))}"
        shell = ["sh", "-c", enter, "sh", node, str(self.folder / "hosts"), *command]
        return ["nsenter", f"--net={where}", "unshare", "--uts", "--mount", "--propagation", "slave", *shell]


def cannot_start() -> str | None:
    """Why no cluster can be started here, if so."""
    if os.geteuid() != 0:
        return "a Slurm cluster of our own needs root"
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    if missing:
        return f"a Slurm cluster of our own needs Debian's packages {' '.join(missing)}"
    tried = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, text=True)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


@contextmanager
def cluster(folder: Path, *, num_nodes: int = 2, cpus: int = 4, gpus: int = 2, **timings: int) -> Iterator[Cluster]:
    """Start a cluster of `node1`, `node2`, ... in `folder` and take it away at the end. Raises ClusterError.

    Its GPUs are known to Slurm alone. `timings` (seconds): cred_expire, kill_wait, grace.
    """
    problem = cannot_start()
    if problem:
        raise ClusterError(problem)
    for name in ("munge", "state", "spool", "log"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    try:
        network = Network.take()
    except NetworkError as error:
        raise ClusterError(str(error)) from error
    made = Cluster(folder, network, [f"node{i}" for i in range(1, num_nodes + 1)])
    command = [sys.executable, slurm_network.__file__, str(network.number), folder]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        network.connect(num_nodes)
        made.env["SLURM_CONF"] = str(_configure(made, cpus, gpus, TIMINGS | timings))
        _start_daemons(made)
        yield made
    except NetworkError as error:
        raise ClusterError(str(error)) from error
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()


def _configure(made: Cluster, cpus: int, gpus: int, timings: dict[str, int]) -> Path:
    folder, gres, nodes = made.folder, [], []
    for node, address in made.addresses.items():
        cores = f"CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=4000"
        gpu = f" Gres=gpu:{gpus}" if gpus else ""
        nodes.append(f"NodeName={node} NodeAddr={address} NodeHostname={node} Port=16818 {cores}{gpu} State=UNKNOWN")
        gres.append(f"NodeName={node} Name=gpu File={folder}/gpu[0-{gpus - 1}]")
    for i in range(gpus):
        os.mknod(folder / f"gpu{i}", 0o20666, NULL_DEVICE)
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    (folder / "gres.conf").write_text("\n".join(gres if gpus else []) + "\n")
    # slurmd looks for a cgroup tree even if nothing uses one; naming v1 (before 23.11) keeps it from that.
    version = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True).stdout.split()[-1]
    old = tuple(map(int, version.split(".")[:2])) < (23, 11)
    (folder / "cgroup.conf").write_text(f"CgroupPlugin={'cgroup/v1' if old else 'disabled'}\n")
    names = {"host": socket.gethostname(), "controller": made.network.address(254), "port": port, "folder": folder}
    hosts = {"localhost": "127.0.0.1", socket.gethostname(): names["controller"], **made.addresses}
    (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))
    conf = folder / "slurm.conf"
    conf.write_text(TEMPLATE.read_text().format(**names, nodes="\n".join(nodes), **timings))
    return conf


def _start_daemons(made: Cluster) -> None:
    folder, conf = made.folder, made.env["SLURM_CONF"]
    munge = folder / "munge"
    (munge / "key").write_bytes(os.urandom(128))
    (munge / "key").chmod(0o400)
    places = [f"--{name}={munge / file}" for name, file in MUNGE_FILES.items()]
    daemons = [["munged", *places, "--force"], ["slurmctld", "-f", conf]]
    daemons += [made._inside(node, ["slurmd", "-N", node, "-f", conf]) for node in made.nodes]
    for command in daemons:
        done = subprocess.run(command, env={**os.environ, **made.env}, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()}")
    deadline, idle = time.monotonic() + SECONDS_TO_START, ["sinfo", "-h", "-N", "-p", "debug", "-t", "idle", "-o", "%N"]
    while len(made.run(idle).stdout.split()) < len(made.nodes):
        if time.monotonic() > deadline:
            logs = "".join(f"\n{log}:\n{log.read_text()[-2000:]}" for log in sorted((folder / "log").iterdir()))
            raise ClusterError(f"the nodes were not idle after {SECONDS_TO_START} s{logs}")
        time.sleep(0.1)


def _texts(how: dict[str, Any]) -> dict[str, Any]:
    return {"capture_output": True, "text": True, "check": False, **{k: v for k, v in how.items() if k != "env"}}
