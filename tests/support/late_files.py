"""`late_files.py BACKING MOUNT SECONDS`: a FUSE file system that shows names which others made in BACKING late.

Needs fusepy and libfuse 2. What was there before and what is made through the mount is seen at once.
"""

from __future__ import annotations

import errno
import os
import sys
import time

from fuse import FUSE, FuseOSError, Operations


class LateFiles(Operations):  # type: ignore[misc]
    """The files of `root`; a name counts as seen for the first time whenever anybody looks into its folder."""

    def __init__(self, root: str, seconds: float) -> None:
        self.root, self.seconds = root, seconds
        self.seen: dict[str, float] = {}
        for folder, folders, files in os.walk(root):
            self.seen |= {os.path.join(folder, name): -seconds for name in folders + files}

    def place(self, path: str) -> str:
        """The file behind `path`. Raises FileNotFoundError while it, or a folder above it, is late."""
        place = self.root
        for part in path.strip("/").split("/") if path != "/" else ():
            self.visible(place)
            place = os.path.join(place, part)
            if os.path.lexists(place) and time.monotonic() - self.seen.get(place, 0) < self.seconds:
                raise FuseOSError(errno.ENOENT)
        return place

    def visible(self, folder: str) -> list[str]:
        """The names in a folder that are not late."""
        now, found = time.monotonic(), []
        for name in os.listdir(folder):
            if now - self.seen.setdefault(os.path.join(folder, name), now) >= self.seconds:
                found.append(name)
        return found

    def getattr(self, path, fh=None):
        status = os.lstat(self.place(path))
        return _fields(status, "st_atime st_ctime st_gid st_mode st_mtime st_nlink st_size st_uid")

    def readdir(self, path, fh):
        return [".", "..", *self.visible(self.place(path))]

    def access(self, path, mode):
        if not os.access(self.place(path), mode):
            raise FuseOSError(errno.EACCES)

    def statfs(self, path):
        status = os.statvfs(self.root)
        return _fields(status, "f_bavail f_bfree f_blocks f_bsize f_favail f_ffree f_files f_flag f_frsize f_namemax")

    def chmod(self, path, mode):
        return os.chmod(self.place(path), mode)

    def utimens(self, path, times=None):
        return os.utime(self.place(path), times)

    def mkdir(self, path, mode):
        return os.mkdir(self._made(path), mode)  # a name that is late exists: the server says so

    def rmdir(self, path):
        return os.rmdir(self.place(path))

    def unlink(self, path):
        return os.unlink(self.place(path))

    def rename(self, old, new):
        source, target = self.place(old), self._made(new)
        os.rename(source, target)
        self.seen[target] = -self.seconds

    def open(self, path, flags):
        return os.open(self.place(path), flags)

    def create(self, path, mode, fi=None):
        return os.open(self._made(path), os.O_RDWR | os.O_CREAT, mode)

    def read(self, path, length, offset, fh):
        return os.pread(fh, length, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(self.place(path), length)

    def fsync(self, path, datasync, fh):
        return os.fsync(fh)

    def release(self, path, fh):
        return os.close(fh)

    def _made(self, path: str) -> str:
        """The file behind a name that is made now."""
        folder, name = os.path.split(path)
        place = os.path.join(self.place(folder), name)
        if not os.path.lexists(place):
            self.seen[place] = -self.seconds
        return place


def _fields(status: object, names: str) -> dict[str, object]:
    return {name: getattr(status, name) for name in names.split()}


if __name__ == "__main__":
    at_once = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0, "direct_io": True}
    FUSE(
        LateFiles(os.path.abspath(sys.argv[1]), float(sys.argv[3])),
        sys.argv[2],
        foreground=False,
        nonempty=True,
        **at_once,
    )
