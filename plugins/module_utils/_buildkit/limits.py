# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a daemon may send before we hang up.

The HTTP/2 library bounds header lists, flow control bounds what waits to be read, and each call bounds its answer. None
of them bounds what is sent for nothing: empty frames, pings, settings, lengths that are announced and never come. A
daemon that means well stays below these limits by an order of magnitude.
"""

from __future__ import annotations

import time
from typing import Callable

# RFC 9113, section 4.2: what may be sent to somebody who announced nothing else, as we do.
FRAME = 16_384

# Frames that carry nothing, or next to nothing: at once, and for every second. Each may need an answer, which waits if
# the daemon does not read.
_FRAMES, _FRAMES_A_SECOND = 4_000, 200
# A frame of data with less than this costs memory that flow control does not see.
_LITTLE = 64
# Other frames cost one for every such piece.
_PIECE = 256
# All bytes: at once, and for every second. One call may read 256 MiB (control.py).
_BYTES, _BYTES_A_SECOND = 320 * 2**20, 2**20

# RFC 9113, section 4.1 and 6.1: length 3, type 1, flags 1, stream 4; and types and flags.
FRAME_HEADER = 9
_DATA, _PUSH_PROMISE, _GOAWAY = 0, 5, 7
_PADDED = 0x08


class LimitError(Exception):
    """A daemon sent what none sends that means well. The text says what."""


class _Budget:
    """What may be spent: something at once, and something every second."""

    def __init__(self, at_once: int, a_second: int, clock: Callable[[], float]) -> None:
        self._most = float(at_once)
        self._rate = a_second
        self._clock = clock
        self._left = self._most
        self._seen = clock()

    def spend(self, cost: int) -> bool:
        """Spend that much, and tell whether it was there."""
        if cost <= self._left:
            self._left -= cost
            return True
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._seen) * self._rate)
        self._seen = now
        self._left -= cost
        return self._left >= 0


class FrameMeter:
    """Watches the frames of a connection as their headers arrive, before anybody waits for what they announce."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._frames = _Budget(_FRAMES, _FRAMES_A_SECOND, clock)
        self._bytes = _Budget(_BYTES, _BYTES_A_SECOND, clock)
        self.goodbye = False  # whether it announced that it ends the connection
        self._header = b""
        self._body = 0  # bytes of the frame that have not come yet

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        :raises LimitError: they are beyond a limit
        """
        if not self._bytes.spend(len(data)):
            raise LimitError(f"it sends more than {_BYTES // 2**20} MiB")
        position = 0
        while position < len(data):
            if self._body:
                step = min(self._body, len(data) - position)
                self._body -= step
            else:
                step = min(FRAME_HEADER - len(self._header), len(data) - position)
                self._header += data[position : position + step]
                if len(self._header) == FRAME_HEADER:
                    self._begin(self._header)
                    self._header = b""
            position += step

    def _begin(self, header: bytes) -> None:
        length, kind, flags = int.from_bytes(header[:3], "big"), header[3], header[4]
        if length > FRAME:
            raise LimitError(f"a frame of {length} bytes, where {FRAME} are the limit")
        if kind == _PUSH_PROMISE:
            raise LimitError("a pushed response, which gRPC does not have")
        if not self._frames.spend(_cost(length, kind, flags)):
            raise LimitError(f"a flood of frames, the last of type {kind}")
        self.goodbye = self.goodbye or kind == _GOAWAY
        self._body = length


def _cost(length: int, kind: int, flags: int) -> int:
    if kind == _DATA:
        return 1 if length < _LITTLE or flags & _PADDED else 0
    return 1 + length // _PIECE
