# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes by identity: a number alone may belong to another process by now."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """A process: number, start time (clock ticks since boot, proc(5) field 22) and executable."""

    pid: int
    start: int
    executable: str


def _fields(pid: int) -> list[str]:
    """Return proc(5)'s fields from the third on: the second, the name, may contain anything."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def identify(pid: int) -> Identity | None:
    """Return who a process is now; None when it is gone or a zombie."""
    try:
        fields = _fields(pid)
        executable = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return Identity(pid, int(fields[19]), executable.replace(" (deleted)", ""))


def children(pid: int) -> list[Identity]:
    """Return a process's children."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int(_fields(int(entry.name))[1])
        except OSError:
            continue
        identity = identify(int(entry.name)) if parent == pid else None
        if identity:
            found.append(identity)
    return found


def _send(identity: Identity, number: signal.Signals) -> None:
    """Signal a process, which may end at that very moment."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(identity.pid, number)


def stop(identity: Identity, *, timeout: float) -> bool:
    """Stop a process if it is still the one meant: politely, after `timeout` seconds not. Tell whether it was there."""
    if identify(identity.pid) != identity:
        return False
    _send(identity, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while identify(identity.pid) == identity:
        if time.monotonic() > deadline:
            _send(identity, signal.SIGKILL)
            deadline += timeout
        time.sleep(0.1)
    return True
