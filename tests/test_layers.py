"""The layers of docs/design.md, proven on the syntax trees: imports at any depth, inside functions too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.layers import (
    COMMAND_LEVEL,
    HEAVY,
    LEVEL_0_MAY_IMPORT,
    LEVELS,
    ONLY_IN,
    REPORT_MAY_IMPORT,
    TORCH_FREE,
)

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cifar_lab"
MAX_LINES = 250


@cache
def modules() -> dict[str, Path]:
    """Dotted name to file, `__init__` under its package's name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def level(name: str) -> int | None:
    """The level of a dotted module, None where no rule places it."""
    top = name.split(".")[1] if "." in name else ""
    if not top:
        return 0  # cifar_lab itself
    for number, names in LEVELS.items():
        if top in names:
            return number
    is_command = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree(name).body)
    return COMMAND_LEVEL if is_command else None


def imported(name: str, *, lazy: bool = True, typing: bool = True) -> Iterator[str]:
    """Dotted names that a module imports, `from package import module` as the module.

    Without `lazy` not those inside functions, without `typing` not those of `if TYPE_CHECKING:`.
    """
    for node in _nodes(tree(name), lazy, typing):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(name, node)
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules() else base
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
                yield str(argument.values[0].value).rstrip(".")
            elif isinstance(argument, ast.Constant):
                yield str(argument.value)


def _nodes(node: ast.AST, lazy: bool, typing: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if not typing and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _nodes(child, lazy, typing)


def _absolute(name: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    is_package = modules()[name].name == "__init__.py"
    package = name.split(".")[: len(name.split(".")) - node.level + is_package]
    return ".".join([*package, *([node.module] if node.module else [])])


def inside(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


def test_every_module_has_a_level() -> None:
    unplaced = [name for name in modules() if level(name) is None]
    assert not unplaced, (
        f"{unplaced}: add each to LEVELS in tests/support/layers.py, at the lowest level that its imports allow "
        "(0: no torch; 1: torch, knows nothing of ranks; 2: knows the engine; 3: the loop), or give it main(argv): "
        "then it is a command"
    )


def test_imports_point_downwards() -> None:
    upward = [
        f"{name} (level {level(name)}) imports {target} (level {level(target)})"
        for name in modules()
        for target in imported(name)
        if target in modules() and (level(target) or 0) > (level(name) or 0)
    ]
    assert not upward, "\n".join(upward)


def test_no_cycles() -> None:
    graph = {name: set(imported(name, typing=False)) & set(modules()) for name in modules()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", [name for name in modules() if level(name) == 0])
def test_level_0_stands_on_little(name: str) -> None:
    allowed = sys.stdlib_module_names | {"cifar_lab"} | LEVEL_0_MAY_IMPORT
    if inside(name, "cifar_lab.report"):
        allowed |= REPORT_MAY_IMPORT
    assert {target.split(".")[0] for target in imported(name)} <= allowed


def test_torch_free_commands() -> None:
    for name in modules():
        if name.split(".")[-1] in TORCH_FREE:
            assert not {target.split(".")[0] for target in imported(name)} & HEAVY, name


def test_sources_import_nothing_heavy_at_the_top() -> None:
    """A dry run asks a source for its sizes; what a source imports for that counts too."""
    waiting = [name for name in modules() if inside(name, "cifar_lab.data.sources") or name == "cifar_lab.data.raw"]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            targets = set(imported(name, lazy=False, typing=False))
            assert not {target.split(".")[0] for target in targets} & HEAVY, name
            waiting += [target for target in targets if target in modules()]
    assert "cifar_lab.data.sources.cifar10" in seen


@pytest.mark.parametrize("package", ONLY_IN)
def test_only_place_of_a_package(package: str) -> None:
    outside = [
        name
        for name in modules()
        if package in {target.split(".")[0] for target in imported(name)}
        and not any(inside(name, place) for place in ONLY_IN[package])
    ]
    assert not outside, f"{package} may be imported in {' and '.join(ONLY_IN[package])} only"


def test_level_1_knows_no_ranks() -> None:
    for name in modules():
        if level(name) == 1:
            assert not any(inside(target, "torch.distributed") for target in imported(name)), name
            text = [ast.unparse(node) for node in ast.walk(tree(name)) if isinstance(node, ast.Attribute)]
            assert "torch.distributed" not in text, name


def test_files_are_short_and_have_a_subject() -> None:
    files = [*modules().values(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "launch").rglob("*.py")]
    long = [f"{f.relative_to(ROOT)}: {n} lines" for f in files if (n := f.read_text().count("\n")) > MAX_LINES]
    assert not long, f"at most {MAX_LINES} lines and one subject: {long}"
    assert not [name for name in modules() if name.split(".")[-1] in ("utils", "util", "helpers", "misc", "common")]
