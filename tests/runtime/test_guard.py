"""The numerics guard: norms, clipping, and what it remembers of non-finite gradients."""

import pytest
import torch

from cifar_lab.runtime.guard import Guard


def grads():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((5, 3), (7,), (2, 2, 2))]


def make(clip, reads):
    guard = Guard(["a", "b", "c"], torch.device("cpu"), clip)
    guard.reads = reads  # False: as on an accelerator
    return guard


@pytest.mark.parametrize("reads", [True, False])
def test_norm_and_clipping(reads):
    guard = make(0.5, reads)
    expected = torch.cat([g.flatten() for g in grads()]).norm()
    scale, found_inf = guard.check(grads(), 0)
    assert found_inf is None if reads else found_inf == 0
    torch.testing.assert_close(guard.grad_norm, expected)
    torch.testing.assert_close(expected / scale, torch.tensor(0.5))
    scale, _ = make(1e6, reads).check(grads(), 0)
    assert scale is None if reads else scale == 1  # a small gradient is not scaled up


@pytest.mark.parametrize("reads", [True, False])
def test_nothing_is_scaled_where_nothing_is_clipped(reads):
    """With a scale, a 1 too, the fused kernels write every gradient anew."""
    assert make(None, reads).check(grads(), 0)[0] is None


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_first_bad_step_and_tensor_are_kept(value, reads):
    guard = make(None, reads)
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
    assert guard.names[1] == "b"
