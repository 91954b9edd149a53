"""A measurement as people read it."""

from __future__ import annotations

from cifar_lab.cli.printable import shown
from cifar_lab.trained.measure import Measured
from cifar_lab.trained.scores import BINS

WIDEST = 20  # classes of which the confusion matrix still fits a terminal


def render(measured: Measured) -> str:
    """Totals, a line a class, the confusion matrix."""
    result, sure = measured.result, measured.calibration
    tta = {False: "", True: ", with mirror images", "translate": ", with mirror images and translations"}[measured.tta]
    lines = [
        shown(measured.model),
        f"{measured.data}, {measured.split} split: {result.count:,} pictures{tta}",
        f"  accuracy     {result.accuracy:8.2%}",
        f"  loss         {result.loss:8.4f}",
        f"  calibration  {sure.ece:8.2%}  (ECE, {BINS} bins; mean confidence {sure.mean_confidence:.2%})",
    ]
    if measured.recorded is not None:
        lines.append(_comparison(measured))
    if measured.same_data is False:
        lines.append("  these are not the pictures that the run was trained with: val and train are not what they were")
    return "\n".join([*lines, "", *_classes(measured), *_confusion(measured)])


def _comparison(measured: Measured) -> str:
    recorded, result = measured.recorded, measured.result
    assert recorded is not None
    if all(recorded[key] == getattr(result, key) for key in ("accuracy", "count")):
        return "  as the run's summary.json says"
    return f"  the run's summary.json says {recorded['accuracy']:.2%} of {recorded['count']:,} pictures"


def _classes(measured: Measured) -> list[str]:
    width = max(5, *(len(one.name) for one in measured.classes))
    lines = [f"{'class':{width}}  {'pictures':>8}  {'accuracy':>8}  {'precision':>9}  most often taken for"]
    for index, one in enumerate(measured.classes):
        taken = [0 if other == index else count for other, count in enumerate(measured.confusion[index])]
        most = max(taken)
        other = f"{measured.classes[taken.index(most)].name} ({most:,})" if most else "-"
        accuracy, precision = ("-" if part is None else f"{part:.2%}" for part in (one.accuracy, one.precision))
        lines.append(f"{one.name:{width}}  {one.count:>8,}  {accuracy:>8}  {precision:>9}  {other}")
    return lines


def _confusion(measured: Measured) -> list[str]:
    names = [one.name for one in measured.classes]
    if len(names) > WIDEST:
        return ["", f"the confusion matrix of {len(names)} classes is in the output of --json"]
    rows = [[f"{count:,}" for count in row] for row in measured.confusion]
    cell = max(5, *(len(text) for row in rows for text in row))
    width = max(map(len, names))
    lines = ["", "confusion: rows are what pictures are, columns what they were taken for"]
    lines.append(" " * width + "".join(f"  {name[:cell]:>{cell}}" for name in names))
    return lines + [
        f"{name:{width}}" + "".join(f"  {text:>{cell}}" for text in row) for name, row in zip(names, rows, strict=True)
    ]
