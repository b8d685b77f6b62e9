# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sockets a process has, and who is connected to them, by the numbers of their inodes (proc(5))."""

from __future__ import annotations

import contextlib
import os
import typing as t

_ESTABLISHED = "01"  # include/net/tcp_states.h
_LISTEN = "0A"
_CONNECTED = "03"  # SS_CONNECTED, include/uapi/linux/net.h
_LISTENS = "00010000"  # __SO_ACCEPTCON, there too


def by_number(pid: int) -> t.Dict[int, str]:
    """All sockets of a process: its file descriptors, and the inode of each."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:["):
                    found[int(name)] = target[len("socket:[") : -1]
    return found


def of(pid: int) -> t.Set[str]:
    """The same, by inode alone."""
    return set(by_number(pid).values())


def connections(pid: int, port: int) -> t.Set[str]:
    """The TCP connections that a process's network namespace has on a port; none on port 0.

    One that is not yet accepted has the number 0. The kernel goes through all its buckets for that, which takes some
    milliseconds, and shows no single moment.
    """
    return _tcp(pid, port, _ESTABLISHED) if port else set()


def listening(pid: int, port: int) -> t.Set[str]:
    """The sockets of a process that listen on a TCP port."""
    return of(pid) & _tcp(pid, port, _LISTEN) if port else set()


def local_connections(pid: int, path: str) -> t.Set[str]:
    """The connections that a process's network namespace has on a unix socket (unix(7)), ours among them, likewise."""
    return _unix(pid, path, 5, _CONNECTED)


def local_listening(pid: int, path: str) -> t.Set[str]:
    """The sockets of a process that listen on a unix socket."""
    return of(pid) & _unix(pid, path, 3, _LISTENS)


def _tcp(pid: int, port: int, state: str) -> t.Set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as lines:
                rows = [line.split() for line in lines.readlines()[1:]]
        except OSError:
            continue
        for row in rows:
            if row[3] == state and int(row[1].rpartition(":")[2], 16) == port:
                found.add(row[9])
    return found


def _unix(pid: int, path: str, field: int, value: str) -> t.Set[str]:
    try:
        with open(f"/proc/{pid}/net/unix", encoding="utf-8", errors="replace") as lines:
            rows = [line.split(None, 7) for line in lines.readlines()[1:]]
    except OSError:
        return set()
    return {row[6] for row in rows if len(row) == 8 and row[field] == value and row[7].rstrip("\n") == path}
