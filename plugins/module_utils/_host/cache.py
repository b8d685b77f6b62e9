# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory with the build cache, and what a daemon that was killed left mounted in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

# What buildkitd makes there first (cmd/buildkitd/main.go). It takes its lock away when it ends in peace.
_MARKS = ("buildkitd.lock", "cache.db")


def mounts_below(directory: str) -> t.List[str]:
    """The mount points below a directory, itself not among them, the last mounted first (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        escaped = [line.split()[4] for line in table]
    points = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point) for point in escaped]
    below = os.path.join(os.path.realpath(directory), "")
    return [point for point in reversed(points) if point.startswith(below)]


def entries(directory: str) -> t.List[str]:
    """What is in the directory, as paths; nothing when it is not there."""
    return sorted(os.path.join(directory, name) for name in os.listdir(directory)) if os.path.isdir(directory) else []


def check(directory: str) -> None:
    """Refuses a directory that is not empty and was never a daemon's. Raises HostError."""
    if entries(directory) and not any(os.path.exists(os.path.join(directory, mark)) for mark in _MARKS):
        raise HostError(
            f"Emptying the build cache {directory} failed: there is no {' or '.join(_MARKS)} in it, so it is not "
            f"buildkitd's, and nothing was removed. Correct the path, or remove what is there by hand."
        )


def empty(directory: str) -> None:
    """Removes all that is in the directory. It stays itself, because it may be a file system of its own.

    Raises HostError when something below it cannot be unmounted.
    """
    for point in mounts_below(directory):
        done = subprocess.run(
            ["umount", point], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise HostError(
                f"Emptying the build cache {directory} failed: a daemon that was killed left {point} mounted, and "
                f"umount says: {done.stderr.strip()}. End what uses it, and run again."
            )
    # The marks last, so that an interrupted run can be repeated.
    for path in sorted(entries(directory), key=lambda path: os.path.basename(path) in _MARKS):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
