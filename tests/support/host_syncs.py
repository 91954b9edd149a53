"""Counts operations that would make the host wait for an accelerator, on any device (a CPU run shows them too).

Under FakeTensorMode, with a "cuda" that is not there, memory is pinned by a remark: uploads from any other are counted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Their result, or the size of it, is read by the host.
_WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
}


class HostSyncs(TorchDispatchMode):
    """`with HostSyncs() as syncs: ...` then `syncs.found`: names of the waiting operations, in order."""

    # These read a CPU tensor without dispatching anything.
    _reading = ("tolist", "numpy", "__array__")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._pinned: list[torch.Tensor] = []

    def __enter__(self) -> HostSyncs:
        self._originals = {name: getattr(torch.Tensor, name) for name in self._reading}
        for name, original in self._originals.items():
            setattr(torch.Tensor, name, self._counting(name, original))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for name, original in self._originals.items():
            setattr(torch.Tensor, name, original)

    def _counting(self, name: str, original: Any) -> Any:
        def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self.found.append(name)
            return original(tensor, *args, **kwargs)

        return counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name == "_pin_memory":  # FakeTensorMode cannot, nor can a machine without a GPU
            self._pinned.append(args[0].as_strided(args[0].shape, args[0].stride()))  # it keeps the strides
            return self._pinned[-1]
        result = func(*args, **kwargs)
        if (
            name in _WAITING
            or _masked(name, args)
            or _to_host(name, args, result)
            or _unsized(name, args, kwargs)
            or self._pageable(name, args, kwargs, result)
        ):
            self.found.append(str(func))
        return result

    def _pageable(self, name: str, args: Any, kwargs: Any, result: Any) -> bool:
        """An upload from memory that is not pinned, or not in one piece; also that of a value that is made a tensor."""
        if name == "lift_fresh":
            return True
        source, others = _copied(name, args), (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        if source is None or source.device.type != "cpu" or result.device.type == "cpu":
            return False
        return not (others and source.is_contiguous() and any(source is one for one in self._pinned))


def _masked(name: str, args: Any) -> bool:
    if name not in ("index", "index_put", "index_put_"):
        return False
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _copied(name: str, args: Any) -> torch.Tensor | None:
    if name not in ("_to_copy", "copy_", "copy"):
        return None
    source = args[1] if name.startswith("copy") else args[0]
    return source if isinstance(source, torch.Tensor) else None


def _to_host(name: str, args: Any, result: Any) -> bool:
    source = _copied(name, args)
    return source is not None and source.device.type != "cpu" and result.device.type == "cpu"


def _unsized(name: str, args: Any, kwargs: Any) -> bool:
    return name == "repeat_interleave" and isinstance(args[0], torch.Tensor) and kwargs.get("output_size") is None
