# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a daemon says, the client ends with a failure that has a name: no crash, no hang, no unbounded memory."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import random
import resource
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import daemon as daemons
import peers
import pytest
import replay
import spoil
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import channel, endpoint, verify
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import Control
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, Kind
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from certificates import SERVER, Authority
from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# How many inputs in all: spoilt conversations of both generations of daemons, and noise.
INPUTS = int(os.environ.get("BUILDFARM_FUZZ_INPUTS") or 15_000)
SPOILT = INPUTS // 5
NOISE = INPUTS - 2 * SPOILT
MEMORY = 64 * 2**20  # bytes by which the process may grow in all of it
SLOWEST = 20.0  # seconds of CPU for one of them; it takes some thousandths


@pytest.fixture(scope="module")
def conversations(bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """What a real daemon says to each call."""
    directory = tmp_path_factory.mktemp("replay")
    with daemons.run(bin_dir, directory / "daemon") as running:
        path = running.unix[len("unix://") :]
        return {
            name: asyncio.run(replay.record(path, call, str(directory / "socket")))
            for name, call in replay.CALLS.items()
        }


def test_conversations_play_back(conversations: dict[str, list[bytes]]) -> None:
    """What was recorded has the same meaning when it is played back, however it is cut; faults start from there."""
    for name, pieces in conversations.items():
        for variant in (pieces, spoil.cut(pieces, chance(1))):
            result = asyncio.run(replay.play(replay.CALLS[name], variant))
            assert not isinstance(result, Exception), (name, variant, result)
            assert result


def chance(seed: int) -> random.Random:
    """Chance that is the same each time."""
    return random.Random(seed)


def fuzz(number: int, play: Callable[[random.Random], Any]) -> collections.Counter[str]:
    """Play many inputs, each from its own seed, and count what became of them.

    :param play: a coroutine function
    """
    outcomes: collections.Counter[str] = collections.Counter()
    complaints: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        for seed in range(number):
            began = time.thread_time()
            try:
                outcome = await play(chance(seed))
            except Exception as error:
                raise AssertionError(f"seed {seed} makes the client raise {error!r}") from error
            assert time.thread_time() - began < SLOWEST, f"seed {seed} takes too long"
            outcomes[outcome.kind.value if isinstance(outcome, Failure) else type(outcome).__name__] += 1
            assert not complaints, f"seed {seed} makes the event loop say {complaints}"

    before = _memory()
    asyncio.run(run())
    assert _memory() - before < MEMORY
    return outcomes


def _memory() -> int:
    """The most that this process ever had in memory, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_spoilt_conversations(conversations: dict[str, list[bytes]]) -> None:
    """A real conversation with faults in it fails, or means what it meant where the fault did not matter."""
    # Builds take longer to play than the rest together.
    names = [name for name in conversations for _number in range(1 if name == "build" else 5)]

    async def play(dice: random.Random) -> Any:
        name = dice.choice(names)
        return await replay.play(replay.CALLS[name], spoil.spoilt(conversations[name], dice))

    outcomes = fuzz(SPOILT, play)
    # Faults of all depths: in HTTP/2, in gRPC, in messages; and some that do no harm.
    assert {"not_grpc", "unreachable", "Version", "list"} <= set(outcomes), outcomes


def test_noise() -> None:
    """Random bytes and random frames always fail."""
    outcomes = fuzz(NOISE, lambda dice: replay.play(replay.CALLS["info"], spoil.noise(dice)))
    assert {"not_grpc", "unreachable"} <= set(outcomes), outcomes
    assert "Version" not in outcomes


FRAMES = st.tuples(st.integers(0, 10), st.integers(0, 255), st.sampled_from((0, 1, 1, 1, 2, 3)), st.binary(max_size=64))


@settings(max_examples=1500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(FRAMES, max_size=12))
def test_any_frames(frames: list[spoil.Frame]) -> None:
    """No sequence of frames does harm; if one does, the shortest is shown."""
    outcome = asyncio.run(replay.play(replay.CALLS["info"], [spoil.GREETING + spoil.joined(frames)]))
    assert isinstance(outcome, (Failure, OSError))


OK = (":status", "200"), ("content-type", "application/grpc")


@pytest.mark.parametrize(
    "fields",
    [
        (*OK, ("grpc-status", "2"), ("grpc-message", "%ff%fe%")),
        (*OK, ("grpc-status", "2"), ("grpc-status-details-bin", "no base64!")),
        (*OK, ("grpc-status", "2"), ("grpc-status-details-bin", "AAAA")),
        (*OK, ("grpc-status", "999999999999999999999999")),
        (*OK, ("grpc-status", "\u0663")),
        (*OK, ("grpc-status", "")),
        (*OK, ("whatever-bin", "no base64!")),
        (*OK, ("whatever-bin", "A")),
        (*OK, ("whatever", "caf\xe9")),
        ((":status", "OK"), *OK[1:]),
        ((":status", "-1"), *OK[1:]),
        OK[1:],
        (*OK, OK[0]),
        (OK[0], ("content-type", "application/grpc+json")),
        (*OK, ("buildkit-current-timestamp", "2026-99-99T00:00:00Z")),
        (*OK, ("grpc-encoding", "gzip")),
        (*OK, ("content-length", "-1")),
        (*OK, ("Upper", "case")),
        (*OK, (":path", "/")),
    ],
)
@pytest.mark.parametrize("call", ["info", "history"])
def test_any_headers(fields: tuple[tuple[str, str], ...], call: str) -> None:
    """No header does harm, at the beginning of an answer or as all of it."""
    for flags in (4, 5):
        said = [
            spoil.GREETING,
            frame(1, Encoder().encode(list(fields)), flags),
            frame(1, headers(("grpc-status", "0")), 5),
        ]
        outcome = asyncio.run(replay.play(replay.CALLS[call], said))
        assert isinstance(outcome, (Failure, OSError)) or (call == "history" and not outcome.ended)


# What a server answers before it begins to misbehave, on the first stream of a client.
HEADERS = Encoder().encode([(":status", "200"), ("content-type", "application/grpc")])


def frame(kind: int, body: bytes = b"", flags: int = 0, stream: int = 1) -> bytes:
    """A frame of HTTP/2."""
    return spoil.joined([(kind, flags, stream, body)])


def answer(data: bytes, *, flags: int = 0) -> bytes:
    """The beginning of an answer, with a frame of data."""
    return frame(1, HEADERS, 4) + frame(0, data, flags)


def message(length: int) -> bytes:
    """The beginning of a gRPC message."""
    return b"\0" + length.to_bytes(4, "big")


def headers(*fields: tuple[str, str]) -> bytes:
    """A header list, compressed."""
    return Encoder().encode(list(fields))


# What is sent once, what is sent without end, and what the failure says.
ATTACKS = {
    "a frame without a limit": (b"\xff\xff\xff\0\0\0\0\0\1", b"", "a frame of 16777215 bytes"),
    "pings": (b"", frame(6, bytes(8), stream=0), "a flood of frames, the last of type 6"),
    "settings": (b"", frame(4, stream=0), "a flood of frames, the last of type 4"),
    "settings that change": (b"", frame(4, b"\0\4\0\1\0\0" * 20, stream=0), "a flood of frames, the last of type 4"),
    "windows": (b"", frame(8, b"\0\0\0\1", stream=0), "a flood of frames, the last of type 8"),
    "a window beyond its limit": (frame(8, b"\x7f\xff\xff\xff", stream=0) * 2, b"", "no proper HTTP/2"),
    "resets of nothing": (b"", frame(3, bytes(4)), ""),
    "priorities": (b"", frame(2, bytes(5)), "a flood of frames, the last of type 2"),
    "unknown frames": (b"", frame(0xEE), "a flood of frames, the last of type 238"),
    "headers without end": (frame(1, HEADERS), frame(9, b"x" * 100), "no proper HTTP/2"),
    "empty headers without end": (frame(1, HEADERS), frame(9), "The answer is "),
    "headers that grow": (
        frame(1, headers(("x-large", "x" * 4000)) + b"\xbe" * 12000, 4),
        b"",
        "no proper HTTP/2 (DenialOfServiceError)",
    ),
    "early hints": (b"", frame(1, headers((":status", "103")), 4), "a flood of frames, the last of type 1"),
    "pushed responses": (b"", frame(5, b"\0\0\0\2" + HEADERS, 4), "a pushed response"),
    "empty data": (frame(1, HEADERS, 4), frame(0), ""),
    "padding": (frame(1, HEADERS, 4), frame(0, b"\xff" + bytes(255), 8), ""),
    "data, octet by octet": (answer(message(1000000)), frame(0, b"x"), "a flood of frames, the last of type 0"),
    "data before an answer": (b"", frame(0, bytes(16384)), ""),
    "a message without a limit": (answer(message(2**32 - 1)), frame(0, bytes(16384)), ""),
    "a message that never comes": (answer(message(2**32 - 1)), b"", "more than 1048576 bytes"),
    "a compressed message": (answer(b"\1" + bytes(4)), b"", "not answered in proper gRPC"),
    "another call's data": (frame(1, HEADERS, 4), frame(0, bytes(16384), stream=3), ""),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks(attack: str) -> None:
    """Each ends by itself, soon, without much memory, and says what was wrong."""
    once, forever, said = ATTACKS[attack]

    def serve(connection: socket.socket) -> None:
        connection.sendall(spoil.GREETING)
        _await_request(connection)
        connection.sendall(once)
        while forever:
            connection.sendall(forever * 1000)
        peers.stay_silent(connection)

    failure = _suffer(serve)
    assert said in failure.message
    assert failure.kind in (Kind.NOT_GRPC, Kind.RPC_FAILED, Kind.UNREACHABLE)


def test_questions_that_are_asked_by_somebody_who_does_not_listen() -> None:
    """Answers to pings do not pile up for a daemon that reads none of them."""

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(spoil.GREETING)
        while True:
            connection.sendall(frame(6, bytes(8), stream=0) * 100)

    assert _suffer(serve).kind is Kind.NOT_GRPC


def test_words_of_a_daemon_are_shown_safely() -> None:
    """Control characters of a terminal are not passed on, and neither is a text without end."""
    words = "\x1b[2J" + "%0a%1b%5b31m" + "x" * 60_000

    def serve(connection: socket.socket) -> None:
        connection.sendall(spoil.GREETING)
        _await_request(connection)
        fields = (":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "2"), ("grpc-message", words)
        compressed = headers(*fields)
        pieces = [compressed[start : start + 16000] for start in range(0, len(compressed), 16000)]
        connection.sendall(frame(1, pieces[0], 1))
        for piece in pieces[1:-1]:
            connection.sendall(frame(9, piece))
        connection.sendall(frame(9, pieces[-1], 4))
        peers.stay_silent(connection)

    failure = _suffer(serve)
    assert "\x1b" not in failure.message
    assert len(failure.message) < 5000


@pytest.mark.parametrize(("names", "accepted"), [(2000, True), (8000, False)])
def test_large_certificates(authority: Authority, names: int, accepted: bool) -> None:
    """A certificate of 40 kB is read and its names are not all repeated; one of 160 kB is refused by OpenSSL."""
    pair = authority.issue(f"large-{names}", SERVER, sans=tuple(f"name-{n}.example.com" for n in range(names)))
    with peers.listening(peers.in_tls(pair, peers.stay_silent)) as address:
        failure = _verify(address, authority)
    if accepted:
        assert failure["kind"] == "server_name_mismatch"
        assert "DNS:name-0.example.com" in failure["message"]
        assert len(failure["message"]) < 5000
    else:
        assert failure["kind"] == "tls_failed"
        assert "excessive message size" in failure["message"]


def _verify(address: str, authority: Authority) -> dict[str, Any]:
    [report] = verify.verify([verify.Daemon(address, str(authority.path))], verify.Proof(connect_timeout=LONG))
    failure: dict[str, Any] = report.as_dict()["failure"]
    return failure


def _await_request(connection: socket.socket) -> None:
    """Read until the first request is there."""
    seen = b""
    while True:
        data = connection.recv(65536)
        if not data:
            raise ConnectionResetError("the client left without a request")
        seen += data
        if any(kind == 1 for kind, _flags, _stream, _body in spoil.frames_of(seen[24:])):  # after the preface
            return


@contextlib.contextmanager
def _little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20, f"{peak} bytes"


def _suffer(serve: Callable[[socket.socket], None]) -> Failure:
    """The failure of a call to somebody hostile, who is found out before the time is over."""

    async def ask(address: str) -> None:
        connection = await channel.open_connection(channel.Peer(endpoint.parse(address)), timeout=LONG)
        try:
            await Control(connection.channel, timeout=LONG).info()
        finally:
            await connection.close()

    with peers.listening(serve) as address, _little_memory(), pytest.raises(Failure) as caught:
        asyncio.run(ask(address))
    assert caught.value.kind is not Kind.TIMEOUT
    return caught.value
