# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Causes of failure that others than buildkitd make: real servers where a daemon is expected, and no way there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peers
import pytest
import servers
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import verify
from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from certificates import CLIENT, SERVER, Authority, Pair
from daemon import Daemon
from peers import LIMITS


@pytest.fixture
def daemon(authority: Authority, client: Pair) -> verify.Daemon:
    """The good credentials for a peer of a test's own."""
    return verify.Daemon("", str(authority.path), str(client.cert), str(client.key))


def failure_of(daemon: verify.Daemon, **wishes: Any) -> dict[str, Any]:
    """The failure of a proof."""
    [report] = verify.verify([daemon], verify.Proof(**{"connect_timeout": LONG, **wishes}))
    failure: dict[str, Any] = report.as_dict()["failure"]
    return failure


def is_given_up(daemon: verify.Daemon, stage: str) -> bool:
    """Whether a proof comes as far as this stage, and ends there when its time is over."""
    for limit in LIMITS:
        failure = failure_of(daemon, connect_timeout=limit)
        assert failure["kind"] == "timeout", failure
        if failure["message"] == f"{stage} within {limit:g} s":
            return True
    return False


class TestNoWay:
    """Networks that do not lead there, in a network namespace of the test's own."""

    @staticmethod
    def failure_in_namespace(setup: str, address: str) -> dict[str, Any]:
        """The failure of a proof in a namespace that the setup has made."""
        program = (
            "import json, sys\n"
            "from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import verify\n"
            "[report] = verify.verify([verify.Daemon(sys.argv[1])], verify.Proof(connect_timeout=60))\n"
            "print(json.dumps(report.as_dict()['failure']))\n"
        )
        command = ["unshare", "--net", "sh", "-c", f'{setup}; exec "$@"', "sh", sys.executable, "-c", program, address]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def test_network_is_unreachable(self) -> None:
        """Without any route."""
        failure = self.failure_in_namespace(":", "tcp://192.0.2.1:1234")
        assert failure["kind"] == "unreachable"
        assert failure["message"] == "Cannot connect: Network is unreachable"

    def test_no_route_to_host(self) -> None:
        """With a router that knows no way."""
        setup = "ip link set lo up && ip route add unreachable 192.0.2.0/24"
        failure = self.failure_in_namespace(setup, "tcp://192.0.2.1:1234")
        assert failure["kind"] == "unreachable"
        assert failure["message"] == "Cannot connect: No route to host"

    def test_ipv6_is_unreachable(self) -> None:
        """The same for IPv6."""
        failure = self.failure_in_namespace(":", "tcp://[2001:db8::1]:1234")
        assert failure["kind"] == "unreachable"
        assert failure["message"] in (
            "Cannot connect: Network is unreachable",
            "Cannot connect: Cannot assign requested address",
        )


class TestTimeLimits:
    """Whoever never answers costs no more than the limit, and the failure names the stage."""

    def test_nobody_takes_the_connection(self, daemon: verify.Daemon) -> None:
        """A machine that drops what is sent to it."""
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            waiting = [socket.socket() for _number in range(3)]
            for one in waiting:  # the queue of the server is full after these
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            address = f"tcp://127.0.0.1:{full.getsockname()[1]}"
            assert is_given_up(replace(daemon, address=address), "The connection was not done")
            for one in waiting:
                one.close()

    @pytest.mark.parametrize("where", ["before TLS", "after TLS", "without TLS"])
    @pytest.mark.parametrize("what", ["nothing", "a byte a second"])
    def test_slow_peers(self, daemon: verify.Daemon, server: Pair, where: str, what: str) -> None:
        """A socket that accepts and says nothing, or a byte a second, at each stage."""
        serve: Callable[[socket.socket], None] = peers.stay_silent
        if what != "nothing":
            begins = b"\x16\x03\x03\x40\x00" if where == "before TLS" else b"\x00\x40\x00\x04"

            def serve(connection: socket.socket) -> None:
                for octet in begins + bytes(1000):
                    connection.sendall(bytes((octet,)))
                    time.sleep(0.98)

        with peers.listening(peers.in_tls(server, serve) if where == "after TLS" else serve) as address:
            subject = verify.Daemon(address) if where == "without TLS" else replace(daemon, address=address)
            stage = "The TLS handshake" if where == "before TLS" else "The HTTP/2 greeting"
            assert is_given_up(subject, f"{stage} was not done")

    def test_daemon_that_hangs(self, mtls: Daemon, daemon: verify.Daemon) -> None:
        """A real daemon that is stopped: the kernel still takes connections for it."""
        os.kill(mtls.process.pid, signal.SIGSTOP)
        try:
            assert is_given_up(replace(daemon, address=mtls.tcp), "The TLS handshake was not done")
            assert is_given_up(verify.Daemon(mtls.unix), "The HTTP/2 greeting was not done")
        finally:
            os.kill(mtls.process.pid, signal.SIGCONT)
        [after] = verify.verify([replace(daemon, address=mtls.tcp)], verify.Proof(connect_timeout=LONG))
        assert after.failure is None

    def test_server_that_answers_no_call(self, tmp_path: Path) -> None:
        """A proxy that speaks HTTP/2 itself, before a machine that is silent."""
        with peers.listening(peers.stay_silent) as silent:
            where = f"{silent[len('tcp://') :]} proto h2"
            with servers.haproxy(tmp_path, "http", "proto h2", where) as address:
                assert is_given_up(verify.Daemon(address), "Info was not answered")


class TestOpenssl:
    """openssl s_server"""

    def test_no_common_version(self, daemon: verify.Daemon, server: Pair, tmp_path: Path) -> None:
        """TLS 1.1 alone is no TLS for us."""
        options = ("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
        with servers.openssl(tmp_path, server, *options) as address:
            failure = failure_of(replace(daemon, address=address))
        assert failure["kind"] == "tls_failed"
        assert "protocol_version" in failure["message"]

    def test_it_echoes(self, daemon: verify.Daemon, server: Pair, tmp_path: Path) -> None:
        """Something in TLS that answers, though not in HTTP/2."""
        with servers.openssl(tmp_path, server, "-rev", "-quiet") as address:
            failure = failure_of(replace(daemon, address=address))
        assert failure["kind"] == "not_grpc"
        assert "The answer is no HTTP/2: it begins with b'" in failure["message"]

    def test_it_stays_silent(self, daemon: verify.Daemon, server: Pair, tmp_path: Path) -> None:
        """Something in TLS that waits for somebody at its keyboard."""
        with servers.openssl(tmp_path, server, "-quiet") as address:
            assert is_given_up(replace(daemon, address=address), "The HTTP/2 greeting was not done")

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_client_certificate_is_missing(
        self, daemon: verify.Daemon, authority: Authority, server: Pair, tmp_path: Path, version: str
    ) -> None:
        """Named under both versions of TLS, although only 1.3 has an alert for it."""
        options = ("-Verify", "2", "-verify_return_error", "-CAfile", str(authority.path), version)
        with servers.openssl(tmp_path, server, *options) as address:
            failure = failure_of(replace(daemon, address=address, client_cert="", client_key=""))
        assert failure["kind"] == "client_certificate_missing", failure

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_client_certificate_is_refused(
        self, daemon: verify.Daemon, authority: Authority, server: Pair, tmp_path: Path, version: str
    ) -> None:
        """An expired certificate, named under both versions of TLS."""
        pair = authority.issue("too-old", CLIENT, days=(-9, -2))
        options = ("-Verify", "2", "-verify_return_error", "-CAfile", str(authority.path), version)
        with servers.openssl(tmp_path, server, *options) as address:
            failure = failure_of(replace(daemon, address=address, client_cert=str(pair.cert), client_key=str(pair.key)))
        assert failure["kind"] == "client_certificate_refused"
        assert "certificate_expired" in failure["message"]

    @pytest.mark.parametrize(
        ("kind", "sans", "days"),
        [
            ("server_certificate_expired", ("127.0.0.1",), (-9, -2)),
            ("server_certificate_not_yet_valid", ("127.0.0.1",), (2, 9)),
            ("server_name_mismatch", ("builder.example.com",), (-1, 30)),
            ("server_name_mismatch", (), (-1, 30)),
        ],
    )
    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_server_certificates(
        self,
        daemon: verify.Daemon,
        authority: Authority,
        tmp_path: Path,
        kind: str,
        sans: tuple[str, ...],
        days: tuple[int, int],
        version: str,
    ) -> None:
        """What is wrong with it is found under both versions of TLS; a bare common name does not count."""
        pair = authority.issue("127.0.0.1", SERVER, sans=sans, days=days)
        with servers.openssl(tmp_path, pair, version) as address:
            assert failure_of(replace(daemon, address=address))["kind"] == kind

    def test_ca_is_unknown(self, daemon: verify.Daemon, other_authority: Authority, tmp_path: Path) -> None:
        """A server of another CA, which is named."""
        pair = other_authority.issue("other-server", SERVER, sans=("127.0.0.1",))
        with servers.openssl(tmp_path, pair) as address:
            failure = failure_of(replace(daemon, address=address))
        assert failure["kind"] == "server_unknown_ca"
        assert "CN=Other CA" in failure["message"]


class TestNginx:
    """nginx"""

    @staticmethod
    def tls(server: Pair, more: str = "") -> str:
        """A server block with HTTP/2 in TLS."""
        return (
            f"listen 127.0.0.1:PORT ssl http2; ssl_certificate {server.cert}; ssl_certificate_key {server.key}; {more}"
        )

    def test_web_server(self, daemon: verify.Daemon, server: Pair, tmp_path: Path) -> None:
        """A web server with HTTP/2 answers, though not in gRPC."""
        with servers.nginx(tmp_path, self.tls(server)) as address:
            failure = failure_of(replace(daemon, address=address))
        assert failure["kind"] == "not_grpc"
        assert "answered in HTTP, but not in gRPC" in failure["message"]

    def test_web_server_without_tls(self, daemon: verify.Daemon, tmp_path: Path) -> None:
        """A web server without TLS is told from a daemon without TLS."""
        with servers.nginx(tmp_path, "listen 127.0.0.1:PORT;") as address:
            assert failure_of(replace(daemon, address=address))["kind"] == "not_tls"
            assert failure_of(verify.Daemon(address))["kind"] == "not_grpc"

    def test_tls_is_expected(self, server: Pair, tmp_path: Path) -> None:
        """A server with TLS that explains in plain HTTP that it wants TLS."""
        with servers.nginx(tmp_path, self.tls(server)) as address:
            assert failure_of(verify.Daemon(address))["kind"] == "tls_expected"

    def test_it_answers_with_an_error(self, daemon: verify.Daemon, server: Pair, tmp_path: Path) -> None:
        """A gateway that says in proper gRPC that there is nobody behind it."""
        says = (
            "location / { default_type application/grpc; add_header grpc-status 14 always; "
            "add_header grpc-message 'no builder is free' always; return 200; }"
        )
        with servers.nginx(tmp_path, self.tls(server, says)) as address:
            failure = failure_of(replace(daemon, address=address))
        assert failure["kind"] == "rpc_failed"
        assert failure["message"].startswith("Info failed: no builder is free (UNAVAILABLE)")

    def test_another_service(self, daemon: verify.Daemon, server: Pair, tmp_path: Path) -> None:
        """A gRPC service that does not know our calls."""
        says = "location / { default_type application/grpc; add_header grpc-status 12 always; return 200; }"
        with servers.nginx(tmp_path, self.tls(server, says)) as address:
            assert failure_of(replace(daemon, address=address))["kind"] == "not_buildkit"


class TestHaproxy:
    """haproxy"""

    @pytest.fixture
    def bind(self, server: Pair, authority: Authority, tmp_path: Path) -> str:
        """TLS that lets in clients of the CA alone, as a gateway before builders has it."""
        both = tmp_path / "gateway.pem"
        both.write_bytes(server.cert.read_bytes() + server.key.read_bytes())
        return f"ssl crt {both} ca-file {authority.path} verify required alpn h2"

    def test_gateway(self, mtls: Daemon, daemon: verify.Daemon, bind: str, tmp_path: Path) -> None:
        """A gateway that ends TLS before a real daemon is proved, strangers included."""
        with servers.haproxy(tmp_path, "tcp", bind, f"unix@{mtls.unix[len('unix://') :]}") as address:
            [report] = verify.verify(
                [replace(daemon, address=address)], verify.Proof(builds=("exec",), connect_timeout=LONG)
            )
        assert report.failure is None
        assert [refusal.refused for refusal in report.refusals.values()] == [True, True, True]

    def test_client_certificate_is_missing(self, daemon: verify.Daemon, bind: str, tmp_path: Path) -> None:
        """It refuses as a daemon does."""
        with servers.haproxy(tmp_path, "tcp", bind, "") as address:
            failure = failure_of(replace(daemon, address=address, client_cert="", client_key=""))
        assert failure["kind"] == "client_certificate_missing"

    def test_client_certificate_is_of_another_ca(
        self, daemon: verify.Daemon, other_authority: Authority, bind: str, tmp_path: Path
    ) -> None:
        """It refuses as a daemon does."""
        pair = other_authority.issue("stranger", CLIENT)
        with servers.haproxy(tmp_path, "tcp", bind, "") as address:
            failure = failure_of(replace(daemon, address=address, client_cert=str(pair.cert), client_key=str(pair.key)))
        assert failure["kind"] == "client_certificate_refused"
        assert "unknown_ca" in failure["message"]

    def test_nobody_is_behind_it(self, daemon: verify.Daemon, bind: str, tmp_path: Path) -> None:
        """A gateway whose builder is down closes the connection, after TLS or before it."""
        nobody = f"127.0.0.1:{ports.kept()}"
        with servers.haproxy(tmp_path, "tcp", bind, nobody) as address:
            assert failure_of(replace(daemon, address=address))["kind"] == "not_grpc"
        with servers.haproxy(tmp_path, "tcp", "", nobody) as address:
            failure = failure_of(replace(daemon, address=address))
        assert failure["kind"] == "not_tls"
        assert "a proxy has no server behind it" in failure["message"]

    def test_it_reads_http_itself(self, daemon: verify.Daemon, bind: str, tmp_path: Path) -> None:
        """A gateway in mode http without a builder answers in HTTP."""
        with servers.haproxy(tmp_path, "http", bind, "") as address:
            failure = failure_of(replace(daemon, address=address))
        assert failure["kind"] == "not_grpc"
        assert "503" in failure["message"]


def test_a_daemon_without_a_worker_does_not_start(bin_dir: Path, tmp_path: Path) -> None:
    """Why C(no_worker) is tested with a service of our own that answers as BuildKit: no real one runs without."""
    command = [
        *(str(bin_dir / "buildkitd"), "--root", str(tmp_path / "root"), "--addr", f"unix://{tmp_path}/socket"),
        *("--oci-worker=false", "--containerd-worker=false"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert ended.returncode != 0
    assert "no worker found" in ended.stderr
