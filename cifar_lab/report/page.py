"""report.html: one file, without network, for a desk and a phone, light and dark."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape

import cifar_lab
from cifar_lab.report import wording
from cifar_lab.report.claims import FAILS, HOLDS, Claim, Evidence
from cifar_lab.report.contents import COLUMNS, NO_STUDY, NOTES, SEPARATE, TEXT_COLUMNS, Contents, Ranked, Section
from cifar_lab.report.groups import Experiment
from cifar_lab.report.page_runs import anchor, attention_table, run_details
from cifar_lab.report.svg import asset

VERDICTS = {HOLDS: "holds", FAILS: "fails"}


def page(contents: Contents, drawings: Mapping[str, str], pictures: Mapping[int, str], started: float) -> str:
    """The document; `drawings` are <svg> by name, `pictures` data URLs by id() of a run, `started` the Unix time."""
    script = asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing is fetched, whatever a name in a recipe tries.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    title = _title(contents)
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<link rel="icon" href="data:,"><title>{escape(title)}</title>',
            f"<style>{asset('theme.css')}{asset('chart.css')}{asset('page.css')}</style></head><body>\n",
            *_header(contents, title, started),
            "<main>\n",
            *_claims(contents),
            *_ranking(contents, drawings),
            *_figures(contents, drawings),
            *_attention(contents),
            *_runs(contents, pictures),
            "</main>\n<footer>",
            *(f"<p>{escape(note)}</p>" for note in NOTES),
            f"</footer>\n<script>{script}</script></body></html>\n",
        ]
    )


def _title(contents: Contents) -> str:
    names = dict.fromkeys(record.name for record in contents.records)
    return f"Report: {next(iter(names))}" if len(names) == 1 else f"Report on {len(contents.records)} runs"


def _header(contents: Contents, title: str, started: float) -> Iterator[str]:
    told = [
        f"{contents.num_counted} completed run{'s' * (contents.num_counted != 1)} of {contents.num_experiments} "
        f"experiment{'s' * (contents.num_experiments != 1)}"
    ]
    if contents.attention:
        told.append(f"{len(contents.attention)} incomplete, failed or damaged")
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(started))
    told.append(f"written {made} by cifar_lab {cifar_lab.__version__}")
    yield f'<header><h1>{escape(title)}</h1><p class="soft">{escape("; ".join(told))}</p></header>\n'
    links = [("claims", "Claims")] if any(section.claims for section in contents.sections) else []
    links += [("ranking", "Ranking"), ("figures", "Figures")] if contents.sections else []
    links += [("attention", "Incomplete")] if contents.attention else []
    links += [("runs", "Runs")]
    items = "".join(f'<li><a href="#{target}">{text}</a></li>' for target, text in links)
    yield f'<nav aria-label="Sections"><ul>{items}</ul></nav>\n'


def _claims(contents: Contents) -> Iterator[str]:
    told = [section for section in contents.sections if section.claims]
    if told:
        yield '<section id="claims"><h2>What the study claims, checked</h2>'
        if not contents.has_study:
            yield f'<p class="soft">{NO_STUDY}</p>'
        for section in told:
            if len(contents.sections) > 1:
                yield f"<h3>{escape(section.protocol)}</h3>"
            yield f'<ul class="claims">{"".join(map(_claim, section.claims))}</ul>'
        yield "</section>\n"


def _claim(claim: Claim) -> str:
    verdict = f'<span class="badge {VERDICTS.get(claim.verdict, "open")}">{claim.verdict}</span>'
    return "".join(
        [
            f'<li class="claim"><h3>{escape(claim.title)} {verdict}</h3><p>{escape(_sentence(claim.sentence))}</p>',
            *_evidence(claim.evidence),
            f'<p class="why">{escape(_sentence(claim.why))}</p></li>',
        ]
    )


def _evidence(evidence: Sequence[Evidence]) -> Iterator[str]:
    """The mean errors, each once, then their differences."""
    sides = {name: experiment for one in evidence for name, experiment in one.sides}
    if sides:
        rows = (f"<dt>{escape(name)}</dt><dd>{_sample(experiment)}</dd>" for name, experiment in sides.items())
        yield f"<dl>{''.join(rows)}</dl>"
    for one in evidence:
        low, high = (wording.points(value) for value in (one.difference.low, one.difference.high))
        yield (
            f'<p class="difference">{escape(one.what)}: <strong>{wording.points(one.difference.value)} points</strong>,'
            f' 95 % interval {low} to {high} <span class="soft">({escape(one.difference.method)})</span></p>'
        )


def _sample(experiment: Experiment) -> str:
    seeds = len(experiment.runs)
    return f"{wording.mean_error(experiment.sample)} ({seeds} seed{'s' * (seeds != 1)})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    return f"{_capital(text)}."


def _ranking(contents: Contents, drawings: Mapping[str, str]) -> Iterator[str]:
    if not contents.sections:
        return
    yield '<section id="ranking"><h2>Ranking</h2>'
    if len(contents.sections) > 1:
        yield f"<p><strong>{SEPARATE.format(count=len(contents.sections))}</strong></p>"
    for section in contents.sections:
        if len(contents.sections) > 1:
            yield f"<h3>{escape(section.protocol)}</h3>"
        if section.slug in drawings:
            caption = "Dots are seeds, diamonds their means, lines 95 % intervals of the means."
            yield f'<figure class="wide">{drawings[section.slug]}<figcaption>{caption}</figcaption></figure>'
        yield _table(section, headed=len(contents.sections) > 1)
    yield "</section>\n"


def _table(section: Section, *, headed: bool) -> str:
    hidden = ' class="hidden"' if headed else ""
    heads = "".join(f'<th scope="col" role="columnheader"{_class(title)}>{title}</th>' for title, _ in COLUMNS)
    rows = "".join(
        f'<tr role="row">{"".join(_cell(title, ranked) for title, _ in COLUMNS)}</tr>' for ranked in section.ranked
    )
    return (
        f'<table class="cards" role="table"><caption{hidden}>{escape(section.protocol)}</caption>'
        f'<thead role="rowgroup"><tr role="row">{heads}</tr></thead><tbody role="rowgroup">{rows}</tbody></table>'
    )


def _class(title: str) -> str:
    kind = "text" if title in TEXT_COLUMNS else "key" if title == "test error" else ""
    return f' class="{kind}"' if kind else ""


def _cell(title: str, ranked: Ranked) -> str:
    text = escape(dict(COLUMNS)[title](ranked))
    if title == "experiment":
        broken = text.replace("_", "_<wbr>").replace(".", ".<wbr>")
        link = f'<a href="#{anchor(ranked.experiment.runs[0])}">{broken}</a>'
        return f'<th scope="row" role="rowheader" class="text">{link}</th>'
    return f'<td role="cell"{_class(title)} data-label="{title}"><span>{text}</span></td>'


def _figures(contents: Contents, drawings: Mapping[str, str]) -> Iterator[str]:
    if not any(section.figures for section in contents.sections):
        return
    yield '<section id="figures"><h2>Figures</h2>'
    for section in contents.sections:
        if len(contents.sections) > 1 and section.figures:
            yield f"<h3>{escape(section.protocol)}</h3>"
        yield '<div class="figures">'
        for figure in section.figures:
            caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
            yield f"<figure>{drawings[figure.name]}{caption}</figure>"
        yield "</div>"
        if section.missing:
            items = "".join(f"<li>{escape(missing.describe())}</li>" for missing in section.missing)
            yield f'<p class="soft">Missing for want of runs:</p><ul class="soft">{items}</ul>'
    yield "</section>\n"


def _attention(contents: Contents) -> Iterator[str]:
    if contents.attention:
        yield '<section id="attention"><h2>Incomplete, failed and damaged runs</h2>'
        yield attention_table(contents.attention)
        yield "</section>\n"


def _runs(contents: Contents, pictures: Mapping[int, str]) -> Iterator[str]:
    yield '<section id="runs"><h2>Runs</h2>'
    repeats = {id(run) for s in contents.sections for ranked in s.ranked for run in ranked.experiment.repeats}
    for record in contents.ordered:
        yield run_details(record, pictures.get(id(record)), repeat=id(record) in repeats)
    yield "</section>\n"
