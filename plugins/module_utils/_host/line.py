# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls to a daemon through its unix socket, from its own host, also for some seconds after it was told to end.

Hosts have no gRPC library, and none of them could do that: a daemon that ends takes no new connection, and tells those
that it has with GOAWAY to call no more. Its server (grpc-go, outgoingGoAwayHandler) then sends a PING, and takes calls
until that is answered, or for five seconds. Others answer at once; we do not.

It is as much of HTTP/2 (RFC 9113) and gRPC as that takes.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

TIMEOUT = 5.0  # seconds for a call
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM = _ACK = 1
_END_HEADERS = 4
_PADDED = 8
_LARGEST = 1 << 14  # bytes of a frame, until somebody allows more
_ENDLESS = (1 << 31) - 1  # bytes that may be under way, and the number of the last stream in the first GOAWAY
_KEPT = 1 << 24  # bytes of an answer; the longest by far tells all that was asked for in each build that runs
# No table of headers (HEADER_TABLE_SIZE, 1, is 0), so that trailers can be read without one; INITIAL_WINDOW_SIZE is 4.
_WISHES = struct.pack(">HIHI", 1, 0, 4, _ENDLESS)
# "grpc-status" as its server writes it (RFC 7541, appendix B), and "0".
_GOOD = bytes.fromhex("889acac8b21234da8f") + b"\x010"


class Answer:
    """What came of a call so far.

    ``ended`` when no more will come, and then ``good`` if the daemon said so; ``data`` is all of it, unless it was not
    to be kept.
    """

    def __init__(self, keep: bool) -> None:
        self.data = b""
        self.ended = self.good = False
        self._keep = keep

    def add(self, data: bytes) -> None:
        """Take in what came. Raises ValueError if that is too much."""
        if self._keep:
            self.data += data
            if len(self.data) > _KEPT:
                raise ValueError("it answers without end")

    def messages(self) -> t.Iterator[bytes]:
        """What was said, message by message. Raises ValueError or struct.error if it is none."""
        at = 0
        while at < len(self.data):
            packed, size = struct.unpack_from(">BI", self.data, at)
            at += 5 + size
            if packed or at > len(self.data):
                raise ValueError("it answers with what is no message")
            yield self.data[at - size : at]


class Line:
    """A connection to a daemon. Everything that asks raises HostError when that fails; then the line is dead.

    ``told`` when the daemon was told to end and takes no new connection any more; ``over`` when it takes no more calls,
    neither from us nor from others.
    """

    def __init__(self, pid: int, path: str) -> None:
        """Connect to process ``pid`` on the socket ``path``, as the daemon sees it, which may be in a container."""
        self.path = path
        self.told = self.over = self.dead = False
        self._answers: t.Dict[int, Answer] = {}
        self._next = 1
        self._text = b""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(TIMEOUT)
            directory, name = os.path.split(path)
            # The address of a unix socket has no room for a long path.
            place = os.open(f"/proc/{pid}/root{directory}", os.O_PATH | os.O_DIRECTORY)
            try:
                self._socket.connect(f"/proc/self/fd/{place}/{name}")
            finally:
                os.close(place)
        except OSError as error:
            self.close()
            raise self._failed(error) from error
        self._send(_PREFACE + _frame(_SETTINGS, 0, 0, _WISHES) + _window(_ENDLESS - 65535))

    def call(self, method: str, request: bytes, *, keep: bool = True) -> Answer:
        """Call a method of the daemon's service Control. What it answers is taken in by :meth:`listen`."""
        answer = Answer(keep)
        if self.over:
            raise self._failed("it takes no more calls")
        self._answers[self._next] = answer
        headers = _headers(f"/moby.buildkit.v1.Control/{method}")
        message = struct.pack(">BI", 0, len(request)) + request
        stream, self._next = self._next, self._next + 2
        self._send(_frame(_HEADERS, _END_HEADERS, stream, headers) + _frame(_DATA, _END_STREAM, stream, message))
        return answer

    def ask(self, method: str, request: bytes) -> t.List[bytes]:
        """Call a method, wait for its end, and return its messages."""
        answer = self.call(method, request)
        deadline = time.monotonic() + TIMEOUT
        while not answer.ended:
            left = deadline - time.monotonic()
            if left <= 0:
                self.close()
                raise self._failed(f"it gave no answer within {TIMEOUT:.0f} s")
            self.listen(left)
        if not answer.good:
            raise self._failed(f"{method} ended with an error")
        return self.read(answer)

    def read(self, answer: Answer) -> t.List[bytes]:
        """The messages of an answer."""
        try:
            return list(answer.messages())
        except (ValueError, struct.error) as error:
            self.close()
            raise self._failed(error) from error

    def listen(self, seconds: float) -> None:
        """Take in what comes within so many seconds, or has come; return as soon as something did."""
        if self.dead:
            raise self._failed("it has hung up")
        try:
            if not select.select([self._socket], [], [], seconds)[0]:
                return
            text = self._socket.recv(1 << 18)
            if not text:
                raise ValueError("it hung up")
            self._text += text
            self._frames()
        except (OSError, ValueError, struct.error) as error:
            self.close()
            raise self._failed(error) from error

    def close(self) -> None:
        """Hang up."""
        self.dead = True
        self._socket.close()

    def _frames(self) -> None:
        while len(self._text) >= 9:
            size = int.from_bytes(self._text[:3], "big")
            if size > _LARGEST:
                raise ValueError("it answers with what is no HTTP/2")
            if len(self._text) < 9 + size:
                return
            kind, flags, stream = struct.unpack(">BBI", self._text[3:9])
            body, self._text = self._text[9 : 9 + size], self._text[9 + size :]
            self._take(kind, flags, stream, body)

    def _take(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        """Take in a frame."""
        if kind == _GOAWAY:
            last = int.from_bytes(body[:4], "big")
            self.told = True
            self.over = self.over or last != _ENDLESS
            if self.over:
                self._answers = {number: one for number, one in self._answers.items() if number <= last}
        elif kind == _SETTINGS and not flags & _ACK:
            self._send(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK and not self.told:
            self._send(_frame(_PING, _ACK, 0, body))
        if kind == _DATA and body:
            if flags & _PADDED:
                raise ValueError("it fills frames up")
            self._send(_window(len(body)))
        answer = self._answers.get(stream)
        if answer is None:
            return
        if kind == _DATA:
            answer.add(body)
        elif kind == _HEADERS:
            answer.good = _GOOD in body
        if kind == _RESET or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            answer.good = answer.good and kind == _HEADERS
            answer.ended = True
            del self._answers[stream]

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            self.close()
            raise self._failed(error) from error

    def _failed(self, cause: object) -> HostError:
        return HostError(f"Asking buildkitd on {self.path} failed: {cause}.")


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _window(size: int) -> bytes:
    """Allow so many bytes more, on all streams together."""
    return _frame(_WINDOW, 0, 0, struct.pack(">I", size))


def _headers(path: str) -> bytes:
    """Those of a call, each in full (RFC 7541, 6.2.2)."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(text)]) + text.encode() for name, text in fields
    )
