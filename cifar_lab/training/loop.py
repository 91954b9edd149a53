"""The training loop."""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor

from cifar_lab.checkpoint.files import list_checkpoints
from cifar_lab.data.randomness import torch_seed
from cifar_lab.data.stream import EvalStream
from cifar_lab.errors import UserError
from cifar_lab.rundir.directory import State
from cifar_lab.runtime.engine import Health
from cifar_lab.runtime.vote import Save
from cifar_lab.training.evaluation import Evaluation, evaluate
from cifar_lab.training.session import Session


class NonFiniteError(UserError, ArithmeticError):
    """The gradient became infinite or NaN; the weights are those of the last good step."""

    exit_status = 3


class Clock:
    """Seconds of training, without evaluation and saving, and steps since the last log line."""

    def __init__(self) -> None:
        self.steps = 0
        self._since = time.perf_counter()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What the block takes does not count."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def lap(self) -> tuple[float, int]:
        """Seconds and steps since the last lap."""
        now = time.perf_counter()
        lap = now - self._since, self.steps
        self._since, self.steps = now, 0
        return lap


def fit(session: Session) -> bool:
    """Train from `session.state` to the end; False if the run was asked to stop and has saved itself."""
    schedule, engine, stream = session.schedule, session.engine, session.stream
    seed, micro_batches = session.recipe.seed, session.schedule.micro_batches(session.world.rank)
    share = schedule.micro_batch / schedule.global_batch
    losses: list[Tensor] = []  # of micro-batches, on the device, since the last look
    if _owes_validation(session) and not validate(session):
        return stop(session)
    clock = Clock()
    for step in range(session.state.step, schedule.total_steps):
        for index, m in enumerate(micro_batches):
            batch = stream.micro_batch(step, m)
            losses.append(engine.forward_backward(batch, index=index, torch_seed=torch_seed(seed, step, m)))
            session.heartbeat.advance()
        engine.step(step, schedule.lr_at(step))

        done = step + 1
        clock.steps += 1
        session.state = replace(session.state, step=done, loss_steps=session.state.loss_steps + 1)
        session.progress.update(done)
        session.heartbeat.step(done)
        logging_due = schedule.logs(done)
        validating = session.validation is not None and schedule.due(done, schedule.eval_every)
        stopping = stop_agreed(session)
        saving = stopping or schedule.due(done, schedule.save_every)
        if logging_due or validating or saving:
            health, values = engine.health(losses)
            losses.clear()
            _check(session, health)
            # One by one, in double precision: to stop in between, or another layout, does not change the sum.
            total = functools.reduce(lambda total, loss: total + share * loss, values, session.state.loss_sum)
            session.state = replace(session.state, skipped=health.skipped, loss_sum=total)
            if logging_due:
                _log_training(session, health, clock)
            with clock.stopped():
                if validating and not stopping:
                    stopping = not validate(session)
                if saving or stopping:
                    with session.heartbeat.during("save"):
                        session.saver.save(replace(session.state, seconds=session.seconds()))
        if stopping:
            return stop(session)
    return True


def validate(session: Session) -> bool:
    """Measure the held-out images and log the result; False if all agreed to stop meanwhile. Collective."""
    assert session.validation is not None
    state, schedule = session.state, session.schedule
    with session.heartbeat.during("validation"):
        result = measure(session, session.validation)
    session.vote.restart()  # steps are slower than batches of an evaluation
    if result is None:
        return False
    epoch = schedule.epoch_at(state.step)
    session.tracker.log("val", state.step, epoch, loss=result.loss, accuracy=result.accuracy, count=result.count)
    session.progress.message(f"epoch {epoch:g}: validation {result}")
    return True


def measure(session: Session, pictures: EvalStream, *, keep: bool = False) -> Evaluation | None:
    """Measure with the final weights, the moving average if there is one; None if all agreed to stop. Collective."""
    engine, tta = session.engine, session.recipe.eval.tta
    engine.average_buffers()
    with engine.use_ema():
        return evaluate(engine.predict, session.world, pictures, tta=tta, keep=keep, stop=lambda: stop_agreed(session))


def stop_agreed(session: Session) -> bool:
    """Whether all processes agreed to stop; also lets a save that all have written be committed. Collective."""
    session.heartbeat.advance()
    if not session.vote.due():
        return False
    session.presence.attempt.check()
    asked = session.presence.flag.reason is not None or (
        session.world.is_main and session.run_dir.stop_request() is not None
    )
    agreed, save = session.vote.cast(stop=asked, save=session.saver.progress)
    if save is Save.FAILED:
        session.saver.wait()
    elif save is Save.WRITTEN:
        session.saver.settle()
    return agreed


def stop(session: Session) -> bool:
    """Finish saving and say that the run can be resumed."""
    session.heartbeat.phase("save")
    session.saver.wait()
    reason = (
        session.presence.flag.reason or session.run_dir.stop_request() or "another process received the stop signal"
    )
    if session.world.is_main:
        write_status(session, "stopped", reason)
        session.run_dir.clear_stop()
    return False


def write_status(session: Session, state: State, reason: str | None = None) -> None:
    """Write status.json for the step that the session is at; rank 0 only."""
    session.run_dir.write_status(
        state,
        session.state.step,
        session.schedule.total_steps,
        reason=reason,
        world_size=session.world.world_size,
        attempt=session.presence.attempt.number,
    )


def _owes_validation(session: Session) -> bool:
    """Whether the run stopped between a step and the validation that was due after it. Collective."""
    step, schedule = session.state.step, session.schedule
    if session.validation is None or step == 0 or not schedule.due(step, schedule.eval_every):
        return False
    return session.world.from_main(
        lambda: not any(m["split"] == "val" and m["step"] == step for m in session.run_dir.metrics())
    )


def _check(session: Session, health: Health) -> None:
    """Act on what the numerics guard found. Raises NonFiniteError, on every rank alike."""
    train = session.recipe.train
    allowed = train.max_skipped if train.on_nonfinite == "skip" else 0
    scaled = health.loss_scale is not None  # it finds its value by skipping steps, until there is nothing to lower
    if (scaled and health.first_bad_step is None) or (not scaled and health.skipped <= allowed):
        return
    session.saver.wait()
    kept = [path.name for path in list_checkpoints(session.run_dir.checkpoints)]
    more = "" if train.on_nonfinite == "skip" else ", or train.on_nonfinite=skip"
    raise NonFiniteError(
        f"step {health.first_bad_step}: the gradient of {health.first_bad_tensor} is not finite "
        + ("at a loss scale of 1 either. " if scaled else f"({health.skipped} such steps, {allowed} allowed). ")
        + (f"The last good checkpoint is {kept[-1]}. " if kept else "There is no checkpoint yet. ")
        + "What may help: a lower optim.lr, a longer optim.warmup_epochs, a lower train.grad_clip"
        + (", or train.precision=fp32, or bf16 where the GPU has it" if scaled else more)
    )


def _log_training(session: Session, health: Health, clock: Clock) -> None:
    """Write the train line for the steps since the last one; resets the running sums of the state."""
    state, schedule = session.state, session.schedule
    seconds, steps = clock.lap()
    loss, epoch = state.loss_sum / state.loss_steps, schedule.epoch_at(state.step)
    values = {
        "loss": loss,
        "lr": schedule.lr_at(state.step - 1),
        "grad_norm": health.grad_norm,
        "skipped": health.skipped,
        **({} if health.loss_scale is None else {"loss_scale": health.loss_scale}),
        "images_per_second": steps * schedule.global_batch / seconds,
    }
    session.tracker.log("train", state.step, epoch, **values)
    session.progress.update(state.step, epoch=epoch, **values)
    session.state = replace(state, loss_sum=0.0, loss_steps=0)
    if session.world.is_main:
        write_status(session, "running")
