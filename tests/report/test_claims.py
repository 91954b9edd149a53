"""The study's claims: what each verdict takes."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.written_runs import written, written_study

from cifar_lab.report.claims import CONTRADICTED, HOLDS, NOT_SHOWN, OPEN, Claim, check_claims
from cifar_lab.report.groups import tables
from cifar_lab.report.read import read_run
from cifar_lab.rundir.placement import find_runs

TITLES = [
    "Degradation",
    "Shortcuts end the degradation",
    "Shortcuts help at 18 layers",
    "Shortcuts help at 34 layers",
    "Multi-scale features help",
    "Pretraining helps",
]


def claims(runs: Path) -> dict[str, Claim]:
    (table,) = tables([read_run(path) for path in find_runs([runs])])
    return {claim.title: claim for claim in check_claims(table.experiments)}


def seeds(runs: Path, name: str, errors: Sequence[float], overrides: Sequence[str] = ()) -> None:
    for seed, error in enumerate(errors):
        written(runs, name, seed, error=error, count=10_000, overrides=overrides)


def test_the_published_order_holds_with_its_numbers(tmp_path: Path) -> None:
    written_study(tmp_path)
    found = claims(tmp_path)
    assert {title: claim.verdict for title, claim in found.items()} == dict.fromkeys(TITLES, HOLDS)
    (evidence,) = found["Degradation"].evidence
    assert evidence.difference.value == pytest.approx(0.04)
    assert 0.03 < evidence.difference.low < 0.04 < evidence.difference.high < 0.05
    assert [name for name, _ in evidence.sides] == ["Plain34", "Plain18"]
    assert evidence.caveats == []


def test_the_opposite_is_contradicted(tmp_path: Path) -> None:
    seeds(tmp_path, "plain18", (0.14, 0.141, 0.139))
    seeds(tmp_path, "plain34", (0.10, 0.101, 0.099))
    seeds(tmp_path, "resnet18", (0.20, 0.201, 0.199))
    seeds(tmp_path, "resnet34", (0.25, 0.251, 0.249))
    found = claims(tmp_path)
    assert [found[title].verdict for title in TITLES[:4]] == [CONTRADICTED] * 4
    assert (
        '"depth costs less" (contradicted): the difference is beyond the noise, the other'
        in found["Shortcuts end the degradation"].because
    )
    assert (
        '"ResNet34 is not worse" (contradicted): the difference is beyond the noise, the other'
        in found["Shortcuts end the degradation"].because
    )
    assert found["Degradation"].because.endswith("the other way round")
    assert found["Shortcuts end the degradation"].sentence.endswith("not worse than ResNet18 (by 0.5 points or more)")


@pytest.mark.parametrize(("one", "other"), [(0.1, 0.3), (0.3, 0.1)])
def test_of_two_experiments_of_a_part_the_one_of_lower_validation_error_plays_it(
    tmp_path: Path, one: float, other: float
) -> None:
    spread = (-0.001, 0.0, 0.001)
    seeds(tmp_path, "plain18", [one + more for more in spread], ["optim.lr=0.05"])
    seeds(tmp_path, "plain18", [other + more for more in spread], ["optim.lr=0.06"])
    seeds(tmp_path, "plain34", [0.2 + more for more in spread])
    assert claims(tmp_path)["Degradation"].evidence[0].difference.value == pytest.approx(0.1)


def test_noise_is_open_with_few_seeds_and_not_shown_with_enough(tmp_path: Path) -> None:
    seeds(tmp_path / "two", "plain18", (0.10, 0.12))
    seeds(tmp_path / "two", "plain34", (0.11, 0.13))
    assert claims(tmp_path / "two")["Degradation"].verdict == OPEN
    seeds(tmp_path / "four", "plain18", (0.10, 0.12, 0.11, 0.11))
    seeds(tmp_path / "four", "plain34", (0.11, 0.13, 0.10, 0.12))
    claim = claims(tmp_path / "four")["Degradation"]
    assert claim.verdict == NOT_SHOWN
    assert re.search(r"about \d\d seeds a side would decide it", claim.because)


def test_a_difference_too_small_for_any_number_of_seeds_says_so(tmp_path: Path) -> None:
    seeds(tmp_path, "plain18", (0.10, 0.12, 0.11))
    seeds(tmp_path, "plain34", (0.11, 0.12, 0.1002))
    claim = claims(tmp_path)["Degradation"]
    assert claim.verdict == NOT_SHOWN
    assert "not even 1,000 seeds would decide it" in claim.because


@pytest.mark.parametrize(
    ("deep", "verdict"), [(0.079, HOLDS), (0.082, NOT_SHOWN), (0.0835, NOT_SHOWN), (0.087, CONTRADICTED)]
)
def test_not_worse_needs_evidence_too(tmp_path: Path, deep: float, verdict: str) -> None:
    for name, error in (("plain18", 0.10), ("plain34", 0.20), ("resnet18", 0.08), ("resnet34", deep)):
        seeds(tmp_path, name, [error + 0.003 * place for place in (-1, 0, 0, 1)])
    claim = claims(tmp_path)["Shortcuts end the degradation"]
    assert claim.verdict == verdict
    assert claim.because.startswith('"depth costs less"') == (verdict == HOLDS)


def test_a_borrowed_spread_and_missing_predictions_are_told(tmp_path: Path) -> None:
    seeds(tmp_path, "plain18", (0.10, 0.11, 0.12))
    seeds(tmp_path, "plain34", (0.20,))
    paired = claims(tmp_path)["Degradation"]
    assert paired.why.endswith(". The one seed of Plain34 borrows the spread of the other experiments")
    run = written(tmp_path, "plain18", 3, error=0.11, count=10_000)
    (run.path / "predictions.npz").unlink()
    unpaired = claims(tmp_path)["Degradation"]
    assert unpaired.why.endswith(". Not paired by picture: no predictions of all runs of Plain18")
    assert unpaired.evidence[0].difference.pictures == pytest.approx((0.11 * 0.89 + 0.2 * 0.8) / 10_000, rel=0.01)


def test_one_seed_needs_the_spread_of_others(tmp_path: Path) -> None:
    seeds(tmp_path, "plain18", (0.10,))
    seeds(tmp_path, "plain34", (0.20,))
    alone = claims(tmp_path)["Degradation"]
    assert (alone.verdict, alone.evidence[0].difference.seeds_known) == (OPEN, False)
    assert "seed=1" in alone.because
    seeds(tmp_path, "resnet18", (0.07, 0.071, 0.072))
    assert claims(tmp_path)["Degradation"].verdict == HOLDS


def test_claims_without_runs_are_not_there(tmp_path: Path) -> None:
    written_study(tmp_path, seeds=2, without=["plain34", "vit_tiny_scratch"])
    found = claims(tmp_path)
    assert list(found) == ["Shortcuts help at 18 layers", "Multi-scale features help"]
    assert found["Multi-scale features help"].verdict == HOLDS


def test_shortcuts_remove_nothing_where_depth_costs_the_same(tmp_path: Path) -> None:
    for name, error in (("plain18", 0.10), ("plain34", 0.105), ("resnet18", 0.08), ("resnet34", 0.083)):
        seeds(tmp_path, name, (error, error + 0.004, error - 0.004))
    claim = claims(tmp_path)["Shortcuts end the degradation"]
    assert claim.verdict == NOT_SHOWN
    assert claim.because.startswith('"depth costs less" (not shown): within the noise; ')
    assert len(claim.evidence) == 2


def test_the_fairest_pair_is_compared_and_other_differences_are_told(tmp_path: Path) -> None:
    seeds(tmp_path, "plain18", (0.10, 0.11, 0.12), ["optim.lr=0.2", "train.epochs=5"])
    seeds(tmp_path, "plain34", (0.20, 0.21), ["optim.lr=0.2"])
    degradation = claims(tmp_path)["Degradation"]
    assert degradation.evidence[0].caveats == ["train.epochs"]
    assert degradation.why.endswith(". The experiments also differ in train.epochs")
    seeds(tmp_path, "plain34", (0.30, 0.31), ["optim.lr=0.2", "train.epochs=5"])
    (evidence,) = claims(tmp_path)["Degradation"].evidence
    assert evidence.caveats == []
    assert evidence.difference.value == pytest.approx(0.305 - 0.11)


def test_a_vit_without_weights_is_not_the_pretrained_one(tmp_path: Path) -> None:
    seeds(tmp_path, "vit_tiny", (0.2, 0.21), ["model.pretrained=false"])
    seeds(tmp_path, "vit_tiny_scratch", (0.3, 0.31))
    assert claims(tmp_path) == {}


def test_any_pair_that_differs_in_its_weights_alone_is_a_transfer_claim(tmp_path: Path) -> None:
    lite = ["name=lite", "model.args.arch=tf_efficientnet_lite0", "model.pretrained=false"]
    seeds(tmp_path, "vit_tiny", (0.30, 0.31, 0.29), lite)
    seeds(tmp_path, "vit_tiny", (0.20, 0.21, 0.19), [*lite, "model.weights=lite0.safetensors", "name=lite_tuned"])
    seeds(tmp_path, "vit_tiny", (0.10, 0.11), [*lite, "model.weights=other.safetensors", "name=faster", "optim.lr=1.0"])
    found = claims(tmp_path)
    assert [title for title in found if title not in TITLES] == ["Pretraining helps lite_tuned"]
    assert found["Pretraining helps lite_tuned"].verdict == HOLDS


def test_two_sides_of_one_name_are_told_apart(tmp_path: Path) -> None:
    seeds(tmp_path, "vit_custom", (0.30, 0.31, 0.29))
    seeds(tmp_path, "vit_custom", (0.20, 0.21, 0.19), ["model.weights=other.safetensors"])
    claim = claims(tmp_path)["Pretraining helps vit_custom"]
    assert len(claim.sides) == 2
    assert claim.evidence[0].what.count("model.weights=") == 2
