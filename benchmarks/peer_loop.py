"""A plain loop over torchvision's CIFAR10 and a DataLoader; see peers.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from peer_parts import NETWORKS, NUM_WORKERS, Clock, arguments, sgd, test_pictures, train_pictures
from torch.utils.data import DataLoader


def main() -> None:
    folder, network, batch = arguments()
    clock = Clock()
    train = DataLoader(train_pictures(folder), batch, shuffle=True, num_workers=NUM_WORKERS, drop_last=True)
    test = DataLoader(test_pictures(folder), batch, num_workers=NUM_WORKERS)
    model = NETWORKS[network]()
    optimizer = sgd(model, network)
    model.train()
    for images, labels in train:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        clock.tick()
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in test:
            correct += (model(images).argmax(1) == labels).sum().item()
    clock.report(batch, correct / len(test.dataset))


if __name__ == "__main__":
    main()
