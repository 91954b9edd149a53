"""scripts/gpu_check: the quick checks on CPUs, how a failure is told, and all of them where there is an accelerator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import ROOT, completed

SCRIPT = [sys.executable, str(ROOT / "scripts" / "gpu_check")]
# Before the checks are forked, one of them is replaced.
WITH_A_CHANGE = """
import os, signal, sys, time
sys.path[:0] = [{root!r}, {scripts!r}]
import gpu_checks.{check} as module
from gpu_checks import main
{change}
sys.exit(main.main(["--device", "cpu", "--only", "{check}"]))
"""

# How the process of a check may end.
WITHOUT_TORCH = """
import json, os, pathlib, signal, sys, time, types
sys.path[:0] = [{root!r}, {scripts!r}]
from gpu_checks import main
broken = sys.modules["gpu_checks.broken"] = types.ModuleType("broken")
broken.broken = lambda place, found: 1 / 0
log = pathlib.Path({log!r})
answers = [
    main.in_process(lambda: os.kill(os.getpid(), signal.SIGSEGV), log, 60),
    main.in_process(lambda: os._exit(9), log, 60),
    main.in_process(lambda: time.sleep(600), log, 0.5),
]
found = main.in_process(main._check, log, 60, "broken", None)
print(json.dumps([*answers, [found.problems, found.outcome]]))
"""


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return content


def changed(check: str, change: str) -> subprocess.CompletedProcess[str]:
    text = WITH_A_CHANGE.format(root=str(ROOT), scripts=str(ROOT / "scripts"), check=check, change=change)
    return completed([sys.executable, "-c", text])


@pytest.mark.launch
def test_quick_checks_pass_on_cpus() -> None:
    done = completed([*SCRIPT, "--device", "cpu", "--seconds", "600", "--only", "step,facts,world"])
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["PASS", name] for name in ("facts", "step", "world")]
    found = summary(done)
    assert (found["device"], found["PASS"], found["FAIL"], found["SKIP"]) == ("cpu", 3, 0, 0)
    assert {"sgd off by", "adamw off by", "muon off by"} <= set(found["checks"]["step"]["figures"])
    assert found["checks"]["facts"]["skipped"]


def test_no_check_is_begun_after_the_time() -> None:
    done = completed([*SCRIPT, "--device", "cpu", "--seconds", "0"])
    assert done.returncode == 0, done.stderr
    found = summary(done)
    assert found["SKIP"] == len(found["checks"]) == 11
    assert all("--seconds" in check["skipped"][0] for check in found["checks"].values())


def test_mistakes_are_told() -> None:
    unknown = completed([*SCRIPT, "--only", "facts,nothing"])
    assert (unknown.returncode, "nothing: there are facts, stream" in unknown.stderr) == (2, True)
    nowhere = completed(SCRIPT)
    assert nowhere.returncode == 2
    assert "no accelerator here; on CPUs: scripts/gpu_check --device cpu" in nowhere.stderr


def test_a_wrong_kernel_is_a_failure() -> None:
    change = "import torch, torch.nn.functional as F; right = F.conv2d\n"
    change += "F.conv2d = lambda x, weight: right(x, weight) * (1.01 if x.dtype == torch.float32 else 1)"
    done = changed("facts", change)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.splitlines()[1].startswith("FAIL  facts")
    assert "convolution error: 0.01 is more than 0.002" in done.stdout
    assert summary(done)["FAIL"] == 1


def test_a_check_that_breaks_down_is_a_failure(tmp_path: Path) -> None:
    text = WITHOUT_TORCH.format(root=str(ROOT), scripts=str(ROOT / "scripts"), log=str(tmp_path / "log"))
    done = completed([sys.executable, "-c", text])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        "its process died of signal 11",
        "its process ended with status 9",
        "no answer after 0.5 s",
        [["ZeroDivisionError: division by zero"], "FAIL"],
    ]


def test_a_figure_that_is_no_number_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from gpu_checks.check import Found

    found = Found()
    found.at_most("share", float("nan"), 1)
    found.at_least("pace", 0.5, 0.9)
    assert found.problems == ["share: nan is more than 1", "pace: 0.5 is less than 0.9"]
    assert (found.outcome, Found(skipped=["x"]).outcome, Found({"a": 1}, [], ["x"]).outcome) == ("FAIL", "SKIP", "PASS")


@pytest.mark.parametrize(("capability", "free", "problems"), [((8, 9), 0.9, 0), ((7, 0), 0.9, 1), ((8, 9), 0.2, 1)])
def test_a_card_needs_kernels_and_free_memory(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], free: float, problems: int
) -> None:
    import torch

    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from gpu_checks import facts
    from gpu_checks.check import Found

    card = {
        "get_device_capability": capability,
        "get_device_name": "a card",
        "get_arch_list": ["sm_75", "sm_80", "sm_86"],
        "is_bf16_supported": capability >= (8, 0),
        "mem_get_info": (int(free * 2**34), 2**34),
    }
    for name, value in card.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = Found()
    facts._cuda_facts(found)
    assert len(found.problems) == problems
    assert found.figures["native bf16"] == ("yes" if capability >= (8, 0) else "no")


def test_processes_of_tests_see_no_accelerator() -> None:
    import torch

    assert not torch.accelerator.is_available()


@pytest.mark.gpu
@pytest.mark.launch
def test_all_checks_pass_on_the_accelerator(gpu_environment: dict[str, str], tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+") as out:
        done = subprocess.run(SCRIPT, env=gpu_environment, stdout=out, stderr=out, timeout=1200, check=False)
        out.seek(0)
        said = out.read()
    assert done.returncode == 0, said
    found = json.loads(said.splitlines()[-1])
    assert found["device"] != "cpu"
    assert found["PASS"] >= 5
