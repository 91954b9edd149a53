"""Which samples a run computed: a log for proving that a resumed run sees the same ones."""

import json
from collections.abc import Iterator
from pathlib import Path

from cifar_lab.data.stream import Batch, Stream


class IndexLog:
    """A stream that also appends {"step", "micro_batch", "ids"} of every micro-batch to `path`, one line each."""

    def __init__(self, stream: Stream, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream, self._file = stream, open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def micro_batch(self, step: int, m: int) -> Batch:
        """The stream's own micro-batch, logged."""
        batch = self._stream.micro_batch(step, m)
        self._file.write(json.dumps({"step": step, "micro_batch": m, "ids": batch.ids.tolist()}) + "\n")
        return batch


def read_index_logs(folder: Path) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """(step, micro_batch, ids) of all logs in `folder`; lines that a crash has torn are left out."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("}\n"):
                entry = json.loads(line)
                yield entry["step"], entry["micro_batch"], tuple(entry["ids"])
