"""Host memory that holds the files of a checkpoint as they will be written."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cifar_lab.checkpoint.files import FilePlan
from cifar_lab.files.direct_file import ALIGNMENT, aligned

DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL", torch.uint8: "U8"}


def file_buffer(plan: FilePlan, pinned: bool) -> Tensor:
    """Room for a whole file, uint8, on a page boundary, with its header in place."""
    size = aligned(plan.file_bytes)
    room = torch.empty(size + ALIGNMENT, dtype=torch.uint8, pin_memory=pinned)
    start = -room.data_ptr() % ALIGNMENT
    buffer = room[start : start + size]
    header = plan.header()
    buffer[: len(header)] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
    return buffer


def tensor_views(plan: FilePlan, buffer: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Name and place of each tensor in the buffer of its file."""
    types = {name: dtype for dtype, name in DTYPES.items()}
    data_section = plan.file_bytes - plan.nbytes
    for name, spec in plan.specs.items():
        start = data_section + plan.offsets[name]
        yield name, buffer[start : start + spec.nbytes].view(types[spec.dtype]).view(spec.shape)
