"""Call launch/submit.py, and run what it makes under bash with recorders in place of the cluster's programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.commands import PYTHON, ROOT, environment

LAUNCH = ROOT / "launch"
if str(LAUNCH) not in sys.path:
    sys.path.append(str(LAUNCH))

# Each call as its arguments, NUL after each, and a line at the end.
RECORD = """#!/bin/bash
printf '%s\\0' "$@" >>"$RECORDS/{name}"
printf '\\n' >>"$RECORDS/{name}"
"""
# Answers what the batch script asks: yes to the start, where the run is, and that there is nothing more to do. What a
# member of a sweep is, the real one says.
ANSWER = f"""
case " $* " in
*" --member "*) exec {PYTHON} "$@" ;;
*" --where "*) echo "$RECORDS/run" ;;
*" --decide "*) echo "recorded" ;;
esac
"""


# Stand-ins, which also record. Apptainer starts what follows its options and its image.
ASKS = 'while [[ $1 == -* ]]; do shift; done\ncase "$*" in *" cifar_lab status "*) exec "$@" ;; esac\n'
PROGRAMS = {"srun": ASKS, "python": ANSWER, "module": "", "conda": "", "apptainer": 'shift 5\nexec "$@"\n'}


def submit(
    *arguments: str | bytes | Path, cwd: Path = ROOT, timeout: float = 120, **more: str
) -> subprocess.CompletedProcess[bytes]:
    """Call submit.py to its end; `more` joins its environment."""
    command = [PYTHON, LAUNCH / "submit.py", *arguments]
    variables = {**environment(CIFAR_LAB_PYTHON=PYTHON), **more}
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, timeout=timeout, check=False)


def made(*arguments: str | bytes | Path, **how: str) -> str:
    """The script that a call would send to sbatch."""
    done = submit(*arguments, "--dry-run", **how)
    assert done.returncode == 0, done.stderr.decode()
    return os.fsdecode(done.stdout)


def sound(text: str, folder: Path) -> None:
    """bash and shellcheck have nothing to say."""
    script = folder / "generated.sbatch"
    script.write_bytes(os.fsencode(text))
    checks = [["bash", "-n", script]]
    if shutil.which("shellcheck"):
        checks.append(["shellcheck", script])
    for command in checks:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), done.stdout


def run_recorded(script: str, folder: Path, **more: str) -> dict[str, list[list[bytes]]]:
    """Run a script as a job would; the arguments of each call of a program, those of python as `status`."""
    records = folder / "records"
    programs = folder / "programs"
    for made_here in (records, programs):
        made_here.mkdir(exist_ok=True)
    for name, what in PROGRAMS.items():
        (records / name).write_text("")
        (programs / name).write_text(RECORD.format(name=name) + what)
        (programs / name).chmod(0o755)
    variables = environment(RECORDS=str(records), SLURM_JOB_ID="17", SLURM_JOB_NODELIST="node1", **more)
    variables |= {"CIFAR_LAB_PYTHON": str(programs / "python"), "PATH": f"{programs}:{os.environ['PATH']}"}
    # The script names a python of its own where it was made with one.
    python = f"export CIFAR_LAB_PYTHON={programs / 'python'}"
    lines = [python if line.startswith("export CIFAR_LAB_PYTHON=") else line for line in script.split("\n")]
    file = folder / "script.sbatch"
    file.write_bytes(os.fsencode("\n".join(lines)))
    done = subprocess.run(["bash", file], cwd="/", env=variables, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    return {"status" if name == "python" else name: _calls(records / name) for name in PROGRAMS}


def _calls(file: Path) -> list[list[bytes]]:
    calls: list[list[bytes]] = [[]]
    for word in file.read_bytes().split(b"\0"):
        # A call's line end opens the word after it; no argument of a test begins with one.
        if word.startswith(b"\n"):
            calls.append([])
            word = word[1:]
        calls[-1].append(word)
    return calls[:-1]
