"""Numbers and names as people read them."""

import time
from collections.abc import Sequence

from cifar_lab.cli.printable import duration as duration
from cifar_lab.cli.printable import percent as percent
from cifar_lab.report.record import RunRecord
from cifar_lab.report.stats import Sample

MISSING = "-"


def mean_error(sample: Sample) -> str:
    """Mean and standard deviation over seeds."""
    if sample.deviation is None:
        return percent(sample.mean)
    return f"{100 * sample.mean:.2f} ± {100 * sample.deviation:.2f} %"


def counted(number: int, what: str) -> str:
    """1 run, 2 runs."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def points(value: float) -> str:
    """A signed difference of errors in percentage points."""
    return f"{100 * value:+.2f}"


def scaled(value: float | None) -> str:
    """11173962 as 11.17 M."""
    if value is None:
        return MISSING
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= limit:
            return f"{value / limit:.2f} {letter}"
    # 50,000 parameters are still read best in full.
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value:,.0f}"


def memory(value: float | None) -> str:
    """Bytes as GiB or MiB."""
    if value is None:
        return MISSING
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def whole(value: float | None) -> str:
    """Thousands apart, without a fraction."""
    return MISSING if value is None else f"{value:,.0f}"


def plain(value: float | None) -> str:
    """As short as it is exact enough: 150, 0.5."""
    return MISSING if value is None else f"{value:.4g}"


def moment(unix: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix)) if 0 < unix < 1e11 else MISSING


def topology(runs: Sequence[RunRecord]) -> str:
    """Strategy, processes and micro-batch; all that occur."""
    told = []
    for run in runs:
        world_size, micro_batch = run.figure("world_size"), run.figure("micro_batch")
        parts = [run.word("strategy") or MISSING]
        parts += [f"{world_size:.0f} processes"] if world_size and world_size > 1 else []
        parts += [f"micro-batch {run.micro_batches or f'{micro_batch:.0f}'}"] if micro_batch else []
        told.append(", ".join(parts))
    return " / ".join(dict.fromkeys(told))


def model_name(run: RunRecord) -> str:
    """Family, with the architecture or the depth where it has one."""
    model = run.recipe.get("model")
    if not isinstance(model, dict) or "name" not in model:
        return MISSING
    args = model.get("args")
    args = args if isinstance(args, dict) else {}
    return " ".join(str(part) for part in (model["name"], args.get("arch"), args.get("depth")) if part is not None)
