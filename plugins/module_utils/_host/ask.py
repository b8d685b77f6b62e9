# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two questions to a daemon through its unix socket, from its own host, with nothing but Python's standard library.

Between the answer "nothing builds" and the signal that ends the daemon there must be no time, so the question is asked
where the signal is sent; hosts have no gRPC library. This speaks just enough HTTP/2 (RFC 9113), HPACK (RFC 7541) and
Protocol Buffers for one call on one connection: the numbers are those of BuildKit's ``Control`` service.
"""

from __future__ import annotations

import os
import socket
import struct
import time
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

TIMEOUT = 5.0  # seconds for a call
_MOST = 16 * 2**20  # bytes that are read of an answer
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_PADDED = 8
_PRIORITY = 0x20
_GRPC_STATUS = (b"grpc-status", bytes.fromhex("9acac8b21234da8f"))  # as it is, and in HPACK's Huffman code
_OK = (b"0", b"\x07")


def builds(pid: int, path: str) -> t.List[str]:
    """The names of the builds that run now, without those that were sent as internal. Raises HostError."""
    # ActiveOnly and EarlyExit: one event for each running build, then the end.
    found = []
    for event in _call(pid, path, "ListenBuildHistory", b"\x08\x01\x18\x01"):
        kind = next((value for number, value in _fields(event) if number == 1), 0)
        record = next((value for number, value in _fields(event) if number == 2), b"")
        if kind == 0 and isinstance(record, bytes):
            ref = next((value for number, value in _fields(record) if number == 1), b"")
            found.append(ref.decode("utf-8", "replace")[:128] if isinstance(ref, bytes) else "")
    return found


def version(pid: int, path: str) -> str:
    """What the daemon says that it is, such as v0.13.2; empty if it does not. Raises HostError."""
    for answer in _call(pid, path, "Info", b""):
        for number, value in _fields(answer):
            if number == 1 and isinstance(value, bytes):
                text = next((one for field, one in _fields(value) if field == 2), b"")
                return text.decode("utf-8", "replace")[:128] if isinstance(text, bytes) else ""
    return ""


def _call(pid: int, path: str, method: str, request: bytes) -> t.List[bytes]:
    """One call on a connection of its own: the messages of its answer."""
    try:
        with _connect(pid, path) as stream:
            return _Call(stream, time.monotonic() + TIMEOUT).run(method, request)
    except (OSError, struct.error, IndexError) as error:
        raise HostError(f"Asking buildkitd on {path} failed: {error or type(error).__name__}.") from error


def _connect(pid: int, path: str) -> socket.socket:
    """A connection to a socket as a process sees it, which may be in a container.

    The directory is opened first: the address of a unix socket has no room for a long path.
    """
    directory = os.open(f"/proc/{pid}/root{os.path.dirname(path)}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.settimeout(TIMEOUT)
        stream.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    except OSError:
        stream.close()
        raise
    finally:
        os.close(directory)
    return stream


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _header(name: t.Union[int, bytes], value: bytes) -> bytes:
    """A literal header field that is not indexed; a name as it is, or by its number (below 15) in the static table."""
    start = bytes([name]) if isinstance(name, int) else bytes([0, len(name)]) + name
    return start + bytes([len(value)]) + value


class _Call:
    """One gRPC call, the only one on its connection, so that its headers refer to nothing that came before."""

    def __init__(self, stream: socket.socket, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline
        self._data = b""

    def run(self, method: str, request: bytes) -> t.List[bytes]:
        """Sends the request and returns the messages of the answer. Raises HostError."""
        headers = b"\x83\x86" + b"".join(  # :method POST, :scheme http
            (
                _header(4, b"/moby.buildkit.v1.Control/" + method.encode()),  # :path
                _header(1, b"localhost"),  # :authority
                _header(b"content-type", b"application/grpc"),
                _header(b"te", b"trailers"),
            )
        )
        room = struct.pack(">I", _MOST)
        self._stream.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, struct.pack(">H", 4) + room)  # INITIAL_WINDOW_SIZE
            + _frame(_WINDOW_UPDATE, 0, 0, room)
            + _frame(_HEADERS, _END_HEADERS, 1, headers)
            + _frame(_DATA, _END_STREAM, 1, b"\0" + struct.pack(">I", len(request)) + request)
        )
        while not self._next_frame():
            pass
        messages = []
        while self._data:
            (size,) = struct.unpack(">I", self._data[1:5])
            if self._data[0] or len(self._data) < 5 + size:
                raise HostError("Asking buildkitd failed: its answer is compressed, or cut off.")
            messages.append(self._data[5 : 5 + size])
            self._data = self._data[5 + size :]
        return messages

    def _next_frame(self) -> bool:
        """Reads a frame; whether the answer is complete. Raises HostError when it is an error."""
        head = self._read(9)
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        body = self._read(size)
        if kind == _SETTINGS and not flags & _ACK:
            self._stream.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._stream.sendall(_frame(_PING, _ACK, 0, body))
        elif kind in (_RST_STREAM, _GOAWAY):
            raise HostError("Asking buildkitd failed: it ended the connection. It may be about to stop.")
        elif kind == _DATA:
            self._data += _unpadded(body, flags)
            if len(self._data) > _MOST:
                raise HostError("Asking buildkitd failed: its answer does not end.")
        elif kind == _HEADERS and flags & _END_STREAM:
            block = _unpadded(body, flags)[5 if flags & _PRIORITY else 0 :]
            status = next((value for name, value in _literals(block) if name in _GRPC_STATUS), None)
            if status not in _OK:
                raise HostError(f"Asking buildkitd failed: it answered with the gRPC status {status!r}.")
            return True
        return False

    def _read(self, size: int) -> bytes:
        if size > _MOST:
            raise HostError("Asking buildkitd failed: what answers there is no HTTP/2.")
        found = b""
        while len(found) < size:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise HostError(f"Asking buildkitd failed: no answer within {TIMEOUT:g} seconds.")
            self._stream.settimeout(left)
            block = self._stream.recv(size - len(found))
            if not block:
                raise HostError("Asking buildkitd failed: it closed the connection.")
            found += block
        return found


def _unpadded(body: bytes, flags: int) -> bytes:
    return body[1 : len(body) - body[0]] if flags & _PADDED else body


def _integer(block: bytes, at: int, bits: int) -> t.Tuple[int, int]:
    """An integer of HPACK (RFC 7541, 5.1), and where the next thing begins."""
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value == most:
        shift = 0
        while True:
            value += (block[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not block[at - 1] & 0x80:
                break
    return value, at


def _string(block: bytes, at: int) -> t.Tuple[bytes, int]:
    size, at = _integer(block, at, 7)
    return block[at : at + size], at + size


def _literals(block: bytes) -> t.Iterator[t.Tuple[bytes, bytes]]:
    """The header fields with a name in full, both as they were sent, perhaps in Huffman code."""
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:  # both by a number
            _index, at = _integer(block, at, 7)
        elif first & 0xE0 == 0x20:  # the size of the table
            _size, at = _integer(block, at, 5)
        else:
            index, at = _integer(block, at, 6 if first & 0x40 else 4)
            name = b""
            if not index:
                name, at = _string(block, at)
            value, at = _string(block, at)
            yield name, value


def _fields(message: bytes) -> t.Iterator[t.Tuple[int, t.Union[int, bytes]]]:
    """The fields of a message of Protocol Buffers: number and value, of those that have a varint or a length."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == 0:
            number, at = _varint(message, at)
            yield key >> 3, number
        elif wire == 2:
            size, at = _varint(message, at)
            yield key >> 3, message[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise HostError("Asking buildkitd failed: its answer is no message of its Control service.")


def _varint(message: bytes, at: int) -> t.Tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not message[at - 1] & 0x80:
            return value, at
