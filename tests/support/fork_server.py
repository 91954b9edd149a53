"""Commands in forked children: everything is imported once, each call has a process of its own.

Started as a script it reads calls (JSON lines) and answers each with its exit status; `ForkServer` is the other end.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# linux/capability.h: to read and write what permissions forbid.
CAPABILITY_VERSION, OVERRIDE, READ_SEARCH = 0x20080522, 1, 2


@dataclass(frozen=True)
class Done:
    """How a call ended; `status` is negative for a signal, as in subprocess, and None for one that took too long."""

    status: int | None
    out: str
    err: str


class ForkServer:
    """Runs `cifar-lab` calls one after the other."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join([str(root), str(root / "tests")])
        self._server = subprocess.Popen(
            [sys.executable, "-m", "support.fork_server"],
            cwd=root,
            env={**environment, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str | None] | None = None,
        stdout: str | None = None,
        file_bytes: int | None = None,
        interrupt_after: float | None = None,
        seconds: float = 120.0,
    ) -> Done:
        """`stdout`: None is kept, "" is closed, else a file; `file_bytes`: the most of a file; None in `env`: unset."""
        with tempfile.TemporaryDirectory() as folder:
            call = {
                "argv": [str(word) for word in argv],
                "cwd": str(cwd),
                "env": dict(env or {}),
                "stdout": stdout,
                "file_bytes": file_bytes,
                "interrupt_after": interrupt_after,
                "seconds": seconds,
                "out": f"{folder}/out",
                "err": f"{folder}/err",
            }
            self._server.stdin.write(json.dumps(call) + "\n")
            self._server.stdin.flush()
            status = json.loads(self._server.stdout.readline())
            out, err = (Path(folder, name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
        return Done(status, out, err)

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait(timeout=30)
        self._server.stdout.close()


def _serve() -> None:
    # Held back until the command's own handler stands: what is before it is ours, and has no answer to Ctrl-C.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_all()
    for line in sys.stdin:
        call = json.loads(line)
        child = os.fork()
        if child == 0:
            _child(call)
        answers.write(json.dumps(_wait(child, call)) + "\n")
        answers.flush()


def _import_all() -> None:
    import importlib

    from cifar_lab.commands.dispatch import COMMANDS, SCRIPTS

    names = ["trained.measure", "trained.export", "training.start", "runtime.start", "report.files"]
    names += ["train", *(f"commands.{name.replace('-', '_')}" for name in COMMANDS if name not in ("train", *SCRIPTS))]
    for name in names:
        importlib.import_module(f"cifar_lab.{name}")


def _wait(child: int, call: Mapping[str, Any]) -> int | None:
    began, interrupted = time.monotonic(), False
    while time.monotonic() < began + call["seconds"]:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        after = call["interrupt_after"]
        if after is not None and not interrupted and time.monotonic() > began + after:
            interrupted = True
            os.kill(child, signal.SIGINT)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _child(call: Mapping[str, Any]) -> None:
    """Become the command; never returns."""
    status = 1
    try:
        _prepare(call)
        from cifar_lab.commands import dispatch as cli

        answer = cli._answer

        def interruptible(words: list[str]) -> int:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            return answer(words)

        cli._answer = interruptible
        status = _as_python_ends(cli.main)
    except BaseException:
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    os._exit(status & 255)


def _prepare(call: Mapping[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(call["out"], os.O_WRONLY | os.O_CREAT, 0o666), 1)
    os.dup2(os.open(call["err"], os.O_WRONLY | os.O_CREAT, 0o666), 2)
    sys.stdin, sys.stderr = os.fdopen(0), os.fdopen(2, "w", 1, "utf-8", "backslashreplace")
    if call["stdout"]:
        os.dup2(os.open(call["stdout"], os.O_WRONLY), 1)
    if call["stdout"] == "":
        os.close(1)
    sys.stdout = None if call["stdout"] == "" else os.fdopen(1, "w", encoding="utf-8")  # type: ignore[assignment]
    os.chdir(call["cwd"])
    for name, value in call["env"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    if call["file_bytes"] is not None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (call["file_bytes"],) * 2)
    if os.getuid() == 0:
        _obey_permissions()
    sys.argv = ["cifar-lab", *call["argv"]]


def _obey_permissions() -> None:
    """As for anyone else; another user could not import what lies in root's folders."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        keep = ~(1 << OVERRIDE | 1 << READ_SEARCH) & 0xFFFFFFFF
        libc.capset(header, (ctypes.c_uint32 * 6)(sets[0] & keep, sets[1] & keep, *sets[2:]))


def _as_python_ends(main: Any) -> int:
    """Exit status of sys.exit(main()), with what the interpreter itself would print."""
    try:
        status = main()
    except SystemExit as error:
        status = error.code
        if not isinstance(status, int | None):
            print(status, file=sys.stderr)
            status = 1
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except Exception:
        os.write(2, b"Exception ignored on flushing sys.stdout\n")
        return 120
    return status or 0


if __name__ == "__main__":
    _serve()
