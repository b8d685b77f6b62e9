# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connected byte streams, plain or in TLS, each within a time limit. What speaks over them comes later."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import threading
from typing import Any, Callable

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.endpoint import Endpoint
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import ConnectError, Kind
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.helper import Helper
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.tls import Session

# Between attempts on the addresses of one name: RFC 8305 (Happy Eyeballs), section 5.
_ATTEMPT_DELAY = 0.25


class Deadline:
    """A moment on the event loop's clock, from which every stage of a connection takes what it needs.

    :param seconds: how far away it is
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = asyncio.get_running_loop().time() + seconds

    def left(self) -> float:
        """Seconds until then, at least 0."""
        return max(0.0, self._end - asyncio.get_running_loop().time())

    def missed(self, stage: str, more: str = "") -> ConnectError:
        """The error to raise when a stage did not end in time.

        :param more: the end of the message, what else is known
        """
        return ConnectError(Kind.TIMEOUT, f"{stage} was not done within {self.seconds:g} s{more}")


class _Holder(asyncio.Protocol):
    """Keeps what happens on a stream until its real protocol is there.

    It passes on what happens later too: the loop may have an event in its queue already that was meant for this one.
    """

    def __init__(self) -> None:
        self._events: list[Callable[[asyncio.Protocol], None]] = []
        self._successor: asyncio.Protocol | None = None

    def data_received(self, data: bytes) -> None:
        self._pass_on(lambda protocol: protocol.data_received(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._pass_on(lambda protocol: protocol.connection_lost(exc))

    def pause_writing(self) -> None:
        self._pass_on(lambda protocol: protocol.pause_writing())

    def resume_writing(self) -> None:
        self._pass_on(lambda protocol: protocol.resume_writing())

    def hand_over(self, successor: asyncio.Protocol) -> None:
        self._successor = successor
        for event in self._events:
            event(successor)

    def _pass_on(self, event: Callable[[asyncio.Protocol], None]) -> None:
        if self._successor is None:
            self._events.append(event)
        else:
            event(self._successor)


class _HelperHolder(_Holder):
    """The same for the stream of a helper, whose end is passed on with its reason."""

    def __init__(self, helper: Helper) -> None:
        super().__init__()
        self._helper = helper
        self._closing: asyncio.Future[None] | None = None
        self.aborted = False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.aborted:
            super().connection_lost(exc)
        else:
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        super().connection_lost(await self._helper.end())


class Stream:
    """A connected stream. It is closed by whoever holds it.

    Nothing is read before TLS or a protocol is there: what a server sends first is for these to judge.

    :param helper: the program at its other end, if there is one
    """

    def __init__(self, transport: asyncio.Transport, holder: _Holder, helper: Helper | None = None) -> None:
        transport.pause_reading()
        self.helper = helper
        self._connection = transport
        self._transport = transport  # that of TLS, once it is there
        self._holder = holder

    @property
    def peer_certificate(self) -> bytes | None:
        """The certificate of the other side in DER form, None without TLS."""
        session = self._transport.get_extra_info("ssl_object")
        return session.peer_certificate if isinstance(session, Session) else None

    async def start_tls(self, context: ssl.SSLContext, hostname: str, deadline: Deadline) -> None:
        """Make it a TLS stream.

        :raises OSError: ssl.SSLError and all others, as they come
        :raises ConnectError: the peer stays silent
        """
        loop = asyncio.get_running_loop()
        handshake = loop.start_tls(
            self._transport,
            self._holder,
            context,
            server_hostname=hostname,
            ssl_handshake_timeout=deadline.left() + 1,  # the limit is ours, below
        )
        try:
            secured = await asyncio.wait_for(handshake, deadline.left())
        except asyncio.TimeoutError:
            self.abort()
            raise deadline.missed("The TLS handshake") from None
        except BaseException:
            self.abort()
            raise
        if secured is None:  # lost in the very moment in which it was there
            self.abort()
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        self._transport = secured

    def attach(self, protocol: asyncio.Protocol) -> None:
        """Hand the stream to the protocol that speaks over it, together with all that has happened so far."""
        if self.helper is None:  # the end of a helper goes through its holder
            self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        self._holder.hand_over(protocol)
        if self._transport.get_extra_info("ssl_object") is None:  # TLS reads since its handshake
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close it at once.

        The connection below TLS: asyncio's TLS transport, once closed twice, cannot be aborted in Python 3.11.2.
        """
        if isinstance(self._holder, _HelperHolder):
            self._holder.aborted = True
        self._connection.abort()
        if self.helper is not None:
            self.helper.stop()

    async def close(self) -> None:
        """Close it at once, and wait until nothing of it is left."""
        self.abort()
        await asyncio.sleep(0)  # lets the transport close its socket
        if self.helper is not None:
            await self.helper.stopped()


async def connect(endpoint: Endpoint, deadline: Deadline) -> Stream:
    """Open a stream to a daemon.

    :raises ConnectError: nobody is there, or nobody answers in time
    :raises Failure: the program that leads there cannot be started
    """
    if endpoint.command:
        return await _connect_helper(endpoint.command)
    try:
        if not endpoint.is_tcp:
            return await asyncio.wait_for(_connect_unix(endpoint.path), deadline.left())
        addresses = await _resolve_in_time(endpoint.host, endpoint.port, deadline)
        return await asyncio.wait_for(_connect_tcp(addresses), deadline.left())
    except asyncio.TimeoutError:
        raise deadline.missed("The connection") from None
    except socket.gaierror as error:
        raise ConnectError(Kind.UNREACHABLE, f"The name {endpoint.host} cannot be resolved: {error.strerror}") from None
    except PermissionError as error:
        remedy = f"Run this as root, or as a member of the group of {endpoint.path}." if endpoint.path else None
        raise ConnectError(Kind.UNREACHABLE, f"Cannot connect: {error.strerror}", remedy=remedy) from None
    except OSError as error:
        raise ConnectError(Kind.UNREACHABLE, f"Cannot connect: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    # asyncio's own text repeats the address, which the message has already.
    return os.strerror(error.errno) if error.errno else str(error)


async def _connect_unix(path: str) -> Stream:
    transport, holder = await asyncio.get_running_loop().create_unix_connection(_Holder, path)
    return Stream(transport, holder)


async def _connect_helper(command: tuple[str, ...]) -> Stream:
    """Start a program that leads to the daemon. Whether it gets there shows at the first answer only."""
    helper = Helper(command)
    holder = _HelperHolder(helper)
    try:
        await helper.listen()
        transport, _protocol = await asyncio.get_running_loop().create_connection(
            lambda: holder, sock=helper.connection
        )
    except BaseException:
        helper.connection.close()
        helper.stop()
        raise
    return Stream(transport, holder, helper)


async def _resolve_in_time(host: str, port: int, deadline: Deadline) -> list[tuple[int, Any]]:
    try:
        return await asyncio.wait_for(_resolve(host, port), deadline.left())
    except asyncio.TimeoutError:
        raise deadline.missed(f"Looking up the name {host}") from None


async def _connect_tcp(addresses: list[tuple[int, Any]]) -> Stream:
    """Try all addresses of a host, each a moment after the one before, and take the first that answers."""
    attempts: set[asyncio.Task[Stream]] = set()
    failures: list[BaseException] = []
    try:
        while addresses or attempts:
            if addresses:
                attempts.add(asyncio.ensure_future(_connect_address(*addresses.pop(0))))
            done, _pending = await asyncio.wait(
                attempts, timeout=_ATTEMPT_DELAY if addresses else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                attempts.remove(attempt)
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                failures.append(error)
        raise failures[0]  # of the address that the system prefers
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_abandon)


def _abandon(attempt: asyncio.Task[Stream]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()


async def _connect_address(family: int, address: Any) -> Stream:
    loop = asyncio.get_running_loop()
    # asyncio turns off Nagle's algorithm, which costs 40 ms a call, only where the protocol is named.
    connection = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        connection.setblocking(False)
        await loop.sock_connect(connection, address)
        transport, holder = await loop.create_connection(_Holder, sock=connection)
    except BaseException:
        connection.close()
        raise
    return Stream(transport, holder)


async def _resolve(host: str, port: int) -> list[tuple[int, Any]]:
    """All addresses of a host, in the order in which the system prefers them.

    In a thread of its own that nobody waits for: a name server that never answers must not hold up the end of
    the program.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def settle(result: list[Any] | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result or [])

    def resolve() -> None:
        result: list[Any] | None = None
        error: OSError | None = None
        try:
            result = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError:
            error = socket.gaierror(socket.EAI_NONAME, "not a host name")
        except OSError as failure:
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=resolve, name=f"resolve {host}", daemon=True).start()
    return [(found[0], found[4]) for found in await answer]
