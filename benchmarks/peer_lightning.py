"""A Lightning Trainer as in its own examples; see peers.py."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from peer_parts import NETWORKS, NUM_WORKERS, Clock, arguments, sgd, test_pictures, train_pictures
from torch.utils.data import DataLoader


class Classifier(pl.LightningModule):
    def __init__(self, network: str) -> None:
        super().__init__()
        self.network = network
        self.model = NETWORKS[network]()

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.model(images), labels)
        self.log("train_loss", loss)
        return loss

    def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> None:
        images, labels = batch
        self.log("test_accuracy", (self.model(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return sgd(self.model, self.network)


class Ticks(pl.Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(self, *args: object) -> None:
        self.clock.tick()


def main() -> None:
    folder, network, batch = arguments()
    clock = Clock()
    train = DataLoader(train_pictures(folder), batch, shuffle=True, num_workers=NUM_WORKERS, drop_last=True)
    test = DataLoader(test_pictures(folder), batch, num_workers=NUM_WORKERS)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder, callbacks=[Ticks(clock)])
    model = Classifier(network)
    trainer.fit(model, train)
    (metrics,) = trainer.test(model, test)
    clock.report(batch, metrics["test_accuracy"])


if __name__ == "__main__":
    main()
