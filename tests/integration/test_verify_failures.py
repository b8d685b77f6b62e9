# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every cause of failure, each from a real peer, by its kind and with what helps to find it."""

from __future__ import annotations

import asyncio
import functools
import socket
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

import builds
import daemon as daemons
import peers
import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import (
    channel,
    control,
    endpoint,
    messages,
    smoke,
    verify,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, Kind
from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until
from certificates import CLIENT, SERVER, Authority, Pair
from daemon import Daemon
from peers import LIMITS


@pytest.fixture(scope="module")
def good(mtls: Daemon, authority: Authority, client: Pair) -> verify.Daemon:
    """A daemon that is proved; each test spoils one thing about it."""
    return verify.Daemon(mtls.tcp, str(authority.path), str(client.cert), str(client.key))


@pytest.fixture
def fast(authority: Authority, client: Pair) -> verify.Daemon:
    """The good credentials for a peer of a test's own."""
    return verify.Daemon("", str(authority.path), str(client.cert), str(client.key))


def failure_of(daemon: verify.Daemon, **settings: Any) -> dict[str, Any]:
    """The failure of a proof in which this daemon is the only one."""
    proof = verify.Proof(**{"connect_timeout": LONG, "build_timeout": LONG, **settings})
    [report] = verify.verify([daemon], proof)
    assert report.failure is not None
    assert not report.ok
    assert report.failure.remedy.endswith(".")
    return report.as_dict()["failure"]


class TestUnreachable:
    """Nobody is there."""

    def test_port_is_closed(self, fast: verify.Daemon) -> None:
        """A refused connection is unreachable."""
        address = f"tcp://127.0.0.1:{ports.kept()}"
        failure = failure_of(replace(fast, address=address))
        assert failure["kind"] == "unreachable"
        assert "Connection refused" in failure["message"]

    def test_socket_is_missing(self, tmp_path: Path) -> None:
        """A unix socket that is not there is unreachable."""
        failure = failure_of(verify.Daemon(f"unix://{tmp_path}/none.sock"))
        assert failure["kind"] == "unreachable"
        assert "No such file" in failure["message"]

    def test_name_is_unknown(self, fast: verify.Daemon) -> None:
        """A name that does not resolve is unreachable, and named."""
        failure = failure_of(replace(fast, address="tcp://builder.invalid:1234"))
        assert failure["kind"] == "unreachable"
        assert failure["message"].startswith("The name builder.invalid cannot be resolved: ")

    @pytest.fixture
    def ends(self) -> Iterator[Callable[[socket.socket, Callable[[], None]], None]]:
        """Has a listener end when the first client has come, who is hung up on only then."""
        with ThreadPoolExecutor() as pool:

            def end(listener: socket.socket, then: Callable[[], None]) -> None:
                listener.settimeout(LONG)
                with listener:
                    connection = listener.accept()[0]
                then()
                connection.close()

            yield lambda listener, then: pool.submit(end, listener, then)

    def test_it_ends_as_we_come(self, ends: Any, mtls: Daemon, tmp_path: Path) -> None:
        """A daemon that ends hangs up on who has just come: then nobody is there, or the next one answers."""
        path = tmp_path / "socket"

        def begin() -> None:
            path.unlink()
            path.symlink_to(mtls.unix[len("unix://") :])

        for then in (path.unlink, begin):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen()
            ends(listener, then)
            [report] = verify.verify([verify.Daemon(f"unix://{path}")], verify.Proof(connect_timeout=LONG, builds=()))
            assert (report.failure and report.failure.kind.value) == (None if then is begin else "unreachable")

    def test_it_ends_amid_our_handshake(self, ends: Any, fast: verify.Daemon) -> None:
        """That says nothing about TLS."""
        with ports.held() as port:
            ends(socket.create_server(("127.0.0.1", port)), lambda: None)
            assert failure_of(replace(fast, address=f"tcp://127.0.0.1:{port}"))["kind"] == "unreachable"


class TestServerCertificate:
    """The daemon's certificate is not acceptable to us."""

    @pytest.fixture
    def serve(self, bin_dir: Path, authority: Authority, tmp_path: Path) -> Any:
        """Runs a daemon with another certificate."""
        return lambda pair: daemons.run(bin_dir, tmp_path / "daemon", pair=pair, ca=authority.path)

    def test_ca_is_unknown(self, good: verify.Daemon, other_authority: Authority) -> None:
        """A CA that did not issue the certificate is told from the one that did."""
        failure = failure_of(replace(good, ca_path=str(other_authority.path)))
        assert failure["kind"] == "server_unknown_ca"
        assert "CN=Builders CA" in failure["message"]

    def test_name_is_another(self, good: verify.Daemon) -> None:
        """A wrong name fails with the names that would be right."""
        failure = failure_of(replace(good, tls_hostname="other.example.com"))
        assert failure["kind"] == "server_name_mismatch"
        assert "other.example.com" in failure["message"]
        assert "DNS:builder.example.com, DNS:localhost, IP:127.0.0.1" in failure["message"]

    def test_address_is_another(self, good: verify.Daemon) -> None:
        """An IP address that the certificate does not have fails too."""
        assert failure_of(replace(good, tls_hostname="127.0.0.2"))["kind"] == "server_name_mismatch"

    def test_common_name_does_not_count(self, serve: Any, good: verify.Daemon, authority: Authority) -> None:
        """A certificate with the name as its common name alone is refused, as Go clients refuse it."""
        with serve(authority.issue("builder.example.com", SERVER)) as running:
            failure = failure_of(replace(good, address=running.tcp, tls_hostname="builder.example.com"))
        assert failure["kind"] == "server_name_mismatch"
        assert "no subject alternative name" in failure["message"]

    def test_it_has_expired(self, serve: Any, good: verify.Daemon, authority: Authority) -> None:
        """An expired certificate is named with its dates, and is in the report."""
        with serve(authority.issue("old", SERVER, sans=("127.0.0.1",), days=(-9, -2))) as running:
            daemon = replace(good, address=running.tcp)
            [report] = verify.verify([daemon], verify.Proof(connect_timeout=LONG))
        assert report.failure is not None
        assert report.failure.kind.value == "server_certificate_expired"
        certificate = report.as_dict()["certificate"]
        assert certificate["days_left"] in (-3, -2)
        assert certificate["not_after"] in report.failure.message

    def test_it_is_not_yet_valid(self, serve: Any, good: verify.Daemon, authority: Authority) -> None:
        """A certificate from the future is told from an expired one."""
        with serve(authority.issue("early", SERVER, sans=("127.0.0.1",), days=(2, 9))) as running:
            failure = failure_of(replace(good, address=running.tcp))
        assert failure["kind"] == "server_certificate_not_yet_valid"

    def test_it_is_for_clients(self, serve: Any, good: verify.Daemon, authority: Authority) -> None:
        """A certificate for clients cannot serve."""
        with serve(authority.issue("wrong-usage", CLIENT, sans=("127.0.0.1",))) as running:
            failure = failure_of(replace(good, address=running.tcp))
        assert failure["kind"] == "server_certificate_refused"


class TestClientCertificate:
    """Our certificate is not acceptable to the daemon: the alert names the cause, under TLS 1.3 too."""

    def test_it_is_missing(self, good: verify.Daemon) -> None:
        """No certificate at all is its own kind."""
        failure = failure_of(replace(good, client_cert="", client_key=""))
        assert failure["kind"] == "client_certificate_missing"
        assert "certificate_required" in failure["message"]

    @pytest.mark.parametrize("attempt", range(5))
    def test_it_is_of_another_ca(self, good: verify.Daemon, other_authority: Authority, attempt: int) -> None:
        """A certificate of a CA that the daemon does not trust is refused by name, each time."""
        pair = other_authority.issue("foreigner", CLIENT)
        failure = failure_of(replace(good, client_cert=str(pair.cert), client_key=str(pair.key)))
        assert failure["kind"] == "client_certificate_refused"
        assert "unknown_ca" in failure["message"]
        assert "issued by CN=Other CA" in failure["message"]

    def test_it_has_expired(self, good: verify.Daemon, authority: Authority) -> None:
        """An expired certificate is refused by name, with its dates."""
        pair = authority.issue("old-client", CLIENT, days=(-9, -2))
        failure = failure_of(replace(good, client_cert=str(pair.cert), client_key=str(pair.key)))
        assert failure["kind"] == "client_certificate_refused"
        assert "certificate_expired" in failure["message"]
        assert "CN=old-client" in failure["message"]

    def test_it_is_for_servers(self, good: verify.Daemon, authority: Authority) -> None:
        """A certificate for servers cannot be a client's."""
        pair = authority.issue("server-as-client", SERVER)
        failure = failure_of(replace(good, client_cert=str(pair.cert), client_key=str(pair.key)))
        assert failure["kind"] == "client_certificate_refused"
        assert "bad_certificate" in failure["message"]

    def test_key_is_another(self, good: verify.Daemon, authority: Authority) -> None:
        """A key of another certificate is found before anything is contacted."""
        other = authority.issue("other-client", CLIENT)
        failure = failure_of(replace(good, address="tcp://127.0.0.1:9", client_key=str(other.key)))
        assert failure["kind"] == "client_key_mismatch"
        assert str(other.key) in failure["message"]


class TestTls:
    """One side speaks TLS and the other does not."""

    def test_daemon_expects_tls(self, good: verify.Daemon) -> None:
        """A client without TLS options learns that the daemon wants them."""
        assert failure_of(verify.Daemon(good.address))["kind"] == "tls_expected"

    def test_web_server_is_not_tls(self, fast: verify.Daemon) -> None:
        """A web server where TLS is expected is not TLS, and not an open daemon either."""
        with peers.http_server() as address:
            failure = failure_of(replace(fast, address=address))
        assert failure["kind"] == "not_tls"

    @pytest.mark.parametrize("peer", [peers.hang_up, peers.send_garbage])
    def test_stranger_is_not_refused_where_nobody_gets_in(self, fast: verify.Daemon, peer: Any) -> None:
        """A closed connection is no proof of a refusal when the good client did not get through either."""
        with peers.listening(peer) as address:
            [report] = verify.verify([replace(fast, address=address)], verify.Proof(connect_timeout=LONG))
        assert report.as_dict()["refusals"] == {}
        assert list(report.as_dict()["timings_ms"]) == ["total"]

    def test_garbage_is_not_tls(self, fast: verify.Daemon) -> None:
        """A service that greets first, such as SSH, is not TLS."""
        with peers.listening(peers.send_garbage) as address:
            assert failure_of(replace(fast, address=address))["kind"] == "not_tls"

    def test_hanging_up_is_not_tls(self, fast: verify.Daemon) -> None:
        """A connection that is closed during the handshake is not TLS."""
        with peers.listening(peers.hang_up) as address:
            assert failure_of(replace(fast, address=address))["kind"] == "not_tls"


class TestGrpc:
    """Somebody else answers."""

    def test_web_server_in_tls(self, fast: verify.Daemon, server: Pair) -> None:
        """Something in TLS that does not speak HTTP/2 is not gRPC."""
        with peers.listening(peers.in_tls(server, peers.send_garbage)) as address:
            failure = failure_of(replace(fast, address=address))
        assert failure["kind"] == "not_grpc"
        assert "SSH-2.0" in failure["message"]

    def test_hanging_up_after_the_handshake(self, fast: verify.Daemon, server: Pair) -> None:
        """A connection that is closed right after TLS is not gRPC."""
        with peers.listening(peers.in_tls(server, peers.hang_up)) as address:
            assert failure_of(replace(fast, address=address))["kind"] == "not_grpc"

    def test_garbage_without_tls(self) -> None:
        """Without TLS, too, something that is no HTTP/2 is not gRPC."""
        with peers.listening(peers.send_garbage) as address:
            assert failure_of(verify.Daemon(address))["kind"] == "not_grpc"

    def test_other_grpc_service(self, mtls: Daemon) -> None:
        """Another gRPC service, the daemon's own for traces, is not BuildKit."""
        assert failure_of(verify.Daemon(mtls.traces))["kind"] == "not_buildkit"

    def test_no_worker(self, tmp_path: Path) -> None:
        """A service that answers as BuildKit and lists no worker cannot build."""
        replies = {"Info": "InfoResponse", "ListWorkers": "ListWorkersResponse"}
        with peers.grpc_server(tmp_path / "socket", peers.Answers("moby.buildkit.v1", replies, messages)) as address:
            assert failure_of(verify.Daemon(address))["kind"] == "no_worker"


class TestTimeLimits:
    """Whoever never answers costs no more than the limit. How they slow down each stage: test_verify_peers."""

    def test_dripping_server(self, fast: verify.Daemon, server: Pair) -> None:
        """A server that sends a byte now and then, and never a whole frame."""
        with peers.listening(peers.in_tls(server, peers.drip)) as address:
            failure = failure_of(replace(fast, address=address), connect_timeout=LIMITS[0])
        assert failure["kind"] == "timeout"

    def test_many_silent_sockets(self, fast: verify.Daemon) -> None:
        """Twenty of them at once cost what one costs: all have come before the first is given up."""

        def serve(seen: list[str], connection: socket.socket) -> None:
            seen.append("comes")
            peers.stay_silent(connection)
            seen.append("goes")

        for limit in LIMITS:
            seen: list[str] = []
            with peers.listening(functools.partial(serve, seen)) as address:
                daemon = replace(fast, address=address)
                reports = verify.verify([daemon] * 20, verify.Proof(connect_timeout=limit))
            assert {report.failure.kind.value for report in reports if report.failure} == {"timeout"}
            if seen.index("goes") == 20:
                break
        assert seen == ["comes"] * 20 + ["goes"] * 20


class TestBuild:
    """The daemon answers, and cannot build."""

    @pytest.fixture
    def broken_runc(self, bin_dir: Path, tmp_path: Path) -> Iterator[Daemon]:
        """A daemon whose runc fails each container."""
        runc = tmp_path / "broken-runc"
        runc.write_text("#!/bin/sh\necho 'no container today' >&2\nexit 1\n", encoding="ascii")
        runc.chmod(runc.stat().st_mode | stat.S_IXUSR)
        with daemons.run(bin_dir, tmp_path / "daemon", options=(f"--oci-worker-binary={runc}",)) as running:
            yield running

    @pytest.mark.parametrize("build", verify.BUILDS)
    def test_build_fails(self, broken_runc: Daemon, build: str) -> None:
        """A build that fails is named, with what the daemon says of it."""
        failure = failure_of(verify.Daemon(broken_runc.unix), builds=(build,))
        assert failure["kind"] == "build_failed"
        assert f"{build} build failed" in failure["message"]
        assert "exit code: 1" in failure["message"] or "exit status 1" in failure["message"]

    @pytest.mark.parametrize("build", verify.DEFAULT_BUILDS)
    def test_build_that_takes_too_long_is_cancelled(self, mtls: Daemon, build: str) -> None:
        """A build beyond its limit fails as such, and leaves no step behind."""
        failure = failure_of(verify.Daemon(mtls.unix), builds=(build,), build_timeout=0.01)
        assert failure["kind"] == "timeout"
        assert f"{build} build" in failure["message"]
        # runc is killed only once it has made its container.
        until(lambda: daemons.children(mtls.process) == [], "the end of all steps")

    def test_daemon_does_not_end_a_build_before_we_do(self, mtls: Daemon) -> None:
        """A build that runs until its limit is late, not refused and not cut off, whichever side is quicker."""

        async def build() -> Kind:
            opened = await channel.open_connection(channel.Peer(endpoint.parse(mtls.unix)), timeout=LONG)
            request, _program = builds.endless_request()
            try:
                await smoke.follow(
                    request, control.Control(opened.channel, timeout=LONG), smoke.Log(), name="endless", timeout=1
                )
            except Failure as failure:
                return failure.kind
            finally:
                await opened.close()
            raise AssertionError("the endless build ended")

        async def all_at_once() -> list[Kind]:
            return await asyncio.gather(*(build() for _number in range(10)))

        assert asyncio.run(all_at_once()) == [Kind.TIMEOUT] * 10
        until(lambda: daemons.children(mtls.process) == [], "the end of all steps")

    def test_open_daemon_outranks_a_failed_build(self, broken_runc: Daemon) -> None:
        """Of two failures the one that matters more is reported."""
        assert failure_of(verify.Daemon(broken_runc.tcp))["kind"] == "open_to_anyone"
