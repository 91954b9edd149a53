"""`train.precision: fp16`: autocast over fp32 weights, and a loss scale that goes as torch's own."""

import copy
import itertools
import json

import pytest
import torch
from safetensors.torch import load_file
from support.runs import closed, lines, opened, tensors, train
from support.small import small, with_batch_norm
from torch import nn

import cifar_lab
from cifar_lab.checkpoint.files import list_checkpoints
from cifar_lab.commands.dispatch import main as command
from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.support import ZERO, unsupported
from cifar_lab.runtime import loss_scale
from cifar_lab.runtime.make import make_accelerator
from cifar_lab.runtime.plain import PlainEngine
from cifar_lab.runtime.world import World
from cifar_lab.train import main, run
from cifar_lab.training.loop import NonFiniteError, fit

FP16 = {"train__precision": "fp16"}
SHORT = {"train__epochs": None, "train__steps": 20, "data__val_size": 0, "optim__warmup_epochs": 0}
SGD = {"name": "sgd", "lr": 0.05, "weight_decay": 5e-4, "nesterov": True}
MUON = {
    "data__args": {"num_train": 400, "num_test": 60, "image_size": 32},
    "optim": {"name": "muon", "lr": 0.02, "momentum": 0.6, "nesterov": True, "head_lr": 0.5, "bias_lr": 0.05},
    "model": {"name": "speednet", "args": {"width": 4, "whiten": True, "dirac": True, "scaled_norms": False}},
}


class Weighted(nn.Module):
    """Its loss is the mean of weights times what it is given, so a batch that is infinite gives infinite gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.linspace(-1, 1, 12).reshape(4, 3)), nn.Parameter(torch.ones(3))

    def forward(self, given):
        return (self.weight * given + self.bias.square()).mean()


def batches(steps, bad):
    """One tensor a step, infinite somewhere at the steps of `bad`."""
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        given = torch.randn(4, 3, generator=generator)
        if step in bad:
            given[1, 2] = float("inf")
        yield step, given


def engine_of(module, **overrides):
    """An engine of fp16 whose loss is what `module` gives."""
    recipe = parse_recipe(small(train__precision="fp16", **overrides))
    world = World.start()
    engine = PlainEngine(world, make_accelerator(recipe, 1), recipe, module, "single")
    engine.loss = lambda batch, **_: engine.module(batch)
    return engine


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_scales_and_weights_are_those_of_torch_s_own_scaler(name, reads, monkeypatch):
    """Over two intervals of growth, with overflows at the start, just before a growth, and just after one."""
    scaler = torch.amp.GradScaler("cpu")
    factors = scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()
    assert (
        scaler.get_scale(),
        *factors,
    ) == (loss_scale.INITIAL, loss_scale.GROWTH, loss_scale.BACKOFF, loss_scale.GROWTH_INTERVAL)
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 50)
    scaler.set_growth_interval(50)
    module = Weighted()
    twin = copy.deepcopy(module)
    engine = engine_of(module, optim={"name": name, "lr": 0.01, "weight_decay": 0.05})
    engine.guard.reads = reads
    optimizer = type(engine.optimizer)(
        [{"params": [twin.weight], "weight_decay": 0.05}, {"params": [twin.bias], "weight_decay": 0.0}],
        fused=True,
        **{"lr": 0.01, **({"momentum": 0.9} if name == "sgd" else {})},
    )
    if name == "sgd":  # torch's own takes unset memory for momentum where its first step is skipped
        for p in twin.parameters():
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    seen = []
    for step, given in batches(170, bad={0, 1, 2, 7, 57, 108}):
        engine.forward_backward(given, index=0, torch_seed=0)
        engine.step(step, 0.01)
        scaler.scale(twin(given)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        seen.append(scaler.get_scale())
        assert engine.loss_scale.value.item() == seen[-1], step
        assert torch.equal(module.weight, twin.weight) and torch.equal(module.bias, twin.bias), step
    assert engine.loss_scale.good_steps.item() == scaler.state_dict()["_growth_tracker"]
    assert set(seen) == {2.0**n for n in (15, 14, 13, 12, 11)} and seen[-1] == 2.0**12
    health, _ = engine.health([torch.zeros(())] * engine.accumulation_steps)
    assert (health.skipped, health.loss_scale, health.first_bad_step) == (6, 2.0**12, None)


@pytest.mark.parametrize("reads", [True, False])
def test_clipping_and_the_norm_are_of_the_true_gradient(reads):
    module = Weighted()
    twin = copy.deepcopy(module)
    engine = engine_of(module, optim={"name": "sgd", "lr": 0.1, "momentum": 0.0}, train__grad_clip=0.1)
    engine.guard.reads = reads
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step, given in batches(5, bad=()):
        engine.forward_backward(given, index=0, torch_seed=0)
        engine.step(step, 0.1)
        twin(given).backward()
        norm = nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        assert norm > 0.2
        torch.testing.assert_close(engine.guard.grad_norm, norm)
        torch.testing.assert_close(module.weight, twin.weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "tolerance"),
    [
        ({"train__micro_batch": 8}, 2e-4),  # measured 6e-5
        ({"optim": SGD, "train__grad_clip": 0.5}, 1e-4),  # 1e-5
        (MUON, 0.01),  # batch norm: 3e-3
    ],
)
def test_twenty_steps_are_those_of_fp32_but_for_rounding(tmp_path, monkeypatch, overrides, tolerance):
    monkeypatch.setattr(loss_scale, "INITIAL", 2.0**10)  # that none overflows
    logits = []

    def look(session):
        *_, head = (layer for layer in session.engine.module.modules() if isinstance(layer, nn.Linear))
        head.register_forward_hook(lambda module, given, out: logits.append(out.dtype))

    fine = train(small(**SHORT, **overrides), tmp_path / "fine")
    half = train(small(**SHORT, **FP16, **overrides), tmp_path / "half", change=look)
    losses = [[line["loss"] for line in lines(session) if line["split"] == "train"] for session in (half, fine)]
    worst = max(abs(a / b - 1) for a, b in zip(*losses, strict=True))
    assert 0 < worst < tolerance, worst
    assert set(logits) == {torch.float16} and half.state.skipped == 0
    assert {t.dtype for key, t in tensors(half).items() if key.startswith("weights")} == {torch.float32}


def test_a_step_that_overflows_changes_nothing_and_is_no_divergence(tmp_path, monkeypatch):
    """Weights, moments, average, batch norm's statistics, and Adam's own count of steps."""
    monkeypatch.setattr(loss_scale, "INITIAL", 2.0**22)
    session = opened(with_batch_norm(**FP16, train__ema_decay=0.9), tmp_path / "run")
    engine, states = session.engine, [tensors(session)]
    step = engine.step

    def noting(number, lr):
        step(number, lr)
        states.append(tensors(session))

    engine.step = noting
    assert fit(session)
    closed(session)
    train_lines = [line for line in lines(session) if line["split"] == "train"]
    skipped = [line["skipped"] for line in train_lines]
    scales = [2.0**22, *(line["loss_scale"] for line in train_lines)]
    assert 5 < skipped[-1] < 20 and session.state.skipped == skipped[-1]
    for number, (before, after) in enumerate(itertools.pairwise(states)):
        bad = skipped[number] > (skipped[number - 1] if number else 0)
        assert scales[number + 1] == scales[number] / (2 if bad else 1)
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        if bad:  # the average goes on towards weights that stay, as after any bad step
            assert {key for key in moved if not key.startswith("ema:")} == {"optimizer:loss_scale"}
        else:
            assert {key.split(":")[0] for key in moved} == {"weights", "optimizer", "ema", "buffers"}
    counts = {int(state["step"]) for state in engine.optimizer.state.values()}
    assert counts == {20 - skipped[-1]}


def test_stopped_and_resumed_is_bit_identical_wherever_the_scale_is_on_its_way(tmp_path, monkeypatch):
    monkeypatch.setattr(loss_scale, "INITIAL", 2.0**18)
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 3)
    recipe = with_batch_norm(**FP16, train__ema_decay=0.9, train__grad_clip=0.5, train__micro_batch=8)
    reference = train(recipe, tmp_path / "whole")
    for stop in (3, 10, 11):
        train(recipe, tmp_path / "run", stop, monkeypatch)
    resumed = train(recipe, tmp_path / "run")
    expected, found = tensors(reference), tensors(resumed)
    assert found.keys() == expected.keys()
    assert {"optimizer:loss_scale", "optimizer:loss_scale.good_steps"} < found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert lines(resumed) == lines(reference)
    scales = [line["loss_scale"] for line in lines(reference) if line["split"] == "train"]
    changes = [b / a for a, b in itertools.pairwise(scales)]
    assert changes.count(0.5) > 5 and changes.count(2) > 1
    kept = load_file(next(list_checkpoints(resumed.run_dir.checkpoints)[-1].glob("optimizer-*")))
    assert (kept["loss_scale"].item(), kept["loss_scale.good_steps"].dtype) == (scales[-1], torch.int32)


def test_a_run_that_overflows_at_a_scale_of_1_has_diverged(tmp_path, capsys):
    recipe = small(**{**FP16, **SHORT, "train__steps": 40, "optim": {"name": "sgd", "lr": 1e9}}, log__every_steps=20)
    session = opened(recipe, tmp_path / "run")
    with pytest.raises(NonFiniteError) as error:
        fit(session)
    session.close()
    # Steps until the weights are too large, 16 in which the scale falls from 65536 to 1, and one more.
    assert 17 <= session.state.step <= 40
    message = str(error.value)
    assert (
        " is not finite at a loss scale of 1 either. There is no checkpoint yet. What may help: a lower optim.lr, "
        in message
    )
    assert message.endswith(", or train.precision=fp32, or bf16 where the GPU has it")
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    session.presence.attempt.release()
    assert main([str(path), "--run-dir", str(tmp_path / "run")]) == 3


def test_a_completed_run_is_measured_and_loaded_in_fp16(tmp_path, capsys):
    run_dir = run(with_batch_norm(**FP16), run_dir=str(tmp_path / "run")).run_dir
    net, prepare = cifar_lab.load_model(run_dir.path)
    pixels = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    logits = net(prepare(pixels))
    assert torch.equal(logits, logits.half().float())
    with torch.no_grad():
        fine = net.module(prepare(pixels))
    assert not torch.equal(fine, logits)
    torch.testing.assert_close(fine, logits, rtol=0.01, atol=0.01)
    capsys.readouterr()
    assert command(["evaluate", str(run_dir.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loss"] == pytest.approx(run_dir.summary()["test"]["loss"], rel=1e-6)


def test_zero_and_what_would_have_no_effect_are_refused():
    recipe = parse_recipe(small(**FP16))
    for strategy in ZERO:
        (problem,) = unsupported(recipe, device="cuda", strategy=strategy)
        assert problem.startswith(f"train.precision: does not work on {strategy}: DeepSpeed")
        assert "set it to bf16 or fp32, or use accelerate_configs/fsdp2.yaml" in problem
    assert (
        unsupported(recipe, device="cpu", strategy="ddp") == unsupported(recipe, device="mps", strategy="single") == []
    )
