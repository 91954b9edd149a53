"""The run directory: identity, atomic files, metrics that survive being cut off."""

import json
import os
from pathlib import Path

import pytest

from cifar_lab.errors import UsageError
from cifar_lab.files.atomic import replacing
from cifar_lab.files.cache import cache_root
from cifar_lab.recipe import Recipe, parse_recipe
from cifar_lab.rundir.directory import RunDir


def recipe(**changes: object) -> Recipe:
    fields = {
        "name": "tiny",
        "model": {"name": "resnet"},
        "optim": {"lr": 0.1},
        "train": {"epochs": 2, "global_batch": 32},
    }
    return parse_recipe({**fields, **changes})


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    created = RunDir.locate(recipe(), runs=str(tmp_path / "runs"))
    created.create(recipe())
    return created


def test_same_recipe_same_directory_and_nothing_written(tmp_path: Path) -> None:
    first, second = (RunDir.locate(recipe(), runs=str(tmp_path)) for _ in range(2))
    assert first.path == second.path
    assert first.path.parent == tmp_path / "tiny"
    assert first.path.name.startswith("0-")
    assert len(first.path.name) == len("0-12345678")
    assert list(tmp_path.iterdir()) == []


def test_seed_and_identity_make_other_directories_but_operational_fields_do_not(tmp_path: Path) -> None:
    def name(**changes: object) -> str:
        return RunDir.locate(recipe(**changes), runs=str(tmp_path)).path.name

    assert name(seed=1).split("-")[0] == "1"
    assert name(seed=1).split("-")[1] == name().split("-")[1]
    assert name(optim={"lr": 0.2}) != name()
    assert name(log={"every_steps": 7}) == name()


def test_fresh_goes_past_the_latest_and_a_start_continues_the_latest(tmp_path: Path) -> None:
    def locate(fresh: bool = False) -> RunDir:
        return RunDir.locate(recipe(), runs=str(tmp_path), fresh=fresh)

    plain = locate(fresh=True)
    plain.create(recipe())
    base = plain.path.name
    for expected in ("2", "3"):
        fresh = locate(fresh=True)
        assert fresh.path.name == f"{base}.{expected}"
        fresh.create(recipe())
    assert locate().path.name == f"{base}.3"
    (tmp_path / "tiny" / f"{base}.10").mkdir()
    assert locate(fresh=True).path.name == f"{base}.11"


def test_named_directory_of_another_experiment_is_refused_with_both_values(tmp_path: Path) -> None:
    place = str(tmp_path / "place")
    RunDir.locate(recipe(), run_dir=place).create(recipe())
    assert RunDir.locate(recipe(log={"every_steps": 3}), run_dir=place).path == tmp_path / "place"
    with pytest.raises(UsageError) as caught:
        RunDir.locate(recipe(name="other", seed=4, optim={"lr": 0.2}), run_dir=place)
    message = str(caught.value)
    assert "name: 'tiny' there, 'other' here" in message
    assert "seed: 0 there, 4 here" in message
    assert "optim.lr: 0.1 there, 0.2 here" in message
    assert "--run-dir" in message


def test_named_directory_with_foreign_files_is_refused_but_logs_are_not(tmp_path: Path) -> None:
    (tmp_path / "slurm-17.out").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "heartbeat").mkdir()  # of a start that was killed before it wrote its recipe
    (tmp_path / "attempt.json").touch()
    assert RunDir.locate(recipe(), run_dir=str(tmp_path)).path == tmp_path
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        RunDir.locate(recipe(), run_dir=str(tmp_path))


def test_fresh_and_a_named_directory_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be used together"):
        RunDir.locate(recipe(), run_dir=str(tmp_path), fresh=True)


def test_unreadable_stored_recipe_names_the_way_out(run: RunDir, tmp_path: Path) -> None:
    (run.path / "recipe.yaml").write_text("nonsense: [")
    with pytest.raises(UsageError, match="--fresh"):
        RunDir.locate(recipe(), runs=str(tmp_path / "runs"))


def test_place_that_cannot_be_written_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    unwritable = RunDir.locate(recipe(), runs=str(tmp_path / "runs"))
    with pytest.raises(UsageError, match=r"cannot write .*--runs DIR"):
        unwritable.create(recipe())


def test_recipe_is_stored_resolved_and_rewritten_with_operational_changes(run: RunDir) -> None:
    assert run.recipe() == recipe()
    run.create(recipe(log={"every_steps": 3}))
    assert run.recipe().log.every_steps == 3


def test_open_needs_a_run(tmp_path: Path, run: RunDir) -> None:
    assert RunDir.open(run.path).path == run.path
    assert RunDir.open(run.path.parent).path == run.path  # the only one there
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match=r"other is not a run directory, and no run is below it"):
        RunDir.open(tmp_path / "other")
    (run.path / "recipe.yaml").rename(run.path / "status.json")  # another file of a run
    with pytest.raises(UsageError, match=r"has no recipe\.yaml"):
        RunDir.open(run.path)


def test_status_round_trip_closed_states_and_damage(run: RunDir) -> None:
    assert run.status() is None
    run.write_status("failed", 3, 10, reason="disk full", world_size=2, attempt=4)
    status = run.status()
    assert status is not None
    assert (status.state, status.step, status.total_steps, status.reason) == ("failed", 3, 10, "disk full")
    assert (status.world_size, status.attempt) == (2, 4)
    known = (run.path / "status.json").read_text()
    for damaged in ("{", '{"state": "running"}', "[]", known.replace("failed", "finished")):
        (run.path / "status.json").write_text(damaged)
        with pytest.raises(UsageError, match=r"status\.json"):
            run.status()


def test_metrics_are_there_once_appended_as_strict_json(run: RunDir) -> None:
    run.append_metrics(split="train", step=1, epoch=0.5, loss=float("nan"), norms=[1.0, float("inf")])
    line = (run.path / "metrics.jsonl").read_text()
    assert line.endswith("\n")
    record = json.loads(line, parse_constant=pytest.fail)
    assert record["loss"] is None
    assert record["norms"] == [1.0, None]
    assert run.metrics() == [record]


def test_a_write_in_pieces_is_carried_on(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    for step in (1, 2):
        run.append_metrics(split="train", step=step)
    assert [line["step"] for line in run.metrics()] == [1, 2]


def test_a_torn_last_line_is_ignored_and_gone_after_a_start(run: RunDir) -> None:
    run.append_metrics(split="train", step=1)
    run.close()
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"split": "train", "step": 2' + " " * 70_000)
    assert [line["step"] for line in run.metrics()] == [1]
    assert run.truncate_metrics(1) == 0
    run.append_metrics(split="train", step=2)
    assert [line["step"] for line in run.metrics()] == [1, 2]


def test_unreadable_line_in_the_middle_is_named(run: RunDir) -> None:
    (run.path / "metrics.jsonl").write_text('{"step": 1}\n\0\0\n{"step": 2}\n')
    with pytest.raises(UsageError, match=r"metrics\.jsonl:2"):
        run.metrics()


def test_truncation_drops_later_torn_and_unreadable_lines_by_rename(run: RunDir) -> None:
    assert run.truncate_metrics(5) == 0
    for step in range(1, 6):
        run.append_metrics(split="train", step=step)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('\0\n{"step": 3')
    inode = (run.path / "metrics.jsonl").stat().st_ino
    assert run.truncate_metrics(3) == 1
    assert (run.path / "metrics.jsonl").stat().st_ino != inode
    run.append_metrics(split="train", step=4)
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4]


def test_replacing_keeps_the_old_file_when_the_block_fails(run: RunDir) -> None:
    (run.path / "model.json").write_text("old")

    def replace_and_fail() -> None:
        with replacing(run.path / "model.json") as temporary:
            assert temporary.suffix == ".json"
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        replace_and_fail()
    assert (run.path / "model.json").read_text() == "old"
    with replacing(run.path / "model.json") as temporary:
        temporary.write_text("new")
    assert (run.path / "model.json").read_text() == "new"
    assert not list(run.path.glob(".tmp-*"))


def test_summary_env_and_stop(run: RunDir) -> None:
    assert run.summary() is None
    assert run.env() == {}
    assert run.stop_request() is None
    run.write_summary({"test": {"accuracy": 0.5}})
    run.write_env({"host": "here"})
    (run.path / "STOP").touch()
    assert run.summary() == {"test": {"accuracy": 0.5}}
    assert run.env() == {"host": "here"}
    assert run.stop_request() == "STOP"
    (run.path / "STOP").write_text("job 7 ends\nsoon\n")
    assert run.stop_request() == "job 7 ends soon"
    run.clear_stop()
    assert run.stop_request() is None


def test_cache_root_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_LAB_CACHE", str(tmp_path / "chosen"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "chosen"
    monkeypatch.delenv("CIFAR_LAB_CACHE")
    assert cache_root() == tmp_path / "xdg" / "cifar_lab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == tmp_path / "home" / ".cache" / "cifar_lab"
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert cache_root(tmp_path / "run") == tmp_path / "run" / "cache"
    with pytest.raises(UsageError, match="CIFAR_LAB_CACHE"):
        cache_root()
    monkeypatch.setenv("CIFAR_LAB_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(UsageError, match="CIFAR_LAB_CACHE"):
        cache_root(tmp_path / "run")
