"""The newest numbers of a long metrics.jsonl."""

from __future__ import annotations

import json
import time

from cifar_lab.status.metrics_tail import read_tail


def test_a_million_lines_are_not_read(tmp_path):
    line = json.dumps({"time": 1.0, "split": "train", "step": 1, "loss": 1.5, "images_per_second": 7.0}) + "\n"
    validation = json.dumps({"time": 1.0, "split": "val", "step": 9, "accuracy": 0.75}) + "\n"
    path = tmp_path / "metrics.jsonl"
    path.write_text(line * 900_000 + validation + line * 100_000 + '{"split": "val", "accu')
    begun = time.monotonic()
    tail = read_tail(path)
    assert time.monotonic() - begun < 0.3
    assert (tail.val_error, tail.images_per_second) == (0.25, 7.0)
    path.write_text(line * 1_000_000)
    begun = time.monotonic()
    assert read_tail(path).val_error is None
    assert time.monotonic() - begun < 0.3
