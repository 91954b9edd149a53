"""What status.json says of a run that ended before its time."""

from pathlib import Path

import pytest

from cifar_lab.rundir.directory import RunDir


@pytest.mark.parametrize(("step", "said"), [(0, 7), (3, 7), (9, 9)])
def test_the_end_is_where_the_run_is_known_to_have_been(tmp_path: Path, step: int, said: int) -> None:
    run = RunDir(tmp_path)
    run.write_status("running", 7, 10)
    run.write_end("failed", "out of memory", 4, 2, step)
    status = run.status()
    assert status is not None
    assert (status.state, status.step, status.total_steps, status.reason) == ("failed", said, 10, "out of memory")
    assert (status.world_size, status.attempt) == (4, 2)


def test_the_end_of_a_run_that_never_began(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_end("failed", "no data", 1, 1)
    status = run.status()
    assert status is not None
    assert (status.step, status.total_steps) == (0, 0)


def test_a_long_request_to_stop_is_cut(tmp_path: Path) -> None:
    (tmp_path / "STOP").write_text("because " * 1000)
    assert len(RunDir(tmp_path).stop_request() or "") <= 200
