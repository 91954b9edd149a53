"""Running statistics follow from a step's micro-batches: not from their number, a recomputation, or a bad step."""

import pytest
import timm
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cifar_lab.errors import UsageError
from cifar_lab.runtime.batchnorm import RunningStatistics

BATCHES = torch.randn(6, 8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
BAD = torch.full_like(BATCHES[0], float("nan"))


def step(statistics, forward, batches, bad=None):
    for index, batch in enumerate(batches):
        statistics.before(index)
        forward(batch)
        statistics.after(index)
    statistics.settle(bad)


def values(norm):
    return torch.stack([norm.running_mean, norm.running_var])


def statistics_after(accumulated):
    """Running mean and variance, averaged over processes, when each process accumulates so many micro-batches."""
    results = []
    for rank in range(len(BATCHES) // accumulated):
        norm = nn.BatchNorm2d(3)
        statistics = RunningStatistics(norm, accumulated)
        for _ in range(4):
            step(statistics, norm, BATCHES[rank * accumulated :][:accumulated])
        results.append(values(norm))
    return torch.stack(results).mean(0)


def test_accumulation_equals_averaging_over_processes():
    one, three, six_processes = (statistics_after(accumulated) for accumulated in (6, 2, 1))
    torch.testing.assert_close(one, six_processes)
    torch.testing.assert_close(three, six_processes)
    plain = nn.BatchNorm2d(3)
    plain(BATCHES.flatten(0, 1))
    assert not torch.allclose(values(plain), one)  # four steps are more than one


def test_one_micro_batch_moves_them_as_torch_does_whatever_the_momentum():
    plain = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.BatchNorm2d(3, momentum=1.0), nn.BatchNorm2d(3))
    ours = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.BatchNorm2d(3, momentum=1.0), nn.BatchNorm2d(3))
    statistics = RunningStatistics(ours, 1)
    for batch in BATCHES:
        outputs = [plain(batch)]
        step(statistics, lambda batch, outputs=outputs: outputs.append(ours(batch)), [batch])
        torch.testing.assert_close(*outputs)
        for expected, found in zip(plain, ours, strict=True):
            torch.testing.assert_close(values(found), values(expected))


@pytest.mark.parametrize("accumulated", [1, 3])
def test_recomputation_does_not_move_them(accumulated):
    """Two uses of a norm are recomputed in the other order: what it saw last in the forward pass is what counts."""
    seen = []
    for recompute in (False, True):
        norm = nn.BatchNorm2d(3)
        statistics = RunningStatistics(norm, accumulated)
        for _ in range(2):
            for index, batch in enumerate(BATCHES[:accumulated]):
                statistics.before(index)
                out = batch.clone().requires_grad_()
                for _ in range(2):
                    out = 2 * (checkpoint(norm, out, use_reentrant=False) if recompute else norm(out))
                statistics.after(index)
                out.square().sum().backward()
            statistics.settle(None)
        seen.append(values(norm))
    assert torch.equal(*seen)


@pytest.mark.parametrize("bad", [True, torch.tensor(1.0)])
@pytest.mark.parametrize("first", [True, False])
def test_a_bad_step_leaves_no_trace(bad, first):
    norm = nn.BatchNorm2d(3)
    statistics = RunningStatistics(norm, 2)
    if not first:
        step(statistics, norm, BATCHES[:2], torch.zeros(()))
    before = values(norm)
    step(statistics, norm, [BAD, BATCHES[0]], bad)
    assert torch.equal(values(norm), before)
    step(statistics, norm, BATCHES[2:4], False)
    assert values(norm).isfinite().all() and not torch.equal(values(norm), before)


def test_what_does_not_run_or_is_frozen_keeps_its_values():
    idle, frozen, norm = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    net = nn.ModuleList([idle, frozen, norm])
    for layer in net:
        layer.running_mean.fill_(1.5)
    frozen.eval()
    expected = frozen(BATCHES[0])
    seen = []
    step(RunningStatistics(net, 2), lambda batch: seen.append(norm(frozen(batch))), BATCHES[:2])
    for layer in (idle, frozen):
        assert torch.equal(layer.running_mean, torch.full((3,), 1.5))
        assert torch.equal(layer.running_var, torch.ones(3))
    assert torch.equal(frozen(BATCHES[0]), expected)
    assert not torch.allclose(norm.running_mean, torch.full((3,), 1.5))


class Net(nn.Module):
    """Of a class of its own: torch 2.11 does not compile the forward of `nn.Sequential`."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images):
        return self.norm(self.conv(images))


def test_a_compiled_net_is_one_graph_of_all_micro_batches():
    counters = torch._dynamo.utils.counters
    counters.clear()
    net = Net()
    net.compile(backend="eager")
    statistics = RunningStatistics(net, 3)
    for _ in range(2):
        step(statistics, net, BATCHES[:3])
    assert counters["stats"]["unique_graphs"] == 1


def test_an_average_over_micro_batches_is_refused():
    with pytest.raises(UsageError, match=r"^0: momentum=None averages over micro-batches"):
        RunningStatistics(nn.Sequential(nn.BatchNorm2d(3, momentum=None)), 1)


def test_synchronised_norms_run_and_keep_their_activations():
    net = timm.create_model("tf_efficientnet_lite0", num_classes=10)
    images = torch.randn(2, 3, 32, 32)
    before = net.eval()(images)
    converted = timm.layers.convert_sync_batchnorm(net)
    torch.testing.assert_close(converted.eval()(images), before)
    RunningStatistics(converted, 2).before(0)
    assert converted.train()(images).isfinite().all()
    assert not any("num_batches_tracked" in name for name in converted.state_dict())


def test_the_micro_batch_counter_is_gone_and_torch_restores_it():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    RunningStatistics(model, 1)
    assert "1.num_batches_tracked" not in model.state_dict()
    fresh = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    fresh.load_state_dict(dict(model.state_dict()))  # strict
    assert fresh[1].num_batches_tracked == 0
