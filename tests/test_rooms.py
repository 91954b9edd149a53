"""The rooms of docs/design.md, proven on the syntax trees: imports at any depth, inside functions too."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.rooms import ROOMS, TORCH_FREE, Package, circle, mermaid

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Package.read(ROOT / "cifar_lab")
HEAVY = {"torch", "torchvision", "accelerate", "timm", "deepspeed", "datasets", "transformers"}
ONLY_IN = {
    "accelerate": ("cifar_lab.runtime", "cifar_lab.tracking.adapter"),
    "mlflow": ("cifar_lab.tracking.adapter",),
    "tensorboard": ("cifar_lab.tracking.adapter",),
    "trackio": ("cifar_lab.tracking.adapter",),
    "deepspeed": ("cifar_lab.runtime.zero",),
    "wandb": ("cifar_lab.tracking.wandb",),
}
# The ways in, which nothing may import, and the dispatch of commands, which imports them by name.
TOP = ("", "train", "__main__")
BY_NAME = {"cifar_lab", "cifar_lab.commands.dispatch"}
MAX_LINES = 250


def inside(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


def external(module: str, **kinds: bool) -> set[str]:
    return {target.split(".")[0] for target in PACKAGE.imports(module, **kinds)} - {"cifar_lab"}


def test_a_room_imports_what_its_row_says() -> None:
    rooms = {PACKAGE.room(module) for module in PACKAGE.trees} - set(TOP)
    assert rooms == set(ROOMS), "a folder or file right below cifar_lab without a row in tests/support/rooms.py"
    arrows = {pair: imports for pair, imports in PACKAGE.arrows().items() if pair[0] not in TOP}
    allowed = {(room, target) for room, names in ROOMS.items() for target in [*names.split(), "errors"]}
    assert not {pair: imports for pair, imports in arrows.items() if pair not in allowed}
    unused = {pair for pair in allowed - arrows.keys() if pair[1] != "errors"}
    assert not unused, "rows of tests/support/rooms.py that no import needs"


def test_no_circle_and_nothing_above_its_importer() -> None:
    assert not circle(PACKAGE.arrows())
    order = list(ROOMS)
    assert not [
        (room, name) for room in order for name in ROOMS[room].split() if order.index(name) >= order.index(room)
    ]
    assert not [pair for pair in PACKAGE.arrows() if pair[1] in TOP]


def test_modules_make_no_circle() -> None:
    arrows = {
        (module, target)
        for module in PACKAGE.trees
        for target in PACKAGE.imports(module, typing=False)
        if target in PACKAGE.trees and target != module and module != "cifar_lab"
    }
    assert not circle(iter(arrows))


def test_names_known_only_to_a_run_are_imported_in_few_places() -> None:
    assert PACKAGE.unknown_imports() <= BY_NAME


def test_errors_is_the_bottom() -> None:
    assert not [target for target in PACKAGE.imports("cifar_lab.errors") if inside(target, "cifar_lab")]


@pytest.mark.parametrize("room", TORCH_FREE)
def test_rooms_without_torch(room: str) -> None:
    """At the top of its modules, and of what they import there."""
    waiting = [name for name in PACKAGE.trees if inside(name, f"cifar_lab.{room}") and name not in TORCH_FREE[room]]
    assert waiting
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            assert not external(name, lazy=False, typing=False) & HEAVY, name
            waiting += [target for target in PACKAGE.imports(name, lazy=False, typing=False) if target in PACKAGE.trees]


@pytest.mark.parametrize("package", ONLY_IN)
def test_only_place_of_a_package(package: str) -> None:
    outside = [
        name
        for name in PACKAGE.trees
        if package in external(name) and not any(inside(name, place) for place in ONLY_IN[package])
    ]
    assert not outside, f"{package} may be imported in {' and '.join(ONLY_IN[package])} only"


def test_the_picture_in_the_docs_is_the_table() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{mermaid(ROOMS)}\n```" in text, f"put this into docs/design.md:\n{mermaid(ROOMS)}"


def test_files_are_short_and_have_a_subject() -> None:
    files = [file for folder in ("cifar_lab", "tests", "launch") for file in (ROOT / folder).rglob("*.py")]
    long = [f"{f.relative_to(ROOT)}: {n} lines" for f in files if (n := f.read_text().count("\n")) > MAX_LINES]
    assert not long, f"at most {MAX_LINES} lines and one subject: {long}"
    assert not [name for name in PACKAGE.trees if name.split(".")[-1] in ("utils", "util", "helpers", "misc", "common")]


def test_a_forbidden_import_and_a_circle_are_seen(tmp_path: Path) -> None:
    """In functions, by relative and by literal names too."""
    house = tmp_path / "house"
    texts = {
        "low/a.py": "def late():\n    from house import high\n",
        "low/b.py": "import importlib\nimportlib.import_module('house.side.c')\n",
        "high/__init__.py": "from ..low import a\n",
        "side/c.py": "import os\n",
    }
    for name, text in texts.items():
        (house / name).parent.mkdir(parents=True, exist_ok=True)
        (house / name).write_text(text)
    arrows = Package.read(house).arrows()
    assert arrows == {
        ("high", "low"): ["house.high imports house.low.a"],
        ("low", "high"): ["house.low.a imports house.high"],
        ("low", "side"): ["house.low.b imports house.side.c"],
    }
    assert circle(arrows) == ["high", "low", "high"]
