"""Versions: what is installed, against the ranges of this package's own metadata."""

import importlib.metadata
import platform
from collections.abc import Collection, Iterator

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cifar_lab.doctor.check import Check
from cifar_lab.files.shipped import install

OURS = "cifar-lab"
SET_UP = install("deepspeed,wandb")


def package_checks(extras: Collection[str]) -> Iterator[Check]:
    """Python and every package; of an extra that is not in `extras` only what is installed and does not fit."""
    try:
        metadata = importlib.metadata.metadata(OURS)
        required = importlib.metadata.requires(OURS) or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("packages", "warning", "cifar-lab itself is not installed, so no range is known", SET_UP)
        return
    python = SpecifierSet(metadata["Requires-Python"] or "")
    version = platform.python_version()
    if python.contains(version):
        yield Check("python", "ok", version)
    else:
        yield Check("python", "FAIL", f"{version}, but {python} is needed", "make a new environment")
    fitting = []
    for requirement in map(Requirement, required):
        asked = _belongs(requirement, extras)
        if not asked and not _belongs(requirement, ("deepspeed", "wandb")):
            continue
        command = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if asked:
                yield Check(requirement.name, "FAIL", f"not installed, {requirement.specifier} is needed", command)
            continue
        if requirement.specifier.contains(found, prereleases=True):
            fitting.append(f"{requirement.name} {found}")
        else:
            says = f"{found}, but {requirement.specifier} is what the tests ran with"
            yield Check(requirement.name, "FAIL" if asked else "warning", says, command)
    yield Check("packages", "ok", ", ".join(fitting))


def _belongs(requirement: Requirement, extras: Collection[str]) -> bool:
    """Whether it is required without any extra, or by one of these."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
