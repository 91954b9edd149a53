"""Writing large files past the page cache, and reading them back.

Copying a checkpoint into the page cache costs twice the processor time of hashing it, which is time that training
loses. Direct I/O costs next to nothing, and what is read back afterwards really comes from the disk.
"""

import ctypes
import errno
import hashlib
import mmap
import os
from pathlib import Path
from typing import Any

ALIGNMENT = 4096
CHUNK = 8 * 2**20
DIRECT = getattr(os, "O_DIRECT", 0)
# Of a file system without direct I/O, such as tmpfs, and of page-locked memory that it cannot reach.
NOT_DIRECT = (errno.EINVAL, errno.EFAULT)


def aligned(size: int) -> int:
    """`size` rounded up to what direct I/O takes."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def write_file(path: Path, data: memoryview, size: int) -> dict[str, Any]:
    """Write, sync and compare the first `size` bytes of `data`; the file's size and sha256.

    `data` starts on a page and has at least aligned(size) bytes. Raises OSError, also where what is read back differs.
    """
    digest = hashlib.sha256()
    for start in range(0, size, CHUNK):
        digest.update(data[start : min(start + CHUNK, size)])
    try:
        _write(path, data, size, DIRECT)
    except OSError as error:
        if error.errno not in NOT_DIRECT:
            raise
        _write(path, data, size, 0)
    return {"size": size, "sha256": digest.hexdigest()}


def write_bytes(path: Path, content: bytes) -> dict[str, Any]:
    """The same for a small file."""
    with mmap.mmap(-1, max(aligned(len(content)), ALIGNMENT)) as page:
        page[: len(content)] = content
        with memoryview(page) as data:
            return write_file(path, data, len(content))


def _write(path: Path, data: memoryview, size: int, flag: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | flag, 0o666)
    try:
        position, end = 0, aligned(size)
        while position < end:
            position += os.write(descriptor, data[position : min(position + CHUNK, end)])
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
        _compare(descriptor, path, data, size)
    finally:
        os.close(descriptor)


def _compare(descriptor: int, path: Path, data: memoryview, size: int) -> None:
    """Read the file back and compare it with what it should hold."""
    memcmp = ctypes.CDLL(None).memcmp
    memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    expected = ctypes.addressof(ctypes.c_char.from_buffer(data))
    scratch = mmap.mmap(-1, CHUNK)
    found = ctypes.addressof(ctypes.c_char.from_buffer(scratch))
    position = 0
    while position < size:
        count = min(os.preadv(descriptor, [scratch], position), size - position)
        if count <= 0 or memcmp(found, expected + position, count):
            raise OSError(errno.EIO, "what was written reads back differently", str(path))
        position += count
