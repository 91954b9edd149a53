"""Saving while training goes on, and loading the newest checkpoint that verifies.

The main thread gathers (a collective) into host buffers that are kept; a thread writes files, reads them back, and
does nothing else. Once all have written (the vote knows), rank 0 writes the manifest, renames, and removes older ones.
"""

import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from cifar_lab.checkpoint import files
from cifar_lab.checkpoint.files import CheckpointError
from cifar_lab.checkpoint.plan import FilePlan, plan_files
from cifar_lab.files.atomic import sync, write_json
from cifar_lab.files.direct_file import write_bytes, write_file
from cifar_lab.files.late import appears
from cifar_lab.runtime.device import synchronize
from cifar_lab.runtime.engine import Engine, StateKind
from cifar_lab.runtime.vote import Save

log = logging.getLogger("cifar_lab")

NICENESS = 10  # of the writing thread; at 19 a save could last until the next one
# Which of the engine's tensors go into which kind of file.
CONTENTS: dict[str, tuple[StateKind, ...]] = {
    "weights": ("weights", "buffers"),
    "optimizer": ("optimizer",),
    "ema": ("ema",),
}


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What a checkpoint holds besides tensors: two integers, the sums since the last log line, where and how long.

    `normalisation`: mean and std a channel, which a resumed run keeps whatever became of where they were from.
    """

    step: int = 0
    skipped: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    data_fingerprint: str
    num_val: int | None = None  # None: of a version that did not say
    normalisation: Sequence[Sequence[float]]
    micro_batch: int
    micro_batches: list[str] = field(default_factory=list)  # all that shaped the result, if any does
    world_size: int
    strategy: str
    seconds: float = 0.0


class Saver:
    """Writes checkpoints of one engine into `folder`; every rank has one and calls it alike."""

    def __init__(
        self, folder: Path, engine: Engine, keep_last: int, before_commit: Callable[[], None] = lambda: None
    ) -> None:
        self.folder, self.engine, self.keep_last, self._before_commit = folder, engine, keep_last, before_commit
        self._buffers: dict[str, Tensor] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint", initializer=_step_back)
        self._writing: Future[None] | None = None
        self._partial: Path | None = None

    def save(self, state: TrainingState) -> None:
        """Begin to save; blocks for the gathering only, and for an earlier save that is still under way."""
        self.wait()
        self._partial = self.folder / f"{files.step_name(state.step)}.partial"
        self.engine.world.from_main(self._prepare)
        self.engine.average_buffers()
        self._gather()
        self._writing = self._thread.submit(self._write, self._partial, state)

    def settle(self) -> None:
        """Commit in the background; called on every rank once all have written."""
        if self._partial is None:
            return
        partial, self._partial = self._partial, None
        if self.engine.world.is_main:
            self._writing = self._thread.submit(self._commit, partial)

    @property
    def progress(self) -> Save:
        """Where this process's part of the save stands; never raises, so that it can be put to the vote."""
        if self._writing is None:
            return Save.WRITTEN
        if not self._writing.done():
            return Save.WRITING
        return Save.WRITTEN if self._writing.exception() is None else Save.FAILED

    def wait(self) -> None:
        """Finish what is under way, on every rank."""
        self.engine.world.everyone(self._result)
        self.settle()
        self.engine.world.from_main(self._result)

    def close(self) -> None:
        """Let the thread go when it has written what it holds; no collective, since peers may be gone."""
        self._thread.shutdown()

    def _result(self) -> None:
        if self._writing is not None:
            try:
                self._writing.result()
            except OSError as error:
                raise CheckpointError(f"cannot write a checkpoint into {self.folder}: {error.strerror}") from error
            self._writing = None

    def _prepare(self) -> None:
        """Make an empty `.partial` folder and check the room on its disk."""
        assert self._partial is not None
        try:
            self.folder.mkdir(exist_ok=True)
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir()
            needed = sum(plan.file_bytes for plan in self.plans) + 2**20
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise CheckpointError(f"cannot write a checkpoint into {self.folder}: {error.strerror}") from error
        if free < needed:
            self._partial.rmdir()
            raise CheckpointError(
                f"a checkpoint needs {needed / 2**20:,.0f} MiB but {self.folder} has {free / 2**20:,.0f} MiB free: "
                "free some space or choose another --runs DIR, then start again to continue from the last checkpoint"
            )

    @cached_property
    def plans(self) -> list[FilePlan]:
        """All files of a checkpoint of this engine."""
        plans: list[FilePlan] = []
        for kind, sources in CONTENTS.items():
            plans += plan_files(kind, {n: spec for source in sources for n, spec in self.engine.specs[source].items()})
        return plans

    def _mine(self) -> list[FilePlan]:
        world = self.engine.world
        return [plan for i, plan in enumerate(self.plans) if i % world.world_size == world.rank]

    def _gather(self) -> None:
        """Copy the tensors of this process's files into its buffers, which are the files to be."""
        homes: dict[tuple[str, str], Tensor] = {}
        pinned = self.engine.world.device.type in ("cuda", "xpu")
        for plan in self._mine():
            if plan.name not in self._buffers:
                self._buffers[plan.name] = plan.buffer(pinned)
            homes |= {(plan.kind, name): home for name, home in plan.views(self._buffers[plan.name])}
        for kind, sources in CONTENTS.items():
            for source in sources:
                for name, tensor in self.engine.named_state(source):
                    if (kind, name) in homes:
                        homes[kind, name].copy_(tensor, non_blocking=pinned)
        if pinned:
            synchronize(self.engine.world.device)

    def _write(self, partial: Path, state: TrainingState) -> None:
        world = self.engine.world
        appears(partial.is_dir, self.folder)  # made by rank 0
        entries = {
            plan.name: write_file(partial / plan.name, memoryview(self._buffers[plan.name].numpy()), plan.file_bytes)
            for plan in self._mine()
        }
        if world.is_main:
            # Python's own reader takes the NaN of a sum of losses in which a step was skipped.
            text = json.dumps(asdict(state), indent=2) + "\n"
            entries[files.STATE_FILE] = write_bytes(partial / files.STATE_FILE, text.encode())
        write_json(partial / f"rank-{world.rank}.json", entries)
        if world.world_size == 1:
            self._commit(partial)
            self._partial = None

    def _commit(self, partial: Path) -> None:
        entries: dict[str, Any] = {}
        reports = [partial / f"rank-{rank}.json" for rank in range(self.engine.world.world_size)]
        for report in reports:
            appears(report.is_file, partial)
            entries |= json.loads(report.read_text(encoding="utf-8"))
            report.unlink()
        self._before_commit()  # raises if the run directory is somebody else's by now
        final = files.commit(partial, entries)
        problems = files.verify(final, contents=False)  # every process has read its files back
        if problems:
            raise CheckpointError(f"{final} was written but does not verify ({problems[0]}); older ones are kept")
        # What lies past this one did not verify, or training would have gone on from it.
        found = files.list_checkpoints(self.folder)
        for old in {*found} - {*found[: found.index(final) + 1][-self.keep_last :]}:
            shutil.rmtree(old)
        sync(self.folder)


def newest(folder: Path) -> tuple[Path, TrainingState] | None:
    """The newest checkpoint that verifies, None when there is none; says which ones it passed over and why.

    Raises CheckpointError when there are checkpoints but not one verifies. Also removes what a crash left unfinished.
    """
    for partial in folder.glob("step_*.partial"):
        shutil.rmtree(partial)
    found = files.list_checkpoints(folder)
    for checkpoint in reversed(found):
        problems = files.verify(checkpoint)
        if not problems:
            return checkpoint, TrainingState(**files.read_state(checkpoint))
        log.warning("skipping checkpoint %s: %s", checkpoint.name, "; ".join(problems))
    if found:
        raise CheckpointError(
            f"all {len(found)} checkpoints in {folder} are damaged; start a new run with --fresh, or remove that folder"
        )
    return None


def load(checkpoint: Path, engine: Engine, state: TrainingState) -> None:
    """Put a verified checkpoint into `engine`. Collective."""
    appears(lambda: not files.verify(checkpoint, contents=False), checkpoint.parent, checkpoint)
    for kind, sources in CONTENTS.items():
        tensors: dict[str, Tensor] = {}
        for path in files.tensor_files(checkpoint, kind):
            tensors |= load_file(path)
        for source in sources:
            specs = engine.specs[source]
            found = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
            wrong = [name for name, spec in specs.items() if found.get(name) != spec]
            if wrong:
                raise CheckpointError(
                    f"{checkpoint} does not hold this model: {', '.join(wrong[:3])} missing or of another shape"
                )
            engine.load_state(source, {name: tensors[name] for name in specs})
    engine.resume_at(state.step, state.skipped)


def _step_back() -> None:
    """Let the calling thread, and on Linux it alone, take what the training threads leave of the processors."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
