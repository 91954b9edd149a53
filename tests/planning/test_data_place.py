"""A dry run says where the data are, and where none are; it decodes nothing and loads no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab.planning import dry_run

FROM_HUB = "from the hub: the first start fetches them, unless `datasets` kept them here"
FOLDER, TABLE = ("data.name=folder",), ("data.name=table",)
HUB = ("data.name=hub", "data.args.id=me/pictures")


def pictures(place: Path, *splits: str) -> None:
    """Files with the names of pictures, which nobody could decode."""
    for split in splits:
        (place / split / "cat").mkdir(parents=True)
        (place / split / "cat" / "one.png").write_bytes(b"no picture")


def parquet(place: Path) -> None:
    for split in ("train", "test"):
        (place / f"{split}-0.parquet").write_bytes(b"no table")


def saved(place: Path) -> None:
    (place / "dataset_dict.json").write_text("{}")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder below the current one, of which no variable tells."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIFAR_LAB_DATA", raising=False)
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def found(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    assert dry_run.show("demo", overrides, as_json=True) == 0
    return str(json.loads(capsys.readouterr().out)["data_place"])


@pytest.mark.parametrize(
    ("overrides", "fill", "message"),
    [
        ((), None, "data.root=here holds no CIFAR-10: expected a folder with train-*.parquet"),
        ((), lambda place: pictures(place, "train", "test"), "data.root=here holds no CIFAR-10"),
        (
            HUB,
            None,
            "data.root=here holds no data set: expected pictures in SPLIT/CLASS/* or CLASS/*, for data.name=hub also",
        ),
        (HUB, lambda place: (place / "notes.txt").touch(), "data.root=here holds no data set"),
        (HUB, lambda place: (place / "cat.png").touch(), "data.root=here holds no data set"),
        (
            HUB,
            lambda place: pictures(place, "training"),
            "here: training look like splits: they need a folder for each",
        ),
        (FOLDER, lambda place: (place / "cat.png").touch(), "data.root=here holds no data set: expected pictures in"),
        (FOLDER, lambda place: pictures(place, "Train", "Test"), "here: Test, Train look like splits"),
        (TABLE, lambda place: pictures(place, "train"), "data.root=here is no csv or parquet file, and no folder with"),
    ],
)
def test_a_folder_without_the_data_is_refused(
    place: Path,
    overrides: tuple[str, ...],
    fill: Callable[[Path], None] | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if fill is not None:
        fill(place)
    assert dry_run.show("demo", [*overrides, "data.root=here"]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.out == ""
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("fill", [parquet, saved, lambda place: pictures(place, "train", "test")])
def test_a_folder_with_data_is_named_and_not_read(
    place: Path, fill: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fill(place)
    assert found(capsys, *HUB, "data.root=here") == "here"
    assert found(capsys, "data.name=hub", "data.args.id=here") == "here"
    if fill is not saved:
        assert found(capsys, f"data.name={'table' if fill is parquet else 'folder'}", "data.root=here") == "here"


def test_what_only_the_hub_has_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for overrides in ((), HUB):
        assert found(capsys, *overrides) == FROM_HUB
    assert dry_run.show("demo", HUB) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[-7:])
    assert lines["images"] == lines["length"] == lines["model"] == "not known before the data are read"
    assert lines["data"].startswith("from the hub: ")


def test_a_variable_that_names_no_data_here_is_told_and_not_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_LAB_DATA", "/scratch/of/another/node")  # as a login node has it
    assert found(capsys).startswith("not on this machine: CIFAR_LAB_DATA=/scratch/of/another/node does not exist")


def test_no_torch_is_loaded(place: Path) -> None:
    pictures(place, "train", "test")
    program = (
        "import sys\nfrom cifar_lab.planning import dry_run\n"
        f"assert dry_run.show('demo', {[*HUB, 'data.root=here']}) == 0\n"
        "assert not {'torch', 'timm', 'accelerate', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
