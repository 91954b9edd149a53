"""The same recipe gives the same experiment however it is laid out (rules 1, 2 and 5 of the design)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.small import small, with_batch_norm

WORKER = Path(__file__).parents[1] / "workers" / "layouts.py"
# Mixed, smoothed, and weighted by more than any class is frequent.
WEIGHTED = {
    "data__augment__mixup_alpha": 0.4,
    "train__label_smoothing": 0.1,
    "train__class_weights": [0.1, 0.3, 1, 2, 5, 8, 0.2, 1, 3, 10],
}
FP16 = small(train__precision="fp16", train__ema_decay=0.9, train__grad_clip=0.5)


def launch(folder, world_size, recipes):
    """Run the worker on `world_size` processes; the records of all ranks by recipe name."""
    (folder / "out").mkdir(exist_ok=True)
    listing = folder / f"recipes-{world_size}.json"
    listing.write_text(json.dumps(recipes))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world_size)]
    command = [sys.executable, *(torchrun if world_size > 1 else []), str(WORKER)]
    command += [str(folder / "out"), str(folder / f"runs-{world_size}"), str(listing)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        name: [json.loads((folder / "out" / f"{name}-{rank}.json").read_text()) for rank in range(world_size)]
        for name in recipes
    }


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layouts")
    two = launch(folder, 2, {"vit": small(), "norm": with_batch_norm(), "fp16": FP16, "weighted": small(**WEIGHTED)})
    one = launch(
        folder,
        1,
        {
            "vit_whole": small(),
            "vit_twice": small(train__micro_batch=8),
            "weighted_whole": small(**WEIGHTED),
            "weighted_twice": small(**WEIGHTED, train__micro_batch=8),
            "norm_twice": with_batch_norm(train__micro_batch=8),
            "fp16_twice": {**FP16, "train": {**FP16["train"], "micro_batch": 8}},
        },
    )
    return {**two, **one}


def pictures(ranks):
    """Digests and ids of all micro-batches of all ranks, in order of step and micro-batch."""
    joined = {tuple(map(int, key.split("/"))): value for rank in ranks for key, value in rank["pictures"].items()}
    assert len(joined) == sum(len(rank["pictures"]) for rank in ranks)
    return dict(sorted(joined.items()))


@pytest.mark.launch
def test_two_processes_are_one_world_of_two(records):
    assert [record["world_size"] for record in records["vit"]] == [2, 2]
    assert [record["micro_batch"] for record in records["vit"]] == [8, 8]
    assert set(records["vit"][0]["pictures"]).isdisjoint(records["vit"][1]["pictures"])


@pytest.mark.launch
def test_pictures_are_equal_bit_for_bit(records):
    whole, twice, two = (pictures(records[name]) for name in ("vit_whole", "vit_twice", "vit"))
    assert two == twice
    assert len(two) == 40
    for (step, _), (_, ids, labels) in whole.items():
        parts = [twice[step, 0], twice[step, 1]]
        assert ids == parts[0][1] + parts[1][1]
        assert labels == parts[0][2] + parts[1][2]
    assert pictures(records["norm"]) == pictures(records["norm_twice"])


@pytest.mark.launch
def test_losses_are_equal_without_batch_norm(records):
    losses = [records[name][0]["train"] for name in ("vit_whole", "vit_twice", "vit")]
    assert len(losses[0]) == 20
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)
    assert min(losses[0]) < losses[0][0]
    weighted = [records[name][0]["train"] for name in ("weighted_whole", "weighted_twice", "weighted")]
    assert weighted[1] == pytest.approx(weighted[0], rel=1e-5)
    assert weighted[2] == pytest.approx(weighted[0], rel=1e-5)
    assert weighted[0] != pytest.approx(losses[0], rel=0.01)


@pytest.mark.launch
def test_losses_are_equal_with_batch_norm_dropout_and_mixing(records):
    twice, two = records["norm_twice"][0], records["norm"][0]
    assert two["train"] == pytest.approx(twice["train"], rel=1e-5)
    assert len(two["train"]) == 20


@pytest.mark.launch
def test_an_overflow_on_one_process_lowers_the_loss_scale_of_all(records):
    one, (first, second) = records["fp16_twice"][0], records["fp16"]
    assert first["scales"] == second["scales"] == one["scales"]
    values = [value for value, _ in one["scales"]]
    assert values == [2.0**16] * 3 + [2.0**15] + [2.0**14] * 6 + [2.0**15] * 2 + [2.0**14] * 6 + [2.0**15] * 2
    losses = [[loss for loss in record["train"] if loss is not None] for record in (one, first)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-4, nan_ok=True)


@pytest.mark.launch
def test_validation_counts_every_image_once(records):
    for name in ("vit_whole", "vit_twice", "vit", "norm", "norm_twice"):
        assert [count for _, _, count in records[name][0]["val"]] == [80]
    for one, two in (("vit_whole", "vit"), ("norm_twice", "norm")):
        (loss, accuracy, _), (other_loss, other_accuracy, _) = records[one][0]["val"][0], records[two][0]["val"][0]
        assert other_loss == pytest.approx(loss, rel=1e-4)
        assert other_accuracy == accuracy
