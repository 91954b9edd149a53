"""Which tensor of a checkpoint lies where, and host memory that holds each file as it will be written."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_lab.files.direct_file import ALIGNMENT, aligned

Spec = tuple[torch.dtype, torch.Size]

FILE_BYTES = 256 * 2**20
# What safetensors calls the types.
NAMES = {torch.float32: "F32", torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL", torch.uint8: "U8"}


@dataclass(frozen=True)
class FilePlan:
    """One safetensors file: its name, its tensors and where each starts in the data section."""

    kind: str
    name: str
    specs: dict[str, Spec]
    offsets: dict[str, int]
    nbytes: int

    @property
    def file_bytes(self) -> int:
        """Size of the file: header and data."""
        return len(self.header()) + self.nbytes

    def header(self) -> bytes:
        """Everything in front of the data section (format: github.com/huggingface/safetensors)."""
        entries = {
            name: {
                "dtype": NAMES[dtype],
                "shape": list(shape),
                "data_offsets": [self.offsets[name], self.offsets[name] + _nbytes((dtype, shape))],
            }
            for name, (dtype, shape) in self.specs.items()
        }
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)  # so that the data section can be written with direct I/O
        return len(text).to_bytes(8, "little") + text

    def buffer(self, pinned: bool) -> Tensor:
        """Room for the whole file, uint8, on a page boundary, with its header in place."""
        size = aligned(self.file_bytes)
        room = torch.empty(size + ALIGNMENT, dtype=torch.uint8, pin_memory=pinned)
        start = -room.data_ptr() % ALIGNMENT
        buffer = room[start : start + size]
        header = self.header()
        buffer[: len(header)] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
        return buffer

    def views(self, buffer: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Name and place of each tensor in the buffer of the file."""
        data = buffer[len(self.header()) :]
        for name, spec in self.specs.items():
            start = self.offsets[name]
            yield name, data[start : start + _nbytes(spec)].view(spec[0]).view(spec[1])


def plan_files(kind: str, specs: Mapping[str, Spec], limit: int = FILE_BYTES) -> list[FilePlan]:
    """Spread tensors over files of at most `limit` bytes; names and sizes alone decide, whatever the world.

    Wide types come first in a file, which keeps every tensor aligned.
    """
    groups: list[list[str]] = []
    room = -1
    for name in sorted(specs):
        if _nbytes(specs[name]) > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= _nbytes(specs[name])
    plans = []
    for index, names in enumerate(groups):
        offsets, position = {}, 0
        for name in sorted(names, key=lambda n: (-specs[n][0].itemsize, n)):
            offsets[name] = position
            position += _nbytes(specs[name])
        file = f"{kind}-{index:05d}-of-{len(groups):05d}.safetensors"
        plans.append(FilePlan(kind, file, {name: specs[name] for name in offsets}, offsets, position))
    return plans


def _nbytes(spec: Spec) -> int:
    dtype, shape = spec
    return dtype.itemsize * shape.numel()
