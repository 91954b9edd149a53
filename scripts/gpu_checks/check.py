"""What a check is given, and what it says."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Place:
    """Where a check works: the kind of device, a folder of its own, and whether it may take its time."""

    device: str
    folder: Path
    long: bool

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU stands in for an accelerator: sizes are small then."""
        return self.device == "cpu"


@dataclass
class Found:
    """Figures by name, what speaks against the machine or the trainer, and what could not be checked."""

    figures: dict[str, float | int | str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def note(self, name: str, value: float | int | str) -> None:
        """A figure that decides nothing."""
        self.figures[name] = value

    def at_most(self, name: str, value: float, limit: float) -> None:
        """A figure that must not exceed `limit`; NaN does."""
        self.note(name, value)
        if not value <= limit:
            self.problems.append(f"{name}: {shown(value)} is more than {shown(limit)}")

    def at_least(self, name: str, value: float, limit: float) -> None:
        """A figure that must reach `limit`; NaN does not."""
        self.note(name, value)
        if not value >= limit:
            self.problems.append(f"{name}: {shown(value)} is less than {shown(limit)}")

    def holds(self, what: str, truth: object) -> bool:
        """Something that must be true; returns whether it is."""
        if not truth:
            self.problems.append(f"not true: {what}")
        return bool(truth)

    def skip(self, reason: str) -> None:
        """A part that cannot be checked here, and why."""
        self.skipped.append(reason)

    @property
    def outcome(self) -> str:
        """PASS, FAIL, or SKIP where nothing at all was checked."""
        if self.problems:
            return "FAIL"
        return "PASS" if self.figures or not self.skipped else "SKIP"

    def line(self) -> str:
        """All of it in words."""
        parts = [f"{name} {shown(value)}" for name, value in self.figures.items()]
        skipped = [f"skipped: {'; '.join(self.skipped)}"] if self.skipped else []
        return " | ".join(filter(None, ["; ".join(self.problems), ", ".join(parts), *skipped]))


def shown(value: float | int | str) -> str:
    """A figure as people read it: counts whole, the rest in three digits."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def child_environment(place: Place, **variables: str) -> dict[str, str]:
    """For programs that a check starts: the checkout is importable, few threads."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PYTHONPATH": path, "PATH": scripts, **variables}
