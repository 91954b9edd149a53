"""The command: each check in a process of its own, so that none finds what another left or broke."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cifar_lab.runtime import host
from gpu_checks.check import Found, Place

# In the order in which they run: what explains the failures of others comes first.
CHECKS = {
    "facts": "driver, kernels for this GPU, bf16, memory",
    "stream": "augmented pictures equal those of the CPU; no wait; speed",
    "step": "sgd, adamw, muon, clipping, a NaN, against double precision",
    "precision": "40 losses in fp32, TF32, bf16, fp16, against double precision",
    "deterministic": "a stopped and resumed run is equal bit for bit; cost of a save",
    "trained": "evaluate, predict and export give what the run recorded",
    "world": "one process under torchrun: collectives, DDP, bf16 gradients",
    "zero": "ZeRO-1, 2, 3 and offload: five steps against one process",
    "speed": "images/s of training, also relative to a bare loop",
    "memory": "memory that training takes, against that of `plan`",
    "failures": "out of memory, kill -9 during a save, os._exit",
}
SECONDS = 240.0
LIMIT, LONG_LIMIT = 600.0, 1800.0  # of one check
# Of a launch that this command may have been started from.
INHERITED = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "GROUP_", "ROLE_", "TORCHELASTIC_", "ACCELERATE_", "FSDP_")
USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; 0 if none failed, 1 if one did, 2 where there is nothing to run."""
    options = _options(argv)
    _prepare_environment(options.device)
    host.settle()  # as `cifar-lab train` does, before torch is loaded
    with tempfile.TemporaryDirectory(prefix="gpu_check-", ignore_cleanup_errors=True) as folder:
        os.environ["CIFAR_LAB_CACHE"] = str(Path(folder, "cache"))
        here = in_process(_find_device, Path(folder, "device.log"), 120.0)
        if not isinstance(here, dict):
            print(f"scripts/gpu_check: torch cannot be used: {here}", file=sys.stderr)
            return USAGE
        device = options.device or here["device"]
        if device not in ("cpu", here["device"]) or (device == "cpu" and options.device is None):
            what = f"no {options.device} device" if options.device else "no accelerator"
            print(f"scripts/gpu_check: {what} here; on CPUs: scripts/gpu_check --device cpu", file=sys.stderr)
            return USAGE
        print(f"{here['name']}: torch {here['torch']}, Python {platform.python_version()}, {device}", flush=True)
        return _run_all(options, device, here, Path(folder))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    listing = "\n".join(f"  {name:14}{about}" for name, about in CHECKS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check",
        description="Check that the trainer works on the GPU of this machine. Needs no data and no\nnetwork.",
        epilog=f"checks:\n{listing}\n\nExit status: 0 no check failed, 1 a check failed. The last line is JSON.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--device", choices=("cuda", "mps", "xpu", "cpu"), help="default: the one that torch finds")
    parser.add_argument(
        "--only", metavar="NAMES", type=_names, default=list(CHECKS), help="only these checks, such as stream,step"
    )
    parser.add_argument(
        "--seconds",
        metavar="N",
        type=float,
        help=f"start no check after N seconds (default: {SECONDS:g}; --long: no limit)",
    )
    parser.add_argument("--long", action="store_true", help="test more and larger nets")
    return parser.parse_args(argv)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in CHECKS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'no name'}: there are {', '.join(CHECKS)}")
    return [name for name in CHECKS if name in names]


def _prepare_environment(device: str | None) -> None:
    """Nothing of the launch around it, no network, and with `--device cpu` no accelerator."""
    for name in list(os.environ):
        if name.startswith(INHERITED):
            del os.environ[name]
    os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    if device == "cpu":
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "DS_ACCELERATOR": "cpu"}


def _find_device() -> dict[str, str]:
    import torch

    from cifar_lab.runtime import device

    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    name = platform.machine() if kind is None else device.name(kind)
    return {"device": "cpu" if kind is None else kind.type, "name": name, "torch": torch.__version__}


def _run_all(options: argparse.Namespace, device: str, here: dict[str, str], folder: Path) -> int:
    begun, results = time.monotonic(), {}
    if sys.platform == "linux":
        import_module("gpu_checks.runs")  # torch and the trainer, once for all that are forked; touches no device
    limit = options.seconds if options.seconds is not None else None if options.long else SECONDS
    for name in options.only:
        start = time.monotonic()
        if limit is not None and start - begun >= limit:
            found = Found(skipped=[f"not begun: {limit:g} s are over (--seconds)"])
        else:
            found = _run(name, Place(device, folder / name, options.long))
        seconds = time.monotonic() - start
        print(f"{found.outcome}  {name:14}{seconds:6.1f} s  {found.line()}", flush=True)
        results[name] = {"outcome": found.outcome, "seconds": round(seconds, 1), **vars(found)}
    outcomes = [result["outcome"] for result in results.values()]
    summary = {word: outcomes.count(word) for word in ("PASS", "FAIL", "SKIP")}
    print(
        json.dumps(
            {**here, "device": device, "seconds": round(time.monotonic() - begun, 1), **summary, "checks": results}
        )
    )
    return 1 if "FAIL" in outcomes else 0


def _run(name: str, place: Place) -> Found:
    """One check; its output goes to a log, of which the end is shown where it fails."""
    place.folder.mkdir()
    log = place.folder / "log"
    found = in_process(_check, log, LONG_LIMIT if place.long else LIMIT, name, place)
    if isinstance(found, str):
        found = Found(problems=[found])
    if found.problems and log.stat().st_size:
        said = log.read_text(errors="replace").splitlines()[-25:]
        print(f"-- {name}:", *said, sep="\n", file=sys.stderr, flush=True)
    return found


def _check(name: str, place: Place) -> Found:
    found = Found()
    try:
        getattr(import_module(f"gpu_checks.{name}"), name)(place, found)
    except Exception as error:
        traceback.print_exc()
        found.problems.append(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}")
    return found


def in_process(work: Callable[..., Any], log: Path, seconds: float, *arguments: Any) -> Any:
    """What `work` returns in a process of its own, or, as text, how that ended without an answer."""
    # A forked process need not load torch again; elsewhere than on Linux, frameworks do not bear it.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(sender, work, str(log), arguments))
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            return f"no answer after {seconds:g} s"
        return receiver.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        return f"its process died of signal {-code}" if code < 0 else f"its process ended with status {code}"
    finally:
        _end(process)


def _serve(sender: Connection, work: Callable[..., Any], log: str, arguments: tuple[Any, ...]) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(output), "w", 1) for _ in range(2))
    sender.send(work(*arguments))


def _end(process: Any) -> None:
    """End a process that has answered or hangs, and all that it started."""
    import psutil

    process.join(5)
    family: list[Any] = []
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(process.pid)
        family = [*first.children(recursive=True), first] if process.is_alive() else []
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.join()
