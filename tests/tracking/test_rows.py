"""Following metrics.jsonl while it is written."""

import threading
from pathlib import Path

from cifar_lab.tracking.rows import follow


class Writing(threading.Event):
    """Appends one piece whenever the follower waits for more; the end comes with the last."""

    def __init__(self, path: Path, pieces: list[bytes]) -> None:
        super().__init__()
        self.path, self.pieces = path, pieces

    def wait(self, timeout: float | None = None) -> bool:
        with open(self.path, "ab") as file:
            file.write(self.pieces.pop(0))
        if not self.pieces:
            self.set()
        return self.is_set()


def test_a_line_that_is_split_between_reads_comes_whole(tmp_path: Path) -> None:
    pieces = [b'{"step": 1}\n{"st', b'ep"', b": 2}\n", b"\0\0\n", b'{"step": 3}\n{"step": 4']
    path = tmp_path / "metrics.jsonl"
    assert list(follow(path, Writing(path, pieces))) == [{"step": 1}, {"step": 2}, {"step": 3}]
