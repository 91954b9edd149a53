"""Batch-norm running statistics that do not depend on how a global batch is laid out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class RunningStatistics:
    """Makes one optimizer step move running statistics by `momentum` towards the *mean* over its micro-batches.

    Left alone, A accumulated micro-batches move them A times, so one process with A = 2 and two processes with A = 1
    would disagree. With momentum q_i = (m/A) / (1 - (A-1-i) m/A) for micro-batch i the weights of all A come out as
    m/A each and that of the old value as 1 - m. The update stays linear, so averaging over processes commutes with it
    and is due only before the statistics are used.
    """

    def __init__(self, model: nn.Module, accumulation_steps: int) -> None:
        self.layers = [
            (layer, layer.momentum)
            for layer in model.modules()
            if isinstance(layer, _BatchNorm) and layer.track_running_stats and layer.momentum is not None
        ]
        self.accumulation_steps = accumulation_steps
        for layer, _ in self.layers:
            # It would count micro-batches, which a layout changes; with a fixed momentum nothing reads it, and torch
            # fills it in when a state dict lacks it.
            layer.num_batches_tracked = None
            if isinstance(layer, nn.SyncBatchNorm):  # it insists on counting: beside the state then
                del layer._buffers["num_batches_tracked"]
                layer.num_batches_tracked = torch.zeros_like(layer.running_mean, dtype=torch.int64).sum()

    def before(self, index: int) -> None:
        """Set the momenta for micro-batch `index` of accumulation_steps."""
        if self.accumulation_steps == 1:
            return
        for layer, momentum in self.layers:
            share = momentum / self.accumulation_steps
            layer.momentum = share / (1 - (self.accumulation_steps - 1 - index) * share)
