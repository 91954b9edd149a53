"""What a check found, and what kinds of finding there are."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "FAIL"]


@dataclass(frozen=True)
class Check:
    """One line of the table: `fix` says what to do about a warning or a failure."""

    name: str
    state: State
    says: str
    fix: str = ""

    def __post_init__(self) -> None:
        assert bool(self.fix) == (self.state != "ok"), self


def table(checks: Iterable[Check], host: str = "") -> str:
    """One line a check, the fix below it; `host` in front of each line where several nodes speak."""
    checks = list(checks)
    width = max((len(check.name) for check in checks), default=0)
    start = f"{host}: " if host else ""
    lines = []
    for check in checks:
        lines.append(f"{start}{check.state:8}{check.name:{width}}  {check.says}")
        if check.fix:
            lines.append(f"{start}{'':8}{'':{width}}  -> {check.fix}")
    return "\n".join(lines)
