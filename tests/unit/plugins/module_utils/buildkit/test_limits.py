# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a daemon may send: all that one sends that means well, and no flood."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import limits

DATA, HEADERS, SETTINGS, PUSH, PING = 0, 1, 4, 5, 6


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def frame(kind: int, body: bytes = b"", *, flags: int = 0, stream: int = 1) -> bytes:
    """A frame of HTTP/2."""
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def feed(data: bytes, *, times: int) -> None:
    """Send the same again and again, faster than any clock."""
    meter = limits.FrameMeter(Clock())
    for _number in range(times):
        meter.feed(data)


def test_a_frame_that_is_too_large_is_refused_by_its_header() -> None:
    """Nobody waits for what was announced: the header alone is enough."""
    with pytest.raises(limits.LimitError, match=r"a frame of 16385 bytes, where 16384 are the limit"):
        limits.FrameMeter().feed((16385).to_bytes(3, "big") + b"\0\0\0\0\0\1")


def test_the_largest_frames_pass() -> None:
    """An answer of 64 MiB in frames of the largest size is no flood."""
    meter = limits.FrameMeter(Clock())
    whole = frame(DATA, bytes(limits.FRAME))
    for _number in range(64 * 2**20 // limits.FRAME):
        meter.feed(whole)


def test_many_records_pass() -> None:
    """100,000 records of a cache, a frame each, are no flood."""
    limits.FrameMeter(Clock()).feed(frame(DATA, bytes(120)) * 100_000)


def test_bytes_may_come_in_any_pieces() -> None:
    """Headers and bodies are found wherever the network cuts them."""
    meter = limits.FrameMeter(Clock())
    for octet in frame(DATA, bytes(300)) * 3 + frame(SETTINGS) + frame(DATA):
        meter.feed(bytes((octet,)))
    with pytest.raises(limits.LimitError, match="pushed"):
        meter.feed(frame(PUSH))


@pytest.mark.parametrize(
    "one",
    [
        frame(PING, bytes(8)),
        frame(SETTINGS),
        frame(HEADERS, bytes(200)),
        frame(HEADERS, bytes(limits.FRAME)),
        frame(DATA),
        frame(DATA, b"x"),
        frame(DATA, bytes(limits.FRAME), flags=0x08),
        frame(0xEE, b"unknown"),
    ],
    ids=["ping", "settings", "headers", "large headers", "empty data", "little data", "padded data", "unknown"],
)
def test_floods_are_refused(one: bytes) -> None:
    """Frames that carry next to nothing end soon, of whatever type they are."""
    with pytest.raises(limits.LimitError, match="a flood of frames"):
        feed(one, times=10_000)


def test_frames_over_a_long_time_pass() -> None:
    """Whoever asks a daemon ten times a second for an hour gets ten times as many frames, and that is no flood."""
    clock = Clock()
    meter = limits.FrameMeter(clock)
    answer = frame(HEADERS, bytes(60)) + frame(DATA, bytes(40)) + frame(HEADERS, bytes(20)) + frame(PING, bytes(8)) * 2
    for _number in range(36_000):
        clock.now += 0.1
        meter.feed(answer)


def test_endless_answers_are_refused() -> None:
    """Even frames that carry something end one day."""
    with pytest.raises(limits.LimitError, match="more than 320 MiB"):
        feed(frame(DATA, bytes(limits.FRAME)) * 64, times=400)
