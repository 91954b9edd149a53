"""World: a world of one under torchrun."""

from __future__ import annotations

from gpu_checks.check import Found, Place
from gpu_checks.launched import launch


def world(place: Place, found: Found) -> None:
    """Objects, the vote's own group, DDP put around a single process, its bf16 hook, and an end that does not hang."""
    seen = launch("world", ["torch.distributed.run", "--standalone", "--nproc-per-node", "1"], place)
    found.note("backend", seen["backend"])
    for part in ("objects", "vote", "sum"):
        found.holds(f"{part} arrive as they were sent", seen[part])
    alone, ddp, rounded = (seen["losses"][way] for way in ("alone", "ddp", "bf16 hook"))
    found.at_most("DDP off by", _off(alone, ddp), 1e-6)
    found.at_most("bf16 hook off by", _off(alone, rounded), 1e-2)
    found.holds("the bf16 hook rounds", rounded != ddp)


def _off(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
