"""What one pass over a split sums up."""

from __future__ import annotations

import numpy as np
import pytest

from cifar_lab.data.decode import decode_split
from cifar_lab.data.raw import DataError, RawSplit


def test_the_fingerprint_covers_pictures_labels_and_names() -> None:
    def fingerprint(value: int = 0, label: int = 0, name: str = "a") -> str:
        raw = RawSplit(np.full((2, 8, 8, 3), value, np.uint8), np.array([label, 1]), (name, "b"))
        return decode_split(raw, lambda planes: None).fingerprint(raw.classes)

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint(value=1), fingerprint(label=1), fingerprint(name="c")}) == 4


def test_a_constant_channel_is_refused() -> None:
    raw = RawSplit(np.full((2, 8, 8, 3), 7, np.uint8), np.array([0, 1]), ("a", "b"))
    with pytest.raises(DataError, match="channel 0 has one value"):
        decode_split(raw, lambda planes: None).mean_std()
