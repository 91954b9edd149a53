"""The numerics guard: norms, clipping, and what it remembers of non-finite gradients."""

import pytest
import torch

from cifar_lab.runtime.guard import Guard


def grads():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((5, 3), (7,), (2, 2, 2))]


def test_norm_and_clipping():
    guard = Guard(["a", "b", "c"], torch.device("cpu"), clip=0.5)
    expected = torch.cat([g.flatten() for g in grads()]).norm()
    scale, found_inf = guard.check(grads(), 0)
    assert found_inf == 0
    torch.testing.assert_close(guard.grad_norm, expected)
    torch.testing.assert_close(expected / scale, torch.tensor(0.5))
    scale, _ = Guard(["a", "b", "c"], torch.device("cpu"), clip=1e6).check(grads(), 0)
    assert scale == 1  # a small gradient is not scaled up


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_first_bad_step_and_tensor_are_kept(value):
    guard = Guard(["a", "b", "c"], torch.device("cpu"), clip=None)
    guard.check(grads(), 3)
    assert guard.scalars()[1:].tolist() == [0, -1, -1]
    bad = grads()
    bad[1][4] = value
    _, found_inf = guard.check(bad, 4)
    assert found_inf == 1
    bad = grads()
    bad[0][0, 0] = value
    guard.check(bad, 5)
    assert guard.scalars()[1:].tolist() == [2, 4, 1]
    assert guard.name(1) == "b"
