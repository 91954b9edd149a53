#!/usr/bin/env python
"""Pictures of what `cifar-lab sync` fills a W&B project with: docs/pictures/wandb_*.png.

    python scripts/wandb_pictures.py RUN... [--out DIR]

Copies the runs, sends them to a server of its own on this machine (openwandb, `pip install -e '.[test-server]'`)
and takes its pages with Chromium. These are openwandb's pages, not W&B's: what is in them is the same.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser.chromium import Chromium, missing  # noqa: E402
from support.local_wandb import Server, serving  # noqa: E402

PROJECT = "cifar-lab"
WIDTH = 1000
CLICK = "[...document.querySelectorAll('*')].find(e => !e.children.length && e.innerText == arguments[0]).click()"
# The list of runs shows parts of each run's config, a screen a run: that column is left out.
NO_CONFIG = """
const style = document.createElement('style');
style.textContent = 'th:nth-child(6), td:nth-child(6) { display: none }';
document.head.append(style);
"""
# Title and place of a chart among those of that name: in each section, test, train and val, there is a loss.
SHOWN = (("loss", 1), ("accuracy", 1))
# Left, upper, right and lower edge of the n-th chart with that title.
CHART = """
const [title, place] = arguments, all = [...document.querySelectorAll('*')];
let card = all.filter(e => !e.children.length && e.innerText == title)[place];
while (!card.querySelector('canvas, svg')) card = card.parentElement;
const box = card.getBoundingClientRect();
return [box.left + scrollX, box.top + scrollY, box.right + scrollX, box.bottom + scrollY].map(Math.round);
"""


def log_in(browser: Chromium, server: Server) -> None:
    """As the user that openwandb has from the start."""
    browser.open(f"{server.url}/login", width=WIDTH)
    request = urllib.request.Request(
        f"{server.url}/api/v2/auth/login",
        json.dumps({"username": "admin", "password": "admin123"}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        browser.run("document.cookie = arguments[0] + '; path=/'", answer.headers["Set-Cookie"].split(";")[0])


def picture(browser: Chromium) -> Image.Image:
    """The whole page, after the motion with which charts appear."""
    time.sleep(4)
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        browser.screenshot(Path(file.name))
        return Image.open(io.BytesIO(Path(file.name).read_bytes())).convert("RGB")


def keep(image: Image.Image, out: Path, name: str) -> None:
    path = out / f"wandb_{name}.png"
    image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


def upper(image: Image.Image, height: int) -> Image.Image:
    return image.crop((0, 0, image.width, min(height, image.height)))


def pages(browser: Chromium, server: Server, out: Path) -> None:
    log_in(browser, server)
    browser.open(f"{server.url}/projects/default/{PROJECT}", width=WIDTH)
    browser.run(NO_CONFIG)
    keep(upper(picture(browser), 1200), out, "project")
    browser.open(f"{server.url}/compare/default/{PROJECT}", width=WIDTH)
    time.sleep(2)
    browser.run(CLICK, "Select All")
    page = picture(browser)
    charts = [page.crop(browser.run(CHART, title, place)) for title, place in SHOWN]
    both = Image.new("RGB", (charts[0].width, sum(chart.height for chart in charts)))
    for number, chart in enumerate(charts):
        both.paste(chart, (0, number * charts[0].height))
    keep(both, out, "curves")
    ((run,),) = server.query("select run_id from runs order by created_at desc limit 1")
    browser.open(f"{server.url}/runs/default/{PROJECT}/{run}", width=WIDTH)
    time.sleep(2)
    browser.run(CLICK, "Media")
    keep(upper(picture(browser), 560), out, "media")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run directories; the last is also shown alone"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", metavar="DIR")
    arguments = parser.parse_args()
    if problem := missing():
        parser.error(problem)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(folder / "server") as server:
            environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
            environment |= {**server.environment, "HOME": name, "CIFAR_LAB_CACHE": str(folder / "cache")}
            for number, run in enumerate(arguments.runs):
                copy = folder / "runs" / str(number) / run.parent.name / run.name
                shutil.copytree(run, copy, ignore=shutil.ignore_patterns("wandb*", "checkpoints"))
                command = [sys.executable, "-m", "cifar_lab", "sync", str(copy), "--project", PROJECT]
                subprocess.run(command, env=environment, cwd=ROOT)
            with Chromium(folder / "profile") as browser:
                pages(browser, server, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
