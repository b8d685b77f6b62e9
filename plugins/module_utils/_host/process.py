# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon without an init system: one process, a pid file that tells it apart from others, and a log."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import struct
import subprocess
import time
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

_POLL = 0.05  # seconds
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def read_pid_file(path: str) -> t.Optional[proc.ProcessIdentity]:
    """Who the pid file names; None when there is none. Raises HostError when it cannot be read or is not ours."""
    try:
        with open(path, encoding="utf-8") as pid_file:
            content = json.load(pid_file)
        return proc.ProcessIdentity(
            pid=int(content["pid"]),
            start_time=int(content["start_time"]),
            executable=str(content["executable"]),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(
            f"Reading the pid file {path} failed: {error.strerror}. Without it, it cannot be told which process is "
            f"ours; nothing was killed. Run as root (become: true)."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(
            f"Reading the pid file {path} failed: {error}. It was not written by this role, so it cannot be told "
            f"which process is ours; nothing was killed. Stop that daemon by hand and remove the file."
        ) from error


def running(path: str) -> t.Optional[proc.ProcessIdentity]:
    """The living process that the pid file names, and only if it is that very process."""
    recorded = read_pid_file(path)
    if recorded is None:
        return None
    return recorded if proc.identify(recorded.pid) == recorded else None


def unrecorded(program: str, ready_socket: str) -> t.Optional[proc.ProcessIdentity]:
    """Our daemon that listens on the unix socket although no pid file names it; None when nobody listens there.

    Ours is ``program``, or the one of another version beside it: <versions>/<version>/bin/<name>. Raises HostError
    when somebody else listens.
    """
    pid = _listening_process(ready_socket)
    if pid is None:
        return None
    found = proc.identify(pid)
    wanted = os.path.realpath(program)
    if found is not None and (found.executable == wanted or _of_version(found.executable) == _of_version(wanted)):
        return found
    raise HostError(
        f"Somebody else's daemon answers on {ready_socket}: process {pid} "
        f"({found.executable if found else 'an unknown program'}), which is not {program}. It was left alone. Stop it, "
        f"or choose another socket."
    )


def _of_version(executable: str) -> t.Tuple[str, ...]:
    """What the programs of all versions have in common; a program that is in no such tree has itself alone."""
    parts = executable.split("/")
    return (*parts[:-3], parts[-1]) if len(parts) > 4 and parts[-2] == "bin" else (executable,)


def record(pid_file: str, identity: proc.ProcessIdentity) -> None:
    """Writes the pid file, and its directory where it is missing."""
    os.makedirs(os.path.dirname(pid_file), mode=0o700, exist_ok=True)
    temporary = f"{pid_file}.{os.getpid()}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as target:
        json.dump(
            {"pid": identity.pid, "start_time": identity.start_time, "executable": identity.executable},
            target,
        )
    os.replace(temporary, pid_file)


def _tail(log_file: str, *, lines: int = 15) -> str:
    try:
        with open(log_file, encoding="utf-8", errors="replace") as log:
            return "\n".join(log.read().splitlines()[-lines:])
    except OSError as error:
        return f"(no log: {error})"


def read_environment(path: t.Optional[str]) -> t.Dict[str, str]:
    """The variables of a file with NAME=value on each line, without quotes; none without a file."""
    if not path or not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as source:
        lines = [line.strip() for line in source if "=" in line and not line.startswith("#")]
    return {name: value for name, _equals, value in (line.partition("=") for line in lines)}


def start(
    argv: t.Sequence[str],
    *,
    pid_file: str,
    log_file: str,
    environment: t.Mapping[str, str],
    ready_socket: str,
    timeout: float,
) -> proc.ProcessIdentity:
    """Starts the daemon in a session of its own and waits until its unix socket accepts.

    It has the variables of ``environment`` and no others but PATH and HOME, so that it does not depend on who runs
    this. ``timeout`` is in seconds. Raises HostError, with the end of the log, when the daemon ends or stays silent.
    """
    os.makedirs(os.path.dirname(log_file), mode=0o700, exist_ok=True)
    log_descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=log_descriptor,
            stderr=subprocess.STDOUT,
            env={"PATH": _PATH, "HOME": pwd.getpwuid(os.getuid()).pw_dir, **environment},
            cwd="/",
            close_fds=True,
            start_new_session=True,
        )
    except OSError as error:
        raise HostError(f"Starting {argv[0]} failed: {error}.") from error
    finally:
        os.close(log_descriptor)
    identity = _identify_started(child, argv)
    if identity is not None:
        record(pid_file, identity)
        if _wait_ready(child, ready_socket, timeout):
            return identity
    status = child.poll()
    if identity is not None and status is None:
        stop(pid_file, timeout=10)
    else:
        child.kill()  # does nothing to one that has ended
        child.wait()
        _forget(pid_file)
    happened = f"did not answer on {ready_socket} within {timeout:g} s" if status is None else f"ended with {status}"
    raise HostError(f"{argv[0]} {happened}. The end of its log {log_file}:\n{_tail(log_file)}")


def _identify_started(child: subprocess.Popen[bytes], argv: t.Sequence[str]) -> t.Optional[proc.ProcessIdentity]:
    """The child's identity once it runs the daemon's program, not yet the interpreter that forked it."""
    wanted = os.path.realpath(argv[0])
    deadline = time.monotonic() + 5
    while child.poll() is None and time.monotonic() < deadline:
        identity = proc.identify(child.pid)
        if identity is not None and identity.executable == wanted:
            return identity
        time.sleep(_POLL)
    return None


def _wait_ready(child: subprocess.Popen[bytes], ready_socket: str, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while child.poll() is None and time.monotonic() < deadline:
        if _listening_process(ready_socket) == child.pid:
            return True
        time.sleep(_POLL)
    return False


def _listening_process(path: str) -> t.Optional[int]:
    """Who listens on a unix socket (SO_PEERCRED, unix(7)); None when nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            return None
    pid, _uid, _gid = struct.unpack("3i", credentials)
    return int(pid)


def _forget(pid_file: str) -> None:
    if os.path.exists(pid_file):
        os.unlink(pid_file)


def stop(pid_file: str, *, timeout: float) -> bool:
    """Stops the process that the pid file names: SIGTERM, and after ``timeout`` seconds SIGKILL, to all it started too.

    Returns whether there was one. A process that merely has the same number is left alone. buildkitd has no time to
    end its build steps when it is killed, and nobody else would.
    """
    identity = running(pid_file)
    if identity is None:
        _forget(pid_file)
        return False
    for sent, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, proc.GONE)):
        started = proc.descendants(identity.pid) if sent == signal.SIGKILL else []
        try:
            os.kill(identity.pid, sent)
        except ProcessLookupError:
            break
        for child in started:
            proc.send(child, signal.SIGKILL)
        deadline = time.monotonic() + patience
        while proc.identify(identity.pid) == identity and time.monotonic() < deadline:
            time.sleep(_POLL)
        if proc.identify(identity.pid) != identity:
            break
    else:
        raise HostError(f"Process {identity.pid} ({identity.executable}) is still there after SIGKILL; see its state.")
    _forget(pid_file)
    return True


def kill_tree(daemon: proc.ProcessIdentity, *, timeout: float = proc.GONE) -> int:
    """Kills a process and everything that it started, and returns how many processes that were.

    They are frozen first (SIGSTOP), the daemon before its children, until nobody new is found: what is frozen starts
    nothing, and no child is lost by losing its parent. ``timeout`` is in seconds. Raises HostError when they are still
    there after SIGKILL.
    """
    frozen: t.Dict[int, proc.ProcessIdentity] = {}
    found = [daemon]
    while found:
        for one in found:
            proc.send(one, signal.SIGSTOP)
            frozen[one.pid] = one
        found = [one for one in proc.descendants(daemon.pid) if frozen.get(one.pid) != one]
    for one in frozen.values():
        proc.send(one, signal.SIGKILL)
    deadline = time.monotonic() + timeout
    while any(proc.is_there(one) for one in frozen.values()):
        if time.monotonic() > deadline:
            raise HostError(
                f"Process {daemon.pid} ({daemon.executable}) or a step that it started is still there after SIGKILL; "
                "see their state."
            )
        time.sleep(_POLL)
    return len(frozen)
