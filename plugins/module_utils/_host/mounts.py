# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mount table of a process (proc_pid_mountinfo(5)). Python 3.8, standard library."""

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass


@dataclass(frozen=True)
class Mount:
    """One line of the table.

    ``device`` (major:minor) and ``root`` (the directory within that file system) say what is mounted, however it is
    called; ``options`` are those of the file system, such as the directories of an overlay.
    """

    point: str
    device: str
    root: str
    kind: str
    options: t.Tuple[str, ...]

    @property
    def what(self) -> t.Tuple[str, str]:
        """Two mounts that show the same directory have the same one."""
        return self.device, self.root


def table(pid: t.Union[int, str] = "self") -> t.List[Mount]:
    """What a process sees mounted, in the order of mounting; nothing when it has ended. Raises OSError."""
    try:
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as source:
            return [_parsed(line) for line in source]
    except (FileNotFoundError, ProcessLookupError):
        return []
    except OSError as error:
        # A process that is about to end has no namespace any more (EINVAL).
        if pid == "self" or isinstance(error, PermissionError):
            raise
        return []


def _parsed(line: str) -> Mount:
    before, _separator, after = line.rstrip("\n").partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    return Mount(
        point=_plain(fields[4]),
        device=fields[2],
        root=_plain(fields[3]),
        kind=rest[0],
        options=tuple(_plain(option) for option in rest[-1].split(",")),
    )


def _plain(text: str) -> str:
    """Without the octal escapes of blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text)


def is_below(path: str, directory: str) -> bool:
    """Whether a path is below a directory, and not the directory itself."""
    return path.startswith(os.path.join(directory, ""))


def location(path: str, mounted: t.Sequence[Mount]) -> t.Tuple[str, str]:
    """Device of the file system that holds a path without links, and the path within it."""
    holders = [mount for mount in mounted if path == mount.point or is_below(path, mount.point)]
    if not holders:  # in a chroot, which may be no mount point
        return "", path
    # The nearest; and what was mounted last on the same point hides the others.
    _depth, _order, holder = max((len(mount.point), order, mount) for order, mount in enumerate(holders))
    within = os.path.relpath(path, holder.point)
    return holder.device, holder.root if within == "." else os.path.join(holder.root, within)
