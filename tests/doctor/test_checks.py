"""What each check of the doctor says, of things that are broken for real where they can be."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.servers import greeting_server, silent_server
from support.small import small

from cifar_lab.doctor.check import Check, table
from cifar_lab.doctor.disk import beacon, disk_checks, shared_check
from cifar_lab.doctor.network import find_links
from cifar_lab.doctor.packages import package_checks
from cifar_lab.doctor.recipe import checkpoint_bytes, data_check, hub_problem, layout_checks, weights_check
from cifar_lab.doctor.wandb_mode import wandb_check
from cifar_lab.recipe import Recipe, parse_recipe

PRETRAINED = {"name": "timm_zoo", "args": {"arch": "vit_tiny_patch16_224"}, "pretrained": True}


def recipe(**changes: Any) -> Recipe:
    return parse_recipe(small(**changes))


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_versions(tmp_path: Path, monkeypatch) -> None:
    for name in ("timm", "wandb"):
        folder = tmp_path / f"{name}-0.1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = by_name(list(package_checks(())))
    assert (found["timm"].state, found["wandb"].state) == ("FAIL", "warning")
    assert found["timm"].says == "0.1, but <1.1,>=1.0.31 is what the tests ran with"
    assert found["python"].state == "ok"
    assert "torch 2." in found["packages"].says


def test_data(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("CIFAR_LAB_DATA", raising=False)
    assert hub_problem() == "HF_HUB_OFFLINE is set"  # it is for all tests
    cifar10 = recipe(data={"name": "cifar10"})
    missing = data_check(cifar10)
    assert (missing.state, "HF_HUB_OFFLINE is set" in missing.says) == ("FAIL", True)
    assert data_check(None).state == "warning"  # perhaps no recipe will ask for it
    assert data_check(recipe()).says == "shapes needs no files"
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("CIFAR_LAB_DATA", str(tmp_path / "empty"))
    assert "CIFAR_LAB_DATA=" in data_check(None).says
    assert data_check(None).state == "FAIL"
    (tmp_path / "empty" / "cifar-10-batches-py").mkdir()
    (tmp_path / "empty" / "cifar-10-batches-py" / "batches.meta").write_bytes(b"x")
    assert data_check(None).state == "ok"
    monkeypatch.delenv("CIFAR_LAB_DATA")
    hub_recipe = recipe(data={"name": "hub", "args": {"id": "a/b"}})
    assert data_check(hub_recipe).state == "FAIL"
    prepared = tmp_path / "hf" / "datasets" / "a___b" / "default" / "0.0.0" / "0123"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text("{}")
    assert data_check(hub_recipe).says == "a/b in the cache of `datasets`"
    (tmp_path / "mine" / "cat").mkdir(parents=True)
    (tmp_path / "mine" / "cat" / "x.png").touch()
    for name, place in (
        ("hub", {"args": {"id": str(tmp_path / "mine")}}),
        ("folder", {"root": str(tmp_path / "mine")}),
    ):
        assert data_check(recipe(data={"name": name, **place})).says == f"{name} in {tmp_path / 'mine'}"
    (tmp_path / "bare").mkdir()
    named = recipe(data={"name": "hub", "args": {"id": "a/b"}, "root": str(tmp_path / "bare")})
    assert data_check(named).state == "FAIL" and "bare holds no data set" in data_check(named).says


def test_weights() -> None:
    pretrained = recipe(model=PRETRAINED, data__image_size=224)
    for found, state in (
        ({"weights": "/hub/models/x/model.safetensors"}, "ok"),
        ({"no_weights": "not in the cache"}, "FAIL"),
        ({"error": "it did not answer in time"}, "FAIL"),
    ):
        (check,) = weights_check(pretrained, found)
        assert check.state == state
    (missing,) = weights_check(pretrained, {"no_weights": "not in the cache"})
    assert "scripts/fetch_weights.py RECIPE" in missing.fix
    assert list(weights_check(recipe(), {})) == []


def test_wandb(tmp_path: Path, monkeypatch) -> None:
    """Each answer is W&B's own, in a program of its own: what its variables and its settings file come to."""
    tracked = recipe(tracking={"wandb_project": "p"})
    assert wandb_check(recipe()).says.startswith("off: the recipe names no")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_check(tracked).says == "off: WANDB_MODE=disabled"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_check(tracked).says.startswith("offline, by WANDB_MODE")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with greeting_server() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert (wandb_check(tracked).state, "no key" in wandb_check(tracked).says) == ("warning", True)
        (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login user password {'k' * 40}\n")
        assert wandb_check(tracked).says == f"online: {url} (project p)"
    with silent_server() as silent:
        monkeypatch.setenv("WANDB_BASE_URL", silent)
        assert wandb_check(tracked).says == f"offline: {silent}: timed out"
    monkeypatch.delenv("WANDB_BASE_URL")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    (tmp_path / "settings").write_text("[default]\nbase_url = http://127.0.0.1:9\n")
    assert "offline: http://127.0.0.1:9: " in wandb_check(tracked).says
    (tmp_path / "settings").write_text("[default]\nmode = offline\n")
    assert wandb_check(tracked).says.startswith("offline, by WANDB_MODE")


def test_disk(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CIFAR_LAB_CACHE", str(tmp_path / "cache"))
    assert {check.state for check in disk_checks(tmp_path / "new" / "runs", 2**20)} == {"ok"}
    assert not (tmp_path / "new").exists()
    free = shutil.disk_usage(tmp_path).free
    assert by_name([*disk_checks(tmp_path, 2 * free)])["disk"].state == "FAIL"
    assert by_name([*disk_checks(tmp_path, free * 2 // 3)])["disk"].state == "warning"
    assert not beacon(tmp_path, "t").exists()
    assert shared_check(beacon(tmp_path, "t")).state == "FAIL"
    beacon(tmp_path, "t").touch()
    assert shared_check(beacon(tmp_path, "t")).state == "ok"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """For root, too, to whom permission bits mean nothing: a file system that is mounted read-only."""
    script = "import sys; from pathlib import Path; from cifar_lab.doctor.disk import disk_checks\n"
    script += "print([c for c in disk_checks(Path(sys.argv[1]), None) if c.name == 'runs'][0])"
    mount = 'mount -t tmpfs -o ro,size=1m none "$1" && shift && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, "-c", script]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    if "Operation not permitted" in done.stderr or "must be superuser" in done.stderr:
        pytest.skip("no namespace of file systems here")
    assert "FAIL" in done.stdout, done
    assert f"{tmp_path} cannot be written: Read-only file system" in done.stdout


def test_batch_and_options() -> None:
    how = ("ddp", "cpu")
    (check,) = layout_checks(recipe(), 2, *how)
    assert (check.state, check.says) == ("ok", "16 = 2 processes (ddp, cpu) x 1 accumulation step x micro-batch 8")
    (check,) = layout_checks(recipe(), 3, *how)
    assert (check.state, "does not divide over 3 processes" in check.says) == ("FAIL", True)
    found = by_name([*layout_checks(recipe(train__sync_batchnorm=True), 2, *how)])
    assert found["options"].state == "FAIL"
    assert "sync_batchnorm" in found["options"].says
    adamw, sgd = recipe(), recipe(optim={"name": "sgd", "lr": 0.1, "momentum": 0.0}, checkpoint={"keep_last": 4})
    parameters = checkpoint_bytes(adamw) / 4 / (3 * 3 + 1)
    assert parameters == int(parameters)
    assert checkpoint_bytes(sgd) == 4 * parameters * (5 + 1)


def test_place() -> None:
    with find_links({"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "localhost"}) as found:
        assert found.meeting is None
        (place,) = found.checks
        assert (place.name, place.state, "MASTER_ADDR=localhost" in place.says) == ("place", "FAIL", True)
    with find_links({}) as found:
        assert by_name(found.checks)["nodes"].state == "ok"


def test_table() -> None:
    text = table([Check("a", "ok", "fine"), Check("longer", "FAIL", "broken", "mend it")], "node1")
    assert text.splitlines() == [
        "node1: ok      a       fine",
        "node1: FAIL    longer  broken",
        "node1:                 -> mend it",
    ]
