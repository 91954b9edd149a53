from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cifar_lab import __version__
from cifar_lab.commands import dispatch as cli

ANSWERED_HERE = [name for name in cli.COMMANDS if name not in cli.SCRIPTS]
DEMO = Path(__file__).resolve().parents[2] / "recipes" / "demo.yaml"
ELSEWHERE = {**os.environ, "PYTHONPATH": str(DEMO.parents[1])}


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "cifar_lab", *arguments], capture_output=True, text=True)


def test_version_and_help_do_not_import_torch() -> None:
    code = (
        "import sys; from cifar_lab.commands.dispatch import main\n"
        "assert main(['--version']) == 0 and main(['--help']) == 0 and main(['help', 'nonsense']) == 2\n"
        "assert not {'torch', 'timm', 'pydantic'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"cifar-lab {__version__}\n")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, what in cli.COMMANDS.items():
        assert f"  {name}" in text
        assert what in text


@pytest.mark.parametrize("name", ANSWERED_HERE)
def test_each_command_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["help", name])
    assert exit_.value.code == 0
    assert f"usage: cifar-lab {name}" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "script"), [("launch", "launch/node.sh"), ("submit", "launch/submit.py")])
def test_a_script_takes_the_place_of_the_command(name: str, script: str, tmp_path: Path) -> None:
    """The same process, from any folder, also by `help`; its exit status is the command's."""
    command = [sys.executable, "-m", "cifar_lab", *name.split()]
    for words in ([*command, "--help"], [*command[:-1], "help", name]):
        done = subprocess.run(words, cwd=tmp_path, env=ELSEWHERE, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert script in done.stdout
    refused = subprocess.run([*command, "--nproc=x", "demo"], cwd=tmp_path, env=ELSEWHERE, capture_output=True)
    assert refused.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "there is no command `trian`: did you mean `train`?"),
        (["zzz"], "there is no command `zzz`: the commands are train, "),
        (["recipes/demo.yaml"], "to train a recipe: cifar-lab train recipes/demo.yaml"),
        ([], "usage: cifar-lab COMMAND"),
    ],
)
def test_wrong_use_is_answered(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.out == ""


def test_status_of_the_command_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    answering = ModuleType("answering")
    answering.main = lambda argv: 75 if argv == ["a", "b=1"] else 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cifar_lab.commands.answer_it", answering)
    monkeypatch.setitem(cli.COMMANDS, "answer-it", "answers")
    assert cli.main(["answer-it", "a", "b=1"]) == 75


def test_closed_standard_output_is_no_traceback() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "cifar_lab", "train", str(DEMO), "--dry-run"]
    with os.fdopen(write_end, "w") as closed:
        result = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 141
    assert result.stderr == ""


def test_interrupt_is_130_without_traceback() -> None:
    code = (
        # A shell starts commands in the background with the signal ignored.
        "import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from cifar_lab.commands import dispatch as cli, report\n"
        "def main(argv):\n    print('up', flush=True)\n    time.sleep(60)\n"
        "report.main = main; sys.argv[1:] = ['report']; sys.exit(cli.main())"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (130, "interrupted\n")


def folded(text: str) -> list[str]:
    """Lines that a terminal of 80 columns would break."""
    return [line for line in text.splitlines() if len(line) > 80]


@pytest.mark.parametrize("name", ANSWERED_HERE)
def test_help_fits_a_terminal(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    assert folded(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    "script",
    [
        "launch/submit.py",
        "launch/node.sh",
        "scripts/eva02_smoke",
        "scripts/fetch_weights.py",
        "scripts/gpu_check",
        "scripts/landscape",
        "scripts/mutation.py",
        "cifar_lab/commands/study.py",
    ],
)
def test_help_of_scripts_fits_a_terminal(script: str) -> None:
    python = [] if script.endswith(".sh") else [sys.executable]
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        [*python, DEMO.parents[1] / script, "--help"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert folded(done.stdout) == []
