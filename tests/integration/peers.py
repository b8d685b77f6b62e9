# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers that are no BuildKit: what a client meets when an address is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket
import ssl
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from certificates import Pair
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

# Seconds for peers that never answer. Where a test wants to come past others of the same limit first, a slow machine
# takes the second or the third.
LIMITS = (1.0, 5.0, 25.0)


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server that hands each connection to a function, in a thread; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()
        thread = threading.Thread(target=_accept, args=(server, serve, stop))
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()


def _accept(server: socket.socket, serve: Callable[[socket.socket], None], stop: threading.Event) -> None:
    server.settimeout(0.02)
    threads = []
    with contextlib.ExitStack() as connections:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection = server.accept()[0]
                connections.enter_context(connection)
                connections.callback(_wake, connection)
                connection.settimeout(LONG)
                threads.append(threading.Thread(target=_serve, args=(serve, connection)))
                threads[-1].start()
    for thread in threads:
        thread.join()


def _wake(connection: socket.socket) -> None:
    """End what its thread waits for."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _serve(serve: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # clients leave when they have seen enough
        serve(connection)


def stay_silent(connection: socket.socket) -> None:
    """Read, and never answer."""
    while connection.recv(4096):
        pass


def hang_up(connection: socket.socket) -> None:
    """Close the connection at once."""
    connection.shutdown(socket.SHUT_RDWR)


def send_garbage(connection: socket.socket) -> None:
    """Answer with bytes that are neither TLS nor HTTP/2."""
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    stay_silent(connection)


def drip(connection: socket.socket) -> None:
    """Send the beginning of an HTTP/2 frame, byte by byte, and never end it."""
    for octet in b"\x00\x40\x00\x04" + bytes(10_000):
        connection.sendall(bytes((octet,)))
        threading.Event().wait(0.05)


def in_tls(pair: Pair, serve: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    """Do it after a TLS handshake, which asks for no client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    context.set_alpn_protocols(["h2", "http/1.1"])

    def serve_in_tls(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            serve(secured)

    return serve_in_tls


@contextmanager
def http_server() -> Iterator[str]:
    """Python's own web server, without TLS."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _QuietHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _QuietHandler(http.server.BaseHTTPRequestHandler):
    timeout = LONG

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def grpc_server(path: Path, *services: Any) -> Iterator[str]:
    """A gRPC server on a unix socket."""
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        server = Server(list(services))
        await server.start(path=str(path))
        started.set()
        await stop.wait()
        server.close()
        await server.wait_closed()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait(LONG)
    try:
        yield f"unix://{path}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class Answers:
    """A gRPC service that answers each call with an empty message, whoever asks for what."""

    def __init__(self, package: str, replies: dict[str, str], messages: Any) -> None:
        self._package = package
        self._replies = replies
        self._messages = messages

    def __mapping__(self) -> dict[str, Handler]:
        return {f"/{self._package}.Control/{call}": self._handler(call, reply) for call, reply in self._replies.items()}

    def _handler(self, call: str, reply: str) -> Handler:
        async def answer(stream: Any) -> None:
            await stream.recv_message()
            await stream.send_message(self._messages.new(f"{self._package}.{reply}"))

        request_class = self._messages.message_class(f"{self._package}.{call}Request")
        reply_class = self._messages.message_class(f"{self._package}.{reply}")
        return Handler(answer, Cardinality.UNARY_UNARY, request_class, reply_class)
