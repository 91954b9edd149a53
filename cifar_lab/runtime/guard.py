"""The numerics guard: finds non-finite gradients and clips, without a host synchronisation."""

from __future__ import annotations

import torch
from torch import Tensor


class Guard:
    """Watches the gradients of named parameters; everything it learns stays on the device until read.

    `check` hands out the two scalars with which PyTorch's fused optimizers clip (`grad_scale`, a divisor) and skip
    (`found_inf`) inside their own kernel, so clipping costs no pass over the gradients.
    """

    def __init__(self, names: list[str], device: torch.device, clip: float | None) -> None:
        self.names, self.clip = names, clip
        self.grad_norm = torch.zeros((), device=device)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.first_bad = torch.full((2,), -1, dtype=torch.int64, device=device)  # step, index into names
        self._one = torch.ones((), device=device)

    def check(self, grads: list[Tensor], step: int) -> tuple[Tensor, Tensor]:
        """(grad_scale, found_inf), both float32 scalars, for the gradients of one step."""
        norms = torch.stack(torch._foreach_norm(grads))
        self.grad_norm = torch.linalg.vector_norm(norms)
        bad = ~torch.isfinite(self.grad_norm)
        # argmax of a boolean is the first True; a sum that overflows without a bad tensor names the first one.
        where = torch.stack(
            [torch.full_like(self.skipped, step), torch.argmax((~torch.isfinite(norms)).to(torch.uint8))]
        )
        self.first_bad = torch.where(bad & (self.first_bad[0] < 0), where, self.first_bad)
        self.skipped = self.skipped + bad
        scale = self._one if self.clip is None else torch.clamp(self.grad_norm / self.clip, min=1.0)
        return scale, bad.to(torch.float32)

    def scalars(self) -> Tensor:
        """What `parse` reads, as one float64 vector on the device."""
        return torch.cat([self.grad_norm[None].double(), self.skipped[None].double(), self.first_bad.double()])

    def name(self, index: int) -> str:
        return self.names[index]
