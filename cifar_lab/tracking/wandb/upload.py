"""Sending a run: what the server has not got yet of its history, then its pictures, its final numbers, its weights."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import wandb

from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.wandb.connect import server
from cifar_lab.tracking.wandb.hearing import Hearing
from cifar_lab.tracking.wandb.pictures import Predicted, read_predicted
from cifar_lab.tracking.wandb.record import Sent, read_all_sent, write_sent
from cifar_lab.tracking.wandb.rows import PICTURES, place, place_of, row

# W&B's chart of a confusion matrix is a table of 10,000 rows at most.
MAX_CLASSES = 100


class LostError(Exception):
    """W&B took data and could not deliver them."""


class Upload:
    """One session with the server, which gets every line once and in order.

    On resuming W&B tells where the run's history ends, and that counts; a server that does not tell leaves what
    wandb.json noted. Each session begins there and not where the last one was thought to be, so there is no gap.
    """

    def __init__(self, run: wandb.Run, run_dir: RunDir) -> None:
        self._run, self._run_dir = run, run_dir
        self._offline = bool(run.settings._offline)
        # Each offline file holds the whole run: `wandb sync` lets the last one overwrite the others.
        self._before = Sent() if self._offline else read_all_sent(run_dir.path).get(self.destination, Sent())
        self._next = self._begin = 0 if self._offline else run.starting_step or self._before.next_place
        self._best: dict[str, Any] = {}
        self._hearing = Hearing.installed()
        self.num_lines = 0
        run.define_metric("step", hidden=True)
        run.define_metric("epoch", hidden=True)
        run.define_metric("train/*", step_metric="step")
        for split in ("val", "test"):
            run.define_metric(f"{split}/*", step_metric="epoch")

    @property
    def destination(self) -> str:
        """Server, entity and project."""
        return f"{server()}/{self._run.entity}/{self._run.project}"

    @property
    def lost(self) -> bool:
        """Whether W&B has given up sending."""
        return self._hearing.lost

    def augmented(self) -> None:
        """The pictures that training began with."""
        path, at = self._run_dir.path / "augmented.png", place(0, PICTURES)
        if path.exists() and at >= self._begin:
            self._log({"augmented": wandb.Image(str(path), caption="training pictures after augmentation")}, at)

    def line(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl, which may have been sent before."""
        accuracy = line.get("accuracy")
        if line["split"] == "val" and accuracy is not None and accuracy > self._best.get("best/val_accuracy", -1.0):
            self._best = {"best/val_accuracy": accuracy, "best/val_epoch": line.get("epoch")}
        at = place_of(line)
        if at >= self._begin:
            self._log(row(line), at)
            self.num_lines += 1

    def end(self) -> Sent:
        """Send the rest, wait until all has arrived, note it; what has arrived. Raises LostError."""
        status = self._run_dir.status()
        state = status.state if status else "running"
        self._run.summary.update({"state": state, **self._best})
        if state == "completed":
            self._run.summary.update(_final_numbers(self._run_dir.summary() or {}))
        return self._finish(replace(self._before, next_place=self._next), state)

    def results(self) -> None:
        """Pictures and weights of a completed run, in a session of their own: the rest is safe. Raises LostError."""
        sent, status = self._before, self._run_dir.status()
        assert status is not None
        if not sent.pictures and (predicted := read_predicted(self._run_dir.path)) is not None:
            self._log(_pictures(predicted, self._run_dir.path), max(self._begin, place(status.step, PICTURES)))
        if not sent.weights:
            try:
                self._run.log_artifact(self._weights(), aliases=self._aliases()).wait()
            except ValueError as error:  # what the server said
                raise LostError(str(error)) from error
            except Exception as error:  # it has been saved: W&B reads it back, which not every server can answer
                print(f"the artifact was saved but not read back: {error}", file=sys.stderr)
        self._finish(Sent(self._next, pictures=True, weights=True), status.state)

    def _weights(self) -> wandb.Artifact:
        recipe, folder = self._run_dir.recipe(), self._run_dir.path
        artifact = wandb.Artifact(
            recipe.name,
            type="model",
            description=f"Final weights of {folder.name}",
            metadata={"recipe": recipe.model_dump(mode="json"), "summary": self._run_dir.summary(), "run": folder.name},
        )
        for name in ("model.safetensors", "model.json", "recipe.yaml"):
            artifact.add_file(str(folder / name), policy="immutable", skip_cache=True)
        return artifact

    def _aliases(self) -> list[str]:
        return ["latest", "final", f"seed-{self._run_dir.recipe().seed}", self._run_dir.path.name]

    def _finish(self, sent: Sent, state: str) -> Sent:
        """Wait until all has arrived and note it."""
        self._run.finish(exit_code=0 if state in ("completed", "stopped") else 1)
        if self.lost or _gave_up(Path(self._run.settings.log_internal)):
            raise LostError("W&B gave up sending (the server refused), see the folder wandb of the run")
        if not self._offline:
            write_sent(self._run_dir.path, self.destination, sent)
        elif not Path(self._run.settings.sync_file).stat().st_size:  # W&B says nothing of a full disk
            raise LostError(f"{self._run.settings.sync_file} is empty, is its disk full?")
        return sent

    def _log(self, values: dict[str, Any], at: int) -> None:
        self._run.log(values, step=at)
        self._next = at + 1


def _gave_up(log: Path) -> bool:
    """Whether W&B's own log says that its stream of metrics died; of what happens at the end nothing else tells."""
    try:
        return "filestream: fatal error" in log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def owes_results(run_dir: RunDir, sent: Sent) -> bool:
    """Whether the run is completed and its pictures or weights have not been sent."""
    status = run_dir.status()
    return status is not None and status.state == "completed" and not (sent.pictures and sent.weights)


def _final_numbers(summary: dict[str, Any]) -> dict[str, Any]:
    """summary.json, `test/accuracy` as `final/test_accuracy`."""
    flat = {f"final/{key}": value for key, value in summary.items() if not isinstance(value, dict | None)}
    for split in ("test", "val"):
        flat |= {f"final/{split}_{key}": value for key, value in (summary.get(split) or {}).items()}
    return flat


def _pictures(predicted: Predicted, folder: Path) -> dict[str, Any]:
    """What people browse: tables, charts of them, and the sheet of mistakes as it is."""
    accuracies = wandb.Table(
        columns=["class", "accuracy", "count"], data=[list(entry) for entry in predicted.class_accuracies()]
    )
    mistakes = wandb.Table(
        columns=["picture", "id", "is", "predicted", "confidence"],
        data=[[wandb.Image(m.picture), m.id, m.truth, m.guess, m.confidence] for m in predicted.mistakes],
    )
    logged = {
        "mistakes": mistakes,
        "mistakes_sheet": wandb.Image(str(folder / "mistakes.png")),
        "class_accuracy": wandb.plot.bar(accuracies, "class", "accuracy", title="Test accuracy by class"),
    }
    if len(predicted.classes) <= MAX_CLASSES:
        logged["confusion"] = wandb.plot.confusion_matrix(
            y_true=predicted.labels.tolist(),
            preds=predicted.predictions.tolist(),
            class_names=predicted.classes,
            title="Confusion matrix of the test split",
        )
    return logged
