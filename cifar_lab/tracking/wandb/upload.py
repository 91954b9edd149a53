"""Sending a run: what the server has not got yet of its history, then its final numbers, pictures and weights."""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import wandb

from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.record import Identity
from cifar_lab.tracking.rows import follow, place, row
from cifar_lab.tracking.server import NotSentError
from cifar_lab.tracking.wandb.connect import connect, server
from cifar_lab.tracking.wandb.pictures import pictures


def send(
    run_dir: RunDir, identity: Identity, ended: threading.Event, trainer: int | None, say: Callable[[str], None]
) -> None:
    """One session, until `ended` and nothing is left. Raises NotSentError."""
    run = connect(run_dir, identity, trainer)
    if not run.offline:
        say(f"W&B: {run.url}")
    _upload(run, run_dir, ended, say)
    status = run_dir.status()
    if not run.offline and status is not None and status.state == "completed":
        identity.model_copy(update={"whole_at": server()}).write(run_dir.path)


def _upload(run: wandb.Run, run_dir: RunDir, ended: threading.Event, say: Callable[[str], None]) -> None:
    """Every line once and in order.

    On resuming W&B tells where the run's history ends. Each session begins there and not where the last one was thought
    to be, so there is no gap. An offline one holds the whole run: `wandb sync` lets the last one overwrite the others.
    """
    begin, log = run.starting_step, Path(run.settings.log_internal)
    run.define_metric("step", hidden=True)
    run.define_metric("epoch", hidden=True)
    run.define_metric("train/*", step_metric="step")
    for split in ("val", "test"):
        run.define_metric(f"{split}/*", step_metric="epoch")
    sheet = run_dir.path / "augmented.png"
    if begin <= place(0, "pictures") and sheet.exists():
        augmented = wandb.Image(str(sheet), caption="training pictures after augmentation")
        run.log({"augmented": augmented}, step=place(0, "pictures"))
    best: dict[str, Any] = {}
    for line in follow(run_dir.path / "metrics.jsonl", ended):
        accuracy = line.get("accuracy")  # null where the network gave NaN
        if line["split"] == "val" and accuracy is not None and accuracy > best.get("best/val_accuracy", -1.0):
            best = {"best/val_accuracy": accuracy, "best/val_epoch": line["epoch"]}
        if (at := place(line["step"], line["split"])) >= begin:
            run.log(row(line), step=at)
        if _gave_up(log):
            break
    status = run_dir.status()
    state = status.state if status else "running"
    run.summary.update({"state": state, **best})
    try:
        if status is not None and state == "completed" and not _gave_up(log):
            run.summary.update(_final_numbers(run_dir.summary() or {}))
            if not run.offline:
                if (at := place(status.step, "pictures")) >= begin:
                    with suppress(FileNotFoundError):  # a copy of a run without them
                        run.log(pictures(run_dir.path), step=at)
                if (run_dir.path / "model.safetensors").exists():
                    _send_weights(run, run_dir)
                else:  # so are those of results/
                    say("W&B: sent without weights: this copy of the run has none")
    finally:
        run.finish(exit_code=0 if state in ("completed", "stopped") else 1)
    if _gave_up(log):
        raise NotSentError("W&B gave up sending (the server refused), see the folder wandb of the run")
    if run.offline and not Path(run.settings.sync_file).stat().st_size:  # W&B says nothing of a full disk
        raise NotSentError(f"{run.settings.sync_file} is empty, is its disk full?")


def _send_weights(run: wandb.Run, run_dir: RunDir) -> None:
    """The final weights, of which W&B makes no second version when they are there. Raises NotSentError."""
    recipe, folder = run_dir.recipe(), run_dir.path
    artifact = wandb.Artifact(
        recipe.name,
        type="model",
        description=f"Final weights of {folder.name}",
        metadata={"recipe": recipe.model_dump(mode="json"), "summary": run_dir.summary(), "run": folder.name},
    )
    try:
        for name in ("model.safetensors", "model.json", "recipe.yaml", *(path.name for path in folder.glob("*.py"))):
            artifact.add_file(str(folder / name), policy="immutable", skip_cache=True)
        run.log_artifact(artifact, aliases=["latest", "final", f"seed-{recipe.seed}", folder.name]).wait()
    except ValueError as error:  # what the server said
        raise NotSentError(error) from error
    except Exception as error:  # it has been saved: W&B reads it back, which not every server can answer
        print(f"the artifact was saved but not read back: {error}", file=sys.stderr)


def _gave_up(log: Path) -> bool:
    """Whether W&B's own log says that its stream of metrics died; nothing of its interface tells."""
    try:
        return "filestream: fatal error" in log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _final_numbers(summary: dict[str, Any]) -> dict[str, Any]:
    """summary.json, `test/accuracy` as `final/test_accuracy`."""
    flat = {f"final/{key}": value for key, value in summary.items() if not isinstance(value, dict | None)}
    for split in ("test", "val"):
        flat |= {f"final/{split}_{key}": value for key, value in (summary.get(split) or {}).items()}
    return flat
