# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes and TCP listeners as Linux shows them under /proc (proc(5)). Python 3.8, standard library."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import signal
import socket
import sys
import typing as t
from dataclasses import dataclass

GONE = 60.0  # seconds that a process may take to go after SIGKILL: what it waits for of a busy disk comes first
_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, told apart from a later one with the same number.

    ``start_time`` is in clock ticks since boot (field 22 of /proc/<pid>/stat); ``executable`` is what
    /proc/<pid>/exe points to, without the mark of a file that was replaced since.
    """

    pid: int
    start_time: int
    executable: str


def identify(pid: int) -> t.Optional[ProcessIdentity]:
    """The identity of a living process; None when there is none, or when it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat_file:
            # The command's name is in brackets and may hold spaces and brackets itself.
            fields = stat_file.read().rpartition(")")[2].split()
        if fields[0] in ("Z", "X"):
            return None
        executable = os.readlink(f"/proc/{pid}/exe")
    except (OSError, IndexError):
        return None
    suffix = " (deleted)"
    if executable.endswith(suffix):
        executable = executable[: -len(suffix)]
    return ProcessIdentity(pid=pid, start_time=int(fields[19]), executable=executable)


def is_there(one: ProcessIdentity) -> bool:
    """Whether that very process is still there, also when it has become another program (execve) since it was seen."""
    found = identify(one.pid)
    return found is not None and found.start_time == one.start_time


def send(one: ProcessIdentity, number: signal.Signals) -> None:
    """Signal that very process, if it is still there."""
    if is_there(one):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, number)


def descendants(pid: int) -> t.List[ProcessIdentity]:
    """Everything that a process started and that lives, with what that started in turn."""
    children: t.Dict[int, t.List[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat_file:
                    parent = int(stat_file.read().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(name))
    found, waiting = [], [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            waiting.append(child)
            identity = identify(child)
            if identity is not None:
                found.append(identity)
    return found


def environment(pid: int) -> t.Dict[str, str]:
    """The environment that a process was started with; empty when it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ_file:
            entries = environ_file.read().split(b"\0")
    except OSError:
        return {}
    pairs = (entry.decode("utf-8", "replace").partition("=") for entry in entries if entry)
    return {name: value for name, _separator, value in pairs}


@dataclass(frozen=True)
class Listener:
    """One listening TCP socket and, where it can be found, the process that holds it."""

    address: str
    port: int
    pid: t.Optional[int]
    executable: str


def _address(text: str) -> str:
    """An address of /proc/net/tcp: hexadecimal, each 32-bit word in the host's (little-endian) order."""
    words = [text[at : at + 8] for at in range(0, len(text), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    address = ipaddress.ip_address(packed)
    return str(getattr(address, "ipv4_mapped", None) or address)


def _listening_sockets(port: int) -> t.Dict[str, str]:
    """Inode of every socket that listens on the port, with its address."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as table_file:
                lines = table_file.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _separator, port_text = fields[1].partition(":")
            if fields[3] == _LISTEN and int(port_text, 16) == port:
                found[fields[9]] = _address(address)
    return found


def _holders(inodes: t.Iterable[str]) -> t.Dict[str, int]:
    """Inode of a socket to the lowest process number that holds it open (1 for a socket of systemd's)."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    holders: t.Dict[str, int] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            except OSError:
                continue
            if target in wanted:
                holders.setdefault(wanted[target], pid)
    return holders


def listeners(port: int) -> t.List[Listener]:
    """Everything that listens on a TCP port of this host's network namespace, IPv4 and IPv6."""
    sockets = _listening_sockets(port)
    holders = _holders(sockets) if sockets else {}
    found = []
    for inode, address in sorted(sockets.items(), key=lambda item: item[1]):
        pid = holders.get(inode)
        identity = identify(pid) if pid else None
        found.append(Listener(address=address, port=port, pid=pid, executable=identity.executable if identity else ""))
    return found


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_here(address: str) -> bool:
    """Whether this host has an IP address, so that something may listen on it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def overlaps(first: str, second: str) -> bool:
    """Whether two listening addresses claim the same port.

    An empty address and :: stand for all of both families, as a socket that was not made IPV6_V6ONLY does (ipv6(7));
    0.0.0.0 stands for all of IPv4.
    """
    one, other = ipaddress.ip_address(first or "::"), ipaddress.ip_address(second or "::")
    if one.version == other.version:
        return one.is_unspecified or other.is_unspecified or one == other
    return (one if one.version == 6 else other).is_unspecified
