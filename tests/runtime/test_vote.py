"""How often processes vote, whatever the pace of what they count."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from cifar_lab.runtime import vote as votes
from cifar_lab.runtime.vote import SECONDS_BETWEEN_VOTES, Save, Vote

STEP, BATCH = 2.0, 0.005


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_one_process_votes_by_the_clock_however_often_it_validates(monkeypatch):
    now = 0.0
    monkeypatch.setattr(votes.time, "monotonic", lambda: now)
    vote, cast = Vote(SimpleNamespace(world_size=1, is_main=True)), 0
    for _ in range(100):
        now += SECONDS_BETWEEN_VOTES / 4
        if vote.due():
            vote.cast(stop=False, save=Save(0))
            cast += 1
        vote.restart()
    assert cast == 25


def test_fast_evaluation_batches_do_not_space_the_votes_on_slow_steps(group, monkeypatch):
    now = 0.0
    monkeypatch.setattr(votes.time, "monotonic", lambda: now)
    vote = Vote(
        SimpleNamespace(world_size=2, is_main=True, timeout=timedelta(seconds=7))
    )  # the other one would count alike
    waits, last = [], 0.0
    for _ in range(3):
        for seconds, count in ((STEP, 5), (BATCH, 300)):
            for _ in range(count):
                now += seconds
                if vote.due():
                    waits.append(now - last)
                    last = now
                    vote.cast(stop=False, save=Save(0))
        vote.restart()  # as validate() does
    assert max(waits) <= STEP + 2 * SECONDS_BETWEEN_VOTES
    assert len(waits) < 60


def test_a_vote_waits_as_long_as_any_other_collective(group):
    """And not for the half hour that gloo waits by itself."""
    vote = Vote(SimpleNamespace(world_size=2, is_main=True, timeout=timedelta(seconds=7)))
    assert vote._group._get_backend(torch.device("cpu")).options._timeout == timedelta(seconds=7)
