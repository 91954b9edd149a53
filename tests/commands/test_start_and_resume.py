"""The documented ways to start a run: each forms one world of the size that was asked for, or is refused."""

import pytest
from support.commands import PYTHON, ROOT, completed, write_recipe
from support.small import small

from cifar_lab.rundir.directory import RunDir

MODULE = ["-m", "cifar_lab.train"]
CPU_CONFIG = str(ROOT / "accelerate_configs" / "cpu.yaml")
# (launcher, its environment, processes)
FORMS = {
    "python": ([PYTHON], {}, 1),
    "torchrun": (["torchrun", "--standalone", "--nproc-per-node", "2"], {}, 2),
    "accelerate": (
        ["accelerate", "launch", "--config_file", CPU_CONFIG, "--main_process_port", "0", "--num_processes", "2"],
        {"ACCELERATE_USE_CPU": "true"},
        2,
    ),
}


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The run directory and output of each form, for the same recipe."""
    folder = tmp_path_factory.mktemp("commands")
    recipe = write_recipe(folder, small(train__epochs=None, train__steps=10))
    results = {}
    for form, (command, more, _) in FORMS.items():
        run = RunDir(folder / form)
        results[form] = run, completed([*command, *MODULE, recipe, "--run-dir", str(run.path)], **more)
    return results


@pytest.mark.launch
@pytest.mark.parametrize("form", FORMS)
def test_one_world_of_the_size_asked_for(launched, form):
    (run, done), processes = launched[form], FORMS[form][2]
    assert done.returncode == 0, done.stderr[-3000:]
    summary, env = run.summary(), run.env()
    strategy = "ddp" if processes > 1 else "single"
    for told in (summary, env):
        assert (told["world_size"], told["micro_batch"], told["strategy"]) == (processes, 16 // processes, strategy)
    assert (env["global_batch"], env["accumulation_steps"]) == (16, 1)
    assert (run.status().state, run.status().world_size) == ("completed", processes)
    assert summary["steps"] == 10
    assert (summary["test"]["count"], summary["val"]["count"]) == (60, 80)


@pytest.mark.launch
@pytest.mark.parametrize("form", FORMS)
def test_processes_do_not_talk_over_each_other(launched, form):
    """One line for each step and split in the metrics, one headline, and the directory alone on standard output."""
    run, done = launched[form]
    seen = [(line["split"], line["step"]) for line in run.metrics()]
    assert seen == [*[("train", step) for step in range(1, 11)], ("val", 10), ("test", 10)]
    assert done.stdout == f"{run.path}\n"
    assert done.stderr.count("= global batch 16;") == 1
    assert done.stderr.count("test error") == 1


@pytest.mark.launch
def test_all_forms_train_the_same(launched):
    losses = {form: [line["loss"] for line in run.metrics()] for form, (run, _) in launched.items()}
    assert losses["accelerate"] == pytest.approx(losses["torchrun"], rel=1e-6)
    assert losses["torchrun"] == pytest.approx(losses["python"], rel=1e-5)


@pytest.mark.launch
def test_accelerate_that_would_start_one_process_instead_of_two_is_refused(tmp_path):
    """`accelerate launch --cpu --num_processes 2` starts a single process and says nothing."""
    recipe = write_recipe(tmp_path, small())
    command = ["accelerate", "launch", "--cpu", "--num_machines", "1", "--num_processes", "2", *MODULE, recipe]
    done = completed([*command, "--runs", str(tmp_path / "runs")], HF_HOME=str(tmp_path / "home"))
    assert done.returncode != 0
    assert "accelerate_configs/cpu.yaml" in done.stderr
    assert not (tmp_path / "runs").exists()
