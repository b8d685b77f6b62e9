# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""gRPC over our own streams, with a real gRPC server on the other side."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import channel, endpoint, messages
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    Failure,
    Kind,
    RpcError,
)
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import StreamTerminatedError
from grpclib.health.service import Health
from grpclib.server import Server
from h2.config import H2Configuration
from h2.connection import H2Connection
from hyperframe.frame import Frame, GoAwayFrame, PingFrame, SettingsFrame


def test_the_hook_of_grpclib_is_where_we_expect_it() -> None:
    """The one private method that we override is there, is a coroutine, takes nothing, and connects."""
    assert inspect.iscoroutinefunction(Channel._create_connection)
    assert list(inspect.signature(Channel._create_connection).parameters) == ["self"]
    assert "_create_connection" in inspect.getsource(Channel.__connect__)
    assert channel.StreamChannel._create_connection is not Channel._create_connection


async def health(opened: channel.Connection) -> int:
    """Ask the standard health service."""
    request = messages.new("grpc.health.v1.HealthCheckRequest")
    reply = messages.message_class("grpc.health.v1.HealthCheckResponse")
    method = UnaryUnaryMethod(opened.channel, "/grpc.health.v1.Health/Check", type(request), reply)
    answer = await method(request, timeout=LONG)
    return int(answer.status)


def test_calls_go_over_our_stream(tmp_path: Path) -> None:
    """A call over a stream of ours is answered, and a second one over the same connection too."""

    async def talk() -> list[int]:
        server = Server([Health()])
        await server.start(path=str(tmp_path / "socket"))
        opened = await channel.open_connection(channel.Peer(endpoint.parse(f"unix://{tmp_path}/socket")), timeout=LONG)
        try:
            return [await health(opened), await health(opened)]
        finally:
            await opened.close()
            server.close()
            await server.wait_closed()

    assert asyncio.run(talk()) == [messages.HEALTH_SERVING] * 2


def test_a_lost_connection_is_not_made_again(tmp_path: Path) -> None:
    """A call after the connection is lost fails with that, and does not reach whoever listens there now."""

    async def talk() -> None:
        server = Server([Health()])
        await server.start(path=str(tmp_path / "socket"))
        opened = await channel.open_connection(channel.Peer(endpoint.parse(f"unix://{tmp_path}/socket")), timeout=LONG)
        opened.raw.abort()
        await asyncio.sleep(0.05)
        try:
            await health(opened)
        finally:
            await opened.close()
            server.close()
            await server.wait_closed()

    with pytest.raises(Failure, match="connection was lost") as caught:
        asyncio.run(talk())
    assert caught.value.kind is Kind.UNREACHABLE


def against(path: Path, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> int:
    """The answer to a health check from a server that speaks its own HTTP/2."""

    async def ask() -> int:
        opened = await channel.open_connection(channel.Peer(endpoint.parse(f"unix://{path}")), timeout=LONG)
        try:
            return await health(opened)
        except StreamTerminatedError:
            raise opened.channel.lost from None
        finally:
            await opened.close()

    handlers = []

    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        with contextlib.suppress(OSError):
            await serve(reader, writer)
            writer.close()
            await writer.wait_closed()

    async def talk() -> int:
        server = await asyncio.start_unix_server(serve_and_close, path)
        try:
            return await ask()
        finally:
            server.close()
            await asyncio.gather(*handlers)

    return asyncio.run(talk())


class Unknown(Frame):
    """A frame of a type that HTTP/2 does not have."""

    type = 0xEE
    stream_association = None

    def serialize_body(self) -> bytes:
        return b"whatever"


def test_unknown_frames_are_skipped(tmp_path: Path) -> None:
    """RFC 9113, section 5.5: frames of unknown types are ignored. grpclib alone would break off."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send() + Unknown(0).serialize())
        while data := await reader.read(4096):
            for event in connection.receive_data(data):
                if type(event).__name__ == "StreamEnded":
                    respond(connection, event.stream_id)
            writer.write(connection.data_to_send())

    assert against(tmp_path / "socket", serve) == messages.HEALTH_SERVING


def respond(connection: H2Connection, stream_id: int) -> None:
    """Send a gRPC answer: headers, message, trailers."""
    reply = messages.new("grpc.health.v1.HealthCheckResponse", status=1).SerializeToString()
    connection.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
    connection.send_data(stream_id, b"\0" + len(reply).to_bytes(4, "big") + reply)
    connection.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\0\0\0\0\0\0\0\0\0",  # DATA on stream 0
        b"\0\0\x05\x01\x04\0\0\0\x01\xff\xff\xff\xff\xff",  # headers that cannot be decoded
        b"\0\0\x05\x04\0\0\0\0\0xxxxx",  # SETTINGS of a length that cannot be
    ],
)
def test_broken_http2_is_an_error_of_its_own(tmp_path: Path, nonsense: bytes) -> None:
    """A server that breaks the protocol after a good beginning is reported as such, and does no harm."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SettingsFrame(0).serialize())
        await reader.read(4096)
        writer.write(nonsense)
        await reader.read(-1)

    with pytest.raises(RpcError) as caught:
        against(tmp_path / "socket", serve)
    assert caught.value.kind is Kind.NOT_GRPC


@pytest.mark.parametrize(
    "after", [b"", PingFrame(0).serialize() + GoAwayFrame(0).serialize()], ids=["goodbye", "goodbye-ping"]
)
def test_server_that_says_goodbye_is_lost(tmp_path: Path, after: bytes) -> None:
    """A daemon that shuts down ends the connection, and a call says so instead of waiting."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SettingsFrame(0).serialize() + GoAwayFrame(0).serialize() + after)
        await reader.read(-1)

    with pytest.raises(Failure, match=r"connection was lost|hung up") as caught:
        against(tmp_path / "socket", serve)
    assert caught.value.kind is Kind.UNREACHABLE
