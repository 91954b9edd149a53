"""The rooms of cifar_lab, which of them each may import, and the imports that the syntax trees show."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# From the ground up: a room and the rooms that it imports. All of them may import `errors`; docs/design.md draws this.
ROOMS: dict[str, str] = {
    "errors": "",
    "files": "",
    "cli": "",
    "recipe": "files",
    "models": "recipe",
    "optim": "recipe",
    "rundir": "files recipe",
    "data": "files recipe models",
    "planning": "files cli recipe models rundir data",
    "cluster": "recipe rundir",
    "report": "files cli recipe",
    "tracking": "files recipe rundir",
    "runtime": "files recipe models optim data",
    "checkpoint": "files runtime",
    "doctor": "files recipe models data planning cluster tracking runtime",
    "training": "files cli recipe models rundir data planning tracking runtime checkpoint",
    "status": "files cli recipe rundir checkpoint",
    "trained": "files cli recipe models rundir data report runtime checkpoint training",
    "profiling": "files cli recipe rundir runtime training",
    "study": "cli recipe rundir runtime status",
    "verify": "rundir data checkpoint",
    "commands": "files cli recipe rundir data planning report tracking runtime checkpoint doctor training status "
    "trained profiling study verify",
}

# Rooms that answer before torch is there, but for the modules named after them.
TORCH_FREE: dict[str, tuple[str, ...]] = {
    "cli": (),
    "cluster": (),
    "files": (),
    "planning": ("cifar_lab.planning.activations",),
    "recipe": (),
    "report": (),
    "rundir": (),
    "status": (),
    "study": (),
    "tracking": ("cifar_lab.tracking.adapter",),
    "data.sources": (),
    "trained.model": (),
}


@dataclass(frozen=True)
class Package:
    """Dotted names of a package's modules, to their syntax trees; a package goes by its own name."""

    name: str
    trees: Mapping[str, ast.Module]
    inits: frozenset[str]

    @classmethod
    def read(cls, folder: Path) -> Package:
        """All modules below `folder`."""
        trees, inits = {}, set()
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            trees[name] = ast.parse(file.read_text(encoding="utf-8"))
            if parts[-1] == "__init__":
                inits.add(name)
        return cls(folder.name, trees, frozenset(inits))

    def room(self, module: str) -> str:
        """The folder or file right below the package, "" for the package itself."""
        return module.split(".")[1] if "." in module else ""

    def imports(self, module: str, *, lazy: bool = True, typing: bool = True) -> Iterator[str]:
        """Dotted names that `module` imports, `from package import module` as the module, literal names too.

        Without `lazy` not those inside functions, without `typing` not those of `if TYPE_CHECKING:`.
        """
        for node in _nodes(self.trees[module], lazy, typing):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                for alias in node.names:
                    yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in self.trees else base
            elif isinstance(node, ast.Call) and _imports_by_name(node) and _literal(node.args[0]):
                yield _literal(node.args[0])

    def unknown_imports(self) -> set[str]:
        """Modules that import by a name which only a run knows."""
        return {
            module
            for module, tree in self.trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and _imports_by_name(node) and not _literal(node.args[0])
        }

    def arrows(self) -> dict[tuple[str, str], list[str]]:
        """(room, imported room) to the imports that make it."""
        found: dict[tuple[str, str], list[str]] = {}
        for module in self.trees:
            for target in self.imports(module):
                rooms = self.room(module), self.room(target)
                if target.split(".")[0] == self.name and all(rooms) and rooms[0] != rooms[1]:
                    found.setdefault(rooms, []).append(f"{module} imports {target}")
        return found

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + (module in self.inits)]
        return ".".join([*parts, *([node.module] if node.module else [])])


def circle(arrows: Iterator[tuple[str, str]] | Mapping[tuple[str, str], object]) -> list[str]:
    """Rooms that import each other in a ring, the first again at the end; empty where there is none."""
    targets: dict[str, list[str]] = {}
    for source, target in arrows:
        targets.setdefault(source, []).append(target)
    done: set[str] = set()

    def visit(room: str, path: list[str]) -> list[str]:
        if room in path:
            return [*path[path.index(room) :], room]
        if room not in done:
            for target in sorted(targets.get(room, [])):
                if found := visit(target, [*path, room]):
                    return found
            done.add(room)
        return []

    return next((found for room in sorted(targets) if (found := visit(room, []))), [])


def mermaid(rooms: Mapping[str, str]) -> str:
    """The table as a picture: what a room imports lies below it; arrows that follow from others are left out."""
    above = {room: {name for name in names.split() if name != "errors"} for room, names in rooms.items()}

    def reached(room: str) -> set[str]:
        return above[room].union(*(reached(name) for name in above[room]))

    lines = ["graph TD"]
    for room, names in above.items():
        implied = set().union(*(reached(name) for name in names))
        lines += [f"    {room} --> {name}" for name in sorted(names - implied)]
    return "\n".join(lines)


def _nodes(node: ast.AST, lazy: bool, typing: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if not typing and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _nodes(child, lazy, typing)


def _imports_by_name(node: ast.Call) -> bool:
    return ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__") and bool(node.args)


def _literal(argument: ast.expr) -> str:
    """The name of a literal, the constant beginning of an f-string, "" for anything else."""
    if isinstance(argument, ast.JoinedStr) and argument.values and isinstance(argument.values[0], ast.Constant):
        argument = argument.values[0]
    return str(argument.value).rstrip(".") if isinstance(argument, ast.Constant) else ""
