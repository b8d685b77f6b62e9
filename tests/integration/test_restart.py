# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ending real daemons in a moment in which they build nothing, and what the policies do when none comes."""

from __future__ import annotations

import contextlib
import errno
import http.server
import secrets
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

import builds
import daemon as daemons
import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import llb, messages
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import ask, line, proc, process, sockets
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import restart as restarting
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import watch as watching
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.door import Door
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.http2 import frame
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import (
    Outcome,
    finish,
    module_process,
    run_module,
)
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until
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
    return run_module("buildkitd_restart", {**where(builder), **options}, check=check)


def where(builder: Daemon) -> dict[str, Any]:
    """The daemon as the module is told it."""
    port = int(builder.tcp.rpartition(":")[2])
    return {"pid": builder.process.pid, "socket": builder.unix[len("unix://") :], "port": port}


def wish(builder: Daemon, **wishes: Any) -> restarting.Wish:
    """The same without a module, for a test that changes how it works."""
    found = where(builder)
    return restarting.Wish(socket=found["socket"], port=found["port"], **wishes)


def process_of(builder: Daemon) -> proc.ProcessIdentity:
    """Its process."""
    found = proc.identify(builder.process.pid)
    assert found
    return found


def told(builder: Daemon) -> bool:
    """Whether it was told to end, and listens no more."""
    return not sockets.listening(builder.process.pid, where(builder)["port"])


def kept_waiting(builder: Daemon) -> bool:
    """Whether a new client is neither let in nor refused."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(("127.0.0.1", where(builder)["port"]))
        except TimeoutError:
            return True
        return False


def refused(builder: Daemon) -> bool:
    """Whether nobody holds its port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", where(builder)["port"])) == errno.ECONNREFUSED


def asked(builder: Daemon) -> bool:
    """Whether somebody else than the client of its build is connected to its unix socket."""
    return len(sockets.local_connections(builder.process.pid, where(builder)["socket"])) > 1


def ended(builder: Daemon) -> bool:
    """Whether it ended."""
    return builder.process.poll() is not None


def old(builder: Daemon) -> bool:
    """Whether SIGTERM kills its builds."""
    return "v0.13" in builds.buildctl(builder, "debug", "info")


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
        ping = b"a number"
        stream.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 4, 1, headers) + frame(6, 0, 0, ping)
        )
        said = b""
        while frame(6, 1, 0, ping) not in said:  # then the daemon has read what came before it
            more = stream.recv(4096)
            assert more, said
            said += more
        yield


def test_idle_daemon_is_ended_at_once(builder: Daemon) -> None:
    """With check mode it is only looked at."""
    predicted = restart(builder, check=True)
    assert (predicted.result["how"], ended(builder)) == ("idle", False)
    done = restart(builder)
    assert (done.result["how"], done.result["restarted"], done.result["builds"]) == ("idle", True, [])
    until(lambda: ended(builder), "the end of the daemon")


def test_a_build_is_waited_for(builder: Daemon, tmp_path: Path) -> None:
    """The daemon ends when it has ended, and not before."""
    with builds.running(builder, tmp_path / "build") as client:
        waiting = module_process("buildkitd_restart", where(builder))
        until(lambda: asked(builder), "the module's question")
        client.finish()
        done = finish(waiting)
    assert done.result["how"] == "idle"
    until(lambda: ended(builder), "the end of the daemon")


def test_policies_when_no_moment_comes(builder: Daemon, tmp_path: Path) -> None:
    """Skip leaves the daemon; graceful lets the build end, and is refused where it would not; now kills."""
    # Somebody else holds a session open all the while.
    with idle_session(builder), builds.running(builder, tmp_path / "build") as client:
        predicted = restart(builder, check=True, policy="skip")
        left = restart(builder, policy="skip", limit=0.3)
        for outcome in (predicted, left):
            assert (outcome.result["how"], outcome.result["changed"]) == ("skipped", False)
            assert len(outcome.result["builds"]) == 1
        assert "NOT restarted: 1 build still ran" in left.result["message"]
        graceful = module_process("buildkitd_restart", {**where(builder), "policy": "graceful", "limit": 0.3})
        if old(builder):
            assert "kills its builds at SIGTERM" in finish(graceful).message
            assert restart(builder, limit=0.3).result["policy"] == "skip"
            assert client.poll() is None
            assert restart(builder, policy="now", limit=0).result["how"] == "now"
            assert client.wait() != 0
        else:
            until(lambda: kept_waiting(builder), "the closed door")
            assert not told(builder)  # so all calls for the build that are still to come are taken
            client.finish()
            done = finish(graceful)
            assert done.result["how"] == "graceful"
            assert "what still held it up was ended" in done.result["message"]
    until(lambda: ended(builder), "the end of the daemon")


@pytest.mark.parametrize("possible", [True, False])
def test_who_cannot_be_kept_waiting(
    builder: Daemon, tmp_path: Path, possible: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of the unix socket, or anybody on an old kernel: the signal comes while it builds, and that ends."""
    daemon = process_of(builder)
    if old(builder):
        with pytest.raises(HostError, match="kills its builds at SIGTERM"):
            restarting.decide(daemon, wish(builder, policy="graceful"))
        return
    second_builds, release = threading.Event(), threading.Event()
    if not possible:
        monkeypatch.setattr(Door, "close", lambda _door: not second_builds.wait(LONG))
    with ThreadPoolExecutor() as pool, slow_server(release) as url, builds.running(builder, tmp_path) as first:
        decided = pool.submit(restarting.decide, daemon, wish(builder, limit=0.3))
        if possible:
            until(lambda: kept_waiting(builder), "the closed door")
        second = line.Line(daemon.pid, where(builder)["socket"])
        answer = second.call("Solve", fetching(url))
        second_builds.set()
        until(lambda: told(builder), "the signal")
        until(lambda: refused(builder), "the open door")  # so with systemd the next daemon has who connects now
        first.finish()
        assert first.wait() == 0
        assert not decided.done()
        release.set()
        while not answer.ended:
            second.listen(1)
        second.close()
        assert answer.good
        assert decided.result().how == "graceful"
    until(lambda: ended(builder), "the end of the daemon")


def test_an_idle_client_holds_nothing_up(builder: Daemon) -> None:
    """A session that is open without end does not count; when the daemon waits for it, that is ended."""
    with idle_session(builder):
        done = restart(builder)
    assert "Idle clients held it up, and were cut off." in done.result["message"]
    until(lambda: ended(builder), "the end of the daemon")


@pytest.mark.parametrize("local", [False, True])
def test_who_has_just_connected_is_waited_for(builder: Daemon, local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client connects before it builds, so it gets some time for that; here that is an hour."""
    monkeypatch.setattr(watching, "SETTLED", 3600.0)
    with socket.socket(socket.AF_UNIX if local else socket.AF_INET) as client:
        client.connect(where(builder)["socket"] if local else ("127.0.0.1", where(builder)["port"]))
        left = restarting.decide(process_of(builder), wish(builder, policy="skip", limit=0.5))
    assert (left.how, left.builds) == ("skipped", [])
    assert "somebody had just connected" in left.message
    assert not ended(builder)
    assert restarting.decide(process_of(builder), wish(builder, policy="skip", limit=LONG)).how == "idle"
    until(lambda: ended(builder), "the end of the daemon")


@contextlib.contextmanager
def slow_server(release: threading.Event) -> Iterator[str]:
    """Something to fetch, which comes at last."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            release.wait()
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")

        def log_message(self, *_arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/{secrets.token_hex(8)}"
        finally:
            release.set()
            server.shutdown()
            thread.join()


def fetching(url: str) -> bytes:
    """The request for a build that fetches this, and runs no step."""
    fetch = llb.Operation(ask._text(3, ask._text(1, url).decode()))  # pb.Op, source; pb.SourceOp, identifier
    request = messages.new("moby.buildkit.v1.SolveRequest", Ref=secrets.token_hex(8))
    request.Definition.MergeFrom(llb.definition(fetch))
    request.Cache.SetInParent()
    return bytes(request.SerializeToString())


def test_a_build_that_begins_in_the_very_moment(builder: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody knew of when the daemon got its signal is not lost, though it runs no step, and an idle client
    holds a session. It is known when it ends.
    """
    kills = old(builder)
    send = proc.send
    daemon = process_of(builder)
    release = threading.Event()
    answers: list[line.Answer] = []

    with idle_session(builder), ThreadPoolExecutor() as pool, slow_server(release) as url:
        client = line.Line(daemon.pid, where(builder)["socket"])

        def begin(*arguments: Any) -> None:
            send(*arguments)
            if not answers:
                until(lambda: told(builder), "the signal")
                answers.append(client.call("Solve", fetching(url)))

        monkeypatch.setattr(proc, "send", begin)
        decided = pool.submit(restarting.decide, daemon, wish(builder, stop_timeout=3600))
        until(lambda: answers, "the build")
        if not kills:  # else it ends, though what it fetches has not come
            time.sleep(restarting.CUT_OFF + 1.5)
            running = not decided.done() and not ended(builder)
            release.set()
        while not answers[0].ended:
            client.listen(1)
        client.close()
        outcome = decided.result()
        assert answers[0].good is not kills
        assert kills or running
    assert (outcome.how, outcome.killed) == ("idle", True)
    assert outcome.stopped < 3600
    until(lambda: ended(builder), "the end of the daemon")


@pytest.mark.parametrize("policy", ["", "graceful"])
def test_a_daemon_that_ends_by_itself(builder: Daemon, tmp_path: Path, policy: str) -> None:
    """Nobody waits for it any longer, and its builds are not said to have ended; also when it was to be ended."""
    if policy and old(builder):
        assert "kills its builds at SIGTERM" in restart(builder, policy=policy).message
        return
    with builds.running(builder, tmp_path / "build") as client:
        waiting = module_process(
            "buildkitd_restart", {**where(builder), "policy": policy, "limit": 0 if policy else 600}
        )
        until(lambda: asked(builder), "the module's question")
        if policy:
            until(lambda: kept_waiting(builder), "the closed door")
        process.kill_tree(process_of(builder))
        done = finish(waiting)
        assert done.result["how"] == "down"
        assert "It ended by itself" in done.result["message"]
        assert client.wait() != 0


def test_a_daemon_that_was_told_before(builder: Daemon, tmp_path: Path) -> None:
    """It is waited for, and not told again: the third signal would make it exit at once, and lose the build."""
    with builds.running(builder, tmp_path / "build") as client:
        kills = old(builder)
        builder.process.terminate()
        until(lambda: told(builder), "the signal")
        again = [module_process("buildkitd_restart", {**where(builder), "limit": 0}) for _run in range(2)]
        if not kills:
            time.sleep(restarting.STARTS + 1)
            client.finish()
        assert {finish(one).result["how"] for one in again} <= {"ending", "down"}
    until(lambda: ended(builder), "the end of the daemon")


def test_a_daemon_that_cannot_be_asked(builder: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left alone, soon and with the cause, and a policy that kills is no obstacle."""
    monkeypatch.setattr(watching, "SILENT", 1.0)  # which is half a minute else
    nowhere = str(builder.root / "none.sock")
    left = restarting.decide(process_of(builder), replace(wish(builder, policy="skip", limit=3600), socket=nowhere))
    assert left.how == "skipped"
    assert "none.sock" in left.message
    assert not ended(builder)
    assert restart(builder, socket=nowhere, policy="now", limit=0).result["how"] == "now"
    until(lambda: ended(builder), "the end of the daemon")


def test_no_daemon() -> None:
    """There is nothing to wait for, and what starts it is run; its failure is told."""
    done = run_module("buildkitd_restart", {"pid": 0, "command": ["/bin/true"]})
    assert done.result["how"] == "down"
    failed = run_module("buildkitd_restart", {"pid": 0, "command": ["/bin/sh", "-c", "echo too hot; exit 1"]})
    assert failed.failed
    assert "too hot" in failed.message
