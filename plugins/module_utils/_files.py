# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are whole or absent, private from their first byte, and locked against a second writer.

Private to this collection. Nothing here knows what the files mean. All functions raise ``OSError`` as the
operating system reports it; callers turn it into their own words.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import fcntl
import glob
import os
import secrets
import shutil
import stat
import time
import typing as t

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700

_FLUSH_THREADS = 16
_LOCK_POLL_SECONDS = 0.05


class LockTimeoutError(Exception):
    """Another process kept the lock for too long."""


def write_new(path: str, data: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Write a file that must not exist yet, never with more rights than ``mode`` and in the end with just these,
    whatever the umask; not flushed to disk.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(data)


def write_atomically(path: str, data: bytes, *, mode: int = PRIVATE_FILE, alone: bool = False) -> None:
    """Put ``data`` at ``path``: whatever interrupts this, readers see the old file or the whole new one.

    The temporary file beside it has a name of its own, so that two runs at once do not disturb each other: the last
    one counts. A failure removes it; only a run that is killed leaves it behind, as private as the file itself.

    :param alone: the caller holds a lock, so that what killed runs left behind is removed first.
    """
    directory, name = os.path.split(path)
    if alone:
        for leftover in glob.glob(os.path.join(glob.escape(directory), f".{glob.escape(name)}.*.tmp")):
            os.unlink(leftover)
    temporary = os.path.join(directory, f".{name}.{secrets.token_hex(8)}.tmp")
    try:
        write_new(temporary, data, mode=mode)
        flush([temporary])
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    flush([directory])


def link_atomically(path: str, target: str) -> None:
    """Make ``path`` a symbolic link to ``target``, replacing in one step the link or file that was there."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.tmp")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.rename(temporary, path)
    flush([directory])


def flush(paths: t.Iterable[str]) -> None:
    """Return when the files and directories at ``paths`` are on disk.

    Several at once: a journaling file system then commits them together, which for a hundred small files
    makes the difference between tenths of a second and seconds.
    """
    wanted = list(paths)
    if len(wanted) == 1:
        _flush_one(wanted[0])
        return
    with concurrent.futures.ThreadPoolExecutor(max_workers=_FLUSH_THREADS) as pool:
        for _done in pool.map(_flush_one, wanted):
            pass


def _flush_one(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_directory(path: str) -> None:
    """Make a directory that only its owner can enter; one that exists is left as it is."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, PRIVATE_DIRECTORY)


def make_public_directories(path: str) -> None:
    """Make a directory, and those above it that are missing, for everybody to enter, whatever the umask."""
    if path and not os.path.isdir(path):
        make_public_directories(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
            os.chmod(path, 0o755)


def remove_tree(path: str) -> None:
    """Remove a directory and all below it; one that is not there is fine."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def read_optional(path: str) -> bytes | None:
    """The bytes of a file, or None when there is no such file.

    What is no file, such as a pipe that somebody put there, is neither waited for nor read without end.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise OSError(errno.EINVAL, "This is no file", path)
            return stream.read()
    except FileNotFoundError:
        return None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


@contextlib.contextmanager
def locked(path: str, *, timeout: float, read_only: bool = False) -> t.Iterator[None]:
    """Hold the lock file ``path`` alone; with ``read_only`` beside other readers, and without creating it.

    The kernel frees the lock with the process, so a killed run leaves none behind.

    :param timeout: seconds to wait for another holder.
    :raises LockTimeoutError: when the other holder did not finish in time.
    """
    flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, PRIVATE_FILE)
    except FileNotFoundError:
        if not read_only:
            raise
        yield  # nobody has ever written here
        return
    try:
        _wait_for_lock(descriptor, path, fcntl.LOCK_SH if read_only else fcntl.LOCK_EX, timeout)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_directory(path: str, lock: str, *, timeout: float, read_only: bool) -> t.Iterator[None]:
    """Hold a directory by the lock file of that name in it; without ``read_only`` make it first, private.

    :raises LockTimeoutError: when another run does not end within ``timeout`` seconds.
    """
    if not read_only:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        make_private_directory(path)
    with locked(os.path.join(path, lock), timeout=timeout, read_only=read_only):
        yield


@contextlib.contextmanager
def holding_directory(path: str, *, timeout: float) -> t.Iterator[None]:
    """Hold a directory of somebody else's by a lock on itself, which leaves no file there; not over NFS, which has no
    such locks.

    :raises LockTimeoutError: when another run does not end within ``timeout`` seconds.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            _wait_for_lock(descriptor, path, fcntl.LOCK_EX, timeout)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, path: str, operation: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockTimeoutError(
                    f"Another run holds the lock {path} and did not release it within {timeout:g} s. Wait "
                    "until that run has ended and try again; the lock ends with its process, so there is "
                    "nothing to delete."
                ) from None
            time.sleep(_LOCK_POLL_SECONDS)
