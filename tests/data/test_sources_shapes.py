"""The drawn data set: deterministic, balanced, and out of reach of a linear model."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from cifar_lab.data.raw import RawSplit, SourceInfo
from cifar_lab.data.sources import shapes


@pytest.fixture(scope="module")
def train() -> RawSplit:
    return shapes.load("train", root=None)


def test_sizes_and_balance(train: RawSplit) -> None:
    assert train.images.shape == (10_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(train.labels), [1000] * 10)
    assert shapes.info(num_train=50, image_size=16) == SourceInfo(50, 2000, 10, 16)
    assert shapes.load("test", root=None, num_test=25, image_size=48).images.shape == (25, 48, 48, 3)


def test_a_sample_depends_on_its_index_alone(train: RawSplit) -> None:
    few = shapes.load("train", root=None, num_train=333)
    np.testing.assert_array_equal(few.images[:333], train.images[:333])
    test = shapes.load("test", root=None, num_test=10)
    assert (test.images[:10] != train.images[:10]).any(axis=(1, 2, 3)).all()


def test_pixels_are_those_of_this_version(train: RawSplit) -> None:
    # Caches and fingerprints rest on it: whoever changes a pixel raises shapes.VERSION and this line.
    digest = hashlib.sha256(np.ascontiguousarray(train.images[:200])).hexdigest()
    assert (shapes.VERSION, digest[:16]) == (1, "eb5bd542e1f3ca4f")


def test_no_two_pictures_are_equal(train: RawSplit) -> None:
    assert len({picture.tobytes() for picture in train.images[:10_000]}) == 10_000


def test_a_linear_model_cannot_do_it(train: RawSplit) -> None:
    test = shapes.load("test", root=None, num_test=1000)

    def features(raw: RawSplit, num: int) -> np.ndarray:
        halved = raw.images[:num].reshape(num, 16, 2, 16, 2, 3).mean(axis=(2, 4)).reshape(num, -1) / 255 - 0.5
        return np.concatenate([halved, np.ones((num, 1))], axis=1)

    x, targets = features(train, 6000), np.eye(10)[train.labels[:6000]]
    weights = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ targets)
    accuracy = (np.argmax(features(test, 1000) @ weights, axis=1) == test.labels).mean()
    assert accuracy < 0.6


def test_formulas_stand_with_their_names() -> None:
    raw = shapes.load("train", root=None, num_train=2000, image_size=32)
    gradients = np.abs(np.diff(raw.images[:2000].astype(np.int16), axis=1)).mean(axis=(1, 2, 3))
    edges = {name: gradients[raw.labels == i].mean() for i, name in enumerate(raw.classes)}
    assert edges["horizontal_stripes"] > 1.1 * edges["vertical_stripes"]  # the difference is along y
    assert edges["ring"] > edges["circle"]
