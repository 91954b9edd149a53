"""What the peers of benchmarks/peers.py have in common: arguments, torchvision's CIFAR10, networks, the optimizer.

Each peer is a program of its own, written as its users write it: `python benchmarks/peer_NAME.py FOLDER NETWORK BATCH`.
Its last line is JSON: steady images per second and the accuracy on the test split.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn
from torchvision import datasets
from torchvision import transforms as T

from cifar_lab.models.families import resnet, speednet

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NETWORKS = {
    "small": lambda: speednet.build(10, 32, width=8, stem_stride=2),
    "resnet18": lambda: resnet.build(10, 32, depth=18),
}
LEARNING_RATE = {"small": 0.2, "resnet18": 0.05}
NUM_WORKERS = 2


class Pictures(datasets.CIFAR10):
    """torchvision's own, reading files whose checksums are not the official ones."""

    train_list: ClassVar = [["data_batch_1", None]]
    test_list: ClassVar = [["test_batch", None]]
    meta: ClassVar = {"filename": "batches.meta", "key": "label_names", "md5": None}


def arguments() -> tuple[str, str, int]:
    """Folder with the pictures, network, batch."""
    folder, network, batch = sys.argv[1:]
    return folder, network, int(batch)


def train_pictures(folder: str) -> Pictures:
    augment = [T.RandomCrop(32, padding=4), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)]
    return Pictures(folder, train=True, transform=T.Compose(augment))


def test_pictures(folder: str) -> Pictures:
    return Pictures(folder, train=False, transform=T.Compose([T.ToTensor(), T.Normalize(MEAN, STD)]))


def sgd(model: nn.Module, network: str) -> torch.optim.SGD:
    return torch.optim.SGD(
        model.parameters(), lr=LEARNING_RATE[network], momentum=0.9, nesterov=True, weight_decay=5e-4
    )


@dataclass
class Clock:
    """When each step was done."""

    times: list[float] = field(default_factory=list)

    def tick(self) -> None:
        self.times.append(time.perf_counter())

    def report(self, batch: int, accuracy: float) -> None:
        """Print the last line; the first tenth of the steps is the start-up."""
        first = max(1, len(self.times) // 10)
        steady = batch * (len(self.times) - 1 - first) / (self.times[-1] - self.times[first])
        print(json.dumps({"steady": steady, "accuracy": accuracy}), flush=True)
