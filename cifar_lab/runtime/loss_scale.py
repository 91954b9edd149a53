"""The loss scale of fp16: small gradients do not vanish, and a step that overflows is skipped."""

import torch
from torch import Tensor

# Those of torch.amp.GradScaler.
INITIAL, GROWTH, BACKOFF, GROWTH_INTERVAL = 2.0**16, 2.0, 0.5, 2000


class LossScale:
    """Goes through the values of torch.amp.GradScaler, as two tensors of the training state that stay on the device.

    `value`: what the loss is multiplied by, float32; `good_steps`: since it last changed, int32. GradScaler itself
    would go over all gradients once more, to find what the norm tells.
    """

    def __init__(self, device: torch.device) -> None:
        self.value = torch.full((), INITIAL, device=device)
        self.good_steps = torch.zeros((), dtype=torch.int32, device=device)
        self._good = torch.zeros((), device=device)

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, by name."""
        return {"loss_scale": self.value, "loss_scale.good_steps": self.good_steps}

    def update(self, found_inf: Tensor | None) -> None:
        """Lower the scale after a step in which `found_inf` is not 0; raise it after GROWTH_INTERVAL others."""
        bad = self._good if found_inf is None else found_inf
        torch._amp_update_scale_(self.value, self.good_steps, bad, GROWTH, BACKOFF, GROWTH_INTERVAL)
