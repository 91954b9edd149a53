"""docs/cifar_lab.ipynb runs from its first cell to its last, on a CPU, and its outputs are those of its cells."""

from __future__ import annotations

import ast
import html
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from support.small import small

from cifar_lab.recipe import load_recipe, nvidia
from cifar_lab.rundir.directory import RunDir
from cifar_lab.runtime.launcher import check_launch

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "cifar_lab.ipynb"
SHAPES = ["data.name=shapes", "data.args={num_train: 1600, num_test: 400}", "data.val_size=400"]
DEMO = ["train.epochs=6", "train.global_batch=50", "optim.lr=0.1", "model.args.width=16"]
# From scratch, since published weights are no part of the checkout.
FINE_TUNING = [
    "model.pretrained=false",
    "model.args.arch=test_resnet",
    "data.image_size=32",
    "train.epochs=6",
    "train.global_batch=50",
    "optim.lr=5e-3",
]


def cells(notebook: dict[str, Any]) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def text(notebook: dict[str, Any]) -> str:
    return "".join("".join(output["text"]) for output in outputs(notebook) if output["output_type"] == "stream")


def execute(folder: Path, *parameters: str) -> subprocess.CompletedProcess[str]:
    missing = [name for name in ("nbclient", "ipykernel") if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"not installed: {', '.join(missing)} (pip install -e '.[notebook]')"
        if "notebook" in os.environ.get("CIFAR_LAB_REQUIRE", ""):
            pytest.fail(problem)
        pytest.skip(problem)
    # No kernels, settings or history of the user.
    environment = os.environ | {"HOME": str(folder), "JUPYTER_DATA_DIR": str(folder), "JUPYTER_PATH": str(folder)}
    environment |= {"PYTHONPATH": str(ROOT), "CIFAR_LAB_DATA": ""}
    script = str(ROOT / "scripts" / "notebook.py")
    command = [sys.executable, script, "--out", str(folder / "executed.ipynb"), "--folder", str(folder), *parameters]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)


@pytest.mark.launch
def test_runs_from_the_first_cell_to_the_last(tmp_path: Path) -> None:
    result = execute(tmp_path, f"DATA = {SHAPES}", f"DEMO = {DEMO}", f"FINE_TUNING = {FINE_TUNING}")
    assert result.returncode == 0, result.stdout + result.stderr
    notebook = json.loads((tmp_path / "executed.ipynb").read_text())
    said = text(notebook)
    for name in ("demo", "lite0"):
        (summary,) = tmp_path.glob(f"runs/{name}/*/summary.json")
        run = RunDir(summary.parent)
        assert run.status().state == "completed"
        assert run.summary()["test"]["accuracy"] > 0.3, "ten classes: 0.1 is chance"
        # Stopped once and continued: the steps of both attempts, each once.
        steps = [line["step"] for line in run.metrics() if line["split"] == "val"]
        assert steps == sorted(set(steps)) and len(steps) == 6
    assert re.search(r"^stopped at step \d+; start again to continue$", said, re.MULTILINE)
    assert re.search(r"in total, from step \d+$", said, re.MULTILINE)
    table = said[said.rindex("rank ") :]
    assert "demo" in table and "lite0" in table
    shown = [output["data"] for output in outputs(notebook) if output["output_type"] == "display_data"]
    figures = [data for data in shown if "image/svg+xml" in data]
    assert len(figures) == len(list(tmp_path.glob("report/plots/*.svg"))) > 0
    (page,) = ("".join(data["text/html"]) for data in shown if "text/html" in data)
    written = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    (inside,) = re.findall(r'<iframe srcdoc="([^"]*)"', page)
    # Without its pictures, and, as all that is kept of a notebook, without the folders of this machine.
    shorter = re.sub("<img[^>]*>", "", written).replace(f"{tmp_path}/", "").replace(str(ROOT), "checkout")
    assert html.unescape(inside) == shorter


@pytest.mark.launch
def test_a_cell_that_fails_is_a_failure(tmp_path: Path) -> None:
    result = execute(tmp_path, "DEMO = ['train.epochs=none']")
    assert result.returncode == 1
    assert "train.epochs" in result.stderr
    assert not (tmp_path / "executed.ipynb").exists()


@pytest.mark.launch
def test_two_processes_are_interrupted_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on two GPUs: the launcher is asked to stop, and passes it on."""
    (cell,) = (code for code in cells(json.loads(NOTEBOOK.read_text())) if "def run(" in code)
    tree = ast.parse(cell)
    tree.body = [part for part in tree.body if isinstance(part, (ast.Import, ast.ImportFrom, ast.FunctionDef))]
    names: dict[str, Any] = {}
    exec(compile(tree, "cifar_lab.ipynb", "exec"), names)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(small(train__epochs=3)))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
    launch += ["--config_file", str(ROOT / "accelerate_configs" / "cpu.yaml"), "-m", "cifar_lab.train"]
    launch += [str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run")]
    names["run"](*launch, stop_at="epoch 1:")
    run = RunDir(tmp_path / "run")
    assert run.status().state == "stopped"
    names["run"](*launch)
    assert run.status().state == "completed"
    assert "from step" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="exit status 2: "):
        names["run"](sys.executable, "-m", "cifar_lab.train", str(tmp_path / "recipe.yaml"), "optim.lr=none")


@pytest.mark.parametrize(
    ("gpus", "processes", "precision"),
    [([], 1, "fp32"), ([(7, 5)], 1, "fp16"), ([(7, 5)] * 2, 2, "fp16"), ([(9, 0)], 1, "bf16")],
    ids=["cpu", "T4", "two T4s", "H100"],
)
def test_what_it_starts_on_which_gpus(
    gpus: list[tuple[int, int]], processes: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cell that looks at the machine, with GPUs that are played: the launch passes our own checks."""
    (cell,) = (code for code in cells(json.loads(NOTEBOOK.read_text())) if "device_count" in code)
    cuda = SimpleNamespace(device_count=lambda: len(gpus), get_device_capability=lambda index: gpus[index])
    names = {"torch": SimpleNamespace(cuda=cuda), "sys": sys, "CHECKOUT": str(ROOT), "RUNS": "runs"}
    exec(compile(cell, "cifar_lab.ipynb", "exec"), names)
    train, options = names["train"], names["options"]
    assert isinstance(train, list) and isinstance(options, list)
    assert options[0] == f"train.precision={precision}"
    recipe = load_recipe(ROOT / "recipes" / "demo.yaml", [options[0]])
    for gpu in gpus:
        assert list(nvidia.findings("GPU", gpu, [f"sm_{gpu[0]}{gpu[1]}"], "2.14", recipe)) == []
    if processes == 1:
        assert train == [sys.executable, "-m", "cifar_lab.train"]
        return
    # Accelerate's own reading of that command: what the processes will find in their environment.
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import prepare_multi_gpu_env

    arguments = launch_command_parser().parse_args([*train[3:], "recipe.yaml", *options])
    arguments, *_ = _validate_launch_command(arguments)
    assert (arguments.num_processes, arguments.multi_gpu, arguments.module) == (processes, True, True)
    check_launch(prepare_multi_gpu_env(arguments), recipe)


def test_its_outputs_are_those_of_its_cells() -> None:
    """Executed once from top to bottom, without a failure, and nothing of the machine that did it."""
    raw = NOTEBOOK.read_text()
    notebook = json.loads(raw)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(output["output_type"] in ("stream", "display_data") for output in outputs(notebook))
    said = text(notebook)
    assert "stopped at step" in said and "from step" in said
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs(notebook))
    errors = [float(error) for error in re.findall(r"^test error ([\d.]+) %", said, re.MULTILINE)]
    assert len(errors) == 2 and max(errors) < 70, "ten classes: 90 is chance"
    assert len(raw) < 1_000_000
    assert not re.search(r"/(tmp|home|root|work|Users)/", raw)
