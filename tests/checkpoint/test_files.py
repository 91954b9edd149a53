"""Which tensor lies in which file, and what verification refuses."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from support.damage import cut, empty, flip

from cifar_lab.checkpoint import files
from cifar_lab.checkpoint.plan import plan_files
from cifar_lab.files.direct_file import write_bytes


def write_checkpoint(folder, step=7):
    """A complete checkpoint with two weight files; returns its path and the arrays in it."""
    partial = folder / f"{files.step_name(step)}.partial"
    partial.mkdir(parents=True)
    arrays = {f"layer{i}.weight": np.arange(10 * (i + 1), dtype=np.float32).reshape(-1, 5) for i in range(4)}
    arrays["index"] = np.arange(3, dtype=np.int64)
    specs = {n: (torch.from_numpy(a).dtype, torch.Size(a.shape)) for n, a in arrays.items()}
    entries = {}
    for plan in plan_files("weights", specs, limit=200):
        data = b"".join(arrays[name].tobytes() for name in plan.specs)
        entries[plan.name] = write_bytes(partial / plan.name, plan.header() + data)
    entries["state.json"] = write_bytes(partial / "state.json", b'{"step": 7}')
    return files.commit(partial, entries), arrays


def test_files_are_safetensors_and_hold_everything(tmp_path):
    checkpoint, arrays = write_checkpoint(tmp_path)
    assert files.verify(checkpoint) == []
    paths = files.tensor_files(checkpoint, "weights")
    assert len(paths) > 1
    loaded = {name: array for path in paths for name, array in load_file(path).items()}
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert files.list_checkpoints(tmp_path) == [checkpoint]
    assert not list(tmp_path.glob("*.partial"))


def test_the_plan_follows_from_names_and_sizes_alone():
    specs = {f"t{i}": (torch.float32, torch.Size((i, 4))) for i in range(20)}
    shuffled = dict(sorted(specs.items(), key=lambda item: item[0][::-1]))
    assert plan_files("ema", specs, limit=500) == plan_files("ema", shuffled, limit=500)
    assert all(plan.nbytes <= 500 for plan in plan_files("ema", specs, limit=500))
    assert len(plan_files("ema", {"big": (torch.float32, torch.Size((1000,)))}, limit=500)) == 1
    assert plan_files("optimizer", {}) == []
    pair = {name: (torch.float32, torch.Size((63,))) for name in "ab"}
    assert [len(plan_files("ema", pair, limit=limit)) for limit in (504, 503)] == [1, 2]


def test_every_tensor_is_aligned_in_its_file():
    specs = {
        "a": (torch.bool, torch.Size((3,))),
        "b": (torch.int32, torch.Size((3,))),
        "c": (torch.int64, torch.Size((2,))),
    }
    (plan,) = plan_files("buffers", specs)
    for name, place in plan.views(plan.buffer(pinned=False)):
        assert place.shape == specs[name][1]
        assert place.data_ptr() % place.dtype.itemsize == 0


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    steps = [7, 99_999_999, 100_000_000]
    for step in steps[::-1]:
        (tmp_path / files.step_name(step)).mkdir()
    (tmp_path / "step_00000008.partial").mkdir()
    assert [path.name for path in files.list_checkpoints(tmp_path)] == [files.step_name(step) for step in steps]


def test_what_a_disk_reads_back_differently_is_an_error(tmp_path, monkeypatch):
    write = os.write

    def zeros(descriptor, data):
        count = len(data)
        del data  # whose memory could not be given back while an error holds this frame
        return write(descriptor, bytes(count))

    monkeypatch.setattr(os, "write", zeros)
    with pytest.raises(OSError, match="reads back differently"):
        write_bytes(tmp_path / "file", b"content")


def test_sizes_and_the_state_are_looked_at_without_contents_too(tmp_path):
    checkpoint, _ = write_checkpoint(tmp_path / "longer")
    with open(checkpoint / "state.json", "ab") as file:
        file.write(b" ")
    assert files.verify(checkpoint, contents=False) == ["state.json: 12 bytes, the manifest says 11"]
    checkpoint, _ = write_checkpoint(tmp_path / "stateless")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest["files"]["state.json"]
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    (checkpoint / "state.json").unlink()
    assert files.verify(checkpoint) == ["manifest.json: not a manifest of version 1"]


@pytest.mark.parametrize("damage", [cut, flip, empty, os.unlink])
def test_damage_to_any_file_is_found_and_named(tmp_path, damage):
    names = sorted(os.listdir(write_checkpoint(tmp_path / "whole")[0]))
    assert len(names) == 5
    for name in names:
        checkpoint, _ = write_checkpoint(tmp_path / name)
        damage(checkpoint / name)
        problems = files.verify(checkpoint)
        # A damaged manifest may speak of another file: its entry is what was hit.
        assert problems and (name == "manifest.json" or problems[0].startswith(name)), (name, problems)


@pytest.mark.parametrize("name", ["../weights-00000-of-00001.safetensors", "/etc/passwd", "a/b.json", ".."])
def test_names_that_point_elsewhere_are_refused(tmp_path, name):
    checkpoint, _ = write_checkpoint(tmp_path)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["state.json"]
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    assert files.verify(checkpoint) == [f"{name}: missing"]


def test_an_unlisted_file_is_reported(tmp_path):
    checkpoint, _ = write_checkpoint(tmp_path)
    (checkpoint / "extra.safetensors").write_bytes(b"")
    assert files.verify(checkpoint) == ["extra.safetensors: not in the manifest"]
