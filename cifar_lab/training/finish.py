"""The end of a run: the test split, once; predictions; the final weights; the summary."""

import json
import statistics
from dataclasses import asdict
from typing import Any, get_args

import numpy as np
from safetensors.torch import save
from torch import Tensor

from cifar_lab.data.pictures import Fit
from cifar_lab.files.atomic import replacing
from cifar_lab.models.size import model_size
from cifar_lab.runtime.device import peak_memory
from cifar_lab.training.evaluation import Evaluation
from cifar_lab.training.loop import measure, stop, write_status
from cifar_lab.training.session import Session
from cifar_lab.training.sheets import draw_mistakes, write_mistakes

MODEL_FORMAT = 1


def finish(session: Session) -> bool:
    """Measure the test split, if any, and write what a completed run leaves; False if asked to stop. Collective."""
    session.heartbeat.phase("save")
    session.saver.wait()
    session.heartbeat.phase("test")
    session.validation = None  # whose batch of pictures would lie beside that of the test split
    test, result = session.splits.test, None
    if test is not None:
        result = measure(session, session.eval_stream(test), keep=True)
        if result is None:
            return stop(session)
    session.heartbeat.phase("end")
    weights = _final_weights(session)
    peaks = session.world.gather_objects(peak_memory(session.world.device))
    session.world.from_main(lambda: _write(session, result, weights, peaks))
    return True


def _write(session: Session, result: Evaluation | None, weights: dict[str, Tensor], peaks: list[int]) -> None:
    """All files of a completed run; status.json comes last."""
    run_dir = session.run_dir
    with replacing(run_dir.path / "model.safetensors") as path:
        path.write_bytes(save(weights))  # `save_file` makes a file for its owner alone, and hides a full disk
    with replacing(run_dir.path / "model.json") as path:
        path.write_text(json.dumps(_description(session), indent=2) + "\n", encoding="utf-8")
    if (test := session.splits.test) and result and (found := result.predictions):
        if not any(line["split"] == "test" for line in run_dir.metrics()):  # else an earlier end was cut off after it
            step, epoch = session.state.step, session.schedule.epoch_at(session.state.step)
            session.tracker.log("test", step, epoch, loss=result.loss, accuracy=result.accuracy, count=result.count)
        arrays = {name: tensor.numpy() for name, tensor in vars(found).items()}
        arrays |= {name: arrays[name].astype(np.int16) for name in ("labels", "predictions")}
        with replacing(run_dir.path / "predictions.npz") as path:
            np.savez_compressed(path, **arrays)
        with replacing(run_dir.path / "mistakes.png") as path:
            draw_mistakes(path, test, found)
        with replacing(run_dir.path / "mistakes.csv") as path:
            write_mistakes(path, test, found)
    # The files above take memory too, a copy of the weights among it.
    run_dir.write_summary(_summary(session, result, max(*peaks, peak_memory(session.world.device))))
    write_status(session, "completed")
    session.progress.message(f"test {result}" if result else "no test split (data.test_size is 0)")


def _final_weights(session: Session) -> dict[str, Tensor]:
    """Final weights (the moving average if there is one) and buffers in host memory, on rank 0. Collective."""
    weights = {}
    with session.engine.use_ema():
        for kind in ("weights", "buffers"):
            for name, tensor in session.engine.named_state(kind):
                if session.world.is_main:
                    weights[name] = tensor.to("cpu", copy=True).contiguous()
    return weights


def _description(session: Session) -> dict[str, Any]:
    """model.json: what it takes to build the model again and to feed it."""
    model, preparation = session.recipe.model, session.preparation
    return {
        "format": MODEL_FORMAT,
        "name": model.name,
        "args": model.args,
        "num_classes": session.splits.train.num_classes,
        "classes": list(session.splits.train.classes),
        "image_size": preparation.image_size,
        "source_size": session.splits.train.image_size,
        "fit": fit if (fit := session.recipe.data.args.get("fit")) in get_args(Fit) else "crop",
        "interpolation": preparation.interpolation,
        "mean": list(preparation.mean),
        "std": list(preparation.std),
    }


def _summary(session: Session, result: Evaluation | None, peak_memory: int) -> dict[str, Any]:
    """summary.json; `images_per_second` is the median over log lines, `wall_seconds` adds up all attempts."""
    schedule = session.schedule
    lines = session.run_dir.metrics()
    speeds = [line["images_per_second"] for line in lines if line["split"] == "train"]
    validations = [line for line in lines if line["split"] == "val"]
    keys = ("loss", "accuracy", "count")
    return {
        "test": {key: getattr(result, key) for key in keys} if result else None,
        "val": {key: validations[-1][key] for key in keys} if validations else None,
        "steps": session.state.step,
        "epochs": schedule.epoch_at(session.state.step),
        "wall_seconds": session.seconds(),
        "images_per_second": statistics.median(speeds) if speeds else None,
        "peak_memory_bytes": peak_memory,
        **_size(session),
        "num_train": schedule.num_train,
        "world_size": schedule.world_size,
        "micro_batch": schedule.micro_batch,
        "micro_batches": session.state.micro_batches,
        "strategy": session.engine.strategy,
        "wandb_id": session.tracker.wandb_id,
    }


def _size(session: Session) -> dict[str, int | None]:
    """Parameters, and FLOPs of an image; None where they cannot be counted, which is no reason to lose a run."""
    image_size, num_classes = session.preparation.image_size, session.splits.train.num_classes
    try:
        return asdict(model_size(session.recipe.model, num_classes, image_size))
    except Exception as error:  # anything that a model's code says to tensors without memory
        session.progress.message(f"the model's FLOPs cannot be counted: {type(error).__name__}: {error}")
        return {"num_parameters": None, "flops_per_image": None}
