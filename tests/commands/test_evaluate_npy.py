"""`evaluate --data` on npy files, and what the run and the report keep of them."""

import os
import re

import numpy as np
import pytest
from support.commands import PYTHON, completed
from support.labelled_sets import corruptions, kept, own_pictures
from support.saved_runs import bare, predictions, saved_run
from support.small import small

from cifar_lab.commands import evaluate, report
from cifar_lab.data.images import load_images
from cifar_lab.data.raw import DataError
from cifar_lab.data.test_sets import CLASSES, by_name, read_npy
from cifar_lab.train import run as train

SIDE = 16


def test_npy_pictures_are_measured_as_the_run_s_own(run, measured, tmp_path):
    """Of the files of CIFAR-10.1, with the pictures of the run's test split: the numbers of its summary, no others."""
    pixels, labels = own_pictures()
    np.save(tmp_path / "cifar10.1_v6_data.npy", pixels)
    np.save(tmp_path / "cifar10.1_v6_labels.npy", labels.astype(np.int32))
    np.save(tmp_path / "labels.npy", labels[:5])  # of other files
    before = {file: file.read_bytes() for file in run.iterdir() if file.is_file()}
    found = measured(run, "--data", tmp_path / "cifar10.1_v6_data.npy")
    own = measured(saved_run("vit").path)
    for key in ("accuracy", "loss", "count", "confusion", "ece"):
        assert found[key] == own[key]
    assert found["severities"] is None and "recorded" not in found and "same_data" not in found
    assert "wrong" not in found
    (one,) = kept(run)
    arrays = predictions("vit")
    assert one["wrong"] == np.flatnonzero(arrays["labels"] != arrays["predictions"]).tolist()
    assert one["set"] == f"{tmp_path.name}/cifar10.1_v6_data"
    assert {file: file.read_bytes() for file in before} == before  # nothing of it among the run's own results


def test_a_folder_of_corruptions_gives_each_severity_and_the_plain_mean(run, capsys, tmp_path):
    folder = corruptions(tmp_path / "CIFAR-10-C", "fog", "noise")
    assert evaluate.main([str(run), "--data", str(folder)]) == 0
    _, _, heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split("  ")[0] == "test set" and "severity 5" in heading
    errors = []
    for row, one in zip(rows, kept(run), strict=False):
        wrong = np.zeros(300, bool)
        wrong[one["wrong"]] = True
        assert one["severities"] == wrong.reshape(5, 60).mean(axis=1).tolist()
        told = [f"{100 * share:.2f} %" for share in one["severities"]]
        assert row.split("  ")[0] == one["set"] and row.endswith("  ".join(f"{text:>10}" for text in told))
        errors.append(1 - one["accuracy"])
    assert kept(run)[0]["severities"][0] == pytest.approx(1 - saved_run("vit").summary()["test"]["accuracy"])
    assert len(set(kept(run)[0]["severities"])) > 1
    assert re.match(rf"CIFAR-10-C: plain mean of 2 +60 x 5 +{100 * np.mean(errors):.2f} %", rows[2])
    assert len(rows) == 3


def test_a_set_measured_again_replaces_its_row(run, measured, tmp_path):
    folder = corruptions(tmp_path / "C", "fog", "noise")
    assert len(measured(run, "--data", folder)) == 2
    first = kept(run)
    np.save(folder / "fog.npy", np.load(folder / "noise.npy"))
    measured(run, "--data", folder / "fog.npy")
    second = kept(run)
    assert [one["set"] for one in second] == [one["set"] for one in first]
    assert second[1] == first[1] and second[0]["fingerprint"] == second[1]["fingerprint"] != first[0]["fingerprint"]


def test_the_report_shows_sets_next_to_the_test_error(run, capsys, tmp_path):
    folder = corruptions(tmp_path / "CIFAR-10-C", "fog", "noise")
    assert evaluate.main([str(run), "--data", str(folder)]) == 0
    first, _ = kept(run)
    (run / "evaluations" / "torn.json").write_text('{"count": 3')
    assert report.main([str(run), "--out", str(tmp_path / "out")]) == 0
    assert "CIFAR-10-C: plain mean of 2" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "evaluations/torn.json cannot be read" in page
    section = page.partition('<section id="other-sets">')[2].partition("</section>")[0]
    heads, *rows = [
        [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", row, re.DOTALL)]
        for row in re.findall("<tr.*?</tr>", section, re.DOTALL)
    ]
    assert heads[:6] == ["experiment", "test set", "pictures", "seeds", "error", "95 % interval"]
    assert heads[6:] == [f"severity {number}" for number in range(1, 6)]
    assert [row[1] for row in rows] == [
        "its test split",
        "CIFAR-10-C/fog",
        "CIFAR-10-C/noise",
        "CIFAR-10-C: plain mean of 2",
    ]
    test, fog, noise, mean = rows
    assert test[4] == f"{100 * (1 - saved_run('vit').summary()['test']['accuracy']):.2f} %"
    assert fog[6] == test[4] and test[6:] == ["-"] * 5
    assert fog[6:] == [f"{100 * share:.2f} %" for share in first["severities"]]
    assert [row[2] for row in rows] == ["60", "60 x 5", "60 x 5", "60 x 5"]
    for column in (4, *range(6, 11)):
        ends = [float(row[column].split()[0]) for row in (fog, noise, mean)]
        assert ends[2] == pytest.approx((ends[0] + ends[1]) / 2, abs=0.006)
    assert "CIFAR-10-C/fog" in (tmp_path / "out" / "report.md").read_text()


def test_a_bare_model_and_another_augmentation_are_not_kept(run, caplog, tmp_path):
    folder = corruptions(tmp_path / "C", "fog")
    assert evaluate.main([str(bare("vit", tmp_path / "bare")), "--data", str(folder)]) == 0
    assert evaluate.main([str(run), "--tta", "--data", str(folder)]) == 0
    assert caplog.text.count("not kept for the report") == 2
    assert not (run / "evaluations").exists() and not (tmp_path / "bare" / "evaluations").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((4, SIDE, SIDE, 3), np.float32)}, "is float32 (4, 16, 16, 3)"),
        ({"data": np.zeros((4, 3, SIDE, SIDE), np.uint8)}, "must be uint8 (N, 16, 16, 3)"),
        ({"data": np.zeros((4, 32, 32, 3), np.uint8)}, "the size of the pictures that the model was trained on"),
        ({"data": np.zeros(4, np.uint8)}, "is uint8 (4,)"),
        ({"labels": np.zeros(3, np.int64)}, "labels.npy int64 (3,)"),
        ({"labels": np.zeros((4, 1), np.int64)}, "N integers"),
        ({"labels": np.zeros(4)}, "labels.npy float64 (4,)"),
        ({"labels": np.array([0, 1, 2, 10])}, "labels from 0 to 10, and there are 10 classes"),
        ({"labels": np.array([0, 1, 2, -1])}, "labels from -1 to 2"),
        ({"labels": None}, "needs its labels beside it, in data_labels.npy or labels.npy"),
        ({"data": None}, "No such file"),
    ],
)
def test_npy_files_that_do_not_fit_are_one_message(run, capsys, tmp_path, change, message):
    arrays = {"data": np.zeros((4, SIDE, SIDE, 3), np.uint8), "labels": np.arange(4)} | change
    for name, array in arrays.items():
        if array is not None:
            np.save(tmp_path / f"{name}.npy", array)
    assert evaluate.main([str(run), "--data", str(tmp_path / "data.npy")]) == 1
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""


def test_files_that_are_no_npy(run, capsys, tmp_path):
    for name in ("data.npy", "labels.npy"):
        (tmp_path / name).write_bytes(b"")
    assert evaluate.main([str(run), "--data", str(tmp_path / "data.npy")]) == 1
    assert "data.npy needs its labels beside it" in capsys.readouterr().err


def test_what_does_not_go_with_npy_files_is_refused(run, capsys, tmp_path):
    folder = corruptions(tmp_path / "C", "fog", "noise")
    for extra in (["data.test_limit=5"], ["--split", "val"], ["--mistakes", str(tmp_path / "m.csv")]):
        assert evaluate.main([str(run), "--data", str(folder), *extra]) == 2
        assert f"{extra[0]} does not go with --data {folder} (2 npy files)" in capsys.readouterr().err
    assert evaluate.main([str(run), "--data", str(folder / "fog.npy"), "--mistakes", str(tmp_path / "m.csv")]) == 0


def test_labels_of_cifar10_are_matched_by_name(tmp_path):
    """The integers of npy files follow the published order, whatever the order of a model's classes."""
    np.save(tmp_path / "data.npy", np.zeros((3, 8, 8, 3), np.uint8))
    np.save(tmp_path / "labels.npy", np.array([0, 9, 3]))
    turned = CLASSES[::-1]
    images, severities = read_npy(tmp_path / "data.npy", turned, 8)
    assert by_name(images, turned, "it").labels.tolist() == [9, 0, 6] and severities == 1
    own = ("one", "two", *"3456789", "ten")
    assert by_name(read_npy(tmp_path / "data.npy", own, 8)[0], own, "it").labels.tolist() == [0, 9, 3]
    with pytest.raises(DataError, match=r"know \(truck\)"):
        by_name(images, CLASSES[:9], "it")


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("labels.npy", np.tile([3, 1, 2], 5), 5),
        ("labels.npy", np.repeat([3, 1, 2], 5), 1),
        ("labels.npy", np.zeros(15, int), 1),
        ("data_labels.npy", np.tile([3, 1, 2], 5), 1),
    ],
)
def test_severities_are_seen_by_labels_that_repeat(tmp_path, name, labels, expected):
    np.save(tmp_path / "data.npy", np.zeros((15, 8, 8, 3), np.uint8))
    np.save(tmp_path / name, labels)
    assert read_npy(tmp_path / "data.npy", CLASSES, 8)[1] == expected


@pytest.mark.skipif("CIFAR_LAB_DATA" not in os.environ, reason="needs CIFAR-10")
def test_pictures_of_cifar10_in_npy_files_give_the_test_error_of_the_run(measured, tmp_path):
    """All of the test split, as the files of CIFAR-10.1 would hold it."""
    changes = {"data__name": "cifar10", "data__args": {}, "data__limit": 160, "data__test_limit": 300}
    done = train(small(**changes, train__steps=4, train__epochs=None), run_dir=str(tmp_path / "run")).run_dir
    test = load_images("cifar10", {}, root=None, max_gib=1).test
    np.save(tmp_path / "cifar10.1_v6_data.npy", test.images.permute(0, 2, 3, 1).numpy())
    np.save(tmp_path / "cifar10.1_v6_labels.npy", test.labels.numpy().astype(np.int32))
    found = measured(done.path, "--data", tmp_path / "cifar10.1_v6_data.npy")
    own = measured(done.path, "data.test_limit=null")
    assert found["count"] == own["count"] == 10_000
    assert found["confusion"] == own["confusion"]


@pytest.mark.launch
def test_two_processes_keep_each_set_once(run, tmp_path):
    folder = corruptions(tmp_path / "C", "fog", "noise")
    two = [PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cifar_lab"]
    done = completed([*two, "evaluate", str(run), "--data", str(folder), "--batch", "7"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("C: plain mean of 2") == 1 and done.stderr.count("kept for") == 1
    first = kept(run)
    assert [one["world_size"] for one in first] == [2, 2]
    assert evaluate.main([str(run), "--data", str(folder)]) == 0
    assert [one["wrong"] for one in first] == [one["wrong"] for one in kept(run)]
