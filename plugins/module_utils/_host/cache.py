# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state directory of a daemon, with its build cache, and what a daemon that was killed left running and mounted.

A build step runs in a control group of its own, outside that of the daemon's unit, and goes on when the daemon is
killed; so do its mounts. Neither the unit's stop nor the next daemon ends them (seen with BuildKit 0.13 and 0.25).
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import signal
import subprocess
import time
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import mounts, proc
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

# What buildkitd makes there first (cmd/buildkitd/main.go). It takes its lock away when it ends in peace.
_LOCK = "buildkitd.lock"
_MARKS = (_LOCK, "cache.db")
_RUNC = "/run/runc"  # where runc, called by root without --root as buildkitd does, keeps a directory per container
# In the directory for temporary files: what the daemon reads of snapshots (snapshot/localmounter_linux.go).
_TEMPORARY = ("buildkit-mount", "containerd-mount")
_POLL = 0.05  # seconds
# What a wrong path may name: the system's own, and where other engines keep what looks like a daemon's.
_SYSTEM = {
    "/": (
        "",
        "bin",
        "boot",
        "dev",
        "etc",
        "home",
        "lib",
        "lib64",
        "opt",
        "proc",
        "root",
        "run",
        "sbin",
        "srv",
        "sys",
        "tmp",
    ),
    "/usr": ("", "bin", "lib", "lib64", "libexec", "local", "local/bin", "local/lib", "sbin", "share"),
    "/var": ("", "cache", "lib", "log", "opt", "spool", "tmp"),
    "/var/lib": ("containerd", "containers", "docker", "docker/buildkit"),
}
_OTHERS = frozenset(os.path.normpath(os.path.join(top, name)) for top, names in _SYSTEM.items() for name in names)


def entries(directory: str) -> t.List[str]:
    """What is in the directory, as paths; nothing when it is not there."""
    return sorted(os.path.join(directory, name) for name in os.listdir(directory)) if os.path.isdir(directory) else []


def is_mount_point(directory: str) -> bool:
    """Whether the directory is a file system of its own, or a bind mount of some directory."""
    return os.path.realpath(directory) in [mount.point for mount in mounts.table()]


def _lost_and_found(directory: str) -> t.List[str]:
    """What mke2fs makes in a new file system, which is nobody's."""
    path = os.path.join(directory, "lost+found")
    return [path] if os.path.isdir(path) and is_mount_point(directory) else []


def purged(directory: str) -> t.List[str]:
    """The paths that :func:`purge` removes: all that is in the directory, and itself where it is no mount point."""
    gone = [path for path in entries(directory) if path not in _lost_and_found(directory)]
    itself = os.path.isdir(directory) and not os.path.islink(directory) and not is_mount_point(directory)
    return [*gone, directory] if itself else gone


def refuse_others_directory(directory: str) -> None:
    """Raises HostError for a directory that others have, whatever is in it. Nothing is refused when it is empty."""
    if directory and os.path.realpath(directory) in _OTHERS:
        raise HostError(
            f"{directory} cannot be the directory of a build cache, because it belongs to the system or to another "
            f"engine, and all that is in a build cache may be removed. Nothing was changed. Name a directory of its "
            f"own, such as /var/lib/buildkit."
        )


def is_anothers(directory: str) -> bool:
    """Whether something is in the directory, and no daemon ever ran with it. Then no mount there is a daemon's."""
    found = [path for path in entries(directory) if path not in _lost_and_found(directory)]
    return bool(found) and not any(os.path.exists(os.path.join(directory, mark)) for mark in _MARKS)


def check(directory: str) -> None:
    """Refuses to empty what was never a daemon's, or holds file systems that are not. Raises HostError."""
    if is_anothers(directory):
        raise HostError(
            f"Emptying the build cache {directory} failed: there is no {' or '.join(_MARKS)} in it, so it is not "
            f"buildkitd's, and nothing was removed. Correct the path, or remove what is there by hand."
        )
    mounted, root = mounts.table(), os.path.realpath(directory)
    ours = own_mounts(directory)
    foreign = [mount for mount in mounted if mounts.is_below(mount.point, root) and mount.point not in ours]
    if foreign:
        names = ", ".join(f"{mount.point} ({mount.kind})" for mount in foreign)
        raise HostError(
            f"Emptying the build cache {directory} failed: below it is mounted what no build step mounts: {names}. "
            f"Nothing was removed, because its files are not part of the cache. Unmount it, and run again."
        )


def refuse_a_running_daemon(directory: str) -> None:
    """Raises HostError while a daemon holds the lock of the directory (flock(2))."""
    try:
        descriptor = os.open(os.path.join(directory, _LOCK), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise HostError(
            f"A daemon still runs with the build cache {directory}: it holds {_LOCK}. Nothing was ended or removed. "
            f"Stop it first."
        ) from error
    finally:
        os.close(descriptor)


def own_mounts(directory: str) -> t.List[str]:
    """The mount points that a daemon makes for its steps, the last mounted first.

    They show a directory of the daemon's state, as a root file system or to read a snapshot, or hold a network
    namespace. They lie below the state directory or have a name of the daemon's in the directory for temporary files.
    """
    mounted, root = mounts.table(), os.path.realpath(directory)
    device, place = mounts.location(root, mounted)

    def is_own(mount: mounts.Mount) -> bool:
        below = mounts.is_below(mount.point, root)
        if not below and not os.path.basename(mount.point).startswith(_TEMPORARY):
            return False
        layers = [part for option in mount.options for part in option.partition("=")[2].split(":")]
        # Many layers are given relative to the directory that holds them all, so that they fit into one page.
        relative = below and not any(one.startswith("/") for one in layers)
        ours = relative or any(mounts.is_below(one, root) for one in layers)
        overlay = mount.kind in ("overlay", "fuse.fuse-overlayfs") and ours
        bound = mount.device == device and mounts.is_below(mount.root, place)
        return overlay or bound or (below and mount.kind == "nsfs")

    return [mount.point for mount in reversed(mounted) if is_own(mount)]


class _Container(t.NamedTuple):
    """A step of which runc has a record."""

    directory: str
    groups: t.Tuple[str, ...]
    init: t.Optional[proc.ProcessIdentity]


def _containers(directory: str) -> t.List[_Container]:
    """The steps of which runc has a record (state.json of libcontainer)."""
    root, found = os.path.realpath(directory), []
    for path in sorted(glob.glob(os.path.join(_RUNC, "*", "state.json"))):
        try:
            with open(path, encoding="utf-8") as source:
                state = json.load(source)
            if not mounts.is_below(state["config"]["rootfs"], root):
                continue
            init = proc.identify(int(state["init_process_pid"]))
            same = init is not None and init.start_time == int(state["init_process_start"])
            groups = tuple(sorted(set(state["cgroup_paths"].values())))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        found.append(_Container(os.path.dirname(path), groups, init if same else None))
    return found


def _members(group: str) -> t.Iterator[int]:
    """The processes of a control group and of those below it."""
    for parent, _directories, files in os.walk(group):
        if "cgroup.procs" in files:
            with contextlib.suppress(OSError), open(os.path.join(parent, "cgroup.procs"), encoding="ascii") as source:
                yield from (int(line) for line in source.read().split())


def steps(directory: str) -> t.List[proc.ProcessIdentity]:
    """The processes of build steps, whichever daemon started them and whether it still lives.

    They are found by the records of runc; and by their root directory, when it is one that the daemon mounted for a
    step: the same device and directory, because the mere path may be that of another daemon in a container.
    """
    pids = set()
    for container in _containers(directory):
        if container.init is not None:
            pids.update([container.init.pid, *(one.pid for one in proc.descendants(container.init.pid))])
        pids.update(pid for group in container.groups for pid in _members(group))
    ours, root = own_mounts(directory), os.path.realpath(directory)
    roots = {
        mount.what
        for mount in mounts.table()
        if mount.point in ours and mounts.is_below(mount.point, root) and os.path.basename(mount.point) == "rootfs"
    }
    if roots:
        for name in filter(str.isdigit, os.listdir("/proc")):
            seen = [mount.what for mount in mounts.table(name) if mount.point == "/"]
            if seen and seen[-1] in roots:
                pids.add(int(name))
    pids.discard(0)  # a process of another pid namespace
    return [one for one in map(proc.identify, sorted(pids)) if one is not None]


def end_steps(directory: str, *, timeout: float = proc.GONE) -> t.List[str]:
    """Kills all build steps, forgets runc's records of them, and unmounts what they had; returns what was unmounted.

    ``timeout`` is in seconds. Raises HostError when something is still there, or refuses to go.
    """
    deadline = time.monotonic() + timeout
    containers = _containers(directory)
    while living := steps(directory):
        if time.monotonic() > deadline:
            names = ", ".join(f"{one.pid} ({one.executable})" for one in living)
            raise HostError(f"Ending the build steps of {directory} failed: still there after SIGKILL: {names}.")
        for one in living:
            proc.send(one, signal.SIGKILL)
        time.sleep(_POLL)
    for container in containers:
        for group in container.groups:
            for parent, _directories, _files in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):  # a zombie may hold it for a moment; it goes with the next boot
                    os.rmdir(parent)
        shutil.rmtree(container.directory, ignore_errors=True)
    unmounted = own_mounts(directory)
    for point in unmounted:
        _unmount(point, directory)
    return unmounted


def records(directory: str) -> t.List[str]:
    """The directories of runc's records of steps, which :func:`end_steps` removes."""
    return [container.directory for container in _containers(directory)]


def _unmount(point: str, directory: str) -> None:
    done = subprocess.run(["umount", point], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise HostError(
            f"Unmounting {point}, which a daemon that was killed left of the build cache {directory}, failed: umount "
            f"says: {done.stderr.strip()}. End what uses it, and run again."
        )
    if not mounts.is_below(point, os.path.realpath(directory)):
        with contextlib.suppress(OSError):
            os.rmdir(point)


def purge(directory: str) -> None:
    """Removes all that is in the directory, and itself where it is no mount point. Raises HostError, OSError."""
    # The marks last, so that an interrupted run can be repeated.
    for path in sorted(purged(directory), key=lambda path: (path == directory, os.path.basename(path) in _MARKS)):
        check(directory)  # again, so that nothing is lost that somebody mounted meanwhile
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
        elif path == directory:
            os.rmdir(path)
        else:
            shutil.rmtree(path)
