"""Data without a test split, or with a validation split of its own: what a run trains, tells and leaves."""

import json
import logging

import pytest
from PIL import Image
from support.runs import closed, opened, train
from support.small import small

from cifar_lab.checkpoint.files import CheckpointError, read_state
from cifar_lab.cli.printable import percent
from cifar_lab.commands import evaluate, export, predict, report, status
from cifar_lab.files.direct_file import write_bytes
from cifar_lab.planning import dry_run
from cifar_lab.rundir.directory import RunDir
from cifar_lab.train import main

SHORT = {"train__global_batch": 4, "train__epochs": None, "train__steps": 4, "optim__warmup_epochs": 0}


@pytest.fixture
def data(tmp_path):
    """A folder of drawings: 20 and 10 in `train`, one of a third class, 6 and 3 in `more`; no test split."""
    for split, counts in (("train", (20, 10, 1)), ("more", (6, 3, 1))):
        for label, count in zip(("dark", "light", "rare"), counts, strict=True):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for index in range(count):
                grey = Image.linear_gradient("L").resize((16, 16)).point(lambda v, i=index: (v + 9 * i) % 256)
                grey.save(tmp_path / "data" / split / label / f"{index}.png")
    return {"name": "hub", "args": {"id": "mine"}, "root": str(tmp_path / "data")}


def written(tmp_path, data, **changes):
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(small(**{"data": data, **SHORT, **changes})))
    return str(path)


def test_a_set_without_a_test_split_names_the_key(tmp_path, data, capsys):
    recipe, run = written(tmp_path, data), tmp_path / "run"
    assert main([recipe, "--run-dir", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "the data have no test split: set data.test_size to how many training pictures become one (a number, or a part "
        "such as 0.1), or to 0 to go without"
    )
    assert main([recipe, "--run-dir", str(run), "data.test_size=0.2"]) == 0
    told = capsys.readouterr().err
    assert f"{run}: 23 training, 2 held-out, 6 test pictures\n" in told
    summary = RunDir(run).summary()
    assert (summary["num_train"], summary["val"]["count"], summary["test"]["count"]) == (23, 2, 6)
    assert evaluate.main([str(run), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert (measured["count"], measured["loss"]) == (6, summary["test"]["loss"])
    # 4 + 2 + 0 pictures of the classes.
    assert 0 <= measured["macro_f1"] <= 1 and [one["count"] for one in measured["classes"]] == [4, 2, 0]
    for changed in ("data.test_size=0.5", "data.val_size=0"):
        assert evaluate.main([str(run), changed]) == 2
        assert "of a trained model only the pictures" in capsys.readouterr().err


def test_a_run_without_a_test_split_is_whole(tmp_path, data, capsys, caplog):
    caplog.set_level(logging.INFO, "cifar_lab")
    recipe, run = written(tmp_path, data, data__test_size=0, train__class_weights="balanced"), tmp_path / "runs" / "run"
    assert main([recipe, "--run-dir", str(run)]) == 0
    told = capsys.readouterr().err
    assert "28 training, 3 held-out, 0 test pictures\n" in told
    assert told.splitlines()[-1].endswith("no test split (data.test_size is 0)")
    assert "the only picture of a class is trained on and not held out: 1 (rare)" in caplog.messages
    summary = RunDir(run).summary()
    assert summary["test"] is None and summary["val"]["count"] == 3
    assert [name for name in ("predictions.npz", "mistakes.png", "mistakes.csv") if (run / name).exists()] == []
    assert {line["split"] for line in RunDir(run).metrics()} == {"train", "val"}
    assert main([recipe, "--run-dir", str(run)]) == 0  # completed already

    assert evaluate.main([str(run)]) == 2
    assert "there is no test split, since data.test_size is 0; use --split val" in capsys.readouterr().err
    assert evaluate.main([str(run), "--split", "val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recorded"] == summary["val"]
    assert status.main([str(run)]) == 0
    assert percent(1 - summary["val"]["accuracy"]) in capsys.readouterr().out
    assert report.main([str(run), "--out", str(tmp_path / "report")]) == 0
    assert capsys.readouterr().out.startswith("No run has a test result: 1 completed without a test result.")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "no test split (data.test_size is 0)" in page and percent(1 - summary["val"]["accuracy"]) in page
    assert predict.main([str(run), data["root"] + "/more", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["pictures"]) == 10
    assert export.main([str(run), "--format", "onnx"]) == 0
    card = (run / "export" / "onnx" / "README.md").read_text()
    assert "| held out of training | 3 |" in card and "| test |" not in card
    assert "- Test accuracy: there was no test split" in card and "no measurement came with" not in card


def test_a_validation_split_of_one_s_own_is_held_out(tmp_path, data, capsys):
    own = {**data, "args": {"id": "mine", "val_split": "more"}, "test_size": 3}
    recipe, run = written(tmp_path, own), tmp_path / "run"
    assert main([recipe, "--run-dir", str(run)]) == 0
    assert "28 training, 10 held-out, 3 test pictures" in capsys.readouterr().err
    assert evaluate.main([str(run), "--split", "val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recorded"] == RunDir(run).summary()["val"]
    assert main([recipe, "--run-dir", str(tmp_path / "two"), "data.val_size=5"]) == 2
    message = capsys.readouterr().err
    assert "data.val_size: has no effect, since `data.args.val_split` names these pictures" in message


def test_how_many_were_held_out_is_kept_and_compared(tmp_path, data, monkeypatch):
    own = {**data, "args": {"id": "mine", "val_split": "more"}, "test_size": 0}
    mapping, run = small(data=own, **SHORT), tmp_path / "run"
    session = train(mapping, run, 2, monkeypatch)
    state = read_state(session.run_dir.checkpoints / "step_00000002")
    assert state["num_val"] == 10
    (tmp_path / "data" / "more" / "dark" / "0.png").unlink()
    with pytest.raises(
        CheckpointError, match=r"other data than are found now \(10 held out then, 9 now\): set data.root"
    ):
        opened(mapping, run)


def test_a_checkpoint_that_does_not_say_how_many_goes_on(tmp_path, monkeypatch):
    train(small(), tmp_path / "run", 3, monkeypatch)
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    state, manifest = (
        json.loads((folder / "state.json").read_text()),
        json.loads((folder / "manifest.json").read_text()),
    )
    assert state.pop("num_val") == 80
    manifest["files"]["state.json"] = write_bytes(folder / "state.json", json.dumps(state).encode())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    session = opened(small(), tmp_path / "run")
    assert (session.state.step, session.state.num_val) == (3, 80)
    closed(session)


def test_what_is_known_before_the_data_are_read(tmp_path, capsys):
    for keys, counts in (
        (["data.val_size=0.25", "data.test_size=0.1"], (270, 90, 40)),
        (["data.test_size=0", "data.val_size=0.5", "data.limit=64"], (64, 200, 0)),
        ([], (320, 80, 60)),
    ):
        recipe = tmp_path / "small.yaml"
        recipe.write_text(json.dumps(small()))
        assert dry_run.show(str(recipe), keys, as_json=True) == 0
        data = json.loads(capsys.readouterr().out)["data"]
        assert (data["num_train"], data["num_val"], data["num_test"]) == counts
        session = opened(
            small(**{key.replace(".", "__"): json.loads(value) for key, value in (k.split("=") for k in keys)}),
            tmp_path / f"run{counts[0]}",
        )
        found = [len(split or ()) for split in (session.splits.train, session.splits.val, session.splits.test)]
        assert tuple(found) == counts
        closed(session)
