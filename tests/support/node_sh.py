"""Calls launch/node.sh with programs of our own in place of Python and of the tools that list GPUs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from support.commands import ROOT

NODE_SH = ROOT / "launch" / "node.sh"
INHERITED = ("SLURM", "NNODES", "NODE_RANK", "MASTER_", "GLOO_", "NCCL_", "CUDA_", "ACCELERATE_", "OMP_", "DS_")
INHERITED += ("HIP_", "ROCR_", "ZE_")
# Runs what node.sh asks, and shows what it would start; of torch's accelerators it counts those of a variable.
SHOW = """#!{python}
import json, os, signal, sys
if sys.argv[1:3] == ["-m", "cifar_lab.cluster.links"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
if sys.argv[1] == "-c":
    assert "device_count" in sys.argv[2]
    open(sys.argv[0] + ".asked", "w").close()
    print(os.environ.get("TORCH_COUNTS", "0"))
    sys.exit()
ignored = signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
print(json.dumps({{"argv": sys.argv[1:], "environ": dict(os.environ), "ignores_usr1": ignored}}))
"""


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(INHERITED)}
    environ |= {"CIFAR_LAB_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"} | variables
    return subprocess.run([NODE_SH, *arguments], env=environ, capture_output=True, text=True, timeout=240, check=False)


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def after(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]
