# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs whose standard input and output are a connection to a daemon: ssh, docker and podman.

Each has a session of its own, hence no terminal on which it could ask for a password, and always an end: it is asked
to end when its connection is closed, killed if it does not, and waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import threading
from typing import Callable

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, Kind

# The end of what a program wrote to its standard error, which says why it ended.
_TAIL_BYTES = 4096
_TAIL_LINES = 6

# Seconds that a program has to end by itself, once its output has ended or once it was asked to.
_END_LIMIT = 3.0
_STOP_LIMIT = 0.5
_PAUSE = 0.005


class Helper:
    """A running program.

    C(connection) is our end of its standard input and output. Whoever takes it over closes it.

    :raises Failure: it cannot be started
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        self.connection, theirs = socket.socketpair()
        self._command = command
        self._tail = _Tail()
        self._reaper: threading.Thread | None = None
        reading, writing = os.pipe()
        self._errors = os.fdopen(reading, "rb", 0)
        end = theirs.fileno()
        # No window that asks for a password either (ssh(1), SSH_ASKPASS_REQUIRE).
        environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
        try:
            self._process = subprocess.Popen(
                command, stdin=end, stdout=end, stderr=writing, env=environment, start_new_session=True
            )
        except OSError as error:
            self.connection.close()
            self._errors.close()
            raise Failure(
                Kind.HELPER_FAILED,
                f"{command[0]} cannot be started: {error.strerror}",
                remedy=f"Install {command[0]} where this runs, or use another kind of address.",
            ) from None
        finally:
            theirs.close()
            os.close(writing)

    def __str__(self) -> str:
        return shlex.join(self._command)

    @property
    def process_id(self) -> int:
        """The number of its process."""
        return self._process.pid

    async def listen(self) -> None:
        """Keep the end of what it writes to its standard error from now on."""
        await asyncio.get_running_loop().connect_read_pipe(lambda: self._tail, self._errors)

    @property
    def said(self) -> str:
        """The last lines of its standard error, in one line."""
        return " | ".join(self._tail.lines)

    @property
    def with_what_it_said(self) -> str:
        """The same with a beginning, for messages; empty if it said nothing."""
        return f"; {self._command[0]} said: {self.said}" if self.said else ""

    async def end(self) -> Failure:
        """Why its output has ended: how it ended and what it said, both of which may take a moment to arrive."""
        limit = asyncio.get_running_loop().time() + _END_LIMIT
        while self._process.poll() is None and asyncio.get_running_loop().time() < limit:
            await asyncio.sleep(_PAUSE)
        code = self._process.poll()
        if code is None:
            how = "closed its output"
        elif code < 0:
            how = f"was ended by signal {-code}"
        else:
            how = f"ended with exit code {code}"
        with contextlib.suppress(asyncio.TimeoutError):  # a process that it left behind may hold on to it
            await asyncio.wait_for(asyncio.shield(self._tail.ended), _PAUSE if code is None else _STOP_LIMIT)
        return Failure(Kind.HELPER_FAILED, f"{self} {how}{self.with_what_it_said}")

    def stop(self) -> None:
        """See to it that it ends, soon and without anybody waiting."""
        self._tail.close()
        if self._reaper is None:
            self._reaper = threading.Thread(target=self._reap, name=f"reap {self._command[0]}")
            self._reaper.start()

    async def stopped(self) -> None:
        """Wait until it has ended, once it was told to."""
        while self._reaper is not None and self._reaper.is_alive():
            await asyncio.sleep(_PAUSE)

    def _reap(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)  # with what it started, such as a ProxyCommand of ssh
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_LIMIT)
                return
        self._process.wait()


class _Tail(asyncio.Protocol):
    """Keeps the end of a stream."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kept = b""
        self._close: Callable[[], None] | None = None

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self._kept.decode("utf-8", "replace").splitlines() if line.strip()][
            -_TAIL_LINES:
        ]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._close = transport.close

    def data_received(self, data: bytes) -> None:
        self._kept = (self._kept + data)[-_TAIL_BYTES:]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        if self._close is not None:
            self._close()
