# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is seen while the tables of the kernel are read, which show no single moment."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc, sockets
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import watch as watching
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.door import Door
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.watch import Watch


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """One of a daemon that builds nothing."""
    found = Watch(proc.ProcessIdentity(1, 1, ""), 1, socket="", port=1234)
    monkeypatch.setattr(found, "look", lambda: True)
    monkeypatch.setattr(sockets, "connections", lambda _pid, _port: set())
    return found


def test_who_connects_while_the_table_is_read(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """That nobody is there at first does not mean that nobody has connected: it takes a while to read who is there."""
    readings = iter([{"1"}, {"1"}, {"1", "7"}, {"1"}])
    monkeypatch.setattr(sockets, "of", lambda _pid: next(readings))
    assert watch._nobody_new()
    assert not watch.idle()


def test_who_connects_before_the_door_is_closed(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked once more behind it, and it is opened again for the next try."""
    present = {"1"}
    monkeypatch.setattr(sockets, "of", lambda _pid: set(present))
    did: list[str] = []

    def close() -> bool:
        present.add("7")
        did.append("close")
        return True

    monkeypatch.setattr(watch.door, "close", close)
    monkeypatch.setattr(watch.door, "open", lambda: did.append("open"))
    assert not watch.wait(0)
    assert did == ["close", "open"]


class Clock:
    """A time that passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """What it shows, in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let so many pass."""
        self.now += seconds


def busy(watch: Watch, monkeypatch: pytest.MonkeyPatch, seconds: float) -> Clock:
    """Have a build begin every so often, as the one before ends."""
    clock = Clock()

    def look() -> bool:
        began = clock.now // seconds * seconds
        watch._begun = {str(began): began}
        return False

    monkeypatch.setattr(watching, "time", clock)
    monkeypatch.setattr(watch, "look", look)
    monkeypatch.setattr(proc, "identify", lambda _pid: watch._daemon)
    return clock


@pytest.mark.parametrize("possible", [True, False])
def test_a_drain_has_an_end(watch: Watch, monkeypatch: pytest.MonkeyPatch, possible: bool) -> None:
    """However many builds begin, also where nobody can be kept waiting: the rest of the time is for those to end."""
    clock = busy(watch, monkeypatch, 0.1)
    monkeypatch.setattr(Door, "close", lambda _door: possible)
    watch.drain(0.5)
    assert clock.now <= 0.6


def test_a_drain_ends_in_a_lull(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client inside that begins build after build is not cut short while it prepares one."""
    clock = busy(watch, monkeypatch, 1.5)
    monkeypatch.setattr(Door, "close", lambda _door: True)
    watch.drain(9.3)
    assert clock.now <= 9.4
    assert all(clock.now - since >= watching.SETTLED for since in watch._begun.values())


def test_who_only_looks_in_ends_no_drain(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of the unix socket that builds nothing does not take those inside the time that they need."""
    clock = busy(watch, monkeypatch, 3600.0)
    watch.look()

    def local(_pid: int, _path: str = "") -> set[str]:
        return {"8"} if clock.now > 1.0 else set()

    monkeypatch.setattr(sockets, "of", local)
    monkeypatch.setattr(sockets, "local_connections", local)
    monkeypatch.setattr(Door, "close", lambda _door: True)
    watch.drain(40.0)
    assert clock.now >= 20.0


def test_a_daemon_that_stalls_is_asked_until_it_answers(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does on a disk that others keep busy: it is not handled as the policy says after the first question."""
    clock = busy(watch, monkeypatch, 3600.0)

    def look() -> bool:
        watch.problem = "it gave no answer within 5 s" if clock.now < 20 else ""
        clock.sleep(5 if watch.problem else 0)
        return not watch.problem

    monkeypatch.setattr(watch, "look", look)
    monkeypatch.setattr(sockets, "of", lambda _pid: set())
    assert watch.wait(600.0)
    assert clock.now < 30
