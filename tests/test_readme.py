"""What the documentation says is run, loaded or looked up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cifar_lab.recipe import parse_recipe

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNNABLE = re.compile(r"<!-- runnable(?P<kind>: launch)? -->\n```bash\n(?P<code>.*?)```", re.DOTALL)
BLOCKS = [
    pytest.param(
        match["code"],
        id=f"{document.stem}-{number}",
        marks=[pytest.mark.launch] if match["kind"] else [],
    )
    for document in DOCUMENTS
    for number, match in enumerate(RUNNABLE.finditer(document.read_text()))
]


def test_documents_have_runnable_blocks() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("code", BLOCKS)
def test_runnable_block(code: str, tmp_path: Path) -> None:
    """In a directory that looks like the checkout, with this environment as `.venv`, and so without its `runs`."""
    for name in ("recipes", "accelerate_configs", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"CIFAR_LAB_DATA": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for run_dir in re.findall(r"--run-dir (\S+)", code):
        assert (tmp_path / run_dir / "summary.json").is_file()


def test_recipe_of_the_readme_is_valid() -> None:
    (text,) = re.findall(r"<!-- recipe -->\n```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert parse_recipe(yaml.safe_load(text.replace("5e-4", "0.0005"))).optim.weight_decay == 5e-4


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_links_and_files_exist(document: Path) -> None:
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = re.findall(r"(?<![\w/-])((?:recipes|accelerate_configs|scripts|docs|tests)/[\w.]+\w)", text)
    missing = [link for link in links if not (document.parent / link).exists()]
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
