"""The files of a report: the page, Markdown, CSV."""

import csv
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.written_runs import CLASSES, written, written_study

from cifar_lab.commands.report import main
from cifar_lab.recipe import experiment_id, load_recipe
from cifar_lab.report.contents import contents
from cifar_lab.report.files import results_csv
from cifar_lab.report.read import read_run

VOID = {"meta", "link", "img", "br", "col", "wbr"}


class Page(HTMLParser):
    """Refuses what is not closed, and keeps what is asked for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study with a failed run and one of another protocol."""
    runs = tmp_path_factory.mktemp("study") / "runs"
    written_study(runs, seeds=2)
    written(runs, "demo", error=0.2, overrides=["data.limit=500"])
    written(runs, "resnet18", 7).write_status("failed", 8, 100, reason="out of memory: set train.micro_batch=32")
    assert main([str(runs), "--out", str(runs.parent / "out")]) == 0
    return runs.parent / "out"


def test_files_of_a_report(study: Path) -> None:
    names = {path.name for path in study.iterdir()}
    assert names == {"report.html", "report.md", "results.csv", "plots"}
    plots = [path.name for path in (study / "plots").iterdir()]
    assert len(plots) == 22, "ten figures, the ranking, two of the other protocol, nine of reliability"
    assert all(name.endswith(".svg") for name in plots)


def test_page_is_whole_and_fetches_nothing(study: Path) -> None:
    page = Page((study / "report.html").read_text())
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    assert not re.search(r"url\(|@import", (study / "report.html").read_text())
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"] for link in page.all("a")} <= {f"#{target}" for target in targets}
    assert len(targets) == len([1 for _, attributes in page.tags if "id" in attributes])
    (policy,) = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert (policy or "").startswith("default-src 'none'")


def test_page_is_accessible(study: Path) -> None:
    page = Page((study / "report.html").read_text())
    assert page.all("html") == [{"lang": "en"}]
    assert all(image.get("alt") for image in page.all("img"))
    charts = [svg for svg in page.all("svg") if "chart" in (svg.get("class") or "")]
    assert len(charts) >= 11
    assert all(chart.get("role") == "img" and chart.get("aria-label") for chart in charts)
    assert all(head.get("scope") in ("row", "col") for head in page.all("th"))


def test_page_tells_the_numbers(study: Path) -> None:
    text = " ".join(" ".join(Page((study / "report.html").read_text()).words).split())
    assert "under 2 protocols" in text
    assert "cifar10, 45,000 training pictures, 5,000 held out for validation, 10,000 test pictures" in text
    for title in (
        "rank",
        "test error",
        "seeds",
        "val error",
        "parameters",
        "FLOPs/image",
        "epochs",
        "images/s",
        "peak memory",
    ):
        assert title in text
    assert "9.90 ± 0.14 %" in text
    assert "11.17 M" in text
    assert "1.11 G" in text
    assert "3.0 GiB" in text
    assert "1:02:05" in text
    assert "ddp, 2 processes, micro-batch 64" in text
    assert text.count("holds") >= 6
    assert "Plain34 minus Plain18: +4.00 points" in text
    assert "out of memory: set train.micro_batch=32" in text
    assert "airplane taken for automobile" in text
    assert "torch 2.14.1" in text
    assert all(name in text for name in CLASSES)


def test_markdown_has_tables_figures_and_commands(study: Path) -> None:
    text = (study / "report.md").read_text()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(pictures) == 22
    assert all((study / picture).is_file() for picture in pictures)
    assert "| 1 | vit\\_tiny | 2.90 ± 0.14 % | 2 |" in text
    assert "| Degradation | holds | Plain34 minus Plain18: +4.00" in text
    assert re.search(
        r"^    torchrun --nproc-per-node 2 -m cifar_lab.train \S+/plain18/0-\w+/recipe.yaml --fresh$", text, re.M
    )
    widths = [line.count(" | ") for line in text.splitlines() if line.startswith("| ") and "micro-batch" in line]
    assert set(widths) <= {11, 2}


def test_csv_has_a_line_for_every_run(study: Path) -> None:
    with open(study / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 18
    (failed,) = (line for line in lines if line["state"] == "failed")
    assert (failed["rank"], failed["seed"], failed["reason"]) == (
        "",
        "7",
        "at step 8 of 100: out of memory: set train.micro_batch=32",
    )
    best = lines[0]
    assert (best["name"], best["rank"], best["test_error"], best["num_parameters"]) == (
        "vit_tiny",
        "1",
        "0.028",
        "11173962",
    )
    assert best["strategy"] == "ddp"
    assert Path(best["path"]).is_absolute()


def test_csv_is_not_computed_by_a_spreadsheet(tmp_path: Path) -> None:
    run = written(tmp_path, "plain18")
    run.write_summary({"strategy": "=HYPERLINK(1)"})
    assert ",'=HYPERLINK(1)," in results_csv(contents([read_run(run.path)]))


def test_a_run_is_trained_again_from_its_own_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = written(tmp_path, "resnet18", overrides=["seed=3", "optim.lr=0.2"], strategy="zero2")
    words = shlex.split(read_run(run.path).command)
    assert words[:4] == ["accelerate", "launch", "--config_file", "accelerate_configs/zero2.yaml"]
    assert words[4:8] == ["--num_processes", "2", "-m", "cifar_lab.train"]
    assert words[-1] == "--fresh"
    again = load_recipe(words[8])
    assert (experiment_id(again), again.seed) == (experiment_id(run.recipe()), 3)
    monkeypatch.chdir(tmp_path)
    here = written(tmp_path, "resnet18", world_size=1).path.relative_to(tmp_path)
    assert read_run(here).command == f"cifar-lab train {here}/recipe.yaml --fresh"
