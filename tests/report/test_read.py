"""Run directories in every state that a run, a crash or a person leaves them in."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.written_runs import write_curves, written

from cifar_lab.commands.report import main
from cifar_lab.errors import UsageError
from cifar_lab.recipe import parse_recipe
from cifar_lab.report.contents import Contents, contents
from cifar_lab.report.curves import epoch_means, read_metrics, thinned
from cifar_lab.report.files import markdown, results_csv, told
from cifar_lab.report.page import page
from cifar_lab.report.read import read_run
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.placement import find_runs

RECIPE = {
    "name": "young",
    "model": {"name": "resnet", "args": {"depth": 18}},
    "optim": {"lr": 0.1},
    "train": {"epochs": 10, "global_batch": 32},
}


def young(runs: Path) -> RunDir:
    """A run that was cut off without a word."""
    recipe = parse_recipe(RECIPE)
    run = RunDir.locate(recipe, runs=str(runs))
    run.create(recipe)
    write_curves(run, 0.3, 5)
    return run


def tells_everything(found: Contents) -> bool:
    """Whether page and CSV name every run, Markdown and terminal those without a result."""
    texts = (page(found, {}, 0.0), results_csv(found))
    for text in (markdown(found), told(found, claims=True)):
        assert all(record.label in text.replace("\\", "") for record in found.attention)
    return all(record.path.name in text for record in found.records for text in texts)


def test_a_completed_run_counts(tmp_path: Path) -> None:
    run = read_run(written(tmp_path, "resnet18", 2, error=0.0797).path)
    assert (run.name, run.seed, run.state, run.reason, run.counts) == ("resnet18", 2, "completed", None, True)
    assert run.test_error == pytest.approx(0.08)
    assert run.test_count == 1000
    assert run.predictions is not None
    assert (run.predictions.labels != run.predictions.predictions).sum() == 80
    assert run.fingerprint == "f" * 64


def test_a_run_without_summary_is_incomplete_and_tells_how_far_it_came(tmp_path: Path) -> None:
    run = young(tmp_path)
    record = read_run(run.path)
    assert (record.state, record.reason, record.counts) == ("not started", "at step 20", False)
    assert record.val_error == pytest.approx(0.3, abs=0.02)
    run.write_status("running", 20, 40)
    assert (read_run(run.path).state, read_run(run.path).reason) == ("running", "at step 20 of 40")
    assert "running, at step 20 of 40" in told(contents([read_run(run.path)]))


def test_failed_and_diverged_runs_tell_their_reason(tmp_path: Path) -> None:
    run = young(tmp_path)
    run.write_status("failed", 8, 100, reason="out of memory: set train.micro_batch=32")
    assert read_run(run.path).reason == "at step 8 of 100: out of memory: set train.micro_batch=32"
    run.write_status("failed", 8, 100, reason="step 8: the gradient of head.weight is not finite")
    assert read_run(run.path).state == "diverged"


@pytest.mark.parametrize(
    "name", ["recipe.yaml", "status.json", "summary.json", "env.json", "model.json", "predictions.npz", "metrics.jsonl"]
)
@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\xfe\x00", b"[1]\n", b"[" * 100_000, b"7: &a [*a]\n", b"PK\x03\x04 no archive"],
    ids=["torn", "bytes", "list", "deep", "loop", "zip"],
)
def test_a_damaged_file_is_a_problem_of_that_run_alone(tmp_path: Path, name: str, content: bytes) -> None:
    hurt, healthy = written(tmp_path, "plain18", error=0.1), written(tmp_path, "plain34", error=0.2)
    (hurt.path / name).write_bytes(content + b"\n" if name == "metrics.jsonl" else content)
    record = read_run(hurt.path)
    if (name, content[:1]) not in (("recipe.yaml", b"7"), ("status.json", b"")):
        assert record.state == "corrupt"
        assert record.reason is not None
        assert name in record.reason
    found = contents([record, read_run(healthy.path)])
    assert "plain34" in [ranked.experiment.name for ranked in found.sections[-1].ranked]
    assert record in found.attention
    assert tells_everything(found)


@pytest.mark.parametrize("name", ["recipe.yaml", "status.json", "summary.json", "predictions.npz", "metrics.jsonl"])
def test_an_empty_or_missing_file_breaks_nothing(tmp_path: Path, name: str) -> None:
    run = written(tmp_path, "plain18")
    (run.path / name).write_bytes(b"")
    assert tells_everything(contents([read_run(run.path)]))
    (run.path / name).unlink()
    assert tells_everything(contents([read_run(run.path)]))
    assert find_runs([tmp_path]) == [run.path]


def test_values_of_the_wrong_type_are_missing(tmp_path: Path) -> None:
    run = written(tmp_path, "plain18")
    odd = {"test": {"accuracy": "good"}, "val": 3, "epochs": [], "num_parameters": "many", "wall_seconds": None}
    run.write_summary({**odd, "images_per_second": True, "strategy": 7, "flops_per_image": 10**400})
    (run.path / "recipe.yaml").write_text("{name: [1], seed: yes, model: {name: resnet, args: 3}, data: 4}")
    (run.path / "status.json").write_text('{"state": "completed", "step": "x", "total_steps": {}, "updated": "now"}')
    record = read_run(run.path)
    assert (record.test_error, record.counts, record.name, record.seed) == (None, False, "plain18", 0)
    assert record.figure("flops_per_image") is None
    assert main([str(tmp_path)]) == 0
    assert contents([record]).sections == []


@pytest.mark.parametrize("accuracy", [1.5, -0.1, float("nan"), None, True, "0.9"])
def test_an_impossible_accuracy_is_none(tmp_path: Path, accuracy: object) -> None:
    run = written(tmp_path, "plain18", test={"accuracy": accuracy, "loss": 1, "count": 10})
    assert read_run(run.path).test_error is None


def test_lines_that_cannot_be_read_are_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = [json.dumps({"split": "train", "step": i, "epoch": i / 2, "loss": 1 / i}).encode() for i in (1, 2, 3)]
    odd = [
        b'{"split": "train", "epoch": 2, "loss": "low"}',
        b'{"split": "train", "epoch": 2.5, "loss": NaN}',
        b'{"split": "train", "epoch": 3, "loss": null}',
        b'{"split": "train", "epoch": 3.5, "loss": 1e400}',
        b'{"split": ["train"], "loss": 1}',
        b'{"split": "train", "epoch": true, "loss": ' + b"9" * 400 + b"}",
    ]
    broken = [b"\xff\xfe\xfd", b"\0\0\0\0", b"1, 2", b"[]", b"", b"[" * 10_000]
    torn = b'{"split": "val", "acc'
    path.write_bytes(b"\n".join([good[0], *odd, *broken, *good[1:], torn]))
    metrics = read_metrics(path)
    epochs, losses = metrics.curve("train", "loss")
    assert epochs.tolist() == [0.5, 1.0, 1.5]
    assert losses.tolist() == [1, 1 / 2, 1 / 3]
    assert metrics.unreadable == [8, 9, 10, 11, 12, 13]


def test_many_lines_make_no_large_page(tmp_path: Path) -> None:
    run = written(tmp_path, "plain18")
    line = '{"time": 1763970963.123, "split": "train", "step": %d, "epoch": %r, "loss": %r, "lr": 0.1, '
    line += '"grad_norm": 1.2345678, "skipped": 0, "images_per_second": 1234.5678}\n'
    with open(run.path / "metrics.jsonl", "a") as file:
        file.writelines(line % (i, i / 175, 1.0 + i % 7) for i in range(1, 100_001))
        file.write('{"split": "val", "accur')
    assert main([str(run.path), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").stat().st_size < 500_000


def test_thinning_keeps_both_ends_and_every_extreme() -> None:
    y = np.sin(np.arange(10_000) / 50.0)
    y[1234], y[8765] = 9.0, -9.0
    x, kept = thinned(np.arange(10_000.0), y, 50)
    assert len(x) <= 102
    assert (x[0], x[-1]) == (0, 9999)
    assert (kept.max(), kept.min()) == (9, -9)
    assert (np.diff(x) > 0).all()
    assert thinned(x, kept, 60)[0] is x


@pytest.mark.parametrize("text", ["a: !!timestamp foo", "a: !!bool foo", 'a: !!int ""', "a: !!float [1]", "!!set 3"])
def test_a_tag_whose_value_is_none(tmp_path: Path, text: str) -> None:
    run = written(tmp_path, "plain18")
    (run.path / "recipe.yaml").write_text(text)
    assert read_run(run.path).state == "corrupt"


@pytest.mark.parametrize("text", ["[" * 20_000 + "]" * 20_000, "- " * 20_000, "{a: " * 20_000 + "1" + "}" * 20_000])
def test_a_recipe_nested_without_end_does_not_end_the_process(tmp_path: Path, text: str) -> None:
    run = written(tmp_path, "plain18")
    (run.path / "recipe.yaml").write_text(text)
    # Ours or, since PyYAML 6.0.4, that of libyaml ("exceeded maximum nesting depth").
    assert re.search("nested too deeply|nesting depth", read_run(run.path).reason or "")


def test_runs_are_found_once_through_links_and_loops(tmp_path: Path) -> None:
    first, second = written(tmp_path / "runs", "plain18"), written(tmp_path / "elsewhere", "plain34")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "gone").symlink_to(tmp_path / "nowhere")
    (first.path / "checkpoints" / "recipe.yaml").touch()
    found = find_runs([second.path, tmp_path / "runs", first.path])
    assert found == [second.path, first.path]
    os.remove(first.path / "recipe.yaml")
    assert len(find_runs([tmp_path / "runs"])) == 2, "a lost recipe hides no run"


def test_where_there_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(UsageError, match=nothing.name):
            find_runs([nothing])


def test_epoch_means_close_an_epoch_at_its_last_line() -> None:
    epochs, means = epoch_means(np.array([0.5, 1.0, 1.5, 2.0]), np.array([4.0, 2.0, 1.0, 3.0]))
    assert (epochs.tolist(), means.tolist()) == ([0.75, 1.75], [3.0, 2.0])


def test_names_with_markup_stay_text(tmp_path: Path) -> None:
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(1)>|`'
    place = tmp_path / "<b>runs & 'co'"
    run = written(place, "plain18")
    recipe = (run.path / "recipe.yaml").read_text().replace("name: plain18", f"name: {json.dumps(evil)}", 1)
    (run.path / "recipe.yaml").write_text(recipe)
    (run.path / "model.json").write_text(json.dumps({"classes": [evil] * 10}))
    (run.path / "env.json").write_text(json.dumps({"host": evil, "packages": {evil: evil}}))
    other = young(place)
    other.write_status("failed", 1, 2, reason=evil)
    moved = other.path.parent / "<i>0-run"
    shutil.move(other.path, moved)
    found = contents([read_run(run.path), read_run(moved)])
    assert main([str(place), "--out", str(tmp_path / "out")]) == 0
    for text in (
        (tmp_path / "out" / "report.html").read_text(),
        page(found, {}, 0.0),
    ):
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "<i>0-run" not in text
        assert "<b>runs" not in text
        assert "&lt;script&gt;alert(1)" in text
    assert "<script>" not in (tmp_path / "out" / "report.md").read_text().replace("\\<script\\>", "")
