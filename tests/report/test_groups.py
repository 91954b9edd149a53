"""Which runs are one experiment, and which experiments may stand in one table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.written_runs import written

from cifar_lab.recipe.schema import SCHEMA_VERSION
from cifar_lab.report.contents import contents
from cifar_lab.report.files import markdown, results_csv, told
from cifar_lab.report.groups import Table, labels, tables
from cifar_lab.report.page import page
from cifar_lab.report.read import read_run
from cifar_lab.rundir.placement import find_runs


def found(runs: Path) -> list[Table]:
    return tables([read_run(path) for path in find_runs([runs])])


def test_seeds_are_one_experiment_and_settings_are_not(tmp_path: Path) -> None:
    for seed in range(3):
        written(tmp_path, "plain18", seed, error=0.10 + 0.01 * seed)
    written(tmp_path, "plain18", error=0.3, overrides=["optim.lr=0.5"])
    written(tmp_path, "plain18", 3, error=0.13, overrides=["log.every_steps=7", "train.micro_batch=32"])
    (table,) = found(tmp_path)
    assert [len(experiment.runs) for experiment in table.experiments] == [4, 1]
    sample = table.experiments[0].sample
    assert sample.errors == pytest.approx((0.10, 0.11, 0.12, 0.13))
    assert sample.mean == pytest.approx(0.115)
    (section,) = contents([read_run(path) for path in find_runs([tmp_path])]).sections
    assert [ranked.label for ranked in section.ranked] == ["plain18 (optim.lr=0.1)", "plain18 (optim.lr=0.5)"]


def test_labels_tell_all_of_one_name_apart(tmp_path: Path) -> None:
    same = ["optim.lr=0.2", "optim.weight_decay=0.3", "train.epochs=7"]
    for overrides in ([], same, [*same, "train.ema_decay=0.9"], [*same, "train.ema_decay=0.8"]):
        written(tmp_path, "plain18", overrides=overrides)
    (table,) = found(tmp_path)
    told = labels(table.experiments)
    assert len(set(told)) == 4
    for experiment, label in zip(table.experiments, told, strict=True):
        assert label.startswith("plain18 (optim.lr=")
        alike = "optim.lr=0.2" in label
        assert (experiment.runs[0].identity in label) == alike, "where three settings do not tell them apart"


def test_a_setting_at_its_default_is_told_like_any_other(tmp_path: Path) -> None:
    for overrides in ([], ["data.augment.cutout=8"]):
        written(tmp_path, "plain18", overrides=overrides)
    (table,) = found(tmp_path)
    assert sorted(labels(table.experiments)) == ["plain18 (data.augment.cutout=0)", "plain18 (data.augment.cutout=8)"]


def test_one_seed_and_missing_predictions_are_marked_and_the_marks_told(tmp_path: Path) -> None:
    for seed in range(2):
        written(tmp_path, "plain18", seed, error=0.1 + 0.01 * seed)
    written(tmp_path, "plain34", error=0.2)
    np.savez(
        written(tmp_path, "resnet18", error=0.3).path / "predictions.npz",
        ids=np.arange(1000), labels=np.arange(1000) % 10, predictions=np.arange(1000) % 10,
    )  # fmt: skip
    report = contents([read_run(path) for path in find_runs([tmp_path])])
    for text in (told(report), markdown(report).replace("\\", ""), page(report, {}, 0.0)):
        assert "* One seed only. Its interval uses the spread over seeds of the other experiments." in text
        assert "† The file predictions.npz of a run is missing or belongs to another result." in text
    (section,) = report.sections
    assert [row[0] for row in section.cells(["seeds"])] == ["2", "1*", "1*†"]
    written(tmp_path, "plain34", 1, error=0.21)
    written(tmp_path, "resnet18", 1, error=0.31)
    shutil.rmtree(next((tmp_path / "resnet18").glob("0-*")))
    (section,) = contents([read_run(path) for path in find_runs([tmp_path / "plain34", tmp_path / "plain18"])]).sections
    assert section.marked == []


def test_the_latest_of_a_seed_counts_once(tmp_path: Path) -> None:
    written(tmp_path, "plain18", error=0.30)
    written(tmp_path, "plain18", error=0.20, fresh=True)
    latest = written(tmp_path, "plain18", error=0.10, fresh=True)
    (table,) = found(tmp_path)
    (experiment,) = table.experiments
    assert [run.path for run in experiment.runs] == [latest.path]
    assert len(experiment.repeats) == 2


def test_of_folders_with_any_names_the_one_written_last_counts(tmp_path: Path) -> None:
    for name, updated in (("z", 1000.0), ("a", 2000.0)):
        run = written(tmp_path / name, "plain18").path
        status = json.loads((run / "status.json").read_text())
        (run / "status.json").write_text(json.dumps({**status, "updated": updated}))
        run.rename(tmp_path / f"{name}_run")
    (table,) = found(tmp_path)
    assert [run.path.name for run in table.experiments[0].runs] == ["a_run"]


@pytest.mark.parametrize(
    ("overrides", "more"),
    [
        (["data.val_size=0"], {}),
        (["data.limit=2000"], {}),
        ([], {"count": 500}),
        (["data.name=shapes"], {}),
        (["data.name=shapes", "data.args={num_train: 500}"], {}),
        ([], {"fingerprint": "e" * 64}),
    ],
    ids=["val_size", "limit", "test_limit", "source", "arguments", "fingerprint"],
)
def test_other_protocols_have_tables_of_their_own(
    tmp_path: Path, overrides: list[str], more: dict[str, object]
) -> None:
    for seed in range(2):
        written(tmp_path, "plain18", seed)
    written(tmp_path, "plain34", error=0.1, overrides=overrides, **more)  # type: ignore[arg-type]
    report = contents([read_run(path) for path in find_runs([tmp_path])])
    assert [[ranked.label for ranked in section.ranked] for section in report.sections] == [["plain18"], ["plain34"]]
    assert report.sections[0].protocol != report.sections[1].protocol
    assert [section.slug for section in report.sections] == ["ranking", "protocol2-ranking"]


def test_the_same_recipe_on_other_pictures_is_not_mixed_in(tmp_path: Path) -> None:
    written(tmp_path, "plain18", 0)
    written(tmp_path, "plain18", 1, fingerprint="e" * 64)
    assert len(found(tmp_path)) == 2


def test_a_run_whose_checkpoints_are_gone_stays_with_the_others(tmp_path: Path) -> None:
    for seed, fingerprint in enumerate(("a" * 64, "a" * 64, None)):
        written(tmp_path, "plain18", seed, fingerprint=fingerprint)
    (written(tmp_path, "plain18", 4, fingerprint=None).path / "predictions.npz").unlink()
    (table,) = found(tmp_path)
    assert len(table.experiments[0].runs) == 4
    assert table.protocol.training == "a" * 64


def test_runs_of_two_schema_versions_are_two_experiments(tmp_path: Path) -> None:
    for seed in range(2):
        written(tmp_path / "new", "plain18", seed, error=0.1)
        old = written(tmp_path / "old", "plain18", seed, error=0.2).path / "env.json"
        env = json.loads(old.read_text())
        del env["schema_version"]  # version 1 did not write it
        old.write_text(json.dumps(env))
    (section,) = contents([read_run(path) for path in find_runs([tmp_path])]).sections
    assert [ranked.label for ranked in section.ranked] == [
        f"plain18 (schema_version={SCHEMA_VERSION})",
        "plain18 (schema_version=1)",
    ]
    assert [ranked.experiment.sample.mean for ranked in section.ranked] == pytest.approx([0.1, 0.2])


def test_micro_batches_tell_runs_apart_where_they_shape_the_result(tmp_path: Path) -> None:
    for seed, used in enumerate((["64"], ["64"], ["32"], ["64", "32"])):
        written(tmp_path / "norm", "plain18", seed, error=0.1, micro_batches=used)
    for seed, micro_batch in enumerate((64, 32)):
        written(tmp_path / "vit", "vit_custom", seed, error=0.2, micro_batch=micro_batch, micro_batches=[])
    report = contents([read_run(path) for path in find_runs([tmp_path])])
    (section,) = report.sections
    rows = {ranked.label: len(ranked.experiment.runs) for ranked in section.ranked}
    assert rows == {
        "plain18 (micro_batch=64)": 2,
        "plain18 (micro_batch=32)": 1,
        "plain18 (micro_batch=64 then 32)": 1,
        "vit_custom": 2,
    }
    topologies = {cells[0]: cells[1] for cells in section.cells(["experiment", "strategy and topology"])}
    assert topologies["plain18 (micro_batch=64 then 32)"] == "ddp, 2 processes, micro-batch 64 then 32"
    assert ",64 then 32," in results_csv(report)


def test_runs_of_the_committed_study_are_grouped_as_their_folders_are_called() -> None:
    study = Path(__file__).parents[2] / "results" / "cpu_study"
    runs = [read_run(path) for path in find_runs([study])]
    assert len(runs) == 27
    assert [run.identity for run in runs] == [run.path.name.partition("-")[2] for run in runs]
    (table,) = tables(runs)
    assert [len(experiment.runs) for experiment in table.experiments] == [3] * 9


def test_a_recipe_of_another_version_is_grouped_by_its_folder(tmp_path: Path) -> None:
    for seed in range(2):
        run = written(tmp_path, "plain18", seed)
        text = (run.path / "recipe.yaml").read_text()
        (run.path / "recipe.yaml").write_text(text + "from_the_future: {a: 1}\n")
    (table,) = found(tmp_path)
    assert len(table.experiments[0].runs) == 2
