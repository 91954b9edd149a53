from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import cifar_lab
from cifar_lab.commands.dispatch import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
# Those of slurm/ are copied by sbatch, and run from where it was called.
SHELL_FILES = sorted(
    path
    for folder in (".ci", "scripts", "launch")
    for path in (ROOT / folder).glob("*")
    if path.is_file() and re.match(r"#!.*\b(ba)?sh\b", path.read_text(errors="replace").split("\n")[0])
)

PYTHONS = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text())
# By scripts/setup; the last by .ci/run.
INSTALLED_EXTRAS = ("deepspeed", "wandb", "onnx", "tensorboard", "dev", "notebook")

# Makes a package look as if it were not installed.
ABSENT = "import sys\nsys.modules |= dict.fromkeys(['datasets', 'deepspeed', 'timm', 'transformers', 'wandb'])\n"


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def parsed(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.strip().splitlines() if not line.startswith("#")]


def requirements(text: str) -> set[str]:
    return {re.split(r"[\[<>=~!;]", line)[0].strip().lower() for line in text.strip().splitlines() if line[0] != "#"}


def test_core_does_not_require_the_extras() -> None:
    config = setup_cfg()
    core = requirements(config["options"]["install_requires"])
    assert not core & {"deepspeed", "transformers", "wandb"}
    assert requirements(config["options.extras_require"]["deepspeed"]) == {"deepspeed", "transformers"}


def test_every_requirement_has_a_floor_and_torch_a_ceiling() -> None:
    config = setup_cfg()
    lines = config["options"]["install_requires"].split("\n") + config["options.extras_require"]["dev"].split("\n")
    for line in filter(None, map(str.strip, lines)):
        assert ">=" in line or line.startswith(("cifar-lab[", "#")), line
    assert re.search(r"^torch>=[\d.]+,<[\d.]+$", config["options"]["install_requires"], re.MULTILINE)


@pytest.mark.parametrize("python", PYTHONS)
def test_tested_versions_are_named_once_for_each_requirement_and_lie_in_its_range(python: str) -> None:
    config = setup_cfg()
    wanted = [config["options"]["install_requires"], *map(config["options.extras_require"].get, INSTALLED_EXTRAS)]
    pinned: dict[str, str] = {}
    for pin in parsed((ROOT / "constraints.txt").read_text()):
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            (exact,) = pin.specifier
            assert exact.operator == "==" and pin.name.lower() not in pinned, pin
            pinned[pin.name.lower()] = exact.version
    ranges = [requirement for text in wanted for requirement in parsed(text) if requirement.name != "cifar-lab"]
    assert pinned.keys() == {requirement.name.lower() for requirement in ranges}
    for requirement in ranges:
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


def test_the_workflow_tests_torch_and_python_versions_of_the_ranges() -> None:
    """Both ends of torch's range, every Python of the classifiers, and macOS."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    runs = jobs["fast"]["strategy"]["matrix"]["include"]
    ranges = {
        requirement.name: requirement.specifier for requirement in parsed(setup_cfg()["options"]["install_requires"])
    }
    for run in runs:
        assert ranges["torch"].contains(run["torch"]), run
        assert ranges["torchvision"].contains(run["torchvision"]), run
    (floor,) = (bound.version for bound in ranges["torch"] if bound.operator == ">=")
    assert any(run["torch"].startswith(floor) for run in runs)
    assert {run["python"] for run in runs} | {"3.11"} >= set(PYTHONS)
    assert any(run["os"].startswith("macos") for run in runs)


def test_setup_installs_torch_first() -> None:
    text = (ROOT / "scripts" / "setup").read_text()
    assert text.index("torch torchvision\n") < text.index("--editable")


def test_every_folder_of_the_package_is_installed() -> None:
    folders = {path.parent for path in (ROOT / "cifar_lab").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_version_is_readable_without_dependencies() -> None:
    command = [sys.executable, "-S", "-c", "import cifar_lab; print(cifar_lab.__version__)"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", result.stdout), result.stderr


def test_own_nets_train_without_packages_that_they_do_not_need(tmp_path: Path) -> None:
    code = ABSENT + (
        "from cifar_lab.train import main\n"
        f"sys.exit(main([{str(ROOT / 'recipes' / 'demo.yaml')!r}, '--runs', {str(tmp_path)!r}, 'data.name=shapes',"
        " 'data.args={num_train: 400, num_test: 100}', 'data.val_size=100', 'model.args.width=16', 'train.steps=2',"
        " 'train.epochs=null', 'train.global_batch=50', 'optim.warmup_epochs=0', 'tracking.wandb_project=lab']))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "wandb" in result.stderr
    assert "not installed" in result.stderr
    assert list(tmp_path.glob("demo/*/summary.json"))


@pytest.mark.parametrize("path", SHELL_FILES, ids=lambda path: path.name)
def test_scripts_are_strict_executable_and_run_from_anywhere(path: Path) -> None:
    text = path.read_text()
    assert os.access(path, os.X_OK)
    assert re.search(r"^set -e?uo pipefail$", text, re.MULTILINE)
    assert "BASH_SOURCE" in text


def test_one_version_everywhere() -> None:
    """The newest of the changelog, with the day of the citation; each version once, newest first."""
    versions = re.findall(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert versions[0] == (citation["version"], citation["date-released"])
    assert citation["version"] == cifar_lab.__version__
    assert versions == sorted(set(versions), key=lambda each: [int(part) for part in each[0].split(".")], reverse=True)
    assert citation["license"] == setup_cfg()["metadata"]["license"]


def test_issue_forms_ask_for_what_a_bug_needs() -> None:
    forms = {
        path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")
    }
    assert "blank_issues_enabled" in forms.pop("config.yml")
    for form in forms.values():
        assert form["name"] and form["description"]
        identifiers = [part["id"] for part in form["body"]]
        assert len(identifiers) == len(set(identifiers))
        assert all(part["type"] in ("textarea", "input", "dropdown") for part in form["body"])
    asked = " ".join(part["attributes"]["label"] for part in forms["bug.yml"]["body"] if "validations" in part)
    for command in re.findall(r"`cifar-lab (.*?)`", asked):
        assert command == "--version" or command in COMMANDS
    assert "doctor" in asked
