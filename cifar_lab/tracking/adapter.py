"""Sending a run through Accelerate's own trackers: what their stores have not got yet of metrics.jsonl."""

import os
import shutil
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import filelock
from accelerate import PartialState
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, TrackioTracker

from cifar_lab.recipe.identity import flatten
from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.record import TRACKERS, Identity
from cifar_lab.tracking.rows import follow, row
from cifar_lab.tracking.server import NotSentError, unreachable

# With these Accelerate would join the trainer's world, or a library take another run than the directory's.
WORLD = ("ACCELERATE_", "LOCAL_RANK", "MV2_COMM", "OMPI_COMM", "PMI_", "WORLD_SIZE")
RUNS = ("MLFLOW_EXPERIMENT_", "MLFLOW_NESTED_RUN", "MLFLOW_RUN_ID", "MLFLOW_TAGS", "TRACKIO_SERVER", "TRACKIO_SPACE")

# A tracker that has started, where it writes, and a function for the points (name and step) that are there.
Store = tuple[GeneralTracker, str, Callable[[], set[tuple[str, int]]]]


def send(name: str, run_dir: RunDir, identity: Identity, ended: threading.Event, say: Callable[[str], None]) -> None:
    """One session, until `ended` and nothing is left. Raises NotSentError."""
    for variable in [variable for variable in os.environ if variable.startswith(WORLD + RUNS)]:
        del os.environ[variable]
        if variable.startswith(name.upper()):
            say(f"{TRACKERS[name]}: {variable} is not used: the directory says which run this is (docs/tracking.md)")
    PartialState(cpu=True)
    recipe = run_dir.recipe()
    opened = {"tensorboard": _tensorboard, "mlflow": _mlflow, "trackio": _trackio}[name]
    sent: set[tuple[str, int]] = set()
    tracker: Any = None
    try:
        tracker, where, points = opened(run_dir, identity, recipe.name)
        say(f"{TRACKERS[name]}: {where}")
        try:
            values = flatten(recipe).items()
            tracker.store_init_configuration({k: v if isinstance(v, int | float) else str(v) for k, v in values})
        except Exception:  # MLflow keeps what the first start said and refuses another value
            traceback.print_exc()
        there = points()
        for line in follow(run_dir.path / "metrics.jsonl", ended):
            step, time = line["step"], line["time"]
            numbers = {(key, step): value for key, value in row(line).items() if "/" in key}
            if new := {key: value for (key, _), value in numbers.items() if (key, step) not in there}:
                times = {"tensorboard": {"walltime": time}, "mlflow": {"timestamp": round(1000 * time)}}
                tracker.log(new, step=step, **times.get(name, {}))
            there |= numbers.keys()
            sent |= numbers.keys()
        tracker.finish()
        if lost := sent - points():
            raise NotSentError(f"{len(lost)} numbers did not arrive")
    except NotSentError:
        raise
    except Exception as error:
        traceback.print_exc()
        with suppress(Exception):  # MLflow starts no second run beside it
            tracker.finish()
        raise NotSentError(error, passing=True) from error


def _tensorboard(run_dir: RunDir, identity: Identity, name: str) -> Store:
    """Files that are written anew at each start, so that what a resume took back is gone."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run_dir.path / "tensorboard"
    if folder.exists():
        shutil.rmtree(folder)  # raises for a link
    tracker = TensorBoardTracker(folder.name, run_dir.path, purge_step=0)  # for who has read the old ones
    tracker.start()

    def points() -> set[tuple[str, int]]:
        events = EventAccumulator(str(folder), {"scalars": 0}).Reload()
        return {(tag, event.step) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}

    return tracker, f"tensorboard --logdir {folder}", points


def _mlflow(run_dir: RunDir, identity: Identity, name: str) -> Store:
    """The run that has the directory's id as a tag, on the user's server or in a database beside all runs."""
    import mlflow

    runs = run_dir.path.parents[run_dir.path.parent.name == name]
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs / 'mlflow.db'}"
    if uri.startswith("http") and (reason := unreachable(uri)):
        raise NotSentError(reason, passing=True)
    mlflow.set_tracking_uri(uri)
    with filelock.FileLock(runs / "mlflow.db.lock"):  # those who start together would all make its tables
        query = f"tags.`cifar_lab.id` = '{identity.id}'"
        found = mlflow.search_runs(experiment_names=[identity.project], filter_string=query, output_format="list")
        tracker = MLflowTracker(
            identity.project,
            str(runs / "mlruns"),
            run_id=found[0].info.run_id if found else None,
            run_name=f"{name}-{run_dir.path.name}",
            tags={"cifar_lab.id": identity.id},
        )
        tracker.start()

    def points() -> set[tuple[str, int]]:
        client, run_id = mlflow.MlflowClient(), tracker.tracker.info.run_id
        keys = client.get_run(run_id).data.metrics
        return {(key, point.step) for key in keys for point in client.get_metric_history(run_id, key)}

    return tracker, f"{uri}, experiment {identity.project}", points


def _trackio(run_dir: RunDir, identity: Identity, name: str) -> Store:
    """The run that has the directory's id in its name, in TRACKIO_DIR."""
    from trackio.fragments import import_inbox_dir
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import TRACKIO_DIR

    project, name = identity.project, f"{name}-{run_dir.path.name}-{identity.id[:8]}"
    tracker = TrackioTracker(project, name=name, resume="allow", auto_log_cpu=False, auto_log_gpu=False)
    tracker.start()

    def points() -> set[tuple[str, int]]:
        import_inbox_dir()  # where trackio found a network file system
        return {(key, line["step"]) for line in SQLiteStorage.get_logs(project, name) for key in line}

    return tracker, f"{TRACKIO_DIR}, project {project}, run {name}", points
