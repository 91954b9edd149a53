"""Measuring a saved model on a split of its data, on all processes of a launch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cifar_lab.checkpoint.files import CheckpointError, list_checkpoints, read_state
from cifar_lab.data.images import ImageSet, load_images
from cifar_lab.data.raw import DataError
from cifar_lab.data.splits import limit_ids, split_ids
from cifar_lab.data.stream import EvalStream
from cifar_lab.files.atomic import finite
from cifar_lab.recipe.schema import Data
from cifar_lab.runtime.world import World
from cifar_lab.trained.model import SavedModel
from cifar_lab.trained.network import SavedNetwork, load_network
from cifar_lab.trained.scores import Calibration, ClassScore, calibration, class_scores, confusion_matrix
from cifar_lab.training.evaluation import Evaluation, evaluate

SPLITS = ("test", "val", "train")


class SplitError(DataError):
    """The split does not exist, or is not of the model's classes."""

    exit_status = 2


@dataclass(frozen=True)
class Measured:
    """All that is known of a model on a split; `same_data`: whether its run trained on these pictures, None unknown."""

    model: str
    data: str
    split: str
    world_size: int
    device: str
    batch: int
    precision: str
    tta: bool | str
    same_data: bool | None
    recorded: dict[str, Any] | None
    result: Evaluation
    classes: list[ClassScore]
    calibration: Calibration
    confusion: list[list[int]]

    def as_json(self) -> dict[str, Any]:
        """Plain values; what is not a number is null."""
        result, sure = self.result, self.calibration
        names = ("model", "data", "split", "world_size", "device", "batch", "precision", "tta", "same_data", "recorded")
        return finite(
            {
                **{name: getattr(self, name) for name in names},
                **{name: getattr(result, name) for name in ("count", "accuracy", "loss")},
                "ece": sure.ece,
                "mean_confidence": sure.mean_confidence,
                "bins": [vars(one) for one in sure.bins],
                "classes": [
                    {**vars(one), "accuracy": one.accuracy, "precision": one.precision} for one in self.classes
                ],
                "confusion": self.confusion,
            }
        )


class InferenceEngine:
    """A Predictor: the network whole on every process; its buffers are equal and its weights the final ones."""

    def __init__(self, world: World, network: SavedNetwork) -> None:
        self.world, self.network = world, network

    def predict(self, images: Tensor) -> Tensor:
        """Logits (b, num_classes) in float32 of `images` (b, 3, s, s)."""
        return self.network(images)

    def use_ema(self) -> AbstractContextManager[None]:
        """Nothing to swap in: the average is what was saved."""
        return nullcontext()

    def average_buffers(self) -> None:
        """Nothing to average."""


def measure(saved: SavedModel, world: World, split: str, tick: Callable[[int, int], None]) -> Measured:
    """Every sample of `split` exactly once, as the run itself measures; `tick(batch, batches)`. Collective."""
    recipe, data = saved.recipe, saved.recipe.data
    train, test, _ = load_images(data.name, data.args, root=data.root, max_gib=data.max_gib)
    _check_classes(saved, train.classes)
    _check_split(saved, split)
    images = choose_split(split, train, test, data)
    network = world.everyone(lambda: load_network(saved, world.device))
    stream = EvalStream(
        images,
        network.preparation,
        batch=recipe.eval.batch,
        device=world.device,
        rank=world.rank,
        world_size=world.world_size,
        channels_last=network.channels_last,
    )
    done = 0

    def after_batch() -> bool:
        nonlocal done
        done += 1
        tick(done, len(stream))
        return False

    result = evaluate(InferenceEngine(world, network), stream, tta=recipe.eval.tta, keep=True, stop=after_batch)
    assert result is not None and result.predictions is not None
    kept = result.predictions
    confusion = confusion_matrix(kept.labels, kept.predictions, images.num_classes)
    return Measured(
        model=str(saved.path),
        data=data.name,
        split=split,
        world_size=world.world_size,
        device=_device_name(world.device),
        batch=stream.batch,
        precision=recipe.train.precision,
        tta=recipe.eval.tta,
        same_data=_same_data(saved, train),
        recorded=_recorded(saved, split, recipe.eval.tta),
        result=result,
        classes=class_scores(confusion, images.classes),
        calibration=calibration(kept.confidences, kept.labels == kept.predictions),
        confusion=confusion.tolist(),
    )


def choose_split(split: str, train: ImageSet, test: ImageSet, data: Data) -> ImageSet:
    """The pictures of `split` that a recipe with this `data` section trains on, holds out or tests on."""
    assert split in SPLITS
    if split == "test":
        if data.test_limit is None:
            return test
        return test.subset(limit_ids(test.labels, test.num_classes, data.test_limit))
    train_ids, val_ids = split_ids(train.labels, train.num_classes, data.val_size, data.limit)
    if split == "val" and not len(val_ids):
        raise SplitError("nothing was held out (data.val_size is 0), so there is no val split; --split test is one")
    return train.subset(train_ids if split == "train" else val_ids)


def _check_split(saved: SavedModel, split: str) -> None:
    """Raise SplitError where pictures that were trained on could be taken for held out."""
    if split == "test":
        return
    if saved.run is None:
        raise SplitError(f"what {saved.path} was trained on is not known: only --split test can be measured")
    now, then = saved.recipe.data, saved.run.recipe().data
    if now.name == then.name and (now.val_size, now.limit) != (then.val_size, then.limit):
        raise SplitError(
            f"the run had data.val_size={then.val_size} data.limit={_yaml(then.limit)}; with others, "
            f"--split {split} would mix pictures that it was trained on with those held out: leave them away"
        )


def _yaml(value: int | None) -> str:
    return "null" if value is None else str(value)


def _check_classes(saved: SavedModel, classes: tuple[str, ...]) -> None:
    """Raise SplitError where the labels of the data mean something else to the model."""
    own = saved.description.classes
    if own == classes:
        return
    data = saved.recipe.data.name
    if len(own) != len(classes):
        problem = f"{data} has {len(classes)} classes, the model {len(own)}"
    else:
        place = next(i for i, (ours, theirs) in enumerate(zip(own, classes, strict=True)) if ours != theirs)
        problem = f"class {place} of {data} is {classes[place]!r}, of the model {own[place]!r}"
    raise SplitError(f"{saved.path} was trained on other classes: {problem}; name its data with --data")


def _same_data(saved: SavedModel, train: ImageSet) -> bool | None:
    """Whether the training pictures are those of the run's newest checkpoint, None where nothing tells."""
    found = list_checkpoints(saved.run.checkpoints) if saved.run is not None else []
    if not found:
        return None
    try:
        trained_on = read_state(found[-1]).get("data_fingerprint")
        data = saved.run.recipe().data  # as it was trained, whatever is asked for now
        ids, _ = split_ids(train.labels, train.num_classes, data.val_size, data.limit)
    except (CheckpointError, DataError):
        return None
    return None if trained_on is None else train.subset(ids).fingerprint == trained_on


def _recorded(saved: SavedModel, split: str, tta: bool | str) -> dict[str, Any] | None:
    """What the run's summary.json says of the same measurement."""
    if saved.run is None or saved.run.recipe().eval.tta != tta:
        return None
    found = (saved.run.summary() or {}).get(split)
    return found if isinstance(found, dict) and {"loss", "accuracy", "count"} <= found.keys() else None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
