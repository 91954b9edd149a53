"""A split in memory: uint8 pictures, labels, ids, and a fingerprint of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cifar_lab.data import cache
from cifar_lab.data.raw import DataError, RawSplit
from cifar_lab.data.sources import find_source
from cifar_lab.files.cache import cache_root


@dataclass(frozen=True)
class ImageSet:
    """Labels int64 (N,), ids int64 (N,), ascending: the places in the whole split, and where the pictures lie.

    `pixels` uint8 (M, 3, S, S) may hold pictures of other sets too: sample i is its row `rows[i]`, or row i where
    `rows` int64 (N,) is None. So a subset costs no memory, and processes of a machine share one mapped file.
    `names` are the files of the whole split's pictures, by id, or none.
    """

    pixels: Tensor
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    fingerprint: str
    rows: Tensor | None = None
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        assert self.pixels.dtype == torch.uint8
        assert self.pixels.ndim == 4
        assert len(self.pixels if self.rows is None else self.rows) == len(self.labels) == len(self.ids)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes, those without a picture included."""
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Side of a picture in pixels."""
        return int(self.pixels.shape[-1])

    @property
    def images(self) -> Tensor:
        """uint8 (N, 3, S, S) of these samples alone; a copy where `pixels` is not."""
        return self.pixels if self.rows is None else self.pixels.index_select(0, self.rows)

    def rows_of(self, positions: Tensor) -> Tensor:
        """Rows of `pixels` that hold the samples at `positions`, int64."""
        return positions if self.rows is None else self.rows[positions]

    def subset(self, ids: Tensor) -> ImageSet:
        """The samples with these ids (ascending), and a fingerprint derived from this one's and the ids."""
        ids = ids.to(self.ids)
        if torch.equal(ids, self.ids):
            return self
        positions = torch.searchsorted(self.ids, ids).clamp_(max=len(self) - 1)
        assert torch.equal(self.ids[positions], ids), "ids that this set does not have"
        assert bool((ids[1:] > ids[:-1]).all()), "ids that are not strictly ascending"
        derived = hashlib.sha256(self.fingerprint.encode() + ids.cpu().numpy().astype("<i8").tobytes()).hexdigest()
        rows = self.rows_of(positions)
        return ImageSet(self.pixels, self.labels[positions], ids, self.classes, derived, rows, self.names)

    def to(self, device: torch.device) -> ImageSet:
        """The same set on `device`, which another one gets without the pictures of other sets."""
        if device == self.pixels.device:
            return self
        images, labels, ids = (tensor.to(device) for tensor in (self.images, self.labels, self.ids))
        return ImageSet(images, labels, ids, self.classes, self.fingerprint, names=self.names)


@dataclass(frozen=True)
class Splits:
    """The splits that a source has of its own; `sums` are those of the training split's pixels."""

    train: ImageSet
    val: ImageSet | None
    test: ImageSet | None
    sums: cache.SplitMeta


def load_images(
    name: str, args: dict[str, Any], *, root: str | None, max_gib: float, cache_dir: Path | None = None
) -> Splits:
    """The splits of the source `name`, memory-mapped from the cache, which is filled on first use.

    The tensors are copy-on-write views of the files. Raises DataError for data that are missing, broken or too large.
    """
    source = find_source(name)
    info = source.info(**args) if hasattr(source, "info") else None
    if info is not None:
        sizes = [(num, 3, info.image_size, info.image_size) for num in (info.num_train, info.num_test)]
        cache.check_memory(sizes, max_gib)

    def read() -> dict[str, RawSplit]:
        found = {split: source.load(split, root=root, **args) for split in cache.SPLITS}
        return {split: raw for split, raw in found.items() if raw is not None}

    try:
        key = source.cache_key(root=root, **args)
    except OSError as error:
        raise DataError(f"the data cannot be read: {error}") from error
    decoded = cache.load_decoded(read, key, name=name, cache_dir=cache_dir or cache_root(), max_gib=max_gib)
    train, val, test = (_image_set(decoded, split) if split in decoded.meta else None for split in cache.SPLITS)
    assert train is not None
    return Splits(train, val, test, decoded.meta["train"])


def _image_set(decoded: cache.Decoded, split: str) -> ImageSet:
    return ImageSet(
        pixels=torch.from_numpy(decoded.images[split]),
        labels=torch.from_numpy(decoded.labels[split]),
        ids=torch.arange(len(decoded.labels[split])),
        classes=decoded.classes,
        fingerprint=decoded.meta[split].fingerprint(decoded.classes),
        names=decoded.names[split],
    )
