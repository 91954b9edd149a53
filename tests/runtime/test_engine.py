"""What an engine keeps besides the weights: averages of running statistics, and buffers that are part of a state."""

import copy
from types import SimpleNamespace

import pytest
import torch
from support.runs import closed, opened
from support.small import small

from cifar_lab.runtime.engine import Engine

CONV = {"name": "resnet", "args": {"width": 4}}


def stepped(session, steps):
    """After each of so many optimizer steps, the running statistics."""
    engine, found = session.engine, []
    for step in range(steps):
        engine.forward_backward(session.stream.micro_batch(step, 0), index=0, torch_seed=step)
        engine.step(step, 0.1)
        found.append({name: buffer.clone() for name, buffer in engine.floating_buffers().items()})
    return found


def test_the_average_follows_running_statistics(tmp_path):
    session = opened(small(model=CONV, train__ema_decay=0.5, data__val_size=0), tmp_path / "run")
    before = {name: buffer.clone() for name, buffer in session.engine.floating_buffers().items()}
    averages = dict(before)
    for step, now in enumerate(stepped(session, 3)):
        decay = min(0.5, (1 + step) / (10 + step))
        averages = {name: decay * averages[name] + (1 - decay) * now[name] for name in now}
    kept = dict(session.engine.named_state("ema"))
    assert any(name.endswith("running_var") for name in averages)
    for name, average in averages.items():
        torch.testing.assert_close(kept[name], average, rtol=1e-5, atol=1e-6)
        assert not torch.equal(average, before[name])
    closed(session)


def test_one_process_trains_recipes_of_several_precisions(tmp_path):
    one = opened(small(data__val_size=0), tmp_path / "one")
    other = opened(small(data__val_size=0, train__precision="bf16", train__micro_batch=4), tmp_path / "other")
    for session, dtype, steps in ((one, torch.float32, 1), (other, torch.bfloat16, 4)):
        assert session.engine.accumulation_steps == steps
        seen = []
        linear = next(m for m in session.engine.module.modules() if isinstance(m, torch.nn.Linear))
        linear.register_forward_hook(lambda *found, seen=seen: seen.append(found[2].dtype))
        images = session.stream.micro_batch(0, 0).images
        assert session.engine.predict(images).dtype == torch.float32
        assert seen == [dtype]
        closed(session)


def test_a_bf16_net_compiles_to_one_graph(tmp_path):
    counters = torch._dynamo.utils.counters
    session = opened(small(model=CONV, data__val_size=0, train__precision="bf16"), tmp_path / "run")
    session.engine.module.compile(backend="eager")
    counters.clear()
    stepped(session, 2)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    closed(session)


def test_buffers_that_are_no_part_of_the_state_are_not_kept(tmp_path, monkeypatch):
    from cifar_lab.training import session as sessions

    build = sessions.build_model

    def with_table(*arguments, **how):
        model = build(*arguments, **how)
        model.register_buffer("table", torch.ones(3), persistent=False)
        model.register_buffer("scale", torch.ones(2))
        return model

    monkeypatch.setattr(sessions, "build_model", with_table)
    session = opened(small(train__ema_decay=0.5, data__val_size=0), tmp_path / "run")
    for kind in ("buffers", "ema"):
        names = [name for name, _ in session.engine.named_state(kind)]
        assert "scale" in names
        assert "table" not in names
    closed(session)


def test_running_statistics_are_those_of_a_plain_loop(tmp_path):
    session = opened(small(model=CONV, data__val_size=0), tmp_path / "run")
    plain = copy.deepcopy(session.engine.module)
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1
    session.engine.optimizer.step = lambda: None  # the same weights in every step
    for step, found in enumerate(stepped(session, 3)):
        plain.train()(session.stream.micro_batch(step, 0).images)
        for name, buffer in found.items():
            torch.testing.assert_close(buffer, plain.get_buffer(name), rtol=1e-5, atol=1e-6)
    closed(session)


@pytest.mark.parametrize(("name", "kept"), [("sgd", False), ("muon", True)])
def test_moments_are_kept_unless_there_are_none(tmp_path, name, kept):
    """Without a momentum for its kernels Muon still has one for the rest."""
    optim = {"name": name, "lr": 0.1, "momentum": 0.0}
    session = opened(small(model=CONV, optim=optim, data__val_size=0), tmp_path / "run")
    assert bool(list(session.engine.named_state("optimizer"))) == kept
    closed(session)


def test_losses_of_all_processes_come_in_the_order_of_one():
    """Steps of four micro-batches, two a process: 0 to 3, then 4 to 7."""
    world = SimpleNamespace(world_size=2, gather=lambda own: torch.cat([own, own + 2]))  # what the other one has
    engine = SimpleNamespace(world=world, accumulation_steps=2)
    own = [torch.tensor(float(value)) for value in (0, 1, 4, 5)]
    assert Engine._all_losses(engine, own).tolist() == list(range(8))
