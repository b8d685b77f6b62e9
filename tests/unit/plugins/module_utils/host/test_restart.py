# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a restart, and which versions let their builds end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc, restart
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.watch import Watch


@pytest.mark.parametrize(
    ("version", "ends"),
    [
        ("0.13.2", False),
        ("v0.13.2+debian", False),
        ("0.14.0-rc1", True),
        ("v0.25.2", True),
        ("1.0.0", True),
        ("v0.0.0+unknown", False),
        ("", False),
    ],
)
def test_which_versions_let_builds_end(version: str, ends: bool) -> None:
    """An unknown one is held to kill them."""
    assert restart.ends_builds(version) is ends


@pytest.mark.parametrize("killed", [False, True])
def test_a_daemon_that_was_ending_and_did_not_in_time(killed: bool) -> None:
    """It is said that builds were killed."""
    outcome = restart.Outcome(how=restart.ENDING, policy=restart.GRACEFUL, stopped=600.0, killed=killed)
    assert ("killed" in outcome.message) is killed
    assert "took 600 s more" in outcome.message


def test_who_listens(tmp_path: Path) -> None:
    """The process that one is told of may only be what started the daemon."""
    path = str(tmp_path / "daemon.sock")
    wish = restart.Wish(socket=path)
    parent = proc.identify(os.getpid())
    assert parent
    assert restart.server(parent, wish) == 0
    code = f"import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind({path!r}); s.listen(); print(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        child.stdout.readline()
        assert restart.server(parent, wish) == child.pid
        child.communicate()
    assert restart.server(parent, wish) == 0


def test_nobody_is_kept_waiting_where_that_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client sends that waits would go on to an address that the next daemon does not have."""
    doors: list[bool] = []

    def wait(watch: Watch, _limit: float) -> bool:
        doors.append(watch.door.close())
        watch.door.open()
        return False

    monkeypatch.setattr(Watch, "wait", wait)
    monkeypatch.setattr(restart, "version_of", lambda _daemon, _socket: "v0.25.2")
    daemon = proc.identify(os.getpid())
    assert daemon
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        restart.decide(daemon, restart.Wish(socket="/none", port=port, policy=restart.SKIP, hold=False))
        assert doors == [False]
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
