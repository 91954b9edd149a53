"""Decoding of a data set's picture files beside one plain loop over Pillow, and the peak memory of both.

    python benchmarks/decoding.py [--pictures 20000] [--rounds 5] [--distinct 1000]

JPEGs of 32 px as they are, and of 500 px brought to 64; on one core and on two. Each measurement is a process of its
own, in turns, timed from after its imports (the start of the processes that decode is part of ours); medians of ratios.
Memory is the peak of the process and of those that it started (Linux). Prints JSON on its last line.

On a machine with other work, `chrt -r 1 python benchmarks/decoding.py` keeps that out of the ratios.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

BATCH, SIZES = 256, {32: None, 500: 64}  # side of the files, side to bring them to
TARGET = 1.7  # on two cores


def write_pictures(folder: Path, side: int, count: int) -> list[str]:
    """Smooth noise of two scales."""
    folder.mkdir()
    draw = np.random.default_rng(side)
    for index in range(count):
        low, high = (
            Image.fromarray(draw.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((side, side))
            for n in (8, side // 4)
        )
        Image.blend(low, high, 0.25).save(folder / f"{index:06}.jpg", quality=90)
    return [str(path) for path in sorted(folder.iterdir())]


def plain(files: list[str], side: int, size: int | None) -> bytes:
    """The loop that everybody writes, into a buffer that is kept; the digest of all pixels."""
    digest, out = hashlib.blake2b(), np.empty((BATCH, size or side, size or side, 3), np.uint8)
    for index, file in enumerate(files):
        with Image.open(file) as opened:
            image = opened.convert("RGB")
            if size is not None:
                image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
            out[index % BATCH] = np.asarray(image)
        if index % BATCH == BATCH - 1 or index == len(files) - 1:
            digest.update(out[: index % BATCH + 1])
    return digest.digest()


def ours(files: list[str], side: int, size: int | None) -> bytes:
    from cifar_lab.data.decoding import Pictures

    digest = hashlib.blake2b()
    for batch in Pictures(column(files), "pictures", size=size).batches():
        digest.update(batch)
    return digest.digest()


def column(files: list[str]) -> Any:
    import pyarrow as pa

    return pa.chunked_array([pa.array(files)])


def measure(who: str, listing: str, side: int, cores: int) -> None:
    """As a process: seconds, peak MB and the digest of the pixels, as JSON."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    files = json.loads(Path(listing).read_text())
    if who == "ours":
        import cifar_lab.data.decoding  # noqa: F401

        column(files[:1])
    peaks = [0.0]

    def watch() -> None:
        while peaks:
            peaks[0] = max(peaks[0], memory())
            time.sleep(0.1)

    threading.Thread(target=watch, daemon=True).start()
    start = time.perf_counter()
    digest = {"plain": plain, "ours": ours}[who](files, side, SIZES[side])
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_mb": max(peaks.pop(), memory()), "digest": digest.hex()}))


def memory() -> float:
    """MB that this process and those that it started had at most so far."""
    tasks = Path("/proc/self/task")
    children = {pid for task in tasks.glob("*/children") for pid in task.read_text().split()}
    found = 0.0
    for pid in ("self", *children):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:  # it has ended
            continue
        found += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return found


def compare(listing: Path, side: int, cores: int, rounds: int) -> dict[str, Any]:
    """Medians over rounds, in turns, ABBA."""
    found: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
    for number in range(rounds):
        for who in ("plain", "ours") if number % 2 else ("ours", "plain"):
            command = [sys.executable, __file__, "--measure", who, str(listing), str(side), str(cores)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[who].append(json.loads(done.stdout))
    digests = {one["digest"] for both in found.values() for one in both}
    assert len(digests) == 1, "the pixels are not Pillow's"
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(found["plain"], found["ours"], strict=True)]
    count = len(json.loads(listing.read_text()))
    return {
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        **{f"{who}_per_second": count / statistics.median(one["seconds"] for one in found[who]) for who in found},
        **{f"{who}_peak_mb": max(one["peak_mb"] for one in found[who]) for who in found},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--distinct", type=int, default=1000, help="files, which are read again and again")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", type=int, nargs="+", default=[*SIZES])
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        who, listing, side, cores = args.measure
        measure(who, listing, int(side), int(cores))
        return
    results: dict[str, Any] = {"load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        for side in args.sides:
            files = write_pictures(Path(folder, str(side)), side, min(args.distinct, args.pictures))
            listing = Path(folder, f"{side}.json")
            listing.write_text(json.dumps((files * (args.pictures // len(files) + 1))[: args.pictures]))
            for cores in (1, 2):
                found = results[f"{side} px, {cores} cores"] = compare(listing, side, cores, args.rounds)
                print(f"{side} px, {cores} cores: " + ", ".join(f"{k} {v}" for k, v in found.items()), flush=True)
    print(json.dumps({"target": TARGET, "pictures": args.pictures, "results": results}))


if __name__ == "__main__":
    main()
