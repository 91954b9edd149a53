"""docs/landscape: chart and table are what the script makes of the CSV file, and timm knows every model of it."""

from __future__ import annotations

import csv
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

from support.contrast import contrast
from timm.models import get_pretrained_cfg

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FILES = ("landscape.csv", "landscape.md", "landscape.svg")


def test_chart_and_table_are_those_of_the_csv(tmp_path: Path) -> None:
    for name in FILES[:2]:
        shutil.copy(DOCS / name, tmp_path)
    subprocess.run([sys.executable, str(ROOT / "scripts" / "landscape"), "--docs", str(tmp_path)], check=True)
    for name in FILES:
        assert (tmp_path / name).read_text() == (DOCS / name).read_text(), f"run scripts/landscape ({name})"


def test_text_is_readable_on_any_page_and_on_a_phone() -> None:
    svg = (DOCS / "landscape.svg").read_text()
    light, dark = svg.split("@media (prefers-color-scheme:dark)")
    for scheme in (light, dark):
        text, paper = (re.findall(place + r"\{[^}]*fill:(#\w+)", scheme)[0] for place in ("text", r"\.paper"))
        assert contrast(text, paper) >= 4.5
    assert '<rect class="paper" width="100%" height="100%"/>' in svg, "the page may be dark where the system is not"
    pixels = re.findall(r"max-width:600px\)\{text,.title\{font-size:(\d+)px", svg)
    assert int(pixels[0]) * 358 / 900 >= 11, "on 390 px less the margins"
    phone = svg.split('<g class="phone">')[1]
    numbers = [
        (float(x) - 8 * len(text), float(x) + 8 * len(text), float(y) - 20, float(y), text)
        for x, y, text in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="middle">(\d\d?)</text>', phone)[
            -13:
        ]
    ]
    assert [text for *_, text in numbers] == [str(number) for number in range(1, 14)]
    table = (DOCS / "landscape.md").read_text()
    assert all(f"\n| {text} | `" in table for *_, text in numbers)
    for i, (left, right, top, bottom, text) in enumerate(numbers):
        assert left >= 0 and right <= 900
        for other in numbers[i + 1 :]:
            assert right < other[0] or other[1] < left or bottom < other[2] or other[3] < top, (text, other[4])


def test_models_are_timms_and_labels_do_not_overlap() -> None:
    with (DOCS / "landscape.csv").open() as file:
        models = list(csv.DictReader(file))
    assert len(models) == 13
    for row in models:
        assert get_pretrained_cfg(row["model"], allow_unregistered=False) is not None
    boxes = []
    svg = (DOCS / "landscape.svg").read_text()
    for tag, text in re.findall(r'<text ((?:[a-z-]+="[^"]*" ?)+)>([a-z0-9_]+, \d+ px)</text>', svg):
        at = dict(re.findall(r'([a-z-]+)="([^"]*)"', tag))
        width, x, y = 6.6 * len(text), float(at["x"]), float(at["y"])
        left = x - {"end": width, "middle": width / 2}.get(at.get("text-anchor", ""), 0)
        boxes.append((left, left + width, y - 10, y + 2, text))
    assert len(boxes) == 13
    for i, (left, right, top, bottom, text) in enumerate(boxes):
        assert left >= 0 and right <= 900 and math.isfinite(top)
        for other in boxes[i + 1 :]:
            assert right < other[0] or other[1] < left or bottom < other[2] or other[3] < top, (text, other[4])
