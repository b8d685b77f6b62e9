# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversations with a real daemon, recorded, to be played back to the client, as they were or spoilt."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import channel, endpoint, smoke
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import Control
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, Kind
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG

Call = Callable[[Control], Awaitable[Any]]

# How often the event loop turns until a client has done what it can do without another word of the daemon.
_TURNS = 8


async def _build(control: Control) -> int:
    workers = await control.workers()
    if not workers or not workers[0].platforms:
        raise Failure(Kind.NO_WORKER, "The daemon has no worker")
    request = smoke.exec_request(smoke.probe_file(workers[0].platforms[0]))
    request.Ref = f"replay-{random.getrandbits(64):x}"
    responses: list[Any] = []
    follower = asyncio.ensure_future(control.status(request.Ref, responses.append, timeout=LONG))
    try:
        await control.solve(request, timeout=LONG)
        await follower
    finally:
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
    return sum(len(response.logs) for response in responses)


# The build comes first, so that there is something in the cache for the others.
CALLS: dict[str, Call] = {
    "build": _build,
    "info": lambda control: control.info(),
    "workers": lambda control: control.workers(),
    "usage": lambda control: control.usage(timeout=LONG),
    "history": lambda control: control.history(active_only=False, timeout=LONG),
}


class _Memory(asyncio.Transport):
    """A transport that leads nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = False

    def write(self, data: Any) -> None:
        """Forget it."""

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0


async def play(call: Call, pieces: Iterable[bytes]) -> Any:
    """What a call makes of an answer: its result, or a failure as it was raised.

    :param pieces: what the daemon says, piece by piece; the connection is lost after the last
    """
    protocol = channel._Http2()
    transport = _Memory()
    protocol.connection_made(transport)
    opened = channel.StreamChannel(channel.Peer(endpoint.parse("unix:///run/nowhere.sock")), protocol)
    talk = asyncio.ensure_future(_talk(protocol, opened, call))
    try:
        for piece in pieces:
            if transport.is_closing() or talk.done():
                break
            protocol.data_received(piece)
            for _turn in range(_TURNS):
                await asyncio.sleep(0)
        protocol.connection_lost(None)
        return await talk
    finally:
        opened.close()


async def _talk(protocol: channel._Http2, opened: channel.StreamChannel, call: Call) -> Any:
    """What the modules do, less the time limits of the connection."""
    try:
        await protocol.settled
        await opened.__connect__()
        return await call(Control(opened, timeout=LONG))
    except (Failure, OSError) as failure:  # what open_connection explains
        return failure


async def record(address: str, call: Call, socket: str) -> list[bytes]:
    """What a real daemon says when it is called, piece by piece.

    :param address: path of its unix socket
    :param socket: path for a socket in between
    """
    pieces: list[bytes] = []
    relays = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.append(asyncio.current_task())
        theirs, ours = await asyncio.open_unix_connection(address)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: list[bytes] | None) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    if kept is not None:
                        kept.append(data)
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, ours, None), pump(theirs, writer, pieces))

    server = await asyncio.start_unix_server(relay, socket)
    peer = channel.Peer(endpoint.parse(f"unix://{socket}"))
    connection = await channel.open_connection(peer, timeout=LONG)
    await call(Control(connection.channel, timeout=LONG))
    await connection.close()
    server.close()
    await asyncio.gather(*relays)
    return pieces
