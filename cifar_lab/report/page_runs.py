"""The part of the page about single runs."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from cifar_lab.report import wording
from cifar_lab.report.curves import number, thinned
from cifar_lab.report.figure import Figure, Line
from cifar_lab.report.record import Predictions, RunRecord
from cifar_lab.report.reproduce import command
from cifar_lab.report.study import training_loss, validation_error
from cifar_lab.report.svg import Size, draw

SMALL = Size(360, 230)
POINTS = 120
MOST_CLASSES = 20
CONFUSIONS = 10
ENVIRONMENT = (
    "device", "host", "hosts", "platform", "python", "packages", "cifar_lab", "revision", "strategy", "world_size",
    "global_batch", "micro_batch", "accumulation_steps", "threads", "slurm_job_id", "command",
)  # fmt: skip


def anchor(run: RunRecord) -> str:
    """The run's place on the page."""
    return f"run-{zlib.crc32(str(run.path).encode('utf-8', 'replace')):08x}"


def attention_table(records: Sequence[RunRecord]) -> str:
    """Each run without a result, and why."""
    rows = []
    for record in records:
        cells = [
            ("state", f'<span class="badge {_state(record)}">{escape(record.state)}</span>'),
            ("reason", escape(record.reason or "")),
            ("val error", wording.percent(record.val_error)),
            ("last written", wording.moment(number(record.status.get("updated")))),
        ]
        name = (
            f'<th scope="row" role="rowheader" class="text"><a href="#{anchor(record)}">{escape(record.label)}</a></th>'
        )
        told = "".join(
            f'<td role="cell"{_text(title)} data-label="{title}"><span>{cell}</span></td>' for title, cell in cells
        )
        rows.append(f'<tr role="row">{name}{told}</tr>')
    titles = ("run", "state", "reason", "val error", "last written")
    head = "".join(f'<th scope="col" role="columnheader"{_text(title)}>{title}</th>' for title in titles)
    return (
        f'<table class="cards" role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(rows)}</tbody></table>'
    )


def _text(title: str) -> str:
    return ' class="text"' if title in ("run", "state", "reason") else ' class="wide"' if "last" in title else ""


def _state(record: RunRecord) -> str:
    return record.state.replace(" ", "-")


def run_details(run: RunRecord, picture: str | None, *, repeat: bool = False) -> str:
    """One run, folded: curves, how to repeat it, its mistakes, what it ran on."""
    numbers = [f"seed {run.seed}"]
    numbers += [f"test error {wording.percent(run.test_error)}"] if run.test_error is not None else []
    numbers += [f"val error {wording.percent(run.val_error)}"] if run.val_error is not None else []
    numbers += ["an earlier run of its seed, not counted"] if repeat else []
    return "".join(
        [
            f'<details id="{anchor(run)}"><summary><span class="grow">{escape(run.label)}</span>',
            *(f'<span class="num soft">{text}</span>' for text in numbers),
            f'<span class="badge {_state(run)}">{escape(run.state)}</span></summary><div class="inside">',
            f"<p>{escape(run.reason)}</p>" if run.reason else "",
            *_charts(run),
            "<h4>Train it again</h4>",
            f"<pre>{escape(command(run))}</pre>",
            *_facts(run),
            *(_predictions(run, run.predictions) if run.predictions is not None else ()),
            *_mistakes(run, picture),
            *_environment(run),
            "</div></details>\n",
        ]
    )


def _charts(run: RunRecord) -> Iterator[str]:
    figures = [figure for figure in run_figures(run) if figure.lines]
    if figures:
        drawn = "".join(f"<figure>{draw(figure, SMALL)}{_cut(figure)}</figure>" for figure in figures)
        yield f'<div class="figures small">{drawn}</div>'


def _cut(figure: Figure) -> str:
    return "<figcaption>The start is above the axis.</figcaption>" if figure.cut else ""


def run_figures(run: RunRecord) -> list[Figure]:
    """Losses, validation error, learning rate and throughput of one run."""
    raw, mean, validation = run.metrics.curve("train", "loss"), training_loss(run), run.metrics.curve("val", "loss")
    loss = []
    if len(mean[0]) >= 3 and len(raw[0]) >= 2 * len(mean[0]):
        loss.append(Line("", *thinned(*raw, POINTS), faint=True))
    else:
        mean = raw
    loss.append(Line("training", *thinned(*mean, POINTS), dashed=True))
    loss.append(Line("validation", *thinned(*validation, POINTS), look=1))
    rate, speed = (run.metrics.curve("train", key) for key in ("lr", "images_per_second"))
    figures = [
        Figure("loss", "Loss", loss),
        Figure("error", "Validation error (%)", [Line("", *thinned(*validation_error(run), POINTS), look=1)]),
        Figure("lr", "Learning rate", [Line("", *thinned(*rate, POINTS), look=2)], from_zero=True),
        Figure("speed", "Images per second", [Line("", *thinned(*speed, POINTS), look=3)], from_zero=True),
    ]
    return [Figure(f.name, f.title, [line for line in f.lines if len(line.x)], from_zero=f.from_zero) for f in figures]


def _facts(run: RunRecord) -> Iterator[str]:
    facts = [
        ("model", wording.model_name(run)),
        ("parameters", wording.scaled(run.figure("num_parameters"))),
        ("FLOPs an image", wording.scaled(run.figure("flops_per_image"))),
        ("steps", wording.whole(run.figure("steps"))),
        ("epochs", wording.plain(run.figure("epochs"))),
        ("wall time", wording.duration(run.figure("wall_seconds"))),
        ("images/s", wording.whole(run.figure("images_per_second"))),
        ("peak memory", wording.memory(run.figure("peak_memory_bytes"))),
        ("directory", str(run.path)),
    ]
    rows = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts if text != wording.MISSING)
    yield f"<h4>Numbers</h4><dl>{rows}</dl>"


def _predictions(run: RunRecord, predictions: Predictions) -> Iterator[str]:
    """Confusion matrix and accuracy of each class; of many classes the worst."""
    num = int(max(predictions.labels.max(initial=0), predictions.predictions.max(initial=0), len(run.classes) - 1)) + 1
    if not len(predictions.labels) or num > 10_000 or predictions.predictions.min() < 0:
        return
    names = [run.classes[i] if i < len(run.classes) else str(i) for i in range(num)]
    counts = np.zeros((num, num), dtype=np.int64)
    np.add.at(counts, (predictions.labels, predictions.predictions), 1)
    yield '<div class="pair">'
    if num <= MOST_CLASSES:
        yield f"<div><h4>Confusion matrix</h4>{_matrix(counts, names)}</div>"
    yield f"<div><h4>Accuracy of each class</h4>{_classes(counts, names)}</div>"
    yield f"<div><h4>Most common mistakes</h4>{_confusions(counts, names)}</div></div>"


def _matrix(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]], names: Sequence[str]) -> str:
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f'<th scope="col"><span>{escape(name[:14])}</span></th>' for name in names)
    rows = []
    for i, name in enumerate(names):
        cells = "".join(
            f'<td class="{"right" if i == j else "wrong" if counts[i, j] else "wrong zero"}"'
            f' style="--v:{share[i, j] * 0.45:.0f}">{share[i, j]:.0f}</td>'
            for j in range(len(names))
        )
        rows.append(f'<tr><th scope="row">{escape(name[:14])}</th>{cells}</tr>')
    return (
        '<table class="confusion">'
        "<caption>Rows: what it is; columns: what it was taken for; percent of the row.</caption>"
        f'<colgroup><col class="head">{"<col>" * len(names)}</colgroup>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _classes(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]], names: Sequence[str]) -> str:
    totals, right = counts.sum(axis=1), counts.diagonal()
    share = 100 * right / np.maximum(totals, 1)
    order = [i for i in np.argsort(share, kind="stable").tolist() if totals[i]][:MOST_CLASSES]
    rows = "".join(
        f'<tr><th scope="row" class="text">{escape(names[i])}</th><td>{share[i]:.1f} %</td>'
        f'<td><span class="bar" style="--v:{share[i]:.1f}"></span></td></tr>'
        for i in order
    )
    caption = f"The worst {len(order)} of {len(names)}." if len(order) < len(names) else "The worst first."
    head = '<thead class="hidden"><tr><th scope="col">class</th><th scope="col">accuracy</th><td></td></tr></thead>'
    return f'<table class="bars"><caption>{caption}</caption>{head}<tbody>{rows}</tbody></table>'


def _confusions(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]], names: Sequence[str]) -> str:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS].tolist()
    pairs = [divmod(place, len(names)) for place in order if wrong.flat[place]]
    if not pairs:
        return "<p>None.</p>"
    items = "".join(f"<dt>{wrong[i, j]}</dt><dd>{escape(names[i])} taken for {escape(names[j])}</dd>" for i, j in pairs)
    return f"<dl>{items}</dl>"


def _mistakes(run: RunRecord, picture: str | None) -> Iterator[str]:
    path = run.path / "mistakes.png"
    if picture:
        alt = (
            "Wrongly classified test pictures, the most confident first, each with what it is and what it was taken for"
        )
        yield f'<h4>The most confident mistakes</h4><img loading="lazy" alt="{alt}" src="{picture}">'
    elif path.is_file():
        yield f"<h4>The most confident mistakes</h4><p><code>{escape(str(path))}</code></p>"


def _environment(run: RunRecord) -> Iterator[str]:
    rows = []
    for key in ENVIRONMENT:
        value = run.env.get(key)
        if key == "hosts" and value == [run.env.get("host")]:
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        elif isinstance(value, list):
            value = " ".join(map(str, value))
        if value not in (None, ""):
            rows.append(f"<dt>{key}</dt><dd>{escape(str(value))}</dd>")
    if rows:
        yield f"<h4>Environment</h4><dl>{''.join(rows)}</dl>"
