"""Ten classes drawn by formula: the data set for first steps, tests and machines without network."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from cifar_lab.data.raw import RawSplit, SourceInfo

VERSION = 1  # raise it whenever a pixel changes: caches and fingerprints depend on it
_FIRST_INDEX = {"train": 0, "test": 1 << 40}
_TEXTURES = range(6, 10)

Floats = npt.NDArray[np.float64]


def _in_disc(texture: Floats, u: Floats, v: Floats) -> Floats:
    return np.maximum(texture, np.hypot(u, v) - 1)


def _stripes(u: Floats, v: Floats) -> Floats:
    return _in_disc(np.cos(2 * np.pi * 1.6 * v) * 0.1, u, v)


# Signed distances, roughly, in units of the radius: negative inside. (u, v) are the shape's own coordinates.
_FORMULAS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": lambda u, v: np.hypot(u, v) - 0.85,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) - 0.75,
    "triangle": lambda u, v: np.maximum(abs(u) * np.sqrt(0.75) + v / 2, -v) - 0.5,
    "cross": lambda u, v: np.maximum(np.minimum(abs(u), abs(v)) - 0.25, np.maximum(abs(u), abs(v)) - 0.95),
    "ring": lambda u, v: abs(np.hypot(u, v) - 0.72) - 0.2,
    "star": lambda u, v: np.hypot(u, v) - (0.65 + 0.35 * np.cos(5 * np.arctan2(v, u))),
    "horizontal_stripes": _stripes,
    "vertical_stripes": lambda u, v: _stripes(v, u),
    "checkerboard": lambda u, v: _in_disc(np.sin(np.pi * 1.6 * u) * np.sin(np.pi * 1.6 * v) * 0.2, u, v),
    "dots": lambda u, v: _in_disc(0.25 - 0.25 * (np.cos(np.pi * 2.2 * u) + np.cos(np.pi * 2.2 * v)), u, v),
}
CLASSES = tuple(_FORMULAS)


def load(
    split: str,
    *,
    root: str | None,
    image_size: Annotated[int, Field(ge=8, description="Side of a picture in pixels.")] = 32,
    num_train: Annotated[int, Field(ge=10, description="Number of training pictures.")] = 10_000,
    num_test: Annotated[int, Field(ge=10, description="Number of test pictures.")] = 2_000,
) -> RawSplit | None:
    """Draw `split`; sample i depends on the split, i and `image_size` alone and is of class i mod 10."""
    if split == "val":
        return None
    num = {"train": num_train, "test": num_test}[split]
    images = np.empty((num, image_size, image_size, 3), np.uint8)
    chunk = max(1, (1 << 18) // image_size**2)  # float64 intermediates that stay in the cache of the processor
    for start in range(0, num, chunk):
        indices = np.arange(start, min(start + chunk, num), dtype=np.uint64)
        images[start : start + chunk] = _draw(indices + np.uint64(_FIRST_INDEX[split]), indices % 10, image_size)
    return RawSplit(images, np.arange(num, dtype=np.int64) % len(CLASSES), CLASSES)


def cache_key(*, root: str | None, image_size: int = 32, num_train: int = 10_000, num_test: int = 2_000) -> str:
    """The arguments and the version of the formulas."""
    return f"shapes {VERSION} {image_size} {num_train} {num_test}"


def info(*, image_size: int = 32, num_train: int = 10_000, num_test: int = 2_000) -> SourceInfo:
    """What the arguments say."""
    return SourceInfo(num_train, num_test, len(CLASSES), image_size)


def _draw(indices: npt.NDArray[np.uint64], labels: npt.NDArray[np.uint64], size: int) -> npt.NDArray[np.uint8]:
    """Samples of global `indices` and `labels` as uint8 (n, size, size, 3)."""

    def uniform(purpose: int, low: float, high: float, shape: tuple[int, ...] = ()) -> Floats:
        """Draws (n, *shape), or (n, 1, 1) to broadcast over pixels."""
        count = int(np.prod(shape))
        lanes = np.arange(count, dtype=np.uint64) + np.uint64(purpose << 32)
        draws = _hash(_hash(indices)[:, None] ^ _hash(lanes)) >> np.uint64(11)
        fractions = (draws * 2.0**-53).reshape(len(indices), *(shape or (1, 1)))
        return np.asarray(low + (high - low) * fractions, np.float64)

    texture = np.isin(labels, _TEXTURES)[:, None, None]
    centre = (np.arange(size) + 0.5) / size * 2 - 1
    x = centre[None, None, :] - uniform(1, -0.3, 0.3)
    y = centre[None, :, None] - uniform(2, -0.3, 0.3)
    radius = uniform(3, 0.4, 0.7) * np.where(texture, 1.2, 1.0)
    angle = uniform(4, -np.pi, np.pi) * np.where(texture, 0.06, 1.0)  # stripes stay horizontal or vertical
    sin, cos = np.sin(angle), np.cos(angle)
    u, v = (cos * x + sin * y) / radius, (cos * y - sin * x) / radius

    distance = np.empty((len(indices), size, size))
    for label, formula in enumerate(_FORMULAS.values()):
        rows = labels == label
        distance[rows] = formula(u[rows], v[rows])
    ink = np.clip(0.5 - distance * radius * size / 2, 0, 1)[..., None]  # edges are one pixel wide

    background = uniform(5, 0.0, 1.0, (1, 1, 3))
    colour = (background + uniform(6, 0.3, 0.7, (1, 1, 3))) % 1.0  # differs in every channel, to either side
    slope = uniform(7, -0.25, 0.25, (2, 1, 1, 3))
    gradient = slope[:, 0] * centre[None, None, :, None] + slope[:, 1] * centre[None, :, None, None]
    noise = uniform(8, -0.12, 0.12, (size, size, 3))
    picture = background + gradient + ink * (colour - background) + noise
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _hash(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64 (Steele et al., 2014)."""
    h = values + np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))
