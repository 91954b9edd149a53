"""The numerics guard: finds non-finite gradients and clips, without a host synchronisation."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cifar_lab.runtime.device import HEEDLESS
from cifar_lab.runtime.loss_scale import LossScale


class Guard:
    """Watches the gradients of named parameters; everything it learns stays on the device until read.

    `check` hands out the two scalars with which PyTorch's fused optimizers clip (`grad_scale`, a divisor) and skip
    (`found_inf`) inside their own kernel, so clipping costs no pass over the gradients. `reads`: on a CPU reading a
    scalar waits for nothing, and a good step needs nothing else; where the kernels do not skip, the host has to.

    Gradients come multiplied by `loss_scale`, if there is one: the norm is that of the true ones, the divisor undoes
    it, and a bad step, which lowers it, is remembered as the first one only where it is at 1 already. Where gradients
    are shards, `reduce` sums a tensor over the processes, in place.
    """

    reduce: Callable[[Tensor], Tensor] | None = None

    def __init__(
        self, names: list[str], device: torch.device, clip: float | None, loss_scale: LossScale | None = None
    ) -> None:
        self.names, self.clip, self.loss_scale = names, clip, loss_scale
        self.reads = device.type in ("cpu", *HEEDLESS)
        self.grad_norm = torch.zeros((), device=device)
        self.skipped = torch.zeros((), device=device)  # whole up to 2**24
        # Of the newest step until one is bad, then of that one for good: the norm of each gradient, and the step.
        self._first = torch.zeros(len(names), device=device)
        self._first_step = torch.zeros((), dtype=torch.int32, device=device)
        self._seen_bad = torch.zeros((), dtype=torch.bool, device=device)

    def check(self, grads: list[Tensor], step: int) -> tuple[Tensor | None, Tensor | None]:
        """(grad_scale, found_inf) for the gradients of one step: float32 scalars, None where they would do nothing."""
        norms = torch.stack(torch._foreach_norm(grads))
        if self.reduce is not None:  # the squares of fp32 numbers may be beyond it
            norms = self.reduce(norms.double().square_()).sqrt_().float()
        self.grad_norm = torch.linalg.vector_norm(norms)
        if self.loss_scale is not None:
            self.grad_norm.div_(self.loss_scale.value)
        if self.reads and math.isfinite(norm := self.grad_norm.item()):
            clipping = self.grad_norm / self.clip if self.clip is not None and norm > self.clip else None
            return self._divisor(clipping), None
        # On scalars the calls are the cost, and `isfinite` is five of them: x - x is 0, or NaN for what is not finite.
        bad = torch.sub(self.grad_norm, self.grad_norm).ne_(0)
        self._first = torch.where(self._seen_bad, self._first, norms)
        self._first_step = torch.where(self._seen_bad, self._first_step, step)
        self._seen_bad.logical_or_(bad if self.loss_scale is None else bad * (self.loss_scale.value <= 1))
        self.skipped += bad
        # Without a scale the fused kernels leave the gradients as they are; with one of 1 they would write all anew.
        return self._divisor(None if self.clip is None else torch.clamp(self.grad_norm / self.clip, min=1.0)), bad

    def _divisor(self, clipping: Tensor | None) -> Tensor | None:
        if self.loss_scale is None:
            return clipping
        return self.loss_scale.value if clipping is None else self.loss_scale.value * clipping

    def scalars(self) -> Tensor:
        """Norm, skipped steps, and of the first bad step its number and its tensor's index, -1 if there is none.

        All int32 (4,), the norm by its bits, so that one copy brings all to the host.
        """
        # argmax of a boolean is the first True; a sum that overflows without a bad tensor names the first one.
        index = torch.argmax((~torch.isfinite(self._first)).to(torch.uint8)).int()
        first_bad = torch.where(self._seen_bad, torch.stack([self._first_step, index]), -1)
        return torch.cat([torch.stack([self.grad_norm.view(torch.int32), self.skipped.int()]), first_bad])
