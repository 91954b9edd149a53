"""Marks on the objects of a session, put there from outside: a normal run has none and pays nothing."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.profiler import record_function

from cifar_lab.profiling.breakdown import StepTime
from cifar_lab.training.session import Session

PREFIX = "cifar_lab:"
# What Python code of ours, of torch and of DeepSpeed calls; DDP's own exchange is measured by its gradients.
COLLECTIVES = (
    "all_reduce",
    "all_gather",
    "all_gather_object",
    "all_gather_into_tensor",
    "reduce_scatter_tensor",
    "broadcast",
    "broadcast_object_list",
    "barrier",
)


class Enough(Exception):  # noqa: N818  # not an error: it leaves the loop between two steps
    """All steps that were asked for are done."""


class Marks:
    """Seconds by part of the steps from `first_step` to before `last_step`; a part within a part counts once."""

    def __init__(self, device: torch.device, first_step: int, last_step: int) -> None:
        self.device, self.first_step, self.last_step = device, first_step, last_step
        self.steps: list[StepTime] = []
        self._current = StepTime()
        self._open: list[str] = []
        self._since = self._began = 0.0
        self._timing = False

    def now(self) -> float:
        """The time once the device has done what it was given; only a profile waits so."""
        if self._timing and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def begin_step(self, step: int) -> None:
        """Close the step before and open `step`."""
        self.end_step()
        self._timing = self.first_step <= step < self.last_step
        self._current = StepTime()
        self._began = self.now()

    def end_step(self) -> None:
        """Close the step, if it is one that counts."""
        if self._timing:
            self._current.wall = self.now() - self._began
            self.steps.append(self._current)
            self._timing = False

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block as `name`, and name it in a trace."""
        self._switch()
        self._open.append(name)
        began = self._since
        try:
            with record_function(PREFIX + name):
                yield
        finally:
            self._switch()
            self._open.pop()
            if name == "communication" and self._timing:
                self._current.collectives.append(self._since - began)

    def move(self, seconds: float) -> None:
        """Count `seconds` of what was counted as backward as an exchange."""
        if self._timing:
            self._current.parts["backward"] = self._current.parts.get("backward", 0.0) - seconds
            self._current.parts["communication"] = self._current.parts.get("communication", 0.0) + seconds
            self._current.collectives.append(seconds)

    @property
    def timing(self) -> bool:
        """Whether the present step counts."""
        return self._timing

    def _switch(self) -> None:
        now = self.now()
        if self._open and self._timing:
            parts = self._current.parts
            parts[self._open[-1]] = parts.get(self._open[-1], 0.0) + now - self._since
        self._since = now


class Gradients:
    """When the newest gradient was ready: from then on a DDP backward pass only exchanges and waits."""

    def __init__(self, session: Session, marks: Marks) -> None:
        self._marks, self._cuda = marks, session.world.device.type == "cuda"
        self._newest: Any = None
        self._handles = [
            p.register_post_accumulate_grad_hook(self._ready)
            for p in session.engine.parameters.values()  # type: ignore[attr-defined]
        ]

    def _ready(self, _: torch.Tensor) -> None:
        if not self._marks.timing:
            return
        if self._cuda:
            self._newest = torch.cuda.Event(enable_timing=True)
            self._newest.record()
        else:
            self._newest = time.perf_counter()

    def seconds_since(self) -> float:
        """Seconds from the newest gradient to now."""
        if not self._cuda:
            return time.perf_counter() - self._newest
        end = torch.cuda.Event(enable_timing=True)
        end.record()
        end.synchronize()
        return float(self._newest.elapsed_time(end)) / 1000

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()


@contextmanager
def attached(session: Session, marks: Marks, at_step: Callable[[int], None]) -> Iterator[None]:
    """Within it the session's loop is marked; `at_step(step)` is called before each step."""
    engine: Any = session.engine
    stream: Any = session.stream
    micro_batches = session.schedule.micro_batches(session.world.rank)
    with ExitStack() as stack:

        def replace(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
            own = name in vars(owner)
            original = getattr(owner, name)
            setattr(owner, name, functools.wraps(original)(functools.partial(wrapper, original)))
            stack.callback(setattr, owner, name, original) if own else stack.callback(delattr, owner, name)

        def mark(owner: Any, name: str, part: str) -> None:
            def wrapper(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                with marks.part(part):
                    return original(*args, **kwargs)

            replace(owner, name, wrapper)

        def data(original: Callable[..., Any], step: int, m: int) -> Any:
            if m == micro_batches[0]:
                marks.end_step()
                at_step(step)
                marks.begin_step(step)
            with marks.part("data"):
                return original(step, m)

        def backward(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            with marks.part("backward"):
                result = original(*args, **kwargs)
                exchanged = None
                if (
                    gradients is not None
                    and marks.timing
                    and kwargs["index"] == session.schedule.accumulation_steps - 1
                ):
                    exchanged = gradients.seconds_since()
            if exchanged is not None:
                marks.move(exchanged)
            return result

        gradients = Gradients(session, marks) if engine.strategy == "ddp" else None
        if gradients is not None:
            stack.callback(gradients.close)
        replace(stream, "micro_batch", data)
        replace(engine, "forward_backward", backward)
        mark(engine, "loss", "forward")
        mark(engine, "step", "optimizer")
        mark(engine, "health", "logging")
        mark(session.tracker, "log", "logging")
        mark(session.saver, "save", "saving")
        if session.world.world_size > 1:
            for name in COLLECTIVES:
                mark(dist, name, "communication")
        yield
