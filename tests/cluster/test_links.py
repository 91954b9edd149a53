"""What launch/node.sh asks, on one node and on two by hand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import write_recipe
from support.own_address import own_address
from support.small import small

from cifar_lab.cluster.interfaces import interface_towards
from cifar_lab.cluster.links import free_port

INHERITED = ("SLURM", "NNODES", "NODE_RANK", "MASTER_", "GLOO_", "NCCL_")


def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(INHERITED)}
    command = [sys.executable, "-m", "cifar_lab.cluster.links", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environ | {"CIFAR_LAB_MEETING_SECONDS": "40"} | variables, **pipes)


def said(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def test_the_command_alone(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small())
    status, output, errors = said(start(recipe, "seed=1"))
    assert (status, errors) == (0, "")
    lines = dict(line.split("=", 1) for line in output.splitlines())
    assert lines | {"master_port": "", "host": ""} == {
        "num_nodes": "1", "node_rank": "0", "host": "", "interface": "lo", "address": "127.0.0.1",
        "master_addr": "127.0.0.1", "master_port": "",
    }  # fmt: skip
    status, output, errors = said(start(recipe, "optim.lrr=1"))
    assert (status, output) == (2, "")
    assert errors == "override: optim.lrr: unknown key (did you mean `lr`?)\n"
    status, output, errors = said(start(GLOO_SOCKET_IFNAME="ethx"))
    assert (status, output) == (2, "")
    assert "there is no interface ethx" in errors


@pytest.mark.launch
def test_the_command_on_two(tmp_path: Path) -> None:
    """By hand; then with a bad recipe, which node 0 tells for both; then with a bad one on node 1 alone."""
    recipe, address = write_recipe(tmp_path, small()), own_address()

    def pair(first: list[str], second: list[str]) -> list[tuple[int, str, str]]:
        port = str(free_port(0))
        places = [{"NNODES": "2", "NODE_RANK": rank, "MASTER_ADDR": address, "MASTER_PORT": port} for rank in "01"]
        started = [start(*arguments, **place) for arguments, place in zip((first, second), places, strict=True)]
        return [said(process) for process in started]

    for rank, (status, output, errors) in enumerate(pair([recipe], [recipe])):
        assert (status, errors) == (0, "")
        assert f"num_nodes=2\nnode_rank={rank}\n" in output
        assert f"interface={interface_towards(address).name}\naddress={address}\nmaster_addr={address}\n" in output
    (first, _, told), (second, _, silence) = pair([recipe, "seed=x"], [recipe, "seed=x"])
    assert (first, second, silence) == (2, 2, "")
    assert told.count("override: seed: ") == 1
    (first, _, told), (second, _, own) = pair([recipe], [f"{recipe}.gone"])
    assert (first, second) == (2, 2)
    assert f"node 1 ({socket.gethostname()}): {recipe}.gone: no such file" in told
    assert own.startswith(f"{socket.gethostname()}: node 1 ({socket.gethostname()}): {recipe}.gone: no such file")
