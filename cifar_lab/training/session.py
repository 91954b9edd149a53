"""Everything a run needs, put together once from its recipe: data, schedule, stream, model, engine, files."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cifar_lab.checkpoint import saver as checkpoint
from cifar_lab.checkpoint.files import CheckpointError
from cifar_lab.checkpoint.saver import Saver, TrainingState
from cifar_lab.data.images import ImageSet, Splits, load_images
from cifar_lab.data.index_log import IndexLog
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.splits import divide
from cifar_lab.data.statistics import class_weights
from cifar_lab.data.stream import EvalStream, Stream
from cifar_lab.files.cache import cache_root
from cifar_lab.models.coupling import coupling_layers
from cifar_lab.models.factory import build_model
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.runtime.make import make_engine, uses_channels_last
from cifar_lab.runtime.vote import Vote
from cifar_lab.runtime.world import World
from cifar_lab.tracking.tracker import Tracker
from cifar_lab.training.micro_batches import micro_batches
from cifar_lab.training.progress import Progress
from cifar_lab.training.records import begin_records
from cifar_lab.training.sheets import draw_augmented
from cifar_lab.training.watchdog import Presence

# Training pictures that a model may look at before the first step (`initialise_from`).
INITIAL_PICTURES = 5000


class Session:
    """One process's parts of a run; `state` is where training stands."""

    def __init__(self, recipe: Recipe, world: World, presence: Presence) -> None:
        """Put a run together and load its newest checkpoint, if there is one. Collective; raises UserErrors."""
        started = time.monotonic()
        self.recipe, self.world, self.presence = recipe, world, presence
        self.run_dir = run_dir = presence.run_dir
        self.heartbeat = presence.heartbeat  # called alike by every rank, since progress is compared
        data = recipe.data
        loaded = load_images(
            data.name, data.args, root=data.root, max_gib=data.max_gib, cache_dir=cache_root(run_dir.path)
        )
        self.splits = splits = divide(loaded, data)
        training = splits.train
        self.schedule = schedule = Schedule.make(recipe, len(training), world.world_size)
        found = world.from_main(lambda: checkpoint.newest(run_dir.checkpoints))
        kept = found[1].normalisation if found is not None else None
        self.preparation = preparation = Preparation.from_recipe(recipe, training, loaded.sums, kept)
        model = _network(recipe, world, training, preparation, resumed=found is not None)
        self.channels_last = uses_channels_last(model, recipe)
        coupling = coupling_layers(model)  # by the names that they have before the engine sets them up
        self.engine = engine = make_engine(world, recipe, model, schedule.accumulation_steps)
        self.state = self._starting_state(found, splits, coupling)
        stream = Stream(
            training,
            preparation,
            data.augment,
            seed=recipe.seed,
            global_batch=schedule.global_batch,
            micro_batch=schedule.micro_batch,
            device=world.device,
            channels_last=self.channels_last,
            # A CPU that computes gains nothing by another thread.
            num_epochs=0 if world.device.type == "cpu" else -(-schedule.total_steps // schedule.steps_per_epoch),
            class_weights=class_weights(recipe.train.class_weights, training),
        )
        self.stream: Stream | IndexLog = stream
        self.validation = self.eval_stream(splits.val) if splits.val else None
        # Before the tracker, which follows these files and sends the sheet.
        begin_records(presence, world, schedule, engine, self.state)
        sheet = run_dir.path / "augmented.png"
        world.from_main(lambda: draw_augmented(sheet, stream, preparation, training.classes))
        self.progress = Progress(schedule.total_steps, self.state.step, enabled=world.is_main)
        self.saver = Saver(run_dir.checkpoints, engine, recipe.checkpoint.keep_last, presence.attempt.check)
        self.tracker = Tracker(run_dir, recipe, world.is_main, message=self.progress.message)
        self.vote = Vote(world)
        self._started = started - self.state.seconds

    def _starting_state(
        self, found: tuple[Path, TrainingState] | None, splits: Splits, coupling: list[str]
    ) -> TrainingState:
        """The state of the checkpoint `found`, put into the engine, or step 0. Collective."""
        path, state = found or (None, None)
        fingerprint, num_val = splits.train.fingerprint, len(splits.val or ())
        if state and (state.data_fingerprint != fingerprint or state.num_val not in (num_val, None)):
            counts = "" if state.num_val in (num_val, None) else f" ({state.num_val} held out then, {num_val} now)"
            raise CheckpointError(
                f"{path} was trained on other data than are found now{counts}: set data.root (or CIFAR_LAB_DATA) to "
                "the data of the first start, or start a new run with --fresh"
            )
        schedule, accepted = self.schedule, self.presence.accept_micro_batch
        layout: dict[str, Any] = {
            "micro_batch": schedule.micro_batch,
            "micro_batches": micro_batches(state, self.recipe, schedule, coupling, accepted=accepted),
            "world_size": schedule.world_size,
            "strategy": self.engine.strategy,
            "num_val": num_val,
        }
        if path is None or state is None:
            normalisation = self.preparation.mean, self.preparation.std
            return TrainingState(data_fingerprint=fingerprint, normalisation=normalisation, **layout)
        checkpoint.load(path, self.engine, state)
        return replace(state, **layout)

    def eval_stream(self, images: ImageSet) -> EvalStream:
        """What measures `images`, each on one of the processes."""
        return EvalStream(
            images,
            self.preparation,
            batch=self.recipe.eval.batch,
            device=self.world.device,
            rank=self.world.rank,
            world_size=self.world.world_size,
            channels_last=self.channels_last,
        )

    def seconds(self) -> float:
        """Seconds that the run has taken, earlier attempts up to their last checkpoint included."""
        return time.monotonic() - self._started

    def close(self) -> None:
        """Let go of threads, files and the screen, whatever happened before."""
        self.saver.close()
        self.tracker.finish()
        self.progress.close()


def _network(recipe: Recipe, world: World, training: ImageSet, preparation: Preparation, *, resumed: bool) -> nn.Module:
    """The network of `recipe` on the CPU; without its initial weights where a checkpoint comes next. Collective."""

    def build() -> nn.Module:
        return build_model(
            recipe.model, training.num_classes, preparation.image_size, seed=recipe.seed, pretrained_ok=not resumed
        )

    # Published weights are fetched by one process.
    model = world.main_first(build) if recipe.model.pretrained and not resumed else build()
    initialise = getattr(model, "initialise_from", None)
    if initialise is not None and not resumed:
        first = training.subset(training.ids[:INITIAL_PICTURES])
        batches = EvalStream(first, preparation, batch=500, device=torch.device("cpu"))
        initialise(torch.cat([batch.images[batch.weight > 0] for batch in batches]))
    return model
