# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkit_certificate_info on certificates that real servers show: buildkitd and OpenSSL."""

from __future__ import annotations

import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import daemon as daemons
import peers
import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until
from certificates import CLIENT, SERVER, Authority, Pair
from daemon import Daemon


def run(**options: Any) -> Outcome:
    """Run the module."""
    return run_module("buildkit_certificate_info", {"connect_timeout": LONG, **options})


def only(**options: Any) -> dict[str, Any]:
    """The one certificate that there is."""
    outcome = run(**options)
    assert not outcome.failed, outcome.message
    [certificate] = outcome.result["certificates"]
    return certificate


@contextmanager
def openssl_server(pair: Pair, *options: str | Path) -> Iterator[str]:
    """``openssl s_server`` on a free port until the block ends; yields its address."""
    port = ports.kept()
    where = f"127.0.0.1:{port}"  # somebody else may use this port of another address
    command = ["openssl", "s_server", "-accept", where, "-cert", pair.cert, "-key", pair.key, "-quiet", *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield f"tcp://{where}"
    finally:
        process.kill()
        process.communicate()


def _wait_for(port: int) -> None:
    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(answers, "an answer of openssl s_server")


class TestBuildkitd:
    """A real daemon, of both generations."""

    @pytest.mark.parametrize("kind", ["address", "host"])
    def test_one_that_wants_client_certificates_shows_its_own(
        self, mtls: Daemon, server: Pair, authority: Authority, kind: str
    ) -> None:
        """Without a client certificate and without trust; then verified, and compared with the key."""
        host, _colon, port = mtls.tcp.rpartition("//")[2].rpartition(":")
        where = {"address": mtls.tcp} if kind == "address" else {"host": host, "port": int(port)}
        found = only(**where, ca_path=str(authority.path), key_path=str(server.key))
        in_file = only(path=str(server.cert), ca_path=str(authority.path), key_path=str(server.key))
        assert {**found, "days_left": None} == {**in_file, "days_left": None}
        assert found["days_left"] in (29, 30)
        assert (found["verified"], found["key_matches"], found["usage"]) == (True, True, ["server"])
        assert found["signed_by"]["subject"] == "CN=Builders CA"
        assert "DNS:builder.example.com" in found["sans"]

    def test_another_ca_and_another_key_are_seen(self, mtls: Daemon, other_authority: Authority, client: Pair) -> None:
        """A daemon whose certificate is not ours."""
        found = only(address=mtls.tcp, ca_path=str(other_authority.path), key_path=str(client.key))
        assert (found["verified"], found["key_matches"], found["signed_by"]) == (False, False, None)
        assert found["problem"] == f"No CA in {other_authority.path} signed it."

    def test_the_gate_opens_and_closes(self, mtls: Daemon, server: Pair) -> None:
        """The facts come in both cases; the message names the daemon."""
        passed, failed = run(address=mtls.tcp, fail_below="14d"), run(address=mtls.tcp, fail_below="31d")
        assert not passed.failed
        assert failed.message.startswith(f"{mtls.tcp} is below the 31d of fail_below: CN=server ends in ")
        fingerprints = {outcome.result["certificates"][0]["fingerprint"] for outcome in (passed, failed)}
        assert fingerprints == {only(path=str(server.cert))["fingerprint"]}

    def test_an_expired_certificate_is_told(self, bin_dir: Path, tmp_path: Path, authority: Authority) -> None:
        """Clients refuse it, and this module says when it ended."""
        pair = authority.issue("info-expired", SERVER, sans=("localhost",), days=(-30, -3))
        with daemons.run(bin_dir, tmp_path / "run", pair=pair, ca=authority.path) as running:
            outcome = run(address=running.tcp, fail_below="1d", ca_path=str(authority.path))
        assert "CN=info-expired ended 3 days ago" in outcome.message
        assert outcome.result["days_left"] in (-4, -3)
        assert outcome.result["certificates"][0]["problem"].startswith("It ended on 20")

    def test_one_without_tls_is_named(self, plaintext: Daemon) -> None:
        """It says so, and not that its time is over."""
        outcome = run(address=plaintext.tcp, connect_timeout=LONG)
        assert outcome.failed
        assert "does not speak TLS" in outcome.message

    def test_it_serves_on(self, mtls: Daemon, authority: Authority, client: Pair) -> None:
        """Being looked at leaves a daemon as it was."""
        for _time in range(3):
            only(address=mtls.tcp)
        command = [mtls.bin / "buildctl", "--addr", mtls.tcp, "--tlscacert", authority.path, "--tlscert", client.cert]
        subprocess.run([*command, "--tlskey", client.key, "debug", "workers"], check=True, capture_output=True)
        assert mtls.process.poll() is None


class TestOpenssl:
    """``openssl s_server``, in forms that buildkitd does not have."""

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    @pytest.mark.parametrize("verify", [(), ("-Verify", "1")], ids=["open", "wants a client certificate"])
    def test_both_versions_of_tls(self, server: Pair, version: str, verify: tuple[str, ...]) -> None:
        """TLS 1.2 refuses us inside the handshake, and its certificate is had all the same."""
        with openssl_server(server, version, *verify) as address:
            found = only(address=address)
        assert found["fingerprint"] == only(path=str(server.cert))["fingerprint"]

    def test_the_name_that_is_asked_for_decides(self, server: Pair, authority: Authority) -> None:
        """A server with two certificates, by SNI."""
        other = authority.issue("info-other", SERVER, sans=("other.example.com",))
        names = ("-servername", "other.example.com", "-cert2", str(other.cert), "-key2", str(other.key))
        with openssl_server(server, *names) as address:
            asked = only(address=address, server_name="other.example.com")
            plain = only(address=address)
            by_host = only(host="localhost", port=int(address.rpartition(":")[2]))
        assert [found["common_name"] for found in (asked, plain, by_host)] == ["info-other", "server", "server"]

    def test_a_weak_certificate_is_told_about(self, tmp_path: Path) -> None:
        """RSA with 1024 bits and SHA-1, which OpenSSL itself would not accept."""
        pair = Pair(tmp_path / "weak.pem", tmp_path / "weak.key")
        new = ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-sha1", "-nodes", "-subj", "/CN=weak"]
        subprocess.run([*new, "-keyout", pair.key, "-out", pair.cert], check=True, capture_output=True)
        with openssl_server(pair, "-cipher", "DEFAULT:@SECLEVEL=0") as address:
            assert only(address=address)["key_type"] == "rsa-1024"

    def test_a_server_without_a_certificate_is_an_error(self, server: Pair) -> None:
        """One that proves itself by a shared secret has none."""
        with openssl_server(server, "-nocert", "-psk", "abcd", "-tls1_2") as address:
            outcome = run(address=address)
        assert outcome.failed
        assert f"The TLS handshake with {address} failed (" in outcome.message


class TestNoCertificate:
    """What a wrong address leads to."""

    def test_nobody_listens(self) -> None:
        """A refused connection."""
        address = f"tcp://127.0.0.1:{ports.kept()}"
        outcome = run(address=address)
        assert f"Connecting to {address} failed" in outcome.message
        assert "Connection refused" in outcome.message

    def test_a_name_that_is_none(self) -> None:
        """It cannot be resolved; RFC 6761 keeps this one free."""
        assert (
            "The name 'builder.invalid' of tcp://builder.invalid:1234 cannot be" in run(host="builder.invalid").message
        )

    @pytest.mark.parametrize(
        ("peer", "message"),
        [
            (peers.stay_silent, "did not finish a TLS handshake within LIMIT s"),
            (peers.drip, "does not speak TLS"),
            (peers.send_garbage, "does not speak TLS"),
            (peers.hang_up, "ended the connection"),
        ],
        ids=["silent", "slow", "garbage", "closes"],
    )
    def test_a_peer_that_speaks_no_tls(self, peer: Any, message: str) -> None:
        """Each is named, and the limit holds."""
        for limit in peers.LIMITS:
            with peers.listening(peer) as address:
                outcome = run(address=address, connect_timeout=limit)
            if (wanted := message.replace("LIMIT", f"{limit:g}")) in outcome.message:
                break
        assert wanted in outcome.message

    def test_a_peer_that_is_something_else(self) -> None:
        """A web server in place of a daemon."""
        with peers.http_server() as address:
            outcome = run(address=address, connect_timeout=LONG)
        assert "does not speak TLS" in outcome.message

    def test_a_port_that_swallows_packets(self) -> None:
        """A full queue of connections never lets us in."""
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            address = server.getsockname()
            waiting = [socket.socket() for _number in range(4)]
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(address)
            outcome = run(address=f"tcp://127.0.0.1:{address[1]}", connect_timeout=1)
            for one in waiting:
                one.close()
        assert "took longer than 1 s" in outcome.message


def test_no_key_is_sent_or_shown(mtls: Daemon, client: Pair, authority: Authority) -> None:
    """A key that is compared with stays where it is."""
    outcome = run(address=mtls.tcp, key_path=str(client.key), ca_path=str(authority.path))
    secret = [line for line in client.key.read_text(encoding="ascii").splitlines() if "KEY" not in line]
    assert secret
    assert not [line for line in secret if line in outcome.output]


def test_client_certificates_can_be_gated_too(authority: Authority) -> None:
    """A file that was handed out, with its key and CA."""
    pair = authority.issue("info-client", CLIENT, days=(-1, 9))
    outcome = run(path=str(pair.cert), key_path=str(pair.key), ca_path=str(authority.path), fail_below="2w")
    assert outcome.failed
    [found] = outcome.result["certificates"]
    assert (found["key_matches"], found["verified"], found["usage"]) == (True, True, ["client"])
