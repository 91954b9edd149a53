"""What recipes promise, what their runs reached, a new one, and copies of those that came with the package."""

import json
import os
import re
import string
from contextlib import suppress
from pathlib import Path
from statistics import fmean, stdev

from cifar_lab.errors import UsageError
from cifar_lab.files.shipped import shipped
from cifar_lab.recipe import Recipe, experiment_id
from cifar_lab.recipe.named import SHIPPED, SUFFIXES, list_recipes
from cifar_lab.recipe.schema import NAME

EDITOR_LINE = "# yaml-language-server:"


def header(path: Path) -> list[str]:
    """The comment that a recipe opens with, without `# ` and the line for editors."""
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(EDITOR_LINE):
            lines.append(line[1:].removeprefix(" "))
    return lines


def expected(path: Path) -> str:
    """What the header's sentence `Expect:` says, empty without one."""
    found = re.search(r"^Expect:(.*?)\.$", "\n".join(header(path)), re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def reached(recipe: Recipe, runs: Path) -> list[float]:
    """Test accuracy of completed runs of exactly this experiment below `runs`, the newest of each seed."""
    found = (runs / recipe.name).glob(f"*-{experiment_id(recipe)}*/summary.json")
    of_seeds: dict[int, float] = {}
    for file in sorted(found, key=lambda file: (len(file.parent.name), file.parent.name)):  # ID, ID.2, ..., ID.10
        with suppress(OSError, ValueError, KeyError, TypeError):
            accuracy = json.loads(file.read_text(encoding="utf-8"))["test"]["accuracy"]
            of_seeds[int(file.parent.name.partition("-")[0])] = float(accuracy)
    return [of_seeds[seed] for seed in sorted(of_seeds)]


def mean_error(accuracies: list[float]) -> str:
    """Such as `6.79 ± 0.12 % (n=3)`, `-` of none."""
    if not accuracies:
        return "-"
    spread = f" ± {100 * stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    return f"{100 * (1 - fmean(accuracies)):.2f}{spread} % (n={len(accuracies)})"


def write_template(path: Path) -> None:
    """Write a recipe of the file's name, each line with what it means, where nothing is. Raises UsageError."""
    if path.suffix not in SUFFIXES or not re.fullmatch(NAME, path.stem) or not str(path).isprintable():
        raise UsageError(
            f"{str(path)!r}: name a file of letters, digits, `_`, `-` and `.` that ends with .yaml, such as mine.yaml"
        )
    template = string.Template(Path(__file__).with_name("template.yaml").read_text(encoding="utf-8"))
    text = template.substitute(path=path, name=path.stem)
    schema = os.path.relpath(SHIPPED / "schema.json", path.absolute().parent)
    if not write_new(path, f"{EDITOR_LINE} $schema={schema}\n{text}"):
        raise UsageError(f"{path} exists already: name another file, or edit that one")


def shipped_files(name: str) -> list[Path]:
    """A recipe that came with the package, or `all` and the accelerate configs; the schema last. Raises UsageError."""
    known = list_recipes(SHIPPED)
    if name != "all" and name not in known:
        raise UsageError(f"{name}: came not with cifar-lab; it is `all`, or one of {', '.join(known)}")
    every = [*SHIPPED.rglob("*.yaml"), *shipped("accelerate_configs").glob("*.yaml")]
    return [*([known[name]] if name != "all" else sorted(every)), SHIPPED / "schema.json"]


def write_new(path: Path, text: str) -> bool:
    """Write a file where nothing is; False where something is. Raises UsageError."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        with suppress(OSError):  # of which a full disk has taken only a part
            path.unlink()
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
