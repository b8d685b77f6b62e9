# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills an action with SIGKILL at each of its file operations, or refuses them as a full disk does, and looks at each.

The interpreter itself reports what is opened for writing, renamed, made and removed (audit events), so no way of
doing it is missed. Writing happens in halves: a run can also be killed with half of a file's bytes on the disk.

Each run is a fork, not a new interpreter: tests do this a thousand times. For the same reason nothing waits for the
disk; a killed process, other than a machine without power, loses nothing of what it wrote.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import shutil
import signal
import stat
import sys
import threading
import traceback
import typing as t
from pathlib import Path

Action = t.Callable[[], object]
Reached = t.Callable[[str], None]

NOBODY = 65534
KILLED = object()

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_EVENTS = {
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.remove",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.chown",
    "os.truncate",
    "os.utime",
    "os.setxattr",
}


def operations(root: Path, action: Action) -> list[str]:
    """Run an action to its end; returns its file operations at or below ``root``, in order."""
    found: list[str] = []
    return t.cast("list[str]", _in_child(root, action, lambda: found, found.append))


def exposures(root: Path, action: Action) -> list[str]:
    """Run an action with no umask to its end; returns what others could enter or read before any of its operations."""
    found: list[str] = []

    def look(operation: str) -> None:
        for path in (root, *root.rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                state = path.lstat()
                if not stat.S_ISLNK(state.st_mode) and stat.S_IMODE(state.st_mode) & 0o077:
                    found.append(f"{path.relative_to(root)} is {stat.S_IMODE(state.st_mode):o} before {operation}")

    def unmasked() -> None:
        os.umask(0)
        action()
        look("the end")

    return t.cast("list[str]", _in_child(root, unmasked, lambda: found, look))


def killed_at(root: Path, point: int, action: Action) -> bool:
    """Run an action that SIGKILL ends right before its operation of this number, counted from 0.

    Returns false when the action came to its end before that.
    """
    left = [point]

    def count(_operation: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return _in_child(root, action, list, count) is KILLED


def refused_from(root: Path, point: int, code: int, action: Action) -> str | None:
    """Run an action on a disk that takes nothing any more from its operation of this number on; removing still works.

    :param code: the error of the operating system, such as ``errno.ENOSPC``.
    Returns how the action failed, as ``OSError: text``, or None when it came to its end.
    """
    left = [point]

    def refuse(operation: str) -> None:
        left[0] -= 1
        if left[0] < 0 and operation.partition(" ")[0] not in ("remove", "rmdir"):
            raise OSError(code, os.strerror(code))

    return t.cast("t.Optional[str]", _in_child(root, *_caught(action), refuse))


def as_nobody(root: Path, action: Action) -> str | None:
    """Run an action as a user who is not root and owns nothing: returns as :func:`refused_from`."""

    def unprivileged() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        action()

    return t.cast("t.Optional[str]", _in_child(root, *_caught(unprivileged), lambda operation: None))


def _caught(action: Action) -> tuple[Action, t.Callable[[], str | None]]:
    """An action that never fails, and what says afterwards how it did."""
    failure: list[str] = []

    def guarded() -> None:
        try:
            action()
        except Exception as exc:
            failure.append(f"{type(exc).__name__}: {exc}")

    return guarded, lambda: failure[0] if failure else None


def _in_child(root: Path, action: Action, report: t.Callable[[], object], reached: Reached) -> object:
    """Run in a fork; returns the report, or :data:`KILLED`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            _watch(root, reached)
            action()
            os.write(writing, json.dumps(report()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return KILLED
    assert os.WEXITSTATUS(status) == 0, "the action failed by itself"
    return json.loads(said)


def _watch(root: Path, reached: Reached) -> None:
    """Let every file operation of this process at or below ``root`` be known before it happens. Cannot be undone."""
    sys.dont_write_bytecode = True
    lock = threading.RLock()  # files are flushed by several threads

    def tell(operation: str, path: object = "") -> None:
        # A path that is relative is one of shutil.rmtree, below a directory that it holds open.
        if not os.path.isabs(os.fspath(t.cast(str, path))) or str(path).startswith(str(root)):
            with lock:
                reached(f"{operation} {path}".strip())

    def hook(event: str, arguments: tuple[t.Any, ...]) -> None:
        if event in _EVENTS:
            path = arguments[0]
            # Of an open file, as by fchmod, the event has its number.
            tell(event.partition(".")[2], os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path)
        elif event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & _WRITING:
            tell("open", os.fsdecode(arguments[0]))

    class Halves(io.FileIO):
        """A file that is written in two steps."""

        def write(self, data: t.Any) -> int:
            whole = memoryview(data).cast("B")
            for part in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
                tell("write")
                super().write(part)
            return len(whole)

    def in_halves(original: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def opened(file: t.Any, mode: str = "r", *args: t.Any, **kwargs: t.Any) -> t.Any:
            if set(mode) & set("wax+") and "b" in mode:
                return Halves(file, mode)
            return original(file, mode, *args, **kwargs)

        return opened

    builtins.open = in_halves(builtins.open)  # type: ignore[assignment]
    os.fdopen = in_halves(os.fdopen)
    os.fsync = lambda descriptor: tell("fsync")
    shutil._USE_CP_SENDFILE = False  # type: ignore[attr-defined]
    sys.addaudithook(hook)
