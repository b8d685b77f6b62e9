# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a call when whatever listens on the socket is no daemon; with daemons it is tested elsewhere."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import ask, line
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.http2 import frame

GOOD = frame(1, 5, 1, bytes.fromhex("889acac8b21234da8f") + b"\x010")


@pytest.fixture
def listener(tmp_path: Path) -> t.Iterator[t.Callable[[bytes], str]]:
    """Listens, says what it is given to whoever calls, and has no more to say."""
    threads = []

    def answer(server: socket.socket, text: bytes) -> None:
        with server, server.accept()[0] as stream:
            while b"Control/" not in stream.recv(4096):
                pass
            with contextlib.suppress(OSError):
                stream.sendall(text)
                stream.shutdown(socket.SHUT_WR)
                while stream.recv(4096):
                    pass

    def listen(text: bytes) -> str:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "socket"))
        server.listen()
        threads.append(threading.Thread(target=answer, args=(server, text)))
        threads[-1].start()
        return str(tmp_path / "socket")

    yield listen
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        pytest.param(os.urandom(20000), id="noise"),
        frame(3, 0, 1, b"\0\0\0\2"),
        frame(1, 5, 1, b"an error"),
        frame(0, 0, 1, b"\0\0\0\0\x09\x0a") + GOOD,
        frame(0, 0, 1, b"\1\0\0\0\0") + GOOD,
        frame(0, 0, 1, b"\0\0\0\0\2\x12\x09") + GOOD,
        frame(0, 0, 1, b"\0\0\0\0\1\xff") + GOOD,
        frame(0, 0, 1, b"\0\0\0\0\1\x13") + GOOD,
        frame(0, 8, 1, b"\0\0\0\0\0") + GOOD,
        frame(0, 0, 1, b"\0" * (1 << 14)) * (1 << 11),
    ],
    ids=lambda text: repr(text[:16]),
)
def test_what_is_no_answer(listener: t.Callable[[bytes], str], text: bytes) -> None:
    """Nobody is taken to build nothing because of it."""
    path = listener(text)
    connection = line.Line(os.getpid(), path)
    with pytest.raises(HostError, match="buildkitd"):
        ask.builds(connection)
    connection.close()


def test_nobody_listens(tmp_path: Path) -> None:
    """It is said on which socket."""
    with pytest.raises(HostError, match=r"none\.sock failed: .*No such file"):
        line.Line(os.getpid(), str(tmp_path / "none.sock"))


def test_an_answer_in_parts(listener: t.Callable[[bytes], str]) -> None:
    """Messages need not begin where frames do, and fields that nobody knows are left out."""
    record = b"\x0a\x03abc\x10\x07\x19" + bytes(8) + b"\x25" + bytes(4)
    event = b"\x12" + bytes([len(record)]) + record
    messages = struct.pack(">BI", 0, len(event)) + event + b"\0\0\0\0\0"
    path = listener(frame(0, 0, 1, messages[:9]) + frame(0, 0, 1, messages[9:]) + GOOD)
    connection = line.Line(os.getpid(), path)
    assert ask.builds(connection) == {"abc", ""}
    connection.close()
