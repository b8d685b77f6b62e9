# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is seen while the tables of the kernel are read, which show no single moment."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc, sockets
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
    monkeypatch.setattr(watch.door, "close", lambda: (present.add("7"), did.append("close"))[1] is None)
    monkeypatch.setattr(watch.door, "open", lambda: did.append("open"))
    assert not watch.wait(0)
    assert did == ["close", "open"]
