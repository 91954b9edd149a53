"""Muon for convolution kernels, SGD for the rest, skipping and clipping on the device like the fused optimizers.

Muon (https://kellerjordan.github.io/posts/muon/) takes the orthogonal matrix nearest to the momentum as its update. As
in the speed run (github.com/KellerJordan/cifar10-airbench, airbench94_muon.py) each kernel is first brought back to the
norm sqrt(out channels), so it is meant for convolutions that a normalisation layer follows, and weight decay, which
would only change that norm, is not for kernels.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# A quintic whose slope at zero is as large as it can be: singular values end near 1 and not at 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 3
EPS = 1e-7


def orthogonalise(kernel: Tensor, *, steps: int = NEWTON_SCHULZ_STEPS) -> Tensor:
    """About the nearest matrix with singular values 1 to (out, in, h, w) seen as (out, in * h * w), in its shape."""
    # bfloat16 is enough and, where matrix units know it, faster; CPUs emulate it.
    dtype = torch.float32 if kernel.device.type == "cpu" else torch.bfloat16
    matrix = kernel.flatten(1).to(dtype)
    tall = matrix.size(0) > matrix.size(1)
    matrix = matrix.T if tall else matrix
    matrix = matrix / (matrix.norm() + EPS)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = matrix @ matrix.T
        matrix = torch.addmm(matrix, torch.addmm(gram, gram, gram, beta=b, alpha=c), matrix, beta=a)
    return (matrix.T if tall else matrix).reshape(kernel.shape).to(kernel.dtype)


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal` true hold kernels, the others take SGD steps with the group's `momentum`.

    `grad_scale` divides the gradients and a `found_inf` above 0 leaves everything as it is: scalars on the device, or
    None. `nesterov` and `weight_decay` (of SGD's groups) are those of torch.optim.SGD.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, momentum: float, nesterov: bool) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.0, "orthogonal": False}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "not supported"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        buffer: Tensor = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        if self.grad_scale is not None:
            grad = grad / self.grad_scale
        if group["weight_decay"]:
            grad = grad.add(parameter, alpha=group["weight_decay"])
        momentum = buffer.mul(group["momentum"]).add_(grad)
        update = grad.add(momentum, alpha=group["momentum"]) if group["nesterov"] else momentum
        start = parameter
        if group["orthogonal"]:
            start = parameter * (parameter.size(0) ** 0.5 / parameter.norm())
            update = orthogonalise(update)
        moved = start.sub(update, alpha=group["lr"])
        for old, new in ((parameter, moved), (buffer, momentum)):
            old.copy_(new if self.found_inf is None else torch.where(self.found_inf > 0, old, new))
