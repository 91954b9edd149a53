"""The cluster itself: two nodes under Slurm, and nothing left of it however the process that started it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

OWNER = """\
import sys, time
from pathlib import Path
from support.slurm_cluster import cluster
with cluster(Path(sys.argv[1])) as made:
    job = made.sbatch("--nodes=2", "--wrap", "srun sleep 600", cwd=sys.argv[1])
    made.until(job, "RUNNING")
    print(made.network.bridge, made.network.address(0), flush=True)
    time.sleep(60)
"""


def test_two_nodes_with_names_and_addresses_of_their_own(slurm) -> None:
    said = slurm.run(["srun", "--nodes=2", "--gpus-per-node=2", "sh", "-c", 'echo "$(hostname) $SLURM_GPUS_ON_NODE"'])
    assert sorted(said.stdout.splitlines()) == ["node1 2", "node2 2"], said.stderr
    assert sorted(slurm.addresses) == slurm.nodes == ["node1", "node2"]
    to_node2 = ["timeout", "1", "bash", "-c", "exec 3<>/dev/tcp/node2/16818"]  # slurmd
    assert any(slurm.on("node1", to_node2).returncode == 0 for _ in range(20))
    slurm.set_link("node2", up=False)
    assert slurm.on("node1", to_node2).returncode != 0
    slurm.set_link("node2", up=True)
    assert any(slurm.on("node1", to_node2).returncode == 0 for _ in range(20))


def test_nothing_is_left_when_its_owner_is_killed(slurm, tmp_path: Path) -> None:
    """And a second cluster beside the first one does not disturb it."""
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as owner:
        assert owner.stdout is not None
        names = owner.stdout.readline().split()
        assert len(traces(tmp_path, *names)) > 8
        owner.kill()
    deadline = time.monotonic() + 60
    while traces(tmp_path, *names) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert traces(tmp_path, *names) == []
    assert slurm.run(["sinfo", "--noheader", "--partition=debug", "--format=%D %t"]).stdout.split() == ["2", "idle"]


def traces(folder: Path, *names: str) -> list[str]:
    """Devices, routes, namespaces and processes of the cluster in `folder` whose network has these names."""
    found = []
    for what in ("link", "route", "netns"):
        listed = subprocess.run(["ip", "-o", what], capture_output=True, text=True, check=True).stdout
        found += [line for line in listed.splitlines() if any(name in line for name in names)]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables, command = (process / "environ").read_bytes(), (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in variables + command:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found
