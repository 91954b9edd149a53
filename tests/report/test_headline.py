"""The first sentence of a report says no more than its runs show, and runs of one experiment stand together."""

from pathlib import Path

import numpy as np
import pytest
from support.written_runs import written

from cifar_lab.report.contents import Contents, contents
from cifar_lab.report.files import markdown, told
from cifar_lab.report.page import page
from cifar_lab.report.read import read_run
from cifar_lab.rundir.placement import find_runs

NOISE = "the noise when all pairs are judged together"


def report(runs: Path) -> Contents:
    return contents([read_run(path) for path in find_runs([runs])])


def test_one_run_and_one_experiment_have_an_error_and_nothing_to_compare(tmp_path: Path) -> None:
    written(tmp_path, "demo", error=0.3)
    assert report(tmp_path).headline == "1 experiment, 1 run: demo has a test error of 30.00 % (1 seed)."
    written(tmp_path, "demo", 1, error=0.32)
    assert report(tmp_path).headline == "1 experiment, 2 runs: demo has a test error of 31.00 ± 1.41 % (2 seeds)."


def test_one_recipe_at_two_learning_rates(tmp_path: Path) -> None:
    for seed in range(3):
        written(tmp_path, "demo", seed, error=0.10 + 0.002 * seed, overrides=["optim.lr=0.05"], count=10_000)
        written(tmp_path, "demo", seed, error=0.20 + 0.002 * seed, overrides=["optim.lr=0.2"], count=10_000)
    assert report(tmp_path).headline == (
        "2 experiments, 6 runs: demo (optim.lr=0.05) has the lowest test error, 10.20 ± 0.20 % (3 seeds), 10.00 points "
        "below demo (optim.lr=0.2). This difference is beyond the noise."
    )


@pytest.mark.parametrize(
    ("errors", "end"),
    [
        ((0.1, 0.2, 0.3), f"points below plain34. This difference is beyond {NOISE}."),
        ((0.1, 0.1005, 0.3), f"points below plain34. This difference is within {NOISE}, so it may be chance."),
        ((0.1, 0.1, 0.3), f"level with plain34. This difference is within {NOISE}, so it may be chance."),
    ],
    ids=["apart", "close", "equal"],
)
def test_a_difference_is_called_what_the_ranks_say(
    tmp_path: Path, errors: tuple[float, float, float], end: str
) -> None:
    for name, error in zip(("plain18", "plain34", "resnet18"), errors, strict=True):
        for seed in range(3):
            written(tmp_path, name, seed, error=error + 0.002 * (seed - 1), count=10_000)
    found = report(tmp_path)
    (section,) = found.sections
    assert found.headline.endswith(end)
    assert ("beyond" in found.headline) == (section.ranked[0].rank == "1")


def test_of_single_seeds_nothing_is_claimed_however_far_apart_they_are(tmp_path: Path) -> None:
    written(tmp_path, "plain18", error=0.1, count=10_000)
    written(tmp_path, "plain34", error=0.5, count=10_000)
    found = report(tmp_path)
    assert [row.rank for row in found.sections[0].ranked] == ["1", "2"], "by the pictures alone they are apart"
    assert found.headline.endswith("With one seed each this may be chance: train seed=1 and seed=2 of each too.")


def test_runs_without_a_result_are_told_and_stand_with_their_experiment(tmp_path: Path) -> None:
    written(tmp_path, "plain18", 9).write_status("failed", 3, 9, reason="the loss is not finite")
    written(tmp_path, "demo", 1).write_status("running", 3, 9)
    assert report(tmp_path).headline == "No run has a test result: 1 running, 1 diverged."
    for seed in range(2):
        written(tmp_path, "plain18", seed, error=0.1)
    written(tmp_path, "plain34", error=0.2)
    written(tmp_path, "plain34", error=0.25, fresh=True)
    (written(tmp_path, "demo", 2).path / "summary.json").write_text("{}")
    found = report(tmp_path)
    assert found.headline.startswith(
        "2 experiments, 3 runs: plain18 has the lowest test error, 10.00 ± 0.00 % (2 seeds)"
    )
    assert found.headline.endswith(
        " Not counted: 1 diverged, 1 running, 1 completed without a test result, 1 repeated."
    )  # fmt: skip
    assert [(label, [run.seed for run in runs]) for label, _, runs in found.groups] == [
        ("plain18", [0, 1, 9]),
        ("plain34", [0, 0]),
        ("demo", [1, 2]),
    ]
    assert [run.label for run in found.attention] == [run.label for run in found.ordered if not run.counts]
    assert sorted(run.label for run in found.ordered) == sorted(run.label for run in found.records)


def test_tables_that_do_not_compare_are_not_compared(tmp_path: Path) -> None:
    for seed in range(2):
        written(tmp_path, "plain18", seed, error=0.3)
    written(tmp_path, "plain18", error=0.1, overrides=["data.limit=500"])
    found = report(tmp_path)
    assert found.headline == (
        "2 experiments, 3 runs, in 2 tables that do not compare. In the first: plain18 has a test error of "
        "30.00 ± 0.00 % (2 seeds)."
    )
    assert {label for label, _, _ in found.groups} == {"plain18 (data.limit=None)", "plain18 (data.limit=500)"}
    assert "plain18 has a test error of 10.00 % (1 seed)." in markdown(found)


def test_page_markdown_and_terminal_begin_with_it(tmp_path: Path) -> None:
    written(tmp_path, "demo", error=0.3)
    found = report(tmp_path)
    assert told(found).splitlines()[0] == found.headline
    assert markdown(found).splitlines()[2] == found.headline
    text = page(found, {}, 0.0)
    assert text.index(f'<h1>Report: demo</h1><p class="headline">{found.headline}</p>') < text.index("<main>")


def test_verdicts_are_explained_once_where_they_occur(tmp_path: Path) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for name in ("plain18", "plain34"):
            written(tmp_path, name, seed, error=0.2 + 0.01 * float(rng.normal()), count=1000)
    found = report(tmp_path)
    assert [text.split(":")[0] for text in found.verdicts] == ["not shown"]
    for text in (page(found, {}, 0.0), markdown(found), told(found, claims=True)):
        assert text.count("It does not say that there is no difference.") == 1
        assert "interval says the opposite" not in text
