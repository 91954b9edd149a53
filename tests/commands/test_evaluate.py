"""What `evaluate` says of a run is what the run said of itself, each sample once, on any number of processes."""

import json
import math

import numpy as np
import pytest
from support.commands import PYTHON, completed
from support.saved_runs import bare, predictions, saved_run

from cifar_lab.commands import evaluate
from cifar_lab.data.images import load_images
from cifar_lab.data.splits import divide
from cifar_lab.trained.scores import as_text, calibration, class_scores

TWO = [
    PYTHON,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "-m",
    "cifar_lab",
    "evaluate",
]


@pytest.fixture
def measured(capsys):
    """What --json prints."""

    def ask(*arguments):
        assert evaluate.main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return ask


@pytest.mark.parametrize("name", ["vit", "net", "tvit"])
def test_the_numbers_are_the_summary_s(measured, name):
    run = saved_run(name)
    for split in ("test", "val"):
        expected, found = run.summary()[split], measured(run.path, "--split", split)
        assert {key: found[key] for key in expected} == expected
        assert found["recorded"] == expected
        assert found["same_data"] is True
        assert (found["split"], found["world_size"], found["model"]) == (split, 1, str(run.path))
        assert sum(map(sum, found["confusion"])) == expected["count"]


def test_classes_confusions_and_calibration_are_those_of_the_predictions(measured):
    kept, found = predictions("net"), measured(saved_run("net").path)
    labels, guesses, sure = kept["labels"], kept["predictions"], kept["confidences"].astype(float)
    assert len(set(guesses)) > 3
    for truth in range(10):
        for guess in range(10):
            assert found["confusion"][truth][guess] == int(((labels == truth) & (guesses == guess)).sum())
        one = found["classes"][truth]
        of, taken = labels == truth, guesses == truth
        assert one["count"] == 6
        assert one["accuracy"] == (guesses[of] == truth).mean()
        assert one["precision"] == (pytest.approx((labels[taken] == truth).mean()) if taken.any() else None)
    ece = 0.0
    for i in range(15):
        inside = (sure > i / 15) & (sure <= (i + 1) / 15)
        assert found["bins"][i]["count"] == int(inside.sum())
        if inside.any():
            right = (labels == guesses)[inside].mean()
            assert found["bins"][i]["accuracy"] == pytest.approx(right)
            ece += inside.mean() * abs(right - sure[inside].mean())
    assert found["ece"] == pytest.approx(ece, abs=1e-6) and ece > 0.01
    assert found["mean_confidence"] == pytest.approx(sure.mean(), abs=1e-6)


def test_calibration_of_known_confidences():
    found = calibration(np.array([0.9, 0.9, 0.9, 0.9, 0.1]), np.array([True, True, True, False, False]))
    assert found["ece"] == pytest.approx(0.8 * 0.15 + 0.2 * 0.1)
    assert [one["count"] for one in found["bins"]] == [0, 1, *[0] * 11, 4, 0]
    edges = calibration(np.array([1 / 15, 1.0, 0.0]), np.ones(3, bool))
    assert [one["count"] for one in edges["bins"]] == [2, *[0] * 13, 1]
    assert math.isfinite(calibration(np.array([float("nan")]), np.array([False]))["ece"])


def test_a_class_without_pictures_or_predictions():
    found = class_scores(np.array([0, 0, 1]), np.array([0, 1, 1]), ("a", "b", "c"))
    assert found["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert [(one["accuracy"], one["precision"]) for one in found["classes"]] == [(0.5, 1.0), (1.0, 0.5), (None, None)]
    # Recalls 1/2 and 1; F1 is 2/3 of both.
    assert (found["balanced_accuracy"], found["macro_f1"]) == pytest.approx((0.75, 2 / 3))


@pytest.mark.parametrize(("labels", "shown"), [([0, 0, 0, 1], True), ([0, 0, 1, 1], False)])
def test_classes_count_alike_where_they_are_not_equally_frequent(labels, shown):
    labels, predictions = np.array(labels), np.array([0, 0, 1, 1])
    measured = {
        **{"model": "m", "set": "d, test split", "count": 4, "tta": False, "accuracy": 0.75, "loss": 1.0},
        **{"recorded": None, "same_data": None, **calibration(np.ones(4), labels == predictions)},
        **class_scores(labels, predictions, ("a", "b")),
    }
    # Recalls 2/3 and 1; F1 is 2*2/(4+0+1) and 2*1/(2+1+0).
    assert (" 83.33 % balanced accuracy, 73.33 % macro F1" in as_text(measured)) == shown


def test_augmentation_at_test_time_is_the_run_s_own_unless_told(measured):
    own = measured(saved_run("tvit").path)
    found = {tta: measured(saved_run("tvit").path, "--tta", tta) for tta in ("off", "mirror", "translate")}
    assert found["translate"] == own
    assert own["tta"] == "translate" and own["recorded"] is not None
    assert len({one["loss"] for one in found.values()}) == 3
    assert found["off"]["recorded"] is None  # another measurement than the summary's
    assert measured(saved_run("tvit").path, "--tta") == found["mirror"]


def test_the_batch_changes_nothing(measured):
    own, found = measured(saved_run("net").path), measured(saved_run("net").path, "--batch", "7")
    assert (own["batch"], found["batch"]) == (33, 7)
    assert found["confusion"] == own["confusion"]
    assert found["loss"] == pytest.approx(own["loss"], rel=1e-3)  # bf16


def test_the_training_split_is_what_is_not_held_out(measured):
    found = measured(saved_run("vit").path, "--split", "train")
    assert found["count"] == 320
    assert found["loss"] < measured(saved_run("vit").path, "--split", "val")["loss"]


def test_a_bare_file_on_the_data_that_are_named(measured, capsys, tmp_path):
    weights = bare("vit", tmp_path / "copy")
    args = "data.args={num_train: 400, num_test: 60, image_size: 16}"
    found, own = measured(weights, args, "--data", "shapes"), measured(saved_run("vit").path)
    for key in ("accuracy", "loss", "confusion", "ece"):
        assert found[key] == own[key]
    assert (found["model"], found["recorded"], found["same_data"]) == (str(weights), None, None)
    assert evaluate.main([str(weights), f"data.root={tmp_path}"]) == 1  # cifar10, which is not there
    assert "cifar" in capsys.readouterr().err.lower()
    description = json.loads((tmp_path / "copy" / "model.json").read_text())
    description["classes"][3] = "plus"
    (tmp_path / "copy" / "model.json").write_text(json.dumps(description))
    assert evaluate.main([str(weights), args, "--data", "shapes"]) == 1
    assert "shapes has pictures of 1 classes that the model does not know (cross)" in capsys.readouterr().err


def test_other_pictures_than_the_run_s_are_said(measured, capsys):
    path = saved_run("vit").path
    assert measured(path, "data.args.num_train=500")["same_data"] is False
    assert evaluate.main([str(path), "data.args.num_train=500"]) == 0
    assert "these are not the pictures of the training" in capsys.readouterr().out
    assert measured(path, "data.test_limit=20")["count"] == 20


def test_text_for_people(capsys, caplog):
    summary = saved_run("vit").summary()["test"]
    assert evaluate.main([str(saved_run("vit").path)]) == 0
    assert " pictures from the cache of 2" in caplog.text
    out = capsys.readouterr().out
    for part in (
        f"error        {100 - 100 * summary['accuracy']:.2f} % (accuracy {100 * summary['accuracy']:.2f} %)",
        f"loss         {summary['loss']:.4f}",
        "equal to the run's summary.json",
        "checkerboard",
    ):
        assert part in out
    assert out.count("\n") == 7 + 11 + 13


def test_the_list_of_mistakes_is_the_run_s_and_that_of_another_split_has_its_ids(tmp_path, capsys):
    path = saved_run("vit").path
    for split in ("test", "val"):
        assert evaluate.main([str(path), "--split", split, "--mistakes", str(tmp_path / f"{split}.csv")]) == 0
    assert (tmp_path / "test.csv").read_text() == (path / "mistakes.csv").read_text()
    _, *rows = (tmp_path / "val.csv").read_text().splitlines()
    data = saved_run("vit").recipe().data
    loaded = load_images(data.name, data.args, root=None, max_gib=1)
    train, held_out = loaded.train, set(divide(loaded, data).val.ids.tolist())
    found = {int(row.split(",")[0]): row.split(",")[1] for row in rows}
    assert len(found) == len(rows) > 5 and found.keys() <= held_out
    assert all(train.classes[train.labels[sample]] == name for sample, name in found.items())
    assert evaluate.main([str(path), "--mistakes", str(tmp_path / "val.csv")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_confusion_matrix_of_ten_classes_fits_80_columns_and_a_cut_name_says_so(capsys):
    """As in a pipe, where nothing is folded."""
    assert evaluate.main([str(saved_run("vit").path)]) == 0
    _, heading, *rows = capsys.readouterr().out.splitlines()[-12:]
    assert heading.split()[:4] == ["circ…", "squa…", "tria…", "cross"]
    assert rows[6].startswith("horizontal_…  ")
    assert max(map(len, (heading, *rows))) <= 80


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["data.val_size=0", "--split", "val"], 2, "eval.batch and eval.tta can be changed"),
        (["data.image_size=64"], 2, "eval.batch and eval.tta can be changed"),
        (["data.args.colours=3"], 2, "data.args.colours"),
        (["--data", "shape"], 2, "did you mean `shapes`"),
        (["--batch", "0"], 2, "eval.batch"),
        (["train.epochs=3"], 2, "eval.batch and eval.tta can be changed"),
    ],
)
def test_wrong_use_is_named(capsys, arguments, status, message):
    assert evaluate.main([str(saved_run("vit").path), *arguments]) == status
    said = capsys.readouterr()
    assert message in said.err and "Traceback" not in said.err
    assert said.out == ""


@pytest.mark.launch
def test_two_processes_count_each_sample_once():
    """60 pictures in batches of 7: padding on both processes."""
    run = saved_run("net")
    done = completed([*TWO, str(run.path), "--batch", "7", "--json"])
    assert done.returncode == 0, done.stderr[-3000:]
    found, kept = json.loads(done.stdout), predictions("net")
    assert (found["world_size"], found["count"]) == (2, 60)
    assert found["accuracy"] == run.summary()["test"]["accuracy"]
    assert np.trace(found["confusion"]) == (kept["labels"] == kept["predictions"]).sum()
    assert found["loss"] == pytest.approx(run.summary()["test"]["loss"], rel=1e-3)


@pytest.mark.launch
def test_two_processes_say_an_error_once(tmp_path):
    weights = bare("vit", tmp_path / "copy")
    weights.write_bytes(weights.read_bytes()[:999])
    done = completed([*TWO, str(weights), "--data", "shapes"])
    assert done.returncode != 0
    assert done.stderr.count("cannot be read") == 1
    assert done.stdout == ""
