"""What the documentation says is run, loaded or looked up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt  # of rich
from PIL import Image

from cifar_lab.commands.dispatch import COMMANDS
from cifar_lab.recipe import parse_recipe

ROOT = Path(__file__).resolve().parents[1]
README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNNABLE = re.compile(r"<!-- runnable(?:: (?P<kind>[a-z ]+))? -->\n```bash\n(?P<code>.*?)```", re.DOTALL)
BLOCKS = [
    pytest.param(
        match["code"],
        set((match["kind"] or "").split()),
        id=f"{document.stem}-{number}",
        marks=[pytest.mark.launch] if "launch" in (match["kind"] or "") else [],
    )
    for document in DOCUMENTS
    for number, match in enumerate(RUNNABLE.finditer(document.read_text()))
]
# What stands in for the full demo in blocks that are marked `small` and `clone`: the command is the one shown.
SMALL = {
    "data": {"name": "shapes", "val_size": 100, "limit": 200, "test_limit": 50},
    "model": {"args": {"width": 8}},
    "optim": {"warmup_epochs": 0},
    "train": {"epochs": 1, "global_batch": 20},
}


def small_demo(to: Path) -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / "demo.yaml").read_text())
    for section, values in SMALL.items():
        recipe[section] |= values
    to.write_text(yaml.safe_dump(recipe))


def completed(code: str, folder: Path, **env: str) -> str:
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=os.environ | {"CIFAR_LAB_DATA": "", "HF_HUB_OFFLINE": "1"} | env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def checkout(folder: Path, small: bool) -> None:
    """Make `folder` look like a checkout without runs, with this environment as `.venv`."""
    for name in ("accelerate_configs", "cifar_lab", "launch", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    if small:
        (folder / "recipes").mkdir()
        small_demo(folder / "recipes" / "demo.yaml")
    else:
        (folder / "recipes").symlink_to(ROOT / "recipes")


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def test_documents_have_runnable_blocks() -> None:
    assert len(BLOCKS) >= 6


def test_each_command_of_the_readme_is_run() -> None:
    text = README.read_text()
    assert text.count("```bash") == len(RUNNABLE.findall(text))
    assert "```console" not in text and "    cifar-lab" not in text


@pytest.mark.parametrize(("code", "kind"), [block for block in BLOCKS if "clone" not in block.values[1]])
def test_runnable_block(code: str, kind: set[str], tmp_path: Path) -> None:
    checkout(tmp_path, "small" in kind)
    for split, class_, number in product(("train", "test"), ("cat", "dog"), range(160)):
        if "DIR" in code:
            folder = tmp_path / "DIR" / split / class_
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 32), (200 * (class_ == "cat"), number, 60 + number)).save(folder / f"{number}.png")
    completed(code, tmp_path, PATH=f"{tmp_path}/.venv/bin:{os.environ['PATH']}")
    for run_dir in re.findall(r"--run-dir (\S+)", code):
        told = summary(tmp_path / run_dir)
        if "learns" in kind:  # of ten classes
            assert told["test"]["accuracy"] > 0.4
    if "small" in kind:
        world_sizes = [summary(run)["world_size"] for run in sorted((tmp_path / "runs").glob("*/*-*"))]
        assert world_sizes == ([1, 2, 2] if "launch" in kind else [1])


@pytest.mark.parametrize(("code", "kind"), [block for block in BLOCKS if "clone" in block.values[1]])
def test_clone_setup_quickstart(code: str, kind: set[str], tmp_path: Path) -> None:
    """As it stands, but for an installer that installs nothing, and a demo that takes seconds."""
    if not (ROOT / ".git").exists():
        pytest.skip("the tests do not lie in a git checkout")
    python = tmp_path / "python"
    python.write_text(
        f"""#!/usr/bin/env bash
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo "#!$PWD/.venv/bin/python" >.venv/bin/pip
elif [ "$1 $2 $3" = "-m pip install" ]; then
  echo "$@" >>{tmp_path}/installed
else
  exec {sys.executable} "$@"
fi
"""
    )
    python.chmod(0o755)
    small_demo(tmp_path / "demo.yaml")
    first, rest = code.split("\n", 1)
    code = f"{first}\ncp {tmp_path}/demo.yaml recipes/demo.yaml\n{rest}"
    said = completed(code, tmp_path, REPOSITORY=str(ROOT), PYTHON=str(python), PYTHONPATH="")
    installed = (tmp_path / "installed").read_text()
    assert "torch torchvision" in installed and ".[dev]" in installed
    run = re.findall(r"^run: (\S+)$", said, re.MULTILINE)[-1]
    assert summary(tmp_path / "cifar_lab" / run)["test"]["count"] == 50
    assert (tmp_path / "cifar_lab" / run / "report" / "report.html").is_file()


def test_short_and_in_two_languages() -> None:
    english, chinese = README.read_text(), CHINESE.read_text()
    assert len(english.splitlines()) <= 150
    assert english.startswith("[简体中文](README.zh-CN.md)\n") and chinese.startswith("[English](README.md)\n")

    def code(text: str) -> list[str]:
        """Blocks with their markers, without comments, which may be translated, and what programs print."""
        blocks = re.findall(r"((?:<!-- [a-z: ]+ -->\n)?```(?:bash|yaml)\n.*?```)", text, re.DOTALL)
        return [re.sub(r"(?m)\s+# .*$", "", block) for block in blocks]

    def local(text: str) -> list[str]:
        links = set(re.findall(r"\]\(([^)]+)\)", text)) - {README.name, CHINESE.name}
        return sorted(link for link in links if "://" not in link)

    def words(text: str) -> list[str]:
        """Inline code: commands, keys and files."""
        return sorted(set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))))

    assert code(english) == code(chinese)
    assert local(english) == local(chinese)
    assert words(english) == words(chinese)
    tables = [re.findall(r"(?m)^\|.*\|$", text) for text in (english, chinese)]
    assert [row.count("|") for row in tables[0]] == [row.count("|") for row in tables[1]]


@pytest.mark.parametrize("document", [*DOCUMENTS, CHINESE], ids=lambda path: path.stem)
def test_no_mark_of_emphasis_is_shown(document: Path) -> None:
    """As between a Chinese bracket and a Chinese character, where `**` closes nothing."""
    page = MarkdownIt().enable("table").render(document.read_text())
    assert "**" not in re.sub(r"<(pre|code)[ >].*?</\1>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize("document", [*DOCUMENTS, CHINESE], ids=lambda path: path.stem)
def test_commands_exist(document: Path) -> None:
    """What stands as code; `cifar-lab` alone is a name, and `steps` the command that extending.md adds."""
    found = set(re.findall(r"(?m)(?:^ *|`|\$ |srun )cifar-lab ([a-z-]+)", document.read_text()))
    assert found - {"steps"} <= set(COMMANDS)


def test_recipe_of_the_readme_is_valid() -> None:
    (text,) = re.findall(r"<!-- recipe -->\n```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    assert parse_recipe(yaml.safe_load(text.replace("5e-4", "0.0005"))).optim.weight_decay == 5e-4


def anchors(document: Path) -> set[str]:
    """As GitHub makes them of headings."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*DOCUMENTS, CHINESE], ids=lambda path: path.stem)
def test_links_anchors_and_files_exist(document: Path) -> None:
    text = document.read_text()
    missing = []
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = document.parent / path if path else document
            if not target.exists() or (anchor and anchor not in anchors(target)):
                missing.append(link)
    paths = re.findall(r"(?<![\w/-])((?:recipes|accelerate_configs|scripts|docs|tests)/[\w.]+\w)", text)
    missing += [path for path in paths if not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("number", [0, 1], ids=["model", "source"])
def test_example_of_extending(number: int) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)[number]
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(code, "extending.md", "exec"), names)
    if number == 0:
        import torch

        network = names["build"](10, 32, dropout=0.5)  # type: ignore[operator]
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    else:
        split = names["load"]("train", root=None, num_train=50)  # type: ignore[operator]
        info = names["info"](num_train=50)  # type: ignore[operator]
        assert split.images.shape == (50, info.image_size, info.image_size, 3)
        assert names["cache_key"](root=None, num_train=50) != names["cache_key"](root=None)  # type: ignore[operator]
