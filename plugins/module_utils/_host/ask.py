# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to a daemon through its unix socket, from its own host, by the buildctl that lies beside it.

Hosts have no gRPC library, and the answer must be as fresh as can be: buildctl takes about 20 ms.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

TIMEOUT = 5.0  # seconds for a call
_FOLLOWED = 0.7  # seconds until a program that follows a build does so
_HOLD = 15.0  # seconds to wait for a moment in which each build is followed
# A record that is STARTED (api/services/control/control.proto, BuildHistoryEventType) is of a build that runs.
_RUNNING = '{{if eq (printf "%s" .Type) "STARTED"}}{{.Record.Ref}}\n{{end}}'
_EVENT = re.compile(rb"^event: (STARTED|COMPLETE) ref:(\S+)$", re.MULTILINE)
_VERSION = "{{.BuildkitVersion.Version}}"


def builds(pid: int, path: str) -> t.List[str]:
    """The names of the builds that run now, without those that were sent as internal. Raises HostError."""
    return _buildctl(pid, path, "histories", _RUNNING).split()


def version(pid: int, path: str) -> str:
    """What the daemon says that it is, such as v0.13.2; empty if it does not. Raises HostError."""
    return _buildctl(pid, path, "info", _VERSION).strip()


class _Log:
    """A program that goes on until a build has ended."""

    def __init__(self, command: t.Sequence[str], directory: str) -> None:
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            list(command),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._ended = 0.0

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        if not self._ended and self._process.poll() is not None:
            self._ended = time.monotonic()
        return bool(self._ended)

    @property
    def follows(self) -> bool:
        """Whether it has lasted for so long that it must have found its build, or says that it had."""
        return (self._ended or time.monotonic()) - self._began >= _FOLLOWED or self._process.returncode == 0

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class Watch:
    """Knows at any time which builds run, also after the daemon was told to end, when it answers no more questions.

    It is ``buildctl debug monitor``, whose call goes on until either side ends it. A daemon from v0.18 on does that as
    soon as it is told to end, so there is ``buildctl debug logs`` of each build, which goes on until that has ended.
    Raises HostError when the daemon cannot be asked.
    """

    def __init__(self, pid: int, path: str) -> None:
        command, directory = _command(pid, path, "monitor")
        try:
            self._monitor = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise HostError(f"Asking buildkitd on {path} with buildctl failed: {error}.") from error
        self._text = b""
        self._path = (pid, path)
        self._logs: t.Dict[str, _Log] = {}
        try:
            # What ends after this question is told by the monitor, if that listens by then; so it is asked twice.
            self.running = {*builds(pid, path)}
            self.update(0.1)
            self.running &= {*builds(pid, path)}
        except HostError:
            self.close()
            raise

    def update(self, seconds: float) -> bool:
        """Listen for so long; whether there is anybody to listen to."""
        for ref, log in list(self._logs.items()):
            if log.ended and log.follows:
                self.running.discard(ref)
            elif log.ended:
                del self._logs[ref]  # it came to nothing
        pipe = self._monitor.stdout
        if pipe is None or pipe.closed:
            return False
        if not select.select([pipe], [], [], seconds)[0]:
            return self._monitor.poll() is None
        self._text += os.read(pipe.fileno(), 1 << 16)
        whole, _newline, self._text = self._text.rpartition(b"\n")
        for event, ref in _EVENT.findall(whole):
            (self.running.add if event == b"STARTED" else self.running.discard)(ref.decode("utf-8", "replace"))
        return self._monitor.poll() is None

    def hold(self) -> bool:
        """Follow each build that runs, for when the daemon was told to end; whether that came about.

        On true each of them has been followed for a while, and the daemon is to be told at once.
        """
        deadline = time.monotonic() + _HOLD
        while time.monotonic() < deadline:
            for ref in self.running - set(self._logs):
                command, directory = _command(*self._path, "logs", ref)
                try:
                    self._logs[ref] = _Log(command, directory)
                except OSError:
                    return False
            self.update(0.02)
            if all(ref in self._logs and self._logs[ref].follows for ref in self.running):
                return True
        return False

    def close(self) -> None:
        """Hang up, so that the daemon need not wait for us."""
        for log in self._logs.values():
            log.close()
        self._monitor.kill()
        self._monitor.wait()
        if self._monitor.stdout:
            self._monitor.stdout.close()


def _command(pid: int, path: str, *question: str) -> t.Tuple[t.List[str], str]:
    """How buildctl is run for a question, and the directory to run it in.

    That is the socket's, in the file system as the daemon sees it, which may be a container's: the address of a unix
    socket has no room for a long path. The program is what lies beside the daemon's, so it gets that daemon's rights
    and no more. Raises HostError when the daemon is gone.
    """
    directory, name = os.path.split(path)
    try:
        program = os.path.dirname(os.readlink(f"/proc/{pid}/exe")) + "/buildctl"
        user, group = _owner(pid)
    except OSError as error:
        raise HostError(f"Asking buildkitd on {path} with buildctl failed: {error}.") from error
    command = [f"/proc/{pid}/root{program}", "--addr", f"unix:///proc/self/cwd/{name}", "debug", *question]
    if user != os.geteuid():
        command = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs", *command]
    return command, f"/proc/{pid}/root{directory}"


def _owner(pid: int) -> t.Tuple[int, int]:
    """The effective user and group of a process (proc_pid_status(5)); a process may hide the owner of its directory."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
        words = [line.split() for line in lines]
    numbers = {line[0]: int(line[2]) for line in words if line and line[0] in ("Uid:", "Gid:")}
    return numbers["Uid:"], numbers["Gid:"]


def _buildctl(pid: int, path: str, question: str, template: str) -> str:
    """What ``buildctl debug`` prints."""
    command, directory = _command(pid, path, question, "--format", template)
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"Asking buildkitd on {path} with buildctl failed: {error}.") from error
    if done.returncode:
        raise HostError(f"Asking buildkitd on {path} with buildctl failed: {done.stderr.strip()[-500:]}")
    return done.stdout
