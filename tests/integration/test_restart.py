# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ending real daemons in a moment in which they build nothing, and what the policies do when none comes."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import builds
import daemon as daemons
import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import ask
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module
from daemon import Daemon


@pytest.fixture
def builder(bin_dir: Path, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that a test may end."""
    with daemons.run(bin_dir, tmp_path / "daemon") as running:
        yield running
        if running.process.poll() is not None:  # whoever is killed leaves mounts
            for mount in daemons.mounts_below(tmp_path):
                subprocess.run(["umount", "--lazy", mount], check=True)


def restart(builder: Daemon, *, check: bool = False, **options: Any) -> Outcome:
    """Run the module without its action plugin, as it runs on a host. Nobody starts the daemon again."""
    where = {"pid": builder.process.pid, "socket": builder.unix[len("unix://") :]}
    return run_module(
        "buildkitd_restart", {**where, "port": int(builder.tcp.rpartition(":")[2]), **options}, check=check
    )


def ended(builder: Daemon) -> bool:
    """Whether it ended."""
    return builder.process.poll() is not None


def old(builder: Daemon) -> bool:
    """Whether SIGTERM kills its builds."""
    return "v0.13" in builds.buildctl(builder, "debug", "info")


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


@contextlib.contextmanager
def idle_session(builder: Daemon) -> Iterator[None]:
    """A client that holds a session open, and builds nothing."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/moby.buildkit.v1.Control/Session",
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
        b"x-docker-expose-session-uuid": b"idle",
        b"x-docker-expose-session-name": b"idle",
    }
    headers = b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(text)]) + text for name, text in fields.items())
    host, port = builder.tcp[len("tcp://") :].split(":")
    with socket.create_connection((host, int(port))) as stream:
        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 4, 1, headers))
        time.sleep(1.2)  # longer than somebody who has just connected is waited for
        yield


def test_idle_daemon_is_ended_at_once(builder: Daemon) -> None:
    """With check mode it is only looked at."""
    predicted = restart(builder, check=True)
    assert (predicted.result["how"], ended(builder)) == ("idle", False)
    done = restart(builder)
    assert (done.result["how"], done.result["restarted"], done.result["builds"]) == ("idle", True, [])
    assert done.result["waited_seconds"] < 3
    assert ended(builder)


def test_a_build_is_waited_for(builder: Daemon, tmp_path: Path) -> None:
    """The daemon ends when it has ended, and not before."""
    with builds.running(builder, tmp_path / "build", 2.0) as client:
        done = restart(builder)
        assert client.wait() == 0
    assert done.result["how"] == "idle"
    assert ended(builder)


def test_policies_when_no_moment_comes(builder: Daemon, tmp_path: Path) -> None:
    """Skip leaves the daemon; graceful lets the build end, and is refused where it would not; now kills."""
    kills = old(builder)
    # Somebody else holds a session open all the while.
    with idle_session(builder), builds.running(builder, tmp_path / "build", 60.0 if kills else 8.0) as client:
        predicted = restart(builder, check=True, policy="skip")
        left = restart(builder, policy="skip", limit=0.3)
        for outcome in (predicted, left):
            assert (outcome.result["how"], outcome.result["changed"]) == ("skipped", False)
            assert len(outcome.result["builds"]) == 1
        assert "NOT restarted: 1 build still ran" in left.result["message"]
        graceful = restart(builder, policy="graceful", limit=0.3)
        if kills:
            assert "kills its builds at SIGTERM" in graceful.message
            assert restart(builder, limit=0.3).result["policy"] == "skip"
            assert client.poll() is None
            assert restart(builder, policy="now", limit=0).result["how"] == "now"
            assert client.wait() != 0
        else:
            assert graceful.result["how"] == "graceful"
            assert "what still held it up was ended" in graceful.result["message"]
            assert graceful.result["stopped_seconds"] < 60
            assert client.wait() == 0
    assert ended(builder)


def test_an_idle_client_holds_nothing_up(builder: Daemon) -> None:
    """A session that is open without end does not count; when the daemon waits for it, that is ended."""
    with idle_session(builder):
        began = time.monotonic()
        done = restart(builder)
    assert "Idle clients held it up, and were cut off." in done.result["message"]
    assert time.monotonic() - began < 60
    assert ended(builder)


def test_who_has_just_connected_is_waited_for(builder: Daemon) -> None:
    """A client connects before it builds, so it gets a second for that."""
    host, port = builder.tcp[len("tcp://") :].split(":")
    stop = threading.Event()

    # Each hangs up once the next one is there, so that there is always one that has just come.
    def connect() -> None:
        with contextlib.ExitStack() as last:
            while not stop.is_set():
                now = socket.create_connection((host, int(port)))
                last.close()
                last.enter_context(now)
                stop.wait(0.3)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        time.sleep(0.2)
        done = restart(builder, policy="skip", limit=2)
    finally:
        stop.set()
        thread.join()
    assert (done.result["how"], done.result["builds"]) == ("skipped", [])
    assert "somebody had just connected" in done.result["message"]
    assert not ended(builder)


def test_a_daemon_that_cannot_be_asked(builder: Daemon) -> None:
    """It is left alone, soon and with the cause, and a policy that kills is no obstacle."""
    began = time.monotonic()
    done = restart(builder, socket=str(builder.root / "none.sock"), policy="skip")
    assert done.result["how"] == "skipped"
    assert "none.sock" in done.result["message"]
    assert time.monotonic() - began < 30
    assert not ended(builder)
    assert restart(builder, socket=str(builder.root / "none.sock"), policy="now", limit=0).result["how"] == "now"
    assert ended(builder)


def test_no_daemon() -> None:
    """There is nothing to wait for, and what starts it is run; its failure is told."""
    done = run_module("buildkitd_restart", {"pid": 0, "command": ["/bin/true"]})
    assert done.result["how"] == "down"
    failed = run_module("buildkitd_restart", {"pid": 0, "command": ["/bin/sh", "-c", "echo too hot; exit 1"]})
    assert failed.failed
    assert "too hot" in failed.message


def test_the_program_beside_a_daemon_gets_its_rights_alone() -> None:
    """Whoever runs a daemon without root's rights decides what lies beside it, and must not become root by that."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        shutil.copy("/bin/sleep", place / "buildkitd")
        program = place / "buildctl"
        program.write_text("#!/bin/sh\nid -u; id -g; id -G\n")
        program.chmod(0o755)
        rights = ["setpriv", "--reuid=1234", "--regid=1235", "--clear-groups"]
        daemon = subprocess.Popen([*rights, place / "buildkitd", "60"])
        try:
            until = time.monotonic() + 10
            while not Path(f"/proc/{daemon.pid}/exe").resolve().name.startswith("buildkitd"):
                assert time.monotonic() < until
                time.sleep(0.02)
            assert ask.version(daemon.pid, str(place / "buildkitd.sock")).split() == ["1234", "1235", "1235"]
        finally:
            daemon.kill()
            daemon.wait()
