"""A transformers.Trainer as in its own image classification example; see peers.py."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from peer_parts import NETWORKS, NUM_WORKERS, Clock, arguments, sgd, test_pictures, train_pictures
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments, get_constant_schedule


class Classifier(nn.Module):
    def __init__(self, network: str) -> None:
        super().__init__()
        self.model = NETWORKS[network]()

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.model(pixel_values)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Ticks(TrainerCallback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.clock.tick()


def collate(examples: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    return {
        "pixel_values": torch.stack([image for image, _ in examples]),
        "labels": torch.tensor([label for _, label in examples]),
    }


def accuracy(predictions: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    logits, labels = predictions
    return {"accuracy": float((logits.argmax(1) == labels).mean())}


def main() -> None:
    folder, network, batch = arguments()
    clock = Clock()
    model = Classifier(network)
    optimizer = sgd(model, network)
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=f"{folder}/transformers",
            num_train_epochs=1,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=batch,
            dataloader_num_workers=NUM_WORKERS,
            remove_unused_columns=False,
            use_cpu=True,
            report_to="none",
        ),
        data_collator=collate,
        train_dataset=train_pictures(folder),
        eval_dataset=test_pictures(folder),
        compute_metrics=accuracy,
        optimizers=(optimizer, get_constant_schedule(optimizer)),
        callbacks=[Ticks(clock)],
    )
    trainer.train()
    clock.report(batch, trainer.evaluate()["eval_accuracy"])


if __name__ == "__main__":
    main()
