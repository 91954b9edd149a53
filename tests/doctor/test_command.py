"""`cifar-lab doctor` on one machine, with things broken for real."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from support.commands import write_recipe
from support.own_address import own_address
from support.servers import silent_server
from support.small import small

from cifar_lab.cluster.links import free_port
from cifar_lab.doctor.child import ask
from cifar_lab.doctor.network import all_reduce_check

INHERITED = ("SLURM", "NNODES", "NODE_RANK", "MASTER_", "GLOO_", "NCCL_")
DOCTOR = [sys.executable, "-m", "cifar_lab", "doctor"]
PRETRAINED = {"name": "timm_zoo", "args": {"arch": "vit_tiny_patch16_224"}, "pretrained": True}


def environ(folder: Path, **variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(INHERITED)}
    return kept | {"HF_HOME": str(folder / "hf")} | variables


def doctor(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DOCTOR, *arguments],
        cwd=folder,
        env=environ(folder, **variables),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def hidden(tmp_path: Path) -> Callable[..., str]:
    """A PYTHONPATH on which modules and metadata of packages are missing."""

    def hide(*names: str) -> str:
        (tmp_path / "sitecustomize.py").write_text(
            "import importlib.metadata as m, sys\n"
            f"names = {names!r}\n"
            "class Hide:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name in names: raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
            "sys.meta_path.insert(0, Hide())\n"
            "find = m.Distribution.from_name.__func__\n"
            "def from_name(cls, name):\n"
            "    if name in names: raise m.PackageNotFoundError(name)\n"
            "    return find(cls, name)\n"
            "m.Distribution.from_name = classmethod(from_name)\n"
        )
        return str(tmp_path)

    return hide


@pytest.mark.launch
def test_all_is_well(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, small())
    done = doctor(tmp_path, path, "--nproc", "2", "--strategy", "zero2")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "training can run" in done.stdout
    rows = {line[8:].split("  ")[0].strip(): line for line in done.stdout.splitlines() if line[:2] in ("ok", "wa")}
    for name in ("python", "packages", "nodes", "data", "W&B", "runs", "disk", "cache", "torch", "step", "batch"):
        assert rows[name].startswith("ok"), rows[name]
    assert "2 processes (zero2, cpu) x 1 accumulation step x micro-batch 8" in rows["batch"]
    assert "deepspeed" in rows["packages"]
    assert sorted(os.listdir(tmp_path)) == ["small.yaml"]  # nothing is left behind


@pytest.mark.launch
def test_everything_is_broken_at_once(tmp_path: Path, hidden) -> None:
    (tmp_path / "runs").write_text("a file")
    (tmp_path / "empty").mkdir()
    mapping = small(data={"name": "cifar10", "root": str(tmp_path / "empty")}, tracking={"wandb_project": "p"})
    mapping |= {"model": PRETRAINED}
    with silent_server() as url:
        done = doctor(
            tmp_path,
            write_recipe(tmp_path, mapping),
            *("--json", "--strategy", "zero2", "--nproc", "3", "data.image_size=224", "data.val_size=0"),
            PYTHONPATH=hidden("deepspeed"),
            GLOO_SOCKET_IFNAME="ethx",
            CIFAR_LAB_CACHE=str(tmp_path / "runs" / "cache"),
            WANDB_MODE="online",
            WANDB_API_KEY="x" * 40,
            WANDB_BASE_URL=url,
        )
    assert (done.returncode, done.stderr) == (1, "")
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    ((_, checks),) = answer["hosts"].items()
    found = {check["name"]: check for check in checks}
    for name, word in {
        "deepspeed": "not installed",
        "place": "no interface ethx",
        "data": "empty holds no CIFAR-10",
        "runs": "is a file",
        "cache": "CIFAR_LAB_CACHE",
        "weights": "vit_tiny_patch16_224 is not on this machine and HF_HUB_OFFLINE is set",
        "batch": "does not divide over 3 processes",
    }.items():
        assert found[name]["state"] == "FAIL", found[name]
        assert word in found[name]["says"] + found[name]["fix"]
    assert (found["W&B"]["state"], found["W&B"]["says"]) == ("warning", f"offline: {url}: timed out")


def test_what_is_the_callers_mistake(tmp_path: Path, hidden) -> None:
    path = write_recipe(tmp_path, small())
    done = doctor(tmp_path, path, "optim.lrr=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "override: optim.lrr: unknown key (did you mean `lr`?)\n"
    assert doctor(tmp_path, "--strategy", "zero9").returncode == 2
    done = doctor(tmp_path, path, PYTHONPATH=hidden("pydantic"))
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAIL    pydantic" in done.stdout
    assert "not installed, <3,>=2.12 is needed" in done.stdout
    assert "pip install 'pydantic<3,>=2.12'" in done.stdout


@pytest.mark.launch
def test_programs_that_fail_are_findings(hidden) -> None:
    assert (
        "No module named 'torch'" in ask({"arch": None, "precision": "fp32"}, 60, PYTHONPATH=hidden("torch"))["error"]
    )
    alone = {"backend": "gloo", "device": "cpu", "rank": 1, "world_size": 2, "address": "127.0.0.1", "port": 1}
    alone |= {"serve": False}
    found = ask(alone, 1)  # its node 0 never comes
    assert found == {"error": "it did not answer in time"}
    assert all_reduce_check("gloo", found, {"127.0.0.1": "node1"}).state == "FAIL"
    named = all_reduce_check(
        "gloo", {"joined": True, "error": "timed out connecting to [10.0.0.2]:44"}, {"10.0.0.2": "n2"}
    )
    assert named.says.endswith("(10.0.0.2 is n2)")


@pytest.mark.launch
def test_two_nodes_are_examined_together(tmp_path: Path) -> None:
    place = {"NNODES": "2", "MASTER_ADDR": own_address(), "MASTER_PORT": str(free_port(0))}
    with ThreadPoolExecutor(2) as pool:
        examined = [pool.submit(doctor, tmp_path, "--json", NODE_RANK=rank, **place) for rank in "01"]
    first, second = (done.result() for done in examined)
    assert (first.returncode, second.returncode, first.stderr, second.stdout) == (0, 0, "", ""), first.stdout
    (checks,) = json.loads(first.stdout)["hosts"].values()  # both have the name of this machine
    found = {check["name"]: check for check in checks}
    assert {found[name]["state"] for name in ("links", "shared runs", "all-reduce (gloo)")} == {"ok"}
    assert "MB/s" in found["all-reduce (gloo)"]["says"]
    assert os.listdir(tmp_path) == []


@pytest.mark.launch
def test_a_store_that_still_waits_does_not_abort_the_end(tmp_path: Path) -> None:
    """Where something else listens at node 0's address, and goes away just when the doctor ends."""
    held: list[socket.socket] = []
    with socket.create_server(("", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        Thread(target=accept, daemon=True).start()
        place = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": own_address()}
        place |= {"MASTER_PORT": str(server.getsockname()[1]), "CIFAR_LAB_MEETING_SECONDS": "1"}
        with subprocess.Popen(
            DOCTOR, cwd=tmp_path, env=environ(tmp_path, **place), stderr=subprocess.PIPE, text=True
        ) as started:
            assert started.stderr is not None
            said = started.stderr.readline()
            time.sleep(0.1)  # the interpreter's end has begun
            for waiting in held:
                waiting.close()
            said += started.stderr.read()
        server.shutdown(socket.SHUT_RDWR)
    assert (started.returncode, "terminate" in said) == (1, False), said
    assert "another program listens there" in said
