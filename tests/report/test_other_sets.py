"""Other test sets in the report: which seeds count together, and how wide the intervals are."""

import json

import numpy as np
import pytest
from support.written_runs import written

from cifar_lab.report.contents import contents
from cifar_lab.report.files import told
from cifar_lab.report.other_sets import other_sets
from cifar_lab.report.read import read_run
from cifar_lab.report.stats import Sample, difference, intervals, pooled_spread

COUNT = 400


def keep(run, name, wrong, fingerprint="f" * 64):
    """As `cifar-lab evaluate --data` keeps it; `wrong` is (severities, pictures)."""
    (run.path / "evaluations").mkdir(exist_ok=True)
    wrong = np.atleast_2d(wrong)
    severities = wrong.mean(axis=1).tolist() if len(wrong) > 1 else None
    kept = {"set": name, "split": None, "fingerprint": fingerprint, "count": wrong.size, "severities": severities}
    file = run.path / "evaluations" / f"{name.replace('/', '_')}.json"
    file.write_text(json.dumps(kept | {"wrong": np.flatnonzero(wrong).tolist()}))


def answers(rate, seed, severities=1):
    """Pictures of which some are harder for every net."""
    hard = np.random.default_rng(99).random(COUNT)
    return np.random.default_rng(seed).random((severities, COUNT)) < 2 * rate * hard


def rows_of(*runs):
    return contents([read_run(run.path) for run in runs]).other_sets


def test_seeds_of_one_set_count_together_with_the_interval_of_the_test_error(tmp_path):
    runs = [written(tmp_path, "demo", seed) for seed in range(3)]
    wrong = [answers(0.2, seed) for seed in range(3)]
    for run, one in zip(runs, wrong, strict=True):
        keep(run, "mine", one)
    _, own, mine = rows_of(*runs)
    errors = [float(one.mean()) for one in wrong]
    sample = Sample(tuple(errors), COUNT, np.mean([one[0] for one in wrong], axis=0))
    found = difference([(1, sample)], pooled_spread([sample]))
    assert mine == [
        "demo",
        "mine",
        "400",
        "3",
        f"{100 * np.mean(errors):.2f} ± {100 * np.std(errors, ddof=1):.2f} %",
        f"{100 * found.low:.2f} to {100 * found.high:.2f} %",
    ]
    (section,) = contents([read_run(run.path) for run in runs]).sections
    (ranked,) = section.ranked
    assert own[1] == "its test split" and own[5] == f"{100 * ranked.low:.2f} to {100 * ranked.high:.2f} %"


def test_severities_of_a_picture_do_not_count_as_pictures(tmp_path):
    """Five equal severities say what one says: the interval is that of one, not narrower."""
    once, five = written(tmp_path, "demo", 0), written(tmp_path, "resnet18", 0)
    wrong = answers(0.3, 1)
    keep(once, "C/fog", wrong)
    keep(five, "C/fog", np.repeat(wrong, 5, axis=0))
    rows = [row for row in rows_of(once, five) if row[1] == "C/fog"]
    assert rows[0][4:6] == rows[1][4:6] and [row[2] for row in rows] == ["400", "400 x 5"]
    assert rows[1][6:] == [rows[1][4]] * 5


def test_the_chance_of_answers_between_right_and_wrong_is_the_residual_of_the_analysis_of_variance():
    table = np.stack([answers(0.3, seed, severities=5).mean(axis=0) for seed in range(4)])
    residual = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    expected = (residual**2).sum() / (3 * (COUNT - 1))
    sample = Sample(tuple(table.mean(axis=1)), COUNT, table.mean(axis=0), float((table**2).mean()))
    assert sample.chance == pytest.approx(expected, rel=1e-9)
    low, high = intervals([sample])[0]
    assert low < table.mean() < high


def test_the_mean_of_corruptions_is_of_those_that_a_run_has(tmp_path):
    whole, part = written(tmp_path, "demo", 0), written(tmp_path, "demo", 1)
    for run in (whole, part):
        for seed, name in enumerate(["C/fog", "C/noise", "C/blur"][: 3 if run is whole else 2]):
            keep(run, name, answers(0.2 + 0.1 * seed, 10 + seed, 5), fingerprint=str(seed) * 64)
    found = {row[1]: row for row in rows_of(whole, part)[1:]}
    assert list(found) == ["its test split", "C/blur", "C/fog", "C/noise", "C: plain mean of 2", "C: plain mean of 3"]
    assert [found[name][3] for name in list(found)[1:]] == ["1", "2", "2", "1", "1"]
    expected = np.mean([answers(0.2 + 0.1 * seed, 10 + seed, 5).mean() for seed in range(3)])
    assert found["C: plain mean of 3"][4] == f"{100 * expected:.2f} %"


def test_sets_without_severities_have_no_mean(tmp_path):
    run = written(tmp_path, "demo")
    for seed, name in enumerate(["D/v4", "D/v6"]):
        keep(run, name, answers(0.2, seed))
    assert [row[1] for row in rows_of(run)[1:]] == ["its test split", "D/v4", "D/v6"]


def test_sets_of_one_name_that_differ_are_told_apart(tmp_path):
    runs = [written(tmp_path, "demo", seed) for seed in range(2)]
    for run, fingerprint in zip(runs, ("a" * 64, "b" * 64), strict=True):
        keep(run, "mine", answers(0.2, 1), fingerprint)
    assert [row[1:4:2] for row in rows_of(*runs)[2:]] == [["mine (aaaaaaaa)", "1"], ["mine (bbbbbbbb)", "1"]]


def test_runs_of_other_tables_and_without_a_test_result_have_rows(tmp_path):
    """Also where the same experiment stands in two tables, under one label in each."""
    first, second = written(tmp_path, "plain18"), written(tmp_path, "plain18", overrides=["data.limit=500"])
    untested = written(tmp_path, "resnet18", test=None)
    for run in (first, second, untested):
        keep(run, "mine", answers(0.2, 1))
    rows = rows_of(first, second, untested)[1:]
    assert [row[1] for row in rows] == ["its test split", "mine"] * 2 + ["mine"]
    assert len({row[0] for row in rows}) == 3
    assert "resnet18" in rows[-1][0] and rows[-1][4].endswith("%")
    assert told(contents([read_run(run.path) for run in (first, untested)])).count("its test split") == 1


def test_without_other_sets_there_is_no_table(tmp_path):
    assert rows_of(written(tmp_path, "demo")) == []
    assert other_sets([], []) == []
