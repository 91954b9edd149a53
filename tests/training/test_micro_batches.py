"""Another micro-batch is refused where it changes the result, or accepted and told; elsewhere nothing is said."""

import logging
import shutil
from dataclasses import replace

import pytest
from support.commands import PYTHON, completed, write_recipe
from support.runs import train
from support.small import small, with_batch_norm

from cifar_lab import train as command
from cifar_lab.checkpoint.saver import TrainingState
from cifar_lab.errors import UsageError
from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.report.read import read_run
from cifar_lab.report.wording import topology
from cifar_lab.rundir.directory import RunDir
from cifar_lab.training.micro_batches import micro_batches

SHORT = {"train__epochs": None, "train__steps": 6, "optim__warmup_epochs": 0}


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A run at micro-batch 8 that was stopped at step 3, and what continues a copy of it by the command."""

    def make(mapping):
        recipe = write_recipe(tmp_path, mapping)
        origin = train(mapping, tmp_path / "stopped", 3, monkeypatch).run_dir.path

        def start(place, *words):
            if not (tmp_path / place).exists():
                shutil.copytree(origin, tmp_path / place)
            status = command.main([recipe, *words, "--run-dir", str(tmp_path / place)])
            return RunDir(tmp_path / place), status

        return start

    return make


def test_batch_norm_and_dropout_refuse_it_and_an_accepted_one_is_told(stopped, capsys, caplog):
    start = stopped(with_batch_norm(train__micro_batch=8, **SHORT))
    run, status = start("refused", "train.micro_batch=4")
    told = capsys.readouterr().err.splitlines()[-1]
    assert status == 2
    assert "at micro-batch 4, after training at 8, which changes the result, since BatchNormAct2d, " in told
    assert "set train.micro_batch=8, or accept the change with --accept-micro-batch" in told
    assert (run.status().state, run.status().step, run.status().reason) == ("failed", 3, told)
    run, status = start("refused", "train.micro_batch=8")  # what it says to set
    assert (status, run.summary()["micro_batches"]) == (0, ["8"])
    assert "micro-batch" not in caplog.text

    run, status = start("accepted", "train.micro_batch=4", "--accept-micro-batch")
    assert status == 0
    assert "continuing at micro-batch 4, after training at 8 (--accept-micro-batch)" in caplog.text
    assert run.summary()["micro_batches"] == run.env()["micro_batches"] == ["8", "4"]
    assert topology([read_run(run.path)]) == "single, micro-batch 8 then 4"


@pytest.mark.parametrize("augment", [{}, {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}], ids=["plain", "mixing"])
def test_where_nothing_couples_samples_it_is_accepted_without_a_word(stopped, caplog, augment):
    mapping = small(train__micro_batch=8, **SHORT)
    mapping["data"]["augment"] |= augment
    start = stopped(mapping)
    caplog.set_level(logging.INFO)
    (run, status), (same, _) = start("other", "train.micro_batch=4"), start("same")
    assert status == 0
    assert "micro-batch" not in caplog.text
    assert (run.summary()["micro_batch"], run.summary()["micro_batches"]) == (4, [])
    assert read_run(run.path).micro_batches is None
    losses = [[line["loss"] for line in one.metrics() if line["split"] == "train"] for one in (run, same)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(losses[0]) == 6


@pytest.mark.launch
def test_the_number_of_processes_alone_is_told_once_with_the_way_back(tmp_path, monkeypatch):
    mapping = with_batch_norm(**SHORT)
    run = train(mapping, tmp_path / "run", 3, monkeypatch).run_dir
    command = [PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cifar_lab.train"]
    command += [write_recipe(tmp_path, mapping), "--run-dir", str(run.path)]
    refused = completed(command)
    assert refused.returncode != 0
    assert (
        refused.stderr.count("set train.micro_batch=16 with 1 process, or accept the change with --accept-micro-batch")
        == 1
    )
    assert completed([*command, "--accept-micro-batch"]).returncode == 0
    assert run.summary()["micro_batches"] == ["16", "8"]


BEFORE = TrainingState(
    data_fingerprint="", normalisation=(), micro_batch=8, micro_batches=["8"], world_size=2, strategy="ddp", step=3
)


def asked(before, world_size=2, *, layers=("BatchNorm2d",), accepted=False, **train):
    recipe = parse_recipe(small(**{f"train__{key}": value for key, value in train.items()}))
    return micro_batches(before, recipe, Schedule.make(recipe, 320, world_size), layers, accepted=accepted)


def test_a_run_begins_with_nothing_used():
    assert (replace(BEFORE, step=0).seconds, BEFORE.skipped, BEFORE.loss_sum, BEFORE.loss_steps) == (0, 0, 0, 0)


def test_a_layout_with_the_same_micro_batch_is_the_same():
    assert asked(None) == asked(BEFORE) == asked(BEFORE, 1, micro_batch=8) == ["8"]
    assert asked(BEFORE, 4, layers=()) == []


def test_an_accepted_one_stays_accepted_and_stays_told():
    accepted = replace(BEFORE, micro_batch=4, micro_batches=asked(BEFORE, micro_batch=4, accepted=True))
    assert asked(accepted, micro_batch=4) == ["8", "4"]
    with pytest.raises(UsageError, match="at micro-batch 8, after training at 4"):
        asked(accepted)
    assert asked(accepted, accepted=True) == ["8", "4", "8"]


@pytest.mark.parametrize(
    ("world_size", "way_back"),
    [(1, "set train.micro_batch=8, or"), (4, "set train.micro_batch=8 with 2 processes, or")],
)
def test_the_way_back_is_one_that_there_is(world_size, way_back):
    with pytest.raises(UsageError, match=way_back):
        asked(BEFORE, world_size)


def test_synchronised_statistics_are_those_of_all_processes():
    before = replace(BEFORE, micro_batches=asked(None, sync_batchnorm=True))
    assert before.micro_batches == ["8 on each of 2"]
    with pytest.raises(UsageError, match=r"set train\.micro_batch=8 with 2 processes, or"):
        asked(before, 1, sync_batchnorm=True, micro_batch=8)
