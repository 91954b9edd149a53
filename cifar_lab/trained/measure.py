"""Measuring a saved model on a split of its data, on all processes of a launch."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cifar_lab.checkpoint.files import CheckpointError, list_checkpoints, read_state
from cifar_lab.data.images import ImageSet, Splits, load_images
from cifar_lab.data.sizes import shares
from cifar_lab.data.splits import cut_off, divide
from cifar_lab.data.stream import EvalStream
from cifar_lab.data.test_sets import by_name, read_npy
from cifar_lab.errors import UsageError
from cifar_lab.runtime import device
from cifar_lab.runtime.start import start_world
from cifar_lab.runtime.world import World
from cifar_lab.trained.model import SavedModel
from cifar_lab.trained.network import SavedNetwork
from cifar_lab.trained.scores import calibration, class_scores
from cifar_lab.training.evaluation import evaluate
from cifar_lab.training.sheets import write_mistakes


def measure(
    saved: SavedModel,
    split: str | None,
    mistakes: Path | None = None,
    other: str | None = None,
    files: Sequence[Path] = (),
) -> list[dict[str, Any]]:
    """Every sample of `split` (test, val or train) exactly once, as the run itself measures. Collective.

    `other` names a set that is not the run's; without `split` that is its test split, else all. Of npy `files` each is
    measured. A CSV of what it gets wrong goes to `mistakes`.

    Of own sets `same_data`: if the run trained on these pictures, None unknown; `recorded`: what its summary.json
    says of the same measurement. `severities`: the error at each; `wrong`: places of mistakes. Raises UserError.
    """
    with start_world() as world:
        network = world.everyone(lambda: SavedNetwork(saved, world.device))
        one = None if files else _other_set(saved, split, other) if other else _own_set(saved, split or "test")
        sets = [one] if one else _npy_sets(saved, files)
        return [about | _measure(saved, network, world, images, mistakes, parts) for about, images, parts in sets]


Set = tuple[dict[str, Any], ImageSet, int]  # what is said of it, its pictures, and in how many severities these are


def _own_set(saved: SavedModel, split: str) -> Set:
    data = saved.recipe.data
    splits = divide(load_images(data.name, data.args, root=data.root, max_gib=data.max_gib), data)
    images = by_name(_choose(saved, split, splits), saved.description.classes, data.name)
    about = {"same_data": _same_data(saved, splits.train.fingerprint), "recorded": _recorded(saved, split)}
    return about | {"data": data.name, "split": split, "set": f"{data.name}, {split} split"}, images, 1


def _other_set(saved: SavedModel, split: str | None, other: str) -> Set:
    data = saved.recipe.data
    if split is None and data.root and Path(data.root, "test").is_dir():
        split = "test"
    alone = {"train_split": split, "test_split": None} if split else {}
    args = {"size": saved.description.source_size, "fit": saved.description.fit} | alone | data.args
    loaded = load_images(data.name, args, root=data.root, max_gib=data.max_gib)
    images = loaded.test or loaded.train
    split = split or ("test" if loaded.test else data.args.get("train_split"))
    shares(data, len(images), 0, len(images))
    images = cut_off(images, data.test_limit or len(images))[0]
    name = f"{Path(data.root).name if data.root else other}{f', {split} split' if split else ''}"
    about = {"data": data.root or other, "split": split, "set": name, "fingerprint": images.fingerprint}
    return about, by_name(images, saved.description.classes, other), 1


def _npy_sets(saved: SavedModel, files: Sequence[Path]) -> Iterator[Set]:
    classes = saved.description.classes
    for path in files:
        images, parts = read_npy(path, classes, saved.description.source_size)
        about = {"data": str(path.resolve()), "split": None, "set": f"{path.absolute().parent.name}/{path.stem}"}
        yield about | {"fingerprint": images.fingerprint}, by_name(images, classes, str(path)), parts


def _measure(
    saved: SavedModel, network: SavedNetwork, world: World, images: ImageSet, mistakes: Path | None, parts: int
) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import track

    recipe = saved.recipe
    stream = EvalStream(
        images, network.preparation, batch=recipe.eval.batch, device=world.device, rank=world.rank,
        world_size=world.world_size, channels_last=network.channels_last,
    )  # fmt: skip
    shown = world.is_main and sys.stderr.isatty()
    batches = track(stream, "measuring", console=Console(stderr=True), transient=True, disable=not shown)
    result = evaluate(network, world, batches, tta=recipe.eval.tta, keep=True)
    assert result is not None and result.predictions is not None
    kept = result.predictions
    if mistakes is not None:
        world.from_main(lambda: write_mistakes(mistakes, images, kept))
    labels, predictions = kept.labels.numpy(), kept.predictions.numpy()
    wrong = labels != predictions
    return {
        "model": str(saved.path),
        "world_size": world.world_size,
        "device": device.name(world.device),
        "batch": stream.batch,
        "precision": recipe.train.precision,
        "tf32": recipe.train.tf32,
        "tta": recipe.eval.tta,
        "count": result.count,
        "accuracy": result.accuracy,
        "loss": result.loss,
        "severities": wrong.reshape(parts, -1).mean(axis=1).tolist() if parts > 1 else None,
        **calibration(kept.confidences.numpy(), ~wrong),
        **class_scores(labels, predictions, images.classes),
        "wrong": wrong.nonzero()[0].tolist(),
    }


def _choose(saved: SavedModel, split: str, splits: Splits) -> ImageSet:
    """The pictures that the recipe trains on, holds out or tests on. Raises UsageError."""
    if split != "test" and saved.run is None:
        raise UsageError(f"what {saved.path} was trained on is not known: only --split test can be measured")
    images: ImageSet | None = getattr(splits, split)
    if images is None:
        other = "val" if split == "test" else "test"
        raise UsageError(f"there is no {split} split, since data.{split}_size is 0; use --split {other}")
    return images


def _same_data(saved: SavedModel, fingerprint: str) -> bool | None:
    """Whether these are the training pictures of the run's newest checkpoint, None where nothing tells."""
    found = list_checkpoints(saved.run.checkpoints) if saved.run is not None else []
    if not found:
        return None
    try:
        trained_on = read_state(found[-1]).get("data_fingerprint")
    except CheckpointError:
        return None
    return None if trained_on is None else fingerprint == trained_on


def _recorded(saved: SavedModel, split: str) -> dict[str, Any] | None:
    if saved.run is None or saved.run.recipe().eval.tta != saved.recipe.eval.tta:
        return None
    return (saved.run.summary() or {}).get(split)
