"""Writing past the page cache, where that can be done."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from cifar_lab.files import direct_file


@pytest.mark.skipif(not direct_file.DIRECT, reason="no direct I/O on this system")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EFAULT])
def test_what_cannot_be_written_directly_goes_through_the_cache(tmp_path, monkeypatch, number):
    """EINVAL says a file system, EFAULT memory that a driver has locked."""
    write = os.write

    def without_direct(descriptor, data):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & direct_file.DIRECT:
            del data  # which the traceback would hold
            raise OSError(number, os.strerror(number))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", without_direct)
    found = direct_file.write_bytes(tmp_path / "file", b"content" * 1000)
    assert found["size"] == 7000
    assert (tmp_path / "file").read_bytes() == b"content" * 1000


def test_another_error_is_not_hidden(tmp_path, monkeypatch):
    def full(descriptor, data):
        del data  # which the traceback would hold
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        direct_file.write_bytes(tmp_path / "file", b"x")
