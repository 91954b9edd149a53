"""A step's time in parts, whose sum is the step: averages, what is waiting for others, a table, one advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PARTS = ("data", "forward", "backward", "optimizer", "communication", "waiting", "logging", "saving", "other")

ADVICE = {
    "data": "give each process more cores (OMP_NUM_THREADS), or use lighter data.augment settings",
    "communication": "train.grad_compression halves what is sent; a larger train.global_batch, another experiment, "
    "sends less often",
    "waiting": "the processes are not equally fast: look for other programs on their cores, or a slower node",
    "optimizer": "a larger train.global_batch, another experiment, updates less often",
    "logging": "a larger log.every_steps reads the device less often",
    "saving": "save less often with checkpoint.every_epochs or checkpoint.every_steps",
    "other": "the steps are so short that the loop's own work counts; larger micro-batches hide it",
}
# The share from which a part is worth a word; forward and backward are what training is.
WORTH = {
    "data": 0.1,
    "communication": 0.1,
    "waiting": 0.1,
    "optimizer": 0.2,
    "logging": 0.05,
    "saving": 0.1,
    "other": 0.1,
}


@dataclass
class StepTime:
    """One step of one process: seconds by part; `collectives` are those of each blocking exchange, in their order."""

    wall: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    collectives: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Breakdown:
    """Mean seconds of a step by part, over steps; `parts` add up to `wall`."""

    wall: float
    parts: dict[str, float]

    def share(self, part: str) -> float:
        """What fraction of the step a part takes."""
        return self.parts[part] / self.wall


def break_down(processes: Sequence[Sequence[StepTime]]) -> list[Breakdown]:
    """The mean step of each process.

    An exchange ends for all at about the same time, so the process that came last sees its cost alone: the shortest of
    all is communication, and what others spend beyond it is waiting. That needs no common clock.
    """
    return [
        _mean([_parts(steps[rank], steps) for steps in zip(*processes, strict=True)]) for rank in range(len(processes))
    ]


def _parts(own: StepTime, all_of_step: Sequence[StepTime]) -> StepTime:
    waiting = 0.0
    if len({len(step.collectives) for step in all_of_step}) == 1:
        exchanges = zip(*(step.collectives for step in all_of_step), strict=True)
        shortest = [min(exchange) for exchange in exchanges]
        waiting = sum(own.collectives) - sum(shortest)
    parts = {part: own.parts.get(part, 0.0) for part in PARTS}
    parts["communication"] -= waiting
    parts["waiting"] = waiting
    parts["other"] = own.wall - sum(seconds for part, seconds in parts.items() if part != "other")
    return StepTime(own.wall, parts)


def _mean(steps: Sequence[StepTime]) -> Breakdown:
    count = len(steps)
    return Breakdown(
        sum(step.wall for step in steps) / count,
        {part: sum(step.parts[part] for step in steps) / count for part in PARTS},
    )


def over_processes(each: Sequence[Breakdown]) -> Breakdown:
    """The mean of all processes, whose parts add up to its step too."""
    return _mean([StepTime(one.wall, one.parts) for one in each])


def advise(step: Breakdown) -> str:
    """One sentence: the part that most exceeds its due, and what lowers it."""
    over = {part: step.share(part) / due for part, due in WORTH.items() if step.share(part) >= due}
    if not over:
        network = step.share("forward") + step.share("backward")
        return f"{network:.0%} is the network itself: nothing else is worth a change."
    part = max(over, key=lambda name: over[name])
    return f"{part} takes {step.share(part):.0%} of the step: {ADVICE[part]}."


def render(found: dict[str, Any]) -> str:
    """The text of what `profile` found."""
    lines = [
        f"{found['recipe']}: {found['model']}, {found['strategy']}, {found['world_size']} x {found['device']}, "
        f"micro-batch {found['micro_batch']} x {found['accumulation_steps']}, {found['steps']} steps",
        "",
        f"{'part':15}{'ms':>10}{'%':>8}",
    ]
    lines += [f"{row['part']:15}{row['ms']:10.2f}{row['percent']:8.1f}" for row in found["parts"]]
    lines += [f"{'step':15}{found['step_ms']:10.2f}{100.0:8.1f}   {found['images_per_second']:,.0f} images/s", ""]
    lines += [f"{'operator':48}{'calls a step':>13}{'ms a step':>11}{'%':>8}"]
    lines += [
        f"{row['name'][:47]:48}{row['calls']:13.1f}{row['ms']:11.2f}{row['percent']:8.1f}" for row in found["operators"]
    ]
    lines += ["", found["advice"], *(f"trace: {path}" for path in found["traces"])]
    return "\n".join(lines)
