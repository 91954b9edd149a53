"""Who hangs, by the heartbeats of all ranks."""

from __future__ import annotations

from cifar_lab.files.process import ProcessId
from cifar_lab.rundir.heartbeat import Beat
from cifar_lab.training.hang import ALLOWANCE, Seen, judge, longest_allowance

TIMEOUT = 10.0


def beat(rank=0, *, phase="train", step=5, progress=7, count=1, ended=False):
    return Beat(rank, 1, ProcessId(f"node{rank}", "m", 100 + rank, 1), phase, step, progress, count, ended)


def seen(rank, silent=0.5, stuck=0.5, **changes):
    return Seen(rank, beat(rank, **changes), silent, stuck)


def reason(*peers):
    hang = judge(peers, TIMEOUT)
    return hang and hang.reason


def test_healthy_processes_are_left_alone():
    assert reason(seen(0), seen(1)) is None
    assert reason(seen(0, stuck=9.9)) is None
    assert reason(seen(0, ended=True)) is None


def test_stopped_process_is_named_by_rank_host_phase_and_step():
    hang = judge([seen(0, stuck=10.5), seen(1, silent=10.2, stuck=10.8), seen(2, stuck=10.5)], TIMEOUT)
    assert hang.reason == ("rank 1 (process 101 on node1) has sent no heartbeat for 10 s, in phase train at step 5")
    assert hang.speaker == 0
    assert judge([seen(0, silent=11, stuck=11), seen(1, stuck=11)], TIMEOUT).speaker == 1


def test_stopped_process_is_named_even_before_its_silence_is_over_the_limit():
    assert reason(seen(0, stuck=10.5), seen(1, silent=9, stuck=10.5)).startswith(
        "rank 1 (process 101 on node1) has sent no"
    )


def test_hanging_main_thread_is_named_not_those_who_wait_for_it():
    said = reason(seen(0, stuck=11, progress=8, step=6), seen(1, stuck=12))
    assert said == "rank 1 (process 101 on node1) runs but made no progress for 12 s, in phase train at step 5"


def test_who_waits_for_a_process_within_its_own_allowance_is_excused():
    for phase in ("start", "compile", "validation", "save", "test", "end"):
        ahead = seen(0, stuck=1000, progress=8)
        assert reason(ahead, seen(1, stuck=TIMEOUT * ALLOWANCE[phase] - 1, phase=phase)) is None
        assert "rank 1" in reason(ahead, seen(1, stuck=TIMEOUT * ALLOWANCE[phase] + 1, phase=phase))
        assert longest_allowance(TIMEOUT) >= TIMEOUT * ALLOWANCE[phase]
    assert reason(seen(0, stuck=12), seen(1, stuck=9)) is None  # rank 1 came to the collective last


def test_equally_stuck_processes_blame_the_collective():
    assert "all 2 processes made no progress for 11 s" in reason(seen(0, stuck=11), seen(1, stuck=12))


def test_single_process_speaks_of_itself():
    said = reason(seen(0, silent=0, stuck=11))
    assert said == "rank 0 (process 100 on node0) runs but made no progress for 11 s, in phase train at step 5"


def test_processes_that_left_or_never_came():
    said = reason(seen(0, stuck=11), seen(1, ended=True))
    assert said.startswith("all 1 processes made no progress for 11 s")
    assert said.endswith(": rank 1 (process 101 on node1) has left the run")
    assert reason(seen(0, stuck=61, progress=3), Seen(1, None, 61, 61)) == "rank 1 never wrote a heartbeat"
    assert reason(seen(0, stuck=50, progress=3), Seen(1, None, 50, 50)) is None


def test_many_names_are_cut():
    said = reason(seen(0), *(seen(rank, silent=11) for rank in range(1, 8)))
    assert "rank 4" in said
    assert said.endswith("; 3 more")


def test_ages_count_ticks_in_which_nothing_was_new():
    peer = Seen(0)
    for count, progress, ended, ages in (
        (1, 1, False, (0, 0)), (2, 1, False, (0, 1)), (2, 1, False, (1, 2)), (3, 2, False, (0, 0)),
    ):  # fmt: skip
        peer.update(beat(count=count, progress=progress, ended=ended), 1.0)
        assert (peer.silent, peer.stuck) == ages
    peer.update(None, 1.0)  # torn or missing for once
    assert (peer.silent, peer.stuck, peer.beat.count) == (1, 1, 3)
