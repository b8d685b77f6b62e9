# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for a moment in which a daemon builds nothing, and nobody is about to send it a build.

A client that has just connected has not sent its build yet, so nobody may have connected within the last second. When
the moment seems to have come, new clients are kept waiting, and it is looked again.
"""

from __future__ import annotations

import time
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import ask, proc, sockets
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.door import Door
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.line import Line

SETTLED = 1.0  # seconds after which a client that has connected, but builds nothing, is held to be idle
SILENT = 30.0  # seconds for which a daemon may give no answer, while it waits for a busy disk for instance
ASK_AGAIN = 0.2  # seconds between two attempts to ask a daemon that is silent
_POLL = 0.02  # seconds
_LULL = 15.0  # seconds to wait for one


class Watch:
    """Looks at one daemon until nothing runs.

    ``builds`` are what ran last, by name; ``problem`` is why the daemon cannot be asked, or empty.
    """

    def __init__(self, daemon: proc.ProcessIdentity, pid: int, socket: str, port: int, *, hold: bool = True) -> None:
        """Watch a daemon of which ``pid`` listens, on a unix socket, and on a TCP port unless that is 0.

        :param hold: whether new clients of that port may be kept waiting
        """
        self._daemon = daemon
        self.pid = pid
        self._socket = socket
        self._port = port
        self.door = Door(pid, port if hold else 0)
        self._since: t.Dict[str, float] = {}  # sockets of its clients, and when they were seen first
        self._others: t.Optional[t.Set[str]] = None  # sockets that it had before, and are no clients
        self._ours: t.Set[str] = set()
        self._begun: t.Dict[str, float] = {}  # builds that run, likewise
        self.line: t.Optional[Line] = None
        self.builds: t.List[str] = []
        self.problem = ""

    def look(self) -> bool:
        """Whether nothing runs."""
        self.builds = []
        try:
            now = time.monotonic()
            before = sockets.of(self.pid) if self.line is None else None
            if self.line is None:
                self.line = Line(self._daemon.pid, self._socket)
            self._begun = {one: self._begun.get(one, now) for one in ask.builds(self.line)}
            if before is not None:
                more = sockets.of(self.pid) - before
                self._ours = more if len(more) == 1 else set()  # somebody else connected too, and we are one of them
            self.builds = sorted(self._begun)
            self.problem = ""
        except HostError as error:
            self._hang_up()
            self.problem = str(error)
        return not self.problem and not self.builds

    def idle(self) -> bool:
        """Whether nothing runs, and nobody has just connected."""
        nothing, settled = self.look(), self._nobody_new()
        if not (nothing and settled) or self._somebody_waits():
            return False
        # What was read is of no single moment: who connects while the one before hangs up is seen the second time.
        return self._nobody_new() and self.look()

    def _nobody_new(self) -> bool:
        """Whether nobody has just connected."""
        now = time.monotonic()
        present = sockets.of(self.pid)
        if self._others is None:
            clients = sockets.connections(self.pid, self._port)
            self._others = present - clients - sockets.local_connections(self.pid, self._socket)
        known = self._others | self._ours
        self._since = {one: self._since.get(one, now) for one in present - known}
        return all(now - since >= SETTLED for since in self._since.values())

    def _somebody_waits(self) -> bool:
        """Whether a client has connected that the daemon has not accepted yet."""
        return "0" in sockets.connections(self.pid, self._port)

    def _moment(self) -> bool:
        """Whether this is the moment; then new clients wait, where that is possible."""
        if not self.idle():
            return False
        if self.door.close() and not self.idle():
            self.door.open()
            return False
        return True

    def wait(self, limit: float) -> bool:
        """Wait for the moment for so many seconds; whether it came. A daemon that is silent is not waited for as long.

        When it came, new clients wait until :meth:`close`, where that is possible.
        """
        return self._until(self._moment, limit)

    def _until(self, come: t.Callable[[], bool], limit: float) -> bool:
        """Wait for something that looking tells; whether it came."""
        began = answered = time.monotonic()
        while not come():
            now = time.monotonic()
            if not self.problem:
                answered = now
            if proc.identify(self._daemon.pid) != self._daemon:
                return False  # it ended by itself
            if now - began >= limit or now - answered >= SILENT:
                return False
            time.sleep(ASK_AGAIN if self.problem else _POLL)
        return True

    def drain(self, seconds: float) -> None:
        """Have new clients wait, and let those inside build what they came for, for so long.

        Who comes by the unix socket cannot be kept waiting. When they begin builds, when nobody can be kept waiting, or
        when those inside find no end, all there is to do is to wait for a lull.
        """
        lull = min(_LULL, seconds / 2)
        before, inside = set(self._begun), self._local_clients()
        came: t.Set[str] = set()

        def others() -> bool:
            came.update(self._local_clients() - inside - self._ours)
            return bool(came and set(self._begun) - before)

        closed = self.door.close()
        if not (closed and self._until(lambda: self.idle() or others(), seconds - lull)) or others():
            self._until(self._lull, lull)

    def _local_clients(self) -> t.Set[str]:
        return sockets.of(self.pid) & sockets.local_connections(self.pid, self._socket)

    def _lull(self) -> bool:
        """Whether no build has just begun and nobody has just connected.

        buildctl and buildx call more than once for a build, until its frontend has read the Dockerfile, and a daemon
        that was told to end takes no more calls.
        """
        if self.idle():
            return True
        now = time.monotonic()
        return not self.problem and all(
            now - since >= SETTLED for since in [*self._begun.values(), *self._since.values()]
        )

    def close(self) -> None:
        """Hang up, and keep nobody waiting."""
        self._hang_up()
        self.door.open()

    def _hang_up(self) -> None:
        if self.line:
            self.line.close()
            self.line = None
