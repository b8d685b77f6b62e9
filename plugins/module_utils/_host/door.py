# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps new clients of a TCP port waiting, while those that are connected go on.

A filter that lets nothing through, on the socket that listens (SO_ATTACH_FILTER, socket(7)), makes the kernel drop what
asks for a connection. The client's own system asks again after 1, 3, 7 and 15 seconds (RFC 6298), so the client waits.
The daemon notices nothing: its socket is borrowed with pidfd_getfd(2), which Linux has since 5.6.

A process of its own holds the filter, and takes it away when the one that wanted it ends, however it ends.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import struct
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import sockets

# Numbers of Linux, those of all architectures that BuildKit is released for.
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438  # include/uapi/asm-generic/unistd.h
_ATTACH_FILTER, _DETACH_FILTER = 26, 27  # include/uapi/asm-generic/socket.h
_NOTHING = struct.pack("HBBI", 6, 0, 0, 0)  # BPF_RET | BPF_K: return 0 bytes, include/uapi/linux/filter.h
_CLOSED = b"c"


class Door:
    """The TCP port of a process, as far as new clients are concerned."""

    def __init__(self, pid: int, port: int) -> None:
        self._pid = pid
        self._port = port
        self._guard = 0  # the process that holds the filter, when closed
        self._hold: t.Optional[socket.socket] = None  # when that is closed, the guard opens the door
        self._listening: t.Set[str] = set()

    @property
    def closed(self) -> bool:
        """Whether new clients wait."""
        return bool(self._guard)

    @property
    def needed(self) -> bool:
        """Whether the process still listens, and could let somebody in."""
        return bool(self._listening & sockets.of(self._pid))

    def close(self) -> bool:
        """Have new clients wait; whether they do. It is not possible on each system, and without a port."""
        self._listening = self._listening or sockets.listening(self._pid, self._port)
        if self.closed or not self._listening:
            return self.closed
        with contextlib.suppress(OSError):  # too many processes or files
            self._hold, theirs = socket.socketpair()
            with theirs:
                self._guard = os.fork()
                if self._guard == 0:
                    _guard(self._pid, self._listening, theirs)
            if self._hold.recv(1) == _CLOSED:
                return True
        self.open()
        return False

    def open(self) -> None:
        """Let them in again."""
        guard, self._guard = self._guard, 0
        if self._hold:
            self._hold.close()
        if guard:
            with contextlib.suppress(ChildProcessError):  # whoever ignores SIGCHLD waits likewise, but is not told
                os.waitpid(guard, 0)


def _guard(pid: int, inodes: t.Set[str], line: socket.socket) -> t.NoReturn:
    """The life of the process that holds the filter. Nobody's output, connection or signal is to hang on it."""
    try:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(nowhere, standard)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != line.fileno():
                with contextlib.suppress(OSError):
                    os.close(int(name))
        borrowed = [_borrow(pid, number) for number, inode in sockets.by_number(pid).items() if inode in inodes]
        try:
            for one in borrowed:
                _attach(one)
            line.send(_CLOSED)
            line.recv(1)
        finally:
            for one in borrowed:
                with contextlib.suppress(OSError):  # it had none yet
                    one.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
    finally:
        os._exit(0)  # nothing of what the other process has at its end is ours


def _borrow(pid: int, number: int) -> socket.socket:
    """A socket of another process. Raises OSError."""
    process = _call(_PIDFD_OPEN, pid, 0)
    try:
        return socket.socket(fileno=_call(_PIDFD_GETFD, process, number, 0))
    finally:
        os.close(process)


def _call(*arguments: int) -> int:
    import ctypes  # the smallest installations of Python have none

    result: int = ctypes.CDLL(None, use_errno=True).syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _attach(listening: socket.socket) -> None:
    program = array.array("B", _NOTHING)
    listening.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, program.buffer_info()[0]))
