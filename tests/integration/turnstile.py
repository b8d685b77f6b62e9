# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody who stands before a daemon, passes bytes on, and counts."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from pathlib import Path


class Turnstile:
    """Listens before a daemon, passes bytes on, and counts how many are inside at most.

    One thread does it, and lets those out who want to leave before it lets the next one in.

    :param full: nobody is served before so many are inside, so that nobody has left before the last of them came
    """

    def __init__(self, target: str, directory: Path, full: int = 1) -> None:
        self.full = full
        self.most = 0
        self.answers = 0  # pieces that the daemon said
        self.address = f"unix://{directory}/turnstile.sock"
        self._target = target.removeprefix("unix://")
        self._others: dict[socket.socket, socket.socket] = {}
        self._daemons: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{directory}/turnstile.sock")
        self._listener.listen(100)
        self._open = True
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Let everybody out, and nobody in any more."""
        self._open = False
        self._thread.join()
        for one in (self._listener, *self._others):
            one.close()

    def _serve(self) -> None:
        while self._open:
            served = list(self._others) if self.most >= self.full else []
            ready = select.select([self._listener, *served], [], [], 0.02)[0]
            for one in served:
                self._pass(one)
            if self._listener in ready:
                self._let_in()

    def _let_in(self) -> None:
        client, daemon = self._listener.accept()[0], socket.socket(socket.AF_UNIX)
        daemon.connect(self._target)
        self._others |= {client: daemon, daemon: client}
        self._daemons.add(daemon)
        self.most = max(self.most, len(self._others) // 2)

    def _pass(self, one: socket.socket) -> None:
        """All that one side has to say by now, up to its end."""
        while one in self._others:
            try:
                data = one.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self.answers += bool(data) and one in self._daemons
            with contextlib.suppress(OSError):
                self._others[one].sendall(data)
            if not data:
                other = self._others.pop(one)
                del self._others[other]
                one.close()
                other.close()
