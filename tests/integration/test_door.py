# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""New clients of a port are kept waiting, and never for longer than there is somebody who wants that."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from typing import Iterator

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc, sockets
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.door import Door
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.watch import Watch
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until

_SERVER = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
clients = []
while True:
    clients.append(listener.accept()[0])
    clients[-1].sendall(b"welcome")
"""
# What it is told on its standard input it does; "closed" or "open" is what came of it.
_PORTER = """
import sys
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.door import Door
door = Door(int(sys.argv[1]), int(sys.argv[2]))
for line in sys.stdin:
    getattr(door, line.strip())()
    print("closed" if door.closed else "open", flush=True)
"""
SHORT = 0.3  # seconds: for so long nobody answers, where nobody is to answer at all


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a program that can be talked to."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that lets everybody in, and its port."""
    with start(_SERVER) as process:
        assert process.stdout
        yield process, int(process.stdout.readline())
        process.kill()


@pytest.fixture
def porter(server: tuple[subprocess.Popen[str], int]) -> Iterator[subprocess.Popen[str]]:
    """Somebody at its door."""
    with start(_PORTER, str(server[0].pid), str(server[1])) as process:
        yield process
        process.kill()


def tell(porter: subprocess.Popen[str], what: str) -> str:
    """Have it do this, and return how the door is then."""
    assert porter.stdin
    assert porter.stdout
    porter.stdin.write(f"{what}\n")
    porter.stdin.flush()
    return porter.stdout.readline().strip()


def welcome(port: int, timeout: float = LONG) -> bool:
    """Whether a new client is let in within this time."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as client:
            return client.recv(7) == b"welcome"
    except TimeoutError:
        return False


def test_new_clients_wait(server: tuple[subprocess.Popen[str], int], porter: subprocess.Popen[str]) -> None:
    """Those inside stay connected, those outside are not refused, and get in when it is opened, each time."""
    port = server[1]
    with socket.create_connection(("127.0.0.1", port)) as inside:
        assert inside.recv(7) == b"welcome"
        for _time in range(2):
            assert tell(porter, "close") == "closed"
            assert tell(porter, "close") == "closed"
            assert not welcome(port, SHORT)
            inside.settimeout(SHORT)
            with pytest.raises(TimeoutError):  # and not the end of the connection
                inside.recv(1)
            assert tell(porter, "open") == "open"
            assert welcome(port)


def test_who_waits_gets_in(server: tuple[subprocess.Popen[str], int], porter: subprocess.Popen[str]) -> None:
    """The client does nothing for it: its system asks again."""
    tell(porter, "close")
    with socket.socket() as client:
        client.setblocking(False)
        assert client.connect_ex(("127.0.0.1", server[1])) != 0
        client.settimeout(LONG)
        tell(porter, "open")
        assert client.recv(7) == b"welcome"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_porter_that_is_killed_leaves_it_open(
    number: signal.Signals, server: tuple[subprocess.Popen[str], int], porter: subprocess.Popen[str]
) -> None:
    """Though nothing of it could clean up; and no process of its stays."""
    tell(porter, "close")
    guards = children(porter.pid)
    assert len(guards) == 1
    porter.send_signal(number)
    assert welcome(server[1])
    until(lambda: not os.path.exists(f"/proc/{guards[0]}"), "the end of who held it")


def test_who_holds_it_hears_no_signal(server: tuple[subprocess.Popen[str], int], porter: subprocess.Popen[str]) -> None:
    """Such as that of a connection which ends."""
    tell(porter, "close")
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        os.kill(children(porter.pid)[0], number)
    assert not welcome(server[1], SHORT)
    assert tell(porter, "open") == "open"
    assert welcome(server[1])


def test_whoever_watched_leaves_it_open(server: tuple[subprocess.Popen[str], int]) -> None:
    """Whatever it was closed for, nobody waits any longer when that is over."""
    daemon = proc.identify(server[0].pid)
    assert daemon
    watch = Watch(daemon, daemon.pid, "/none", server[1])
    assert watch.door.close()
    watch.close()
    assert welcome(server[1])


def test_no_port_and_no_process() -> None:
    """There is nothing to close, and that is told."""
    for door in (Door(os.getpid(), 0), Door(os.getpid(), 1), Door(2**22, 1234)):
        assert not door.close()
        assert not door.closed
        door.open()


def test_a_socket_that_cannot_be_borrowed(
    server: tuple[subprocess.Popen[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the kernel is older than 5.6: the door stays open."""
    pid, port = server[0].pid, server[1]
    inodes = sockets.listening(pid, port)
    monkeypatch.setattr(sockets, "by_number", lambda _pid: {1023: next(iter(inodes))})
    monkeypatch.setattr(sockets, "listening", lambda _pid, _port: inodes)
    door = Door(pid, port)
    assert not door.close()
    assert welcome(port)


def test_no_process_for_it(server: tuple[subprocess.Popen[str], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too many already: the door stays open, and nothing is left behind."""

    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    before = set(os.listdir("/proc/self/fd"))
    door = Door(server[0].pid, server[1])
    assert not door.close()
    assert set(os.listdir("/proc/self/fd")) <= before  # what a test before left to be collected may go meanwhile
    assert welcome(server[1])


def test_nobody_hears_of_the_end_of_children(
    server: tuple[subprocess.Popen[str], int],
) -> None:
    """As where whoever runs the module ignores SIGCHLD: the door is opened all the same."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        door = Door(server[0].pid, server[1])
        assert door.close()
        door.open()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert welcome(server[1])


def children(pid: int) -> list[int]:
    """The processes that it started."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as names:
        return [int(name) for name in names.read().split()]
