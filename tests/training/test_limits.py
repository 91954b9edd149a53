"""Limits are met early and told in one message, by real commands."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from support.commands import PYTHON, TRAIN, completed, write_recipe
from support.small import small

from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.rundir.directory import RunDir
from cifar_lab.train import main
from cifar_lab.training.start import out_of_memory_advice

# A picture takes 128 KiB behind each of the first layers, so a step of 1024 wants two GiB.
LARGE = small(
    model={"name": "resnet", "args": {"width": 32}},
    data__args={"num_train": 1200, "num_test": 60, "image_size": 16},
    data__val_size=0,
    data__image_size=32,
    data__augment={},
    train__global_batch=1024,
    train__epochs=1,
    optim__warmup_epochs=0,
)
WITHIN = """\
import resource, sys
import cifar_lab.training.finish, cifar_lab.training.loop  # torch maps gigabytes that it does not use
from cifar_lab.train import main
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = mapped + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""
# The signal comes at a step and not after a time, in which a short run may end.
TERMINATED = """\
import os, signal, sys
from cifar_lab.rundir.directory import RunDir
from cifar_lab.train import main
append = RunDir.append_metrics
def append_and_signal(self, **fields):
    append(self, **fields)
    if fields["step"] == 30:
        os.kill(os.getpid(), signal.SIGTERM)
RunDir.append_metrics = append_and_signal
sys.exit(main(sys.argv[1:]))
"""


def test_out_of_memory_names_the_micro_batch_to_set(tmp_path):
    recipe, place = write_recipe(tmp_path, LARGE), tmp_path / "run"
    done = completed([PYTHON, "-c", WITHIN, "400", recipe, "--run-dir", str(place)])
    assert done.returncode == 1, done.stderr[-3000:]
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("out of memory (")
    assert "set train.micro_batch=512 (it was 1024; the global batch does not change)" in message
    assert "Traceback" not in done.stderr
    status = RunDir(place).status()
    assert (status.state, status.step, status.reason) == ("failed", 0, message)


@pytest.mark.launch
def test_out_of_memory_on_another_process_is_told_too(tmp_path):
    """Rank 0 speaks for all, but of this it knows nothing."""
    script = tmp_path / "within.py"
    script.write_text(
        WITHIN.replace("resource.setrlimit", "import os; os.environ['RANK'] == '1' and resource.setrlimit")
    )
    recipe, place = write_recipe(tmp_path, LARGE), tmp_path / "run"
    launch = ["torchrun", "--standalone", "--nproc-per-node", "2", str(script)]
    done = completed([*launch, "800", recipe, "--run-dir", str(place), "train.global_batch=1200"])
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("process 1: out of memory")]
    assert len(told) == 1, done.stderr[-3000:]
    assert "set train.micro_batch=300 (it was 600;" in told[0]
    assert RunDir(place).status().state != "completed"


def advice(error, **overrides):
    recipe = parse_recipe(small(train__global_batch=48, **overrides))
    return out_of_memory_advice(error, recipe, Schedule.make(recipe, 320))


def test_the_advice_fits_the_recipe():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
    assert "(CUDA out of memory. Tried to allocate 2.00 GiB.): set train.micro_batch=24 " in advice(error)
    assert "set train.micro_batch=3 " in advice(error, train__micro_batch=6)
    assert "set train.micro_batch=2 " in advice(error, train__micro_batch=6, data__augment__mixup_alpha=0.2)
    assert "smaller data.image_size" in advice(error, train__micro_batch=1)
    assert "smaller data.image_size" in advice(error, train__micro_batch=2, data__augment__mixup_alpha=0.2)
    assert advice(MemoryError()).startswith("out of memory (MemoryError)")
    assert advice(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    recipe = parse_recipe(small())
    assert "while the data and the model were loaded" in out_of_memory_advice(error, recipe, None)


def test_batch_norm_of_one_picture_names_the_key(tmp_path, capsys):
    """The last features of this net are one pixel, of which a micro-batch of 1 has one value a channel."""
    model = {"name": "timm_zoo", "args": {"arch": "test_efficientnet"}}
    recipe, place = write_recipe(tmp_path, small(model=model, train__micro_batch=1)), tmp_path / "run"
    assert main([recipe, "--run-dir", str(place)]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message == "batch norm needs 2 pictures: raise train.micro_batch, or train.global_batch"
    assert (RunDir(place).status().reason, RunDir(place).status().step) == (message, 0)
    assert main([recipe, "--run-dir", str(tmp_path / "two"), "train.micro_batch=2"]) == 0


def test_out_of_memory_in_an_evaluation_names_its_own_batch(tmp_path, monkeypatch, capsys):
    def exhausted(*_, **__):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("cifar_lab.training.evaluation.F", SimpleNamespace(cross_entropy=exhausted))
    recipe = write_recipe(tmp_path, small(eval__batch=40))
    assert main([recipe, "--run-dir", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "out of memory in an evaluation (no room): set eval.batch=20 (it was 40)"
    )


def test_data_that_do_not_fit(tmp_path, capsys):
    recipe = write_recipe(tmp_path, small(data__args={"num_train": 4000, "num_test": 1000, "image_size": 64}))
    assert main([recipe, "--run-dir", str(tmp_path / "run"), "data.max_gib=0.05"]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "5,000 pictures of 64 x 64 pixels take 0.06 GiB" in message
    assert "more than data.max_gib=0.05: raise it" in message
    assert RunDir(tmp_path / "run").status().reason == message.strip()


@pytest.fixture
def folder(tmp_path):
    """Grey pictures of two classes, and a way to add one of another size; the recipe that reads them."""
    for split, count in (("train", 8), ("test", 4)):
        for label in ("dark", "light"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for index in range(count):
                picture = Image.linear_gradient("L").resize((16, 16)).point(lambda v, i=index: (v + 9 * i) % 256)
                picture.save(tmp_path / "data" / split / label / f"{index}.png")
    data = {"name": "hub", "args": {"id": "mine"}, "root": str(tmp_path / "data"), "val_size": 4}
    return write_recipe(tmp_path, small(data=data, train__global_batch=4, optim__warmup_epochs=0))


def test_grey_pictures_are_expanded(tmp_path, folder):
    assert main([folder, "--run-dir", str(tmp_path / "run")]) == 0


def test_pictures_of_mixed_size_are_refused_with_the_argument_to_give(tmp_path, folder, capsys):
    Image.new("L", (20, 16), 7).save(tmp_path / "data" / "train" / "dark" / "9.png")
    assert main([folder, "--run-dir", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "pictures differ in size" in message
    assert message.endswith("give one side for all with data.args.size=")
    assert RunDir(tmp_path / "run").status().state == "failed"
    assert main([folder, "--run-dir", str(tmp_path / "sized"), "data.args.size=16"]) == 0


@pytest.mark.parametrize("place", ["below a file", "below /proc"])
def test_a_directory_that_cannot_be_written(tmp_path, capsys, place):
    (tmp_path / "file").write_text("")
    runs = {"below a file": tmp_path / "file" / "runs", "below /proc": "/proc/cifar_lab"}[place]
    assert main([write_recipe(tmp_path, small()), "--runs", str(runs)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith(f"cannot write the run directory {runs}/small/0-")
    assert message.endswith("choose another place with --runs DIR\n")


def test_sigterm_stops_and_the_same_command_completes(tmp_path):
    run = RunDir(tmp_path / "run")
    recipe = write_recipe(tmp_path, small(train__epochs=None, train__steps=800, data__val_size=0))
    words = [recipe, "--run-dir", str(run.path), "log.every_steps=10", "eval.every_epochs=100"]
    terminated = completed([PYTHON, "-c", TERMINATED, *words])
    assert terminated.returncode == 75, terminated.stderr[-3000:]
    stopped = run.status()
    assert (stopped.state, stopped.reason, stopped.total_steps) == ("stopped", "SIGTERM", 800)
    assert 30 <= stopped.step < 800
    assert f"stopped at step {stopped.step}; start again to continue" in terminated.stderr
    (checkpoint,) = run.checkpoints.glob(f"step_{stopped.step:08}")
    seconds_before = json.loads((checkpoint / "state.json").read_text())["seconds"]
    done = completed([*TRAIN, *words])
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"from step {stopped.step}" in done.stderr
    assert run.status().state == "completed"
    steps = [line["step"] for line in run.metrics() if line["split"] == "train"]
    assert steps == sorted(set(steps))
    assert steps[-1] == 800
    times = [line["time"] for line in run.metrics() if line["step"] > stopped.step]
    assert run.summary()["wall_seconds"] > seconds_before + times[-1] - times[0]
    assert json.loads((run.path / "env.json").read_text())["command"][1:] == words
    assert done.stdout == f"{run.path}{os.linesep}"
