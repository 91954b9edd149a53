"""What all processes of a launch are refused for is said once; what only one meets is said too."""

from __future__ import annotations

import re

import pytest
from support.commands import ROOT, completed

WORKER = str(ROOT / "tests" / "workers" / "speakers.py")


@pytest.mark.launch
@pytest.mark.parametrize(
    ("first_needs", "it_is_given", "said"),
    [(2.0, 60.0, ["refused on 0"]), (300.0, 0.1, ["refused on 1"])],
    ids=["the first is slow", "the first hangs"],
)
def test_one_process_speaks(first_needs: float, it_is_given: float, said: list[str]) -> None:
    """torchrun ends all when one ends: without the wait the first would be killed before it spoke."""
    done = completed(["torchrun", "--nproc-per-node", "2", WORKER, str(first_needs), str(it_is_given)])
    assert done.returncode != 0
    assert re.findall(r"^refused on \d", done.stderr, re.MULTILINE) == said, done.stderr
