"""A study's file: which recipes it runs, at what size, with which seeds, how long each takes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cifar_lab.cli.printable import shown
from cifar_lab.errors import UserError
from cifar_lab.recipe.errors import did_you_mean
from cifar_lab.recipe.yaml_text import parse_yaml

HERE = Path(__file__).resolve().parent
SCALES = ("cpu", "full")
OVERRIDES = Field("", description="Overrides as on a command line, separated by spaces.")
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


class StudyError(UserError):
    """The study's file or the call must be mended; the message says how."""

    exit_status = 2


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Entry(_Part):
    """One recipe of a study. Its key is the name of the runs; overrides are those of all, its group's, its own."""

    recipe: str | None = Field(None, description="Name of a recipe below recipes/; null: the entry's key.")
    group: str | None = Field(None, description="One of `groups`.")
    overrides: str = OVERRIDES
    seeds: Seeds | None = Field(None, description="Instead of the study's.")
    minutes: float | None = Field(None, gt=0, description="Expected for one run, start and evaluation included.")
    slurm: str = Field("", description="Options of launch/submit.py for this recipe.")


class Study(_Part):
    """The whole file."""

    about: str = Field(..., min_length=1, description="One line: what this scale is for.")
    seeds: Seeds = Field([0], description="Seeds of every entry that names no others.")
    overrides: str = OVERRIDES
    groups: dict[str, str] = Field({}, description="Overrides that several entries share, by name.")
    runs: dict[str, Entry] = Field(..., min_length=1, description="The entries in the order in which they run.")

    def words(self, name: str, weights: str) -> list[str]:
        """An entry's overrides without its seed, the last of each key; `{weights}` becomes the folder of that name."""
        entry = self.runs[name]
        parts = [self.overrides, self.groups[entry.group] if entry.group else "", entry.overrides]
        words = [word.replace("{weights}", weights) for part in parts for word in shlex.split(part)]
        words += [] if entry.recipe in (None, name) else [f"name={name}"]
        return list({word.partition("=")[0]: word for word in words}.values())


def sizing_path(scale: str) -> Path:
    """The file of a scale, or the file that `scale` names. Raises StudyError."""
    path = HERE / f"{scale}.yaml" if scale in SCALES else Path(scale)
    if path.suffix not in (".yaml", ".yml"):
        near = did_you_mean(scale, SCALES)
        raise StudyError(f"--scale {shown(scale)}: there are {' and '.join(SCALES)}{near}, or name a FILE.yaml")
    return path


def read_study(path: Path) -> Study:
    """A study's file. Raises StudyError with every problem, each with its line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StudyError(f"{shown(path)} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StudyError(f"{shown(path)} is no text in UTF-8") from None
    document = parse_yaml(text)
    problems = [f"{shown(path)}:{line}: {key + ': ' if key else ''}{said}" for line, key, said in document.problems]
    if problems:
        raise StudyError("\n".join(problems))
    try:
        study = Study.model_validate(document.value)
    except ValidationError as error:
        raise StudyError("\n".join(_told(path, document.lines, dict(found)) for found in error.errors())) from None
    for key, word in _bad_words(study):
        problems.append(f"{shown(path)}:{document.lines.get(key, 1)}: {key}: {word}")
    if problems:
        raise StudyError("\n".join(problems))
    return study


def chosen(study: Study, only: Sequence[str]) -> list[str]:
    """Names of entries, all without `only`; each of `only` is an entry or a group. Raises StudyError."""
    for word in only:
        if word not in study.runs and word not in study.groups:
            known = [*study.runs, *study.groups]
            raise StudyError(f"--only {shown(word)}{did_you_mean(word, known)}: there are {', '.join(known)}")
    return [name for name, entry in study.runs.items() if not only or name in only or entry.group in only]


def _told(path: Path, lines: dict[str, int], found: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in found["loc"])
    line = next((lines[near] for near in _parents(key) if near in lines), 1)
    said = "unknown key; see the head of cifar_lab/study/cpu.yaml" if found["type"] == "extra_forbidden" else ""
    return f"{shown(path)}:{line}: {key or 'the file'}: {said or found['msg'].lower()}"


def _parents(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _bad_words(study: Study) -> list[tuple[str, str]]:
    """Where overrides are none, or a group is missing."""
    texts = {"overrides": study.overrides}
    texts |= {f"groups.{name}": text for name, text in study.groups.items()}
    texts |= {f"runs.{name}.overrides": entry.overrides for name, entry in study.runs.items()}
    problems = []
    for key, text in texts.items():
        try:
            words = shlex.split(text)
        except ValueError as error:
            problems.append((key, f"a quote is missing ({error})"))
            continue
        problems += [(key, f"{word!r} is no override such as train.epochs=2") for word in words if "=" not in word]
        problems += [(key, "the seed is the study's: use `seeds`") for word in words if word.startswith("seed=")]
    for name, entry in study.runs.items():
        if entry.group is not None and entry.group not in study.groups:
            near = did_you_mean(entry.group, study.groups)
            problems.append((f"runs.{name}.group", f"there is no group {entry.group!r}{near}"))
    return problems
