"""The newest numbers of a long metrics.jsonl."""

from __future__ import annotations

import json

from cifar_lab.files.jsonl import parse_object
from cifar_lab.status import state
from cifar_lab.status.state import read_tail


def test_a_million_lines_are_not_read(tmp_path, monkeypatch):
    line = json.dumps({"time": 1.0, "split": "train", "step": 1, "loss": 1.5, "images_per_second": 7.0}) + "\n"
    validation = json.dumps({"time": 1.0, "split": "val", "step": 9, "accuracy": 0.75}) + "\n"
    path = tmp_path / "metrics.jsonl"
    path.write_text(line * 900_000 + validation + line * 10_000 + '{"split": "val", "accu')
    read = []
    monkeypatch.setattr(state, "parse_object", lambda text: read.append(text) or parse_object(text))
    tail = read_tail(path)
    assert (tail.val_error, tail.train["images_per_second"]) == (0.25, 7.0)
    assert len(read) < 250
