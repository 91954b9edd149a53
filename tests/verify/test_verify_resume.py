"""`cifar-lab verify-resume`: kills for real, and a verdict that can be negative."""

import json
import shutil

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from support.small import small

from cifar_lab.commands import verify_resume
from cifar_lab.verify.verdict import compare


@pytest.fixture(scope="module")
def proof(tmp_path_factory):
    """The output folder of three kills of one process."""
    folder = tmp_path_factory.mktemp("verify")
    # An evaluation is long and a save comes often, so that each kill finds what it is aimed at, after a checkpoint.
    # Heartbeats come twice a second: with half of the epochs a run could end before one told of an evaluation.
    recipe = small(
        train__epochs=8, train__ema_decay=0.9, eval__batch=1, eval__every_epochs=0.25, checkpoint__every_steps=3
    )
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    status = verify_resume.main([str(folder / "recipe.yaml"), "--kills", "3", "--out", str(folder / "out")])
    return status, folder / "out"


@pytest.mark.launch
def test_three_kills_change_nothing(proof):
    status, folder = proof
    verdict = compare(folder, exact=True)
    assert (status, verdict.problems, verdict.largest_difference) == (0, (), 0.0)
    assert verdict.steps == 160
    assert verdict.tensors > 100
    log = (folder / "killed.log").read_text()
    assert (
        log.count(" steps per epoch, 160 in total") == 4 and " in total, from step" in log
    )  # thrice killed, and resumed


@pytest.mark.launch
def test_every_difference_is_found(proof, tmp_path):
    def damaged(name):
        folder = tmp_path / name
        shutil.copytree(proof[1], folder)
        return folder

    folder = damaged("loss")
    metrics = folder / "killed" / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    lines[6] = json.dumps({**json.loads(lines[6]), "loss": 9.0})
    metrics.write_text("\n".join(lines) + "\n")
    assert "loss of train at step 6" in compare(folder, exact=True).problems[0]
    metrics.write_text("\n".join(lines[:-1]) + "\n")
    assert "metrics.jsonl has" in compare(folder, exact=False).problems[0]

    folder = damaged("tensor")
    weights = folder / "killed" / "model.safetensors"
    tensors = load_file(weights)
    tensors["head.bias"] = np.nextafter(tensors["head.bias"], np.float32(9))
    save_file(tensors, weights)
    assert compare(folder, exact=True).problems == ("tensor model:head.bias",)

    folder = damaged("samples")
    log = folder / "killed.samples" / "0.jsonl"
    entry = json.loads(log.read_text().splitlines()[7])
    log.write_text(log.read_text() + json.dumps({**entry, "ids": entry["ids"][::-1]}) + "\n")
    assert compare(folder, exact=True).problems == (f"samples of step {entry['step']}, micro-batch 0",)
    assert not compare(folder, exact=True).holds


def test_a_proof_needs_a_place_of_its_own_and_kills(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(small()))
    (tmp_path / "file").touch()
    assert verify_resume.main([str(recipe), "--out", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert verify_resume.main([str(recipe), "--out", str(tmp_path / "file" / "below")]) == 1
    assert "cannot write" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        verify_resume.main([str(recipe), "--kills", "0"])
