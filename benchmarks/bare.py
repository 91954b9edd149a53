"""What the trainer is measured against: PyTorch loops as a competent person writes them, without our trainer.

    python benchmarks/bare.py first-step
    python benchmarks/bare.py demo FOLDER [--epochs 10]

`first-step` imports torch and timm and does the first step of the demo's net on random pictures of its batch. `demo`
trains it for whole epochs on decoded pictures, FOLDER/{train,test}_{images,labels}.npy, held in memory, with crop and
flip, and measures the test pictures after each epoch. No guard, no checkpoints, no files; only the net is ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_lab.models.families import speednet

BATCH, LOOK_EVERY = 500, 50
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

NextBatch = Callable[[int], tuple[Tensor, Tensor]]


def sgd(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """The quickest SGD that PyTorch has."""
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batch_of: NextBatch, steps: range) -> float:
    """Train on the batches of `steps`; the loss is read every 50. Returns the last one that was."""
    last = float("nan")
    for step in steps:
        images, labels = batch_of(step)
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % LOOK_EVERY == LOOK_EVERY - 1:
            last = loss.item()
    return last


def demo_net() -> nn.Module:
    """That of recipes/demo.yaml."""
    net = speednet.build(10, 32, width=32, stem_stride=2)
    return net.to(memory_format=torch.channels_last).train()


def first_step() -> None:
    import timm  # noqa: F401  part of what is timed; elsewhere it would only take memory

    net = demo_net()
    images = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH,))
    train(net, sgd(net, 0.01), lambda step: (images, labels), range(LOOK_EVERY - 1, LOOK_EVERY))
    print("done", flush=True)


class Pictures:
    """Normalised batches of uint8 pictures (N, 3, 32, 32), shuffled, cropped and flipped."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.mean = 255 * torch.tensor(MEAN).view(1, 3, 1, 1)
        self.std = 255 * torch.tensor(STD).view(1, 3, 1, 1)
        self.order = torch.arange(len(images))

    def normalised(self, pixels: Tensor) -> Tensor:
        return ((pixels.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        k = step % (len(self.images) // BATCH)
        if k == 0:
            self.order = torch.randperm(len(self.images))
        chosen = self.order[k * BATCH : (k + 1) * BATCH]
        padded = F.pad(self.images[chosen], (4, 4, 4, 4))
        tops, lefts = torch.randint(0, 9, (2, BATCH, 1))
        places, span = torch.arange(BATCH).view(-1, 1, 1), torch.arange(32)
        cropped = padded[places, :, (tops + span)[:, :, None], (lefts + span)[:, None, :]].permute(0, 3, 1, 2)
        pixels = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, cropped.flip(3), cropped)
        return self.normalised(pixels), self.labels[chosen]


@torch.no_grad()
def accuracy(net: nn.Module, pictures: Pictures) -> float:
    net.eval()
    right = 0
    for images, labels in zip(pictures.images.split(BATCH), pictures.labels.split(BATCH), strict=True):
        right += int((net(pictures.normalised(images)).argmax(1) == labels).sum())
    net.train()
    return right / len(pictures.images)


def demo(folder: Path, epochs: int) -> None:
    def read(split: str) -> Pictures:
        images, labels = (torch.from_numpy(np.load(folder / f"{split}_{kind}.npy")) for kind in ("images", "labels"))
        return Pictures(images, labels)

    pictures, test, net = read("train"), read("test"), demo_net()
    optimizer, steps = sgd(net, 0.05), len(pictures.images) // BATCH
    for epoch in range(epochs):
        loss = train(net, optimizer, pictures.batch, range(epoch * steps, (epoch + 1) * steps))
        print(f"epoch {epoch + 1}: loss {loss:.3f}, accuracy {accuracy(net, test):.2%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("first-step")
    whole = commands.add_parser("demo")
    whole.add_argument("folder", type=Path)
    whole.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    if options.command == "first-step":
        first_step()
    else:
        demo(options.folder, options.epochs)


if __name__ == "__main__":
    main()
