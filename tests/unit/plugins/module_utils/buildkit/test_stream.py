# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections within time limits."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import endpoint, stream
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import ConnectError, Kind
from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until


async def connect(address: str, *, limit: float) -> None:
    """Connect, and close it again."""
    opened = await stream.connect(endpoint.parse(address), stream.Deadline(limit))
    opened.abort()
    await asyncio.sleep(0)


def test_name_server_that_never_answers_costs_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole program ends in time, not only the attempt, although a thread still waits for the answer."""
    over = threading.Event()
    given_up = []

    def never(*arguments: Any, **options: Any) -> list[Any]:
        given_up.append(not over.wait(LONG))
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    with pytest.raises(ConnectError, match=r"Looking up the name builder\.example\.com was .* 0\.2 s") as caught:
        asyncio.run(connect("tcp://builder.example.com:1234", limit=0.2))
    assert caught.value.kind is Kind.TIMEOUT
    over.set()
    until(lambda: given_up, "the end of the thread")
    assert given_up == [False]


def test_all_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a dead address and a living one is reached, and does not wait for the dead one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        living = server.getsockname()
        # From the block for documentation (RFC 5737): nobody answers.
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", one) for one in (("192.0.2.1", 9), living)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
        # Whoever waits for the dead one has come to the limit.
        asyncio.run(connect("tcp://builder.example.com:1234", limit=LONG))


def test_first_failure_is_reported_when_no_address_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all addresses refuse, so does the name."""
    dead = ("127.0.0.1", ports.kept())
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", dead)] * 2
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
    with pytest.raises(ConnectError, match="Connection refused") as caught:
        asyncio.run(connect("tcp://builder.example.com:1234", limit=LONG))
    assert caught.value.kind is Kind.UNREACHABLE


def test_ipv6_is_reached() -> None:
    """An IPv6 address is connected to."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        asyncio.run(connect(f"tcp://[::1]:{server.getsockname()[1]}", limit=LONG))
        server.settimeout(LONG)
        server.accept()[0].close()


def test_small_packets_are_sent_at_once() -> None:
    """Nagle's algorithm is off, which would cost 40 ms a call."""

    async def no_delay() -> int:
        opened = await stream.connect(endpoint.parse(f"tcp://127.0.0.1:{port}"), stream.Deadline(LONG))
        value = opened._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        opened.abort()
        await asyncio.sleep(0)
        return int(value)

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert asyncio.run(no_delay()) != 0
