"""Labelled pictures to evaluate on: npy files like those of CIFAR-10.1 and CIFAR-10-C, and labels matched by name."""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cifar_lab.data.cifar import CLASSES
from cifar_lab.data.images import ImageSet
from cifar_lab.data.raw import DataError

logger = logging.getLogger("cifar_lab")

SEVERITIES = 5  # of CIFAR-10-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), one after the other in a file


def read_npy(path: Path, classes: tuple[str, ...], size: int | None) -> tuple[ImageSet, int]:
    """uint8 (N, size, size, 3), memory-mapped, and in how many severities (1: none) each picture is there.

    Labels are places in `classes`, or in the published order where these are CIFAR-10's. Raises DataError.
    """
    own, shared = path.with_name(f"{path.stem.removesuffix('_data')}_labels.npy"), path.with_name("labels.npy")
    beside = own if own.exists() else shared
    try:
        pixels, labels = (np.lib.format.open_memmap(file, mode="c") for file in (path, beside))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} needs its labels beside it, in {own.name} or labels.npy: {error}") from error
    side = size or (*pixels.shape, 0)[1]
    fits = labels.ndim == 1 and labels.dtype.kind in "iu" and labels.size
    if not fits or pixels.dtype != np.uint8 or pixels.shape != (len(labels), side, side, 3):
        raise DataError(
            f"{path} is {pixels.dtype} {pixels.shape} and {beside.name} {labels.dtype} {labels.shape}: they must be "
            f"uint8 (N, {side}, {side}, 3), the size of the pictures that the model was trained on, and N integers"
        )
    names = CLASSES if set(classes) == set(CLASSES) else classes
    if labels.min() < 0 or labels.max() >= len(names):
        raise DataError(
            f"{beside} has labels from {labels.min()} to {labels.max()}, and there are {len(names)} classes"
        )
    places = labels.astype("<i8")
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data)
    digest.update(places.data)
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    images = ImageSet(planes, torch.from_numpy(places), torch.arange(len(places)), names, digest.hexdigest())
    rounds = places.reshape(SEVERITIES, -1) if beside == shared and not len(places) % SEVERITIES else places[:0]
    if not len(rounds) or (rounds != rounds[0]).any() or (places == places[0]).all():
        return images, 1
    logger.info("%s: its labels repeat, so these are %d severities of the same pictures", path, SEVERITIES)
    return images, SEVERITIES


def by_name(images: ImageSet, classes: tuple[str, ...], place: str) -> ImageSet:
    """The same pictures with their labels as places in `classes`. Raises DataError for classes that are not there."""
    present = [images.classes[i] for i in sorted(set(images.labels.tolist()))]
    if unknown := [name for name in present if name not in classes]:
        raise DataError(
            f"{place} has pictures of {len(unknown)} classes that the model does not know ({', '.join(unknown[:10])}); "
            f"it knows {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}: rename or remove them"
        )
    if missing := [name for name in classes if name not in present]:
        logger.info("%s has no pictures of %s", place, ", ".join(missing))
    places = torch.tensor([classes.index(name) if name in classes else -1 for name in images.classes])
    return replace(images, labels=places[images.labels], classes=classes)
