"""Strong recipes beside their twins of the study, at equal and small budget: epochs, pictures, width, precision.

    python benchmarks/strong.py [--only resnet18] [--seeds 0,1,2] [--rounds 3] [--runs DIR] [key=value ...]

Each recipe keeps its own settings (rate, batch, augmentation, regularisation, test-time augmentation); what makes it
small is the same for both (in `transfer` the batch too). Only what a recipe counts in epochs or steps of its full
length (warm-up, the weights' average) is scaled with the length.
One round trains both recipes of every pair with one seed; pairs go in the
order A B, B A. A call that was ended goes on where it was. Prints accuracies, the margin with its 95 % interval (spread
over seeds and the test pictures' own noise), what of it is test-time augmentation, and JSON on its last line.

resnet18 and vit are the recipes themselves. vit_tiny's and eva02_large's published weights are not at hand, so
`transfer` takes vit_tiny's two recipes to the one published net that is (tf_efficientnet_lite0, 64 px). eva02_large:
not measured. The rates of vit_custom and vit_tiny are the study's, made for 150 epochs: at this length a good part of
those two margins is the rate. What resnet18's strong recipe adds holds off overfitting, so its pair sees few pictures
many times; in the first size tried, 7 epochs of 20,000, nothing overfits (`--only resnet18 train.epochs=7
data.limit=20000`; its margin is beside this one's in docs/study.md). No seed was chosen by its result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cifar_lab.recipe import load_recipe
from cifar_lab.report.stats import Sample, difference, pooled_spread
from cifar_lab.rundir.directory import RunDir

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"
WEIGHTS = ROOT.parent / "shared" / "weights" / "tf_efficientnet_lite0.safetensors"
NOT_MEASURED = {"eva02_large": "no published weights on this machine; from a random start it says nothing"}

ALL = (
    "data.val_size=0 log.every_steps=50 checkpoint.every_epochs=100 tracking.wandb_project=null"
    " train.precision=bf16 data.limit=20000"
)
# Strong recipe, twin, what both get, what the strong one gets for its length.
PAIRS = {
    "resnet18": (
        "strong/resnet18",
        "resnet18",
        "train.epochs=40 data.limit=5000 model.args.width=16",
        "optim.warmup_epochs=0.2",
    ),
    "vit": (
        "strong/vit",
        "vit_custom",
        "train.epochs=4 model.args.width=128 model.args.depth=4",
        "optim.warmup_epochs=0.2 train.ema_decay=0.98",
    ),
    # Depthwise convolutions are slower in bf16 here.
    "transfer": (
        "strong/vit_tiny",
        "vit_tiny",
        "train.epochs=1 data.limit=6400 data.image_size=64 model.pretrained=false train.precision=fp32"
        f" train.global_batch=64 model.args.arch=tf_efficientnet_lite0 model.weights={WEIGHTS}",
        "optim.warmup_epochs=0.1 train.ema_decay=0.9",
    ),
}
TWIN_LENGTH = {"vit": "optim.warmup_epochs=0.2", "transfer": "optim.warmup_epochs=0.1"}


def overrides_of(pair: str, which: str, seed: int, extra: list[str]) -> tuple[Path, list[str]]:
    """The recipe file of one side of a pair and its overrides."""
    strong, twin, both, length = PAIRS[pair]
    own = length if which == "strong" else TWIN_LENGTH.get(pair, "")
    name = f"name={pair}_{which}"
    path = RECIPES / f"{strong if which == 'strong' else twin}.yaml"
    return path, [*ALL.split(), *both.split(), *own.split(), name, f"seed={seed}", *extra]


def trained(pair: str, which: str, seed: int, runs: Path, extra: list[str]) -> dict[str, Any]:
    """Train one side of a pair, or go on with it; its test result and duration."""
    path, overrides = overrides_of(pair, which, seed, extra)
    directory = RunDir.locate(load_recipe(path, overrides), runs=str(runs))
    if directory.summary() is None:
        command = [sys.executable, "-m", "cifar_lab.train", str(path), *overrides, "--runs", str(runs)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}; the same call goes on")
    summary = directory.summary()
    assert summary is not None
    result = {**summary["test"], "seconds": summary["wall_seconds"]}
    tta = load_recipe(path, overrides).eval.tta
    result["plain"] = plain_accuracy(directory.path) if tta else result["accuracy"]
    return result


def plain_accuracy(run: Path) -> float:
    """Test accuracy without test-time augmentation, kept in a file of the run."""
    kept = run / "plain.json"
    if not kept.exists():
        command = [sys.executable, "-m", "cifar_lab", "evaluate", str(run), "--tta", "off", "--json"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        kept.write_text(json.dumps({"accuracy": json.loads(done.stdout)["accuracy"]}))
    return json.loads(kept.read_text())["accuracy"]


def margin(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """How much higher the strong recipe's accuracy is, with its interval, and the same without augmented tests."""
    answer: dict[str, Any] = {}
    for key, name in (("accuracy", "margin"), ("plain", "margin_plain")):
        strong, twin = (
            Sample(tuple(1 - run[key] for run in found[which]), found[which][0]["count"])
            for which in ("strong", "twin")
        )
        less = difference([(1, twin), (-1, strong)], pooled_spread([strong, twin]))
        answer[name] = {"value": less.value, "low": less.low, "high": less.high}
    answer["beats"] = answer["margin"]["low"] > 0
    return answer


def line(pair: str, found: dict[str, list[dict[str, Any]]], said: dict[str, Any]) -> str:
    """One pair in words."""
    sides = {which: " ".join(f"{run['accuracy']:.2%}" for run in runs) for which, runs in found.items()}
    value, plain = said["margin"], said["margin_plain"]
    verdict = "beats its twin" if said["beats"] else "does not beat its twin beyond noise"
    return (
        f"{pair:9s} strong {sides['strong']} | study {sides['twin']}\n"
        f"          {verdict}: {value['value'] * 100:+.2f} points ({value['low'] * 100:+.2f} to"
        f" {value['high'] * 100:+.2f}), {plain['value'] * 100:+.2f} without test-time augmentation"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--seeds", default="0,1,2", help="one a round")
    parser.add_argument("--rounds", type=int, help="only the first seeds")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "strong_benchmark")
    args, extra = parser.parse_known_args()
    if any("=" not in word for word in extra):
        parser.error(f"no override such as train.epochs=1: {' '.join(extra)}")
    pairs = [pair for pair in args.only if pair != "transfer" or WEIGHTS.exists()]
    if len(pairs) < len(args.only):
        print(f"transfer: not measured, {WEIGHTS} is not there")
    seeds = [int(word) for word in args.seeds.split(",")][: args.rounds]
    found: dict[str, dict[str, list[dict[str, Any]]]] = {pair: {"strong": [], "twin": []} for pair in pairs}
    start = time.time()
    for number, seed in enumerate(seeds):
        for pair in pairs:
            for which in ("strong", "twin") if number % 2 == 0 else ("twin", "strong"):
                run = trained(pair, which, seed, args.runs.resolve(), extra)
                found[pair][which].append(run)
                told = f"{pair} {which} seed {seed}: {run['accuracy']:.2%} in {run['seconds']:.0f} s"
                print(f"[{time.time() - start:5.0f} s] {told}", flush=True)
    verdicts = {pair: margin(runs) for pair, runs in found.items()}
    for pair, runs in found.items():
        print(line(pair, runs, verdicts[pair]))
    for name, why in NOT_MEASURED.items():
        print(f"{name}: not measured ({why})")
    pairs_json = {pair: {**found[pair], **verdicts[pair]} for pair in pairs}
    print(json.dumps({"cores": os.cpu_count(), "seeds": seeds, "pairs": pairs_json, "not_measured": NOT_MEASURED}))


if __name__ == "__main__":
    main()
