"""Running statistics do not depend on the number of accumulated micro-batches."""

import timm
import torch
from torch import nn

from cifar_lab.runtime.batchnorm import RunningStatistics


def statistics_after(layouts, batches):
    """Running mean and variance, averaged over processes, when each process accumulates `layouts` micro-batches."""
    processes = len(batches) // layouts
    results = []
    for rank in range(processes):
        norm = nn.BatchNorm2d(3)
        statistics = RunningStatistics(norm, layouts)
        for _ in range(4):
            for index in range(layouts):
                statistics.before(index)
                norm(batches[rank * layouts + index])
        results.append(torch.stack([norm.running_mean, norm.running_var]))
    return torch.stack(results).mean(0)


def test_accumulation_equals_averaging_over_processes():
    batches = torch.randn(6, 8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    six_processes, three, one = (statistics_after(layouts, batches) for layouts in (1, 2, 6))
    torch.testing.assert_close(one, six_processes)
    torch.testing.assert_close(three, six_processes)
    plain = nn.BatchNorm2d(3)
    plain(batches.flatten(0, 1))
    assert not torch.allclose(plain.running_mean, one[0])  # four steps are more than one


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
