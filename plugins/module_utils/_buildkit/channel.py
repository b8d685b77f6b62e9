# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""gRPC over a ready stream: grpclib on top, our streams below.

grpclib opens its own connections, which know neither our time limits nor why TLS failed. A channel of ours
overrides the one method with which it does so; that hook is private to grpclib, so its version is pinned
below 0.5 and a unit test watches it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import limits, stream, tls
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.endpoint import Endpoint
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    ConnectError,
    Failure,
    Kind,
    RpcError,
    TlsError,
)

if TYPE_CHECKING:
    from grpclib.client import Channel, Handler
    from grpclib.config import Configuration
    from grpclib.protocol import H2Protocol
    from h2.config import H2Configuration
    from h2.events import RemoteSettingsChanged
else:
    try:
        from grpclib.client import Channel, Handler
        from grpclib.config import Configuration
        from grpclib.protocol import H2Protocol
        from h2.config import H2Configuration
        from h2.events import RemoteSettingsChanged
    except ImportError:  # reported by _deps before any channel is made
        Channel = H2Protocol = object

_SETTINGS = 4  # RFC 9113, section 6.5


class GreetingError(RpcError):
    """The peer does not begin as an HTTP/2 server begins.

    :param beginning: its first bytes
    """

    def __init__(self, beginning: bytes) -> None:
        super().__init__(Kind.NOT_GRPC, f"The answer is no HTTP/2: it begins with {beginning!r}")
        self.beginning = beginning


@dataclass(frozen=True)
class Peer:
    """Who to be, to whom.

    :param context: TLS settings, None for no TLS
    :param hostname: the name that the certificate must have
    :param with_certificate: whether the context has a client certificate to show
    """

    endpoint: Endpoint
    context: ssl.SSLContext | None = None
    hostname: str = ""
    with_certificate: bool = False


class _Http2(H2Protocol):
    """The HTTP/2 connection of a channel, which also remembers how it began and why it ended."""

    def __init__(self) -> None:
        self._state = Handler()
        super().__init__(
            self._state,
            Configuration().__for_client__(),
            H2Configuration(client_side=True, header_encoding="ascii"),
        )
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: Exception | None = None
        self._beginning = b""
        self._frames = limits.FrameMeter()

    @property
    def lost(self) -> bool:
        """Whether no more calls can be made, which may be known before the stream is closed."""
        return self._state.connection_lost

    def data_received(self, data: bytes) -> None:
        if self.error is not None:
            return
        if not self.settled.done():
            self._beginning += data[: limits.FRAME_HEADER]
            if len(self._beginning) >= 4 and self._beginning[3] != _SETTINGS:
                # RFC 9113, section 3.4: a server begins with SETTINGS.
                self._give_up(GreetingError(self._beginning))
                return
        try:
            self._read(data)
        except limits.LimitError as error:
            self._give_up(RpcError(Kind.NOT_GRPC, f"The answer is beyond all limits: {error}"))
        except Exception as error:  # whatever a hostile peer makes the HTTP/2 library raise
            if self._frames.goodbye:  # it may ping after that, which the HTTP/2 library does not expect
                self._give_up(ConnectError(Kind.UNREACHABLE, "The daemon hung up, as it does when it stops"))
                return
            self._give_up(RpcError(Kind.NOT_GRPC, f"The answer is no proper HTTP/2 ({type(error).__name__})"))

    def _read(self, data: bytes) -> None:
        self._frames.feed(data)
        events = self.connection.feed(data)
        self.connection.flush()
        for event in events:
            if isinstance(event, RemoteSettingsChanged) and not self.settled.done():
                self.settled.set_result(None)
            # Frames and responses that are unknown here may be skipped (RFC 9113, section 5.5).
            if type(event) in getattr(self.processor, "processors", ()):
                self.processor.process(event)
        self.connection.flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        if isinstance(exc, Exception):
            self.error = self.error or exc
        if not self.settled.done():
            self.settled.set_exception(self.error or ConnectionResetError("closed without an answer"))
        super().connection_lost(exc)

    def _give_up(self, error: Failure) -> None:
        self.error = self.error or error
        if not self.settled.done():
            self.settled.set_exception(error)
        self.processor.close("no proper HTTP/2")


class StreamChannel(Channel):
    """A gRPC channel with exactly one connection, which is made before and never again."""

    def __init__(self, peer: Peer, protocol: _Http2) -> None:
        # The TLS settings give the requests their scheme; the connection has been made.
        super().__init__(peer.endpoint.host or "localhost", peer.endpoint.port, ssl=peer.context)
        self._ready = protocol

    async def _create_connection(self) -> H2Protocol:
        if self._ready.lost:
            raise self.lost
        return self._ready

    @property
    def lost(self) -> Failure:
        """Why the connection has ended."""
        error = self._ready.error
        if isinstance(error, Failure):
            return error
        return ConnectError(Kind.UNREACHABLE, f"The connection was lost ({error or 'closed by the daemon'})")


@dataclass(frozen=True)
class Connection:
    """An open gRPC connection.

    :param certificate: the server's, DER; None without TLS
    :param timings: seconds per stage, C(connect) and C(tls)
    """

    channel: StreamChannel
    certificate: bytes | None
    timings: dict[str, float]
    raw: stream.Stream

    async def close(self) -> None:
        """Close it at once."""
        self.channel.close()
        await self.raw.close()


async def open_connection(peer: Peer, *, timeout: float) -> Connection:
    """Connect, with TLS if the peer has a context, up to the first frame of the server.

    Only that frame proves that a client certificate was accepted: under TLS 1.3 the handshake is over before
    the server has looked at it. Nothing but the preface is sent until then, so that the alert that names the
    cause is always what we read next.

    A daemon that ends hangs up on who has just come, which says nothing about what speaks there. So whoever hangs up
    without a word is asked once more: the next daemon answers then, or nobody is there.

    :param timeout: seconds for all of it
    :raises Failure: with the cause
    """
    deadline = stream.Deadline(timeout)
    try:
        return await _open(peer, deadline)
    except Failure as failure:
        if failure.kind is Kind.TLS_EXPECTED or not _is_without_a_word(failure.__cause__):
            raise
    return await _open(peer, deadline)


def _is_without_a_word(error: BaseException | None) -> bool:
    if isinstance(error, ssl.SSLError):
        return isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
    return isinstance(error, OSError)


async def _open(peer: Peer, deadline: stream.Deadline) -> Connection:
    timings: dict[str, float] = {}
    began = time.monotonic()
    raw = await stream.connect(peer.endpoint, deadline)
    timings["connect"] = time.monotonic() - began
    began = time.monotonic()
    if peer.context is not None:
        try:
            await raw.start_tls(peer.context, peer.hostname, deadline)
        except OSError as error:
            raise await _explain_handshake(error, peer, deadline) from error
    protocol = _Http2()
    raw.attach(protocol)
    try:
        await asyncio.wait_for(protocol.settled, deadline.left())
    except asyncio.TimeoutError:
        await raw.close()
        raise _missed_greeting(raw, deadline) from None
    except Exception as error:
        await raw.close()
        raise await _explain_greeting(error, peer, raw, deadline) from error
    except BaseException:
        raw.abort()
        raise
    if peer.context is not None:
        timings["tls"] = time.monotonic() - began
    elif raw.helper is not None:  # a helper is connected once the first answer comes through it
        timings["connect"] += time.monotonic() - began
    channel = StreamChannel(peer, protocol)
    try:
        await channel.__connect__()
    except Failure:  # the server said goodbye together with its greeting
        await raw.close()
        raise
    return Connection(channel, raw.peer_certificate, timings, raw)


def _missed_greeting(raw: stream.Stream, deadline: stream.Deadline) -> ConnectError:
    if raw.helper is None:
        return deadline.missed("The HTTP/2 greeting")
    return deadline.missed(f"The HTTP/2 greeting through {raw.helper}", raw.helper.with_what_it_said)


async def _explain_handshake(error: OSError, peer: Peer, deadline: stream.Deadline) -> Failure:
    failure = _explain_tls(error, peer)
    if isinstance(error, ssl.SSLCertVerificationError):
        # ssl does not show a certificate that it refused: ask for it once more, as somebody who does not
        # care.
        raw = await _handshake_of_a_stranger(peer.endpoint, deadline)
        if raw is not None:
            failure.certificate = raw.peer_certificate
            raw.abort()
    return failure


async def _explain_greeting(error: Exception, peer: Peer, raw: stream.Stream, deadline: stream.Deadline) -> Failure:
    if raw.helper is not None and isinstance(error, GreetingError):
        return Failure(
            Kind.HELPER_FAILED,
            f"{raw.helper} printed something before the daemon could answer: {error.beginning!r}"
            f"{raw.helper.with_what_it_said}",
        )
    if isinstance(error, Failure):
        # Some say in plain HTTP that they want TLS, others with an alert.
        if peer.context is None and isinstance(error, GreetingError) and await _speaks_tls(peer.endpoint, deadline):
            return TlsError(
                Kind.TLS_EXPECTED, f"The port speaks TLS; plain HTTP/2 was answered with {error.beginning!r}"
            )
        return error
    if isinstance(error, ssl.SSLError):
        return _explain_tls(error, peer)
    if peer.context is not None:
        return RpcError(
            Kind.NOT_GRPC, "The connection was closed right after the TLS handshake, without a word of HTTP/2"
        )
    if await _speaks_tls(peer.endpoint, deadline):
        return TlsError(Kind.TLS_EXPECTED, "The daemon speaks TLS, and was spoken to without")
    return RpcError(Kind.NOT_GRPC, "The connection was closed without an answer")


async def _speaks_tls(endpoint: Endpoint, deadline: stream.Deadline) -> bool:
    raw = await _handshake_of_a_stranger(endpoint, deadline) if endpoint.is_tcp else None
    if raw is not None:
        raw.abort()
    return raw is not None


def _explain_tls(error: OSError, peer: Peer) -> TlsError:
    return tls.explain(error, hostname=peer.hostname, with_certificate=peer.with_certificate)


async def _handshake_of_a_stranger(endpoint: Endpoint, deadline: stream.Deadline) -> stream.Stream | None:
    """A TLS stream to whoever answers, or None if there is none to be had."""
    try:
        raw = await stream.connect(endpoint, deadline)
        await raw.start_tls(tls.stranger_context(), endpoint.host, deadline)
    except (OSError, Failure):
        return None
    return raw
