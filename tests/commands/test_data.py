"""`cifar-lab data`: what it lists, and that it removes decoded data alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock
from support.commands import PYTHON, completed

from cifar_lab.commands import data
from cifar_lab.data.cache import load_decoded
from cifar_lab.data.sources import shapes


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CACHE/data with two sets, and things that are none."""
    monkeypatch.setenv("CIFAR_LAB_CACHE", str(tmp_path))
    for num in (40, 60):

        def read(num: int = num) -> dict:
            return {split: shapes.load(split, root=None, num_train=num, num_test=20) for split in ("train", "test")}

        load_decoded(read, f"shapes of {num}\nstamp", name="shapes", cache_dir=tmp_path, max_gib=1)
    (tmp_path / "data" / "mine-0123abcd").mkdir()
    (tmp_path / "data" / "mine-0123abcd" / "thesis.tex").touch()
    (tmp_path / "data" / "linked-0123abcd").symlink_to(kept(tmp_path / "data")[0])
    (tmp_path / "data" / "shapes").mkdir()
    return tmp_path / "data"


def kept(cache: Path) -> list[Path]:
    return sorted(path for path in cache.glob("shapes-*") if path.is_dir())


def test_ls(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main([]) == 0
    heading, first, second, total = capsys.readouterr().out.splitlines()
    assert heading.split() == ["name", "pictures", "size", "decoded", "source"]
    for folder, line in zip(kept(cache), (first, second), strict=True):
        assert line.startswith(f"{folder.name}  ")
        num = 60 if "60 of 32 x 32 " in line else 80
        assert f"{num} of 32 x 32 " in line and line.endswith(f" shapes of {num - 20}")
    assert total == f"0.4 MiB in {cache}"


def test_rm(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = kept(cache)
    assert data.main(["rm", first.name, first.name]) == 0
    assert f"removed {first.name}\n" in capsys.readouterr().out
    assert kept(cache) == [second]
    assert data.main(["rm", "--all"]) == 0
    assert kept(cache) == []
    left = {path.name for path in cache.iterdir() if path.suffix != ".lock"}
    assert left == {"mine-0123abcd", "linked-0123abcd", "shapes"}
    assert (cache / "mine-0123abcd" / "thesis.tex").exists()
    assert data.main(["ls"]) == 0
    assert capsys.readouterr().out.endswith(f"0.0 MiB in {cache}\n")


@pytest.mark.parametrize(
    "names", [["mine-0123abcd"], ["linked-0123abcd"], ["shapes"], ["../data/{0}"], ["{0}/"], [""], ["{0}", "zzz"]]
)
def test_what_is_not_removed(cache: Path, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(cache.rglob("*"))
    assert data.main(["rm", *(name.format(kept(cache)[0].name) for name in names)]) == 2
    written = capsys.readouterr()
    assert "holds no decoded data named" in written.err and written.err.count("\n") == 1
    assert sorted(cache.rglob("*")) == before


@pytest.mark.parametrize("words", [["rm"], ["rm", "--all", "{0}"]])
def test_rm_wants_names_or_all(cache: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main([word.format(kept(cache)[0].name) for word in words]) == 2
    assert "either names" in capsys.readouterr().err
    assert len(kept(cache)) == 2


def test_what_a_killed_process_left(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unless it still writes."""
    folder = kept(cache)[0]
    partial = folder.rename(cache / f".{folder.name}.partial")
    (partial / "meta.json").write_text("{")
    assert data.main(["ls", partial.name]) == 0
    assert "not whole" in capsys.readouterr().out
    with FileLock(cache / f"{folder.name}.lock"):
        assert data.main(["rm", partial.name]) == 1
    assert "is being filled by another process" in capsys.readouterr().err
    assert partial.is_dir()
    assert data.main(["rm", partial.name]) == 0
    assert not partial.exists()


def test_it_is_quick(tmp_path: Path) -> None:
    code = (
        "import sys; from cifar_lab.commands.data import main; main([])\n"
        "print({'torch', 'rich', 'PIL'} & set(sys.modules))"
    )
    done = completed([PYTHON, "-c", code], CIFAR_LAB_CACHE=str(tmp_path))
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
