"""`cifar-lab checkpoint`: what it says of whole, damaged and missing checkpoints."""

import pytest
from support.runs import train
from support.small import small

from cifar_lab.commands import checkpoint as checkpoints


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = small(train__epochs=None, train__steps=4, optim__warmup_epochs=0.0, checkpoint__every_steps=2)
    return train(recipe, tmp_path_factory.mktemp("run") / "run").run_dir


def test_ls_and_show(run, capsys):
    assert checkpoints.main(["ls", str(run.path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("step_00000002 ")
    assert "single on 1, skipped 0" in second
    assert checkpoints.main(["show", str(run.path), "--step", "2"]) == 0
    shown = capsys.readouterr().out
    assert '"step": 2' in shown
    assert "  head.weight.exp_avg_sq  F32  [10, 32]\n" in shown
    assert checkpoints.main(["show", str(run.path)]) == 0
    assert '"step": 4' in capsys.readouterr().out


def test_verify_names_the_damage_and_ends_with_1(run, capsys):
    assert checkpoints.main(["verify", str(run.path)]) == 0
    assert capsys.readouterr().out == "step_00000002: whole\nstep_00000004: whole\n"
    victim = next((run.checkpoints / "step_00000004").glob("weights-*"))
    original = victim.read_bytes()
    victim.write_bytes(original[:100] + bytes([original[100] ^ 1]) + original[101:])
    try:
        assert checkpoints.main(["verify", str(run.path)]) == 1
        assert f"step_00000004: {victim.name}: its sha256" in capsys.readouterr().out
        assert checkpoints.main(["show", str(run.path)]) == 1
        assert "is damaged" in capsys.readouterr().err
    finally:
        victim.write_bytes(original)


def test_what_is_not_there(run, tmp_path, capsys):
    assert checkpoints.main(["ls", str(tmp_path)]) == 2
    assert "is not a run directory" in capsys.readouterr().err
    assert checkpoints.main(["show", str(run.path), "--step", "3"]) == 1
    assert "no checkpoint of step 3; there are step_00000002, step_00000004" in capsys.readouterr().err
