# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of buildkit_pki in real handshakes: buildctl and Python against buildkitd, which are Go and OpenSSL."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import daemon as daemons
import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module
from certificates import Pair
from daemon import Daemon

KEY_TYPES = ("ecdsa-p256", "ecdsa-p384", "rsa-3072")
DAEMON = {"name": "build-1", "dns": ["localhost"], "ip": ["127.0.0.1", "::1"]}
FLEET = {"daemons": [DAEMON], "clients": [{"name": "ci"}, {"name": "alice"}]}


def issue(pki: Path, **options: Any) -> dict[str, Any]:
    """Run buildkit_pki."""
    outcome = run_module("buildkit_pki", {"path": str(pki), **options})
    assert not outcome.failed, outcome.message
    return outcome.result


def pair_of(directory: Path) -> Pair:
    """The files of a daemon or client."""
    return Pair(directory / "cert.pem", directory / "key.pem")


def buildctl(daemon: Daemon, client: Path, ca: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Ask a daemon for its workers, as the client whose directory this is."""
    files = ("--tlscacert", ca or client / "ca.pem", "--tlscert", client / "cert.pem", "--tlskey", client / "key.pem")
    command = [daemon.bin / "buildctl", "--addr", daemon.tcp, *files, "debug", "workers"]
    environment = {**os.environ, "GRPC_ENFORCE_ALPN_ENABLED": "false"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def python(daemon: Daemon, client: Path, *, name: str = "localhost") -> str:
    """Shake hands with Python's ssl, until the daemon has answered over HTTP/2; returns the version of TLS."""
    context = ssl.create_default_context(cafile=client / "ca.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(client / "cert.pem", client / "key.pem")
    context.set_alpn_protocols(["h2"])
    port = int(daemon.tcp.rpartition(":")[2])
    plain = socket.create_connection(("127.0.0.1", port), timeout=120)
    with plain, context.wrap_socket(plain, server_hostname=name) as connection:
        # The connection preface and an empty SETTINGS frame (RFC 9113, 3.4); a refusal would come here at the latest.
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        assert connection.recv(9)[3] == 4
        return str(connection.version())


@pytest.mark.parametrize("trust", ["ca", "pinned"])
@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_all_key_types_and_both_ways_of_trust(bin_dir: Path, tmp_path: Path, key_type: str, trust: str) -> None:
    """Both clients get in by name and by address; with the files of another directory neither does."""
    pki, other = tmp_path / "pki", tmp_path / "other"
    for path in (pki, other):
        issue(path, **FLEET, trust=trust, key_type=key_type, ca={"key_type": key_type})
    directory = pki / "daemons/build-1"
    with daemons.run(bin_dir, tmp_path / "run", pair=pair_of(directory), ca=directory / "ca.pem") as running:
        for client in ("ci", "alice"):
            done = buildctl(running, pki / "clients" / client)
            assert done.returncode == 0, done.stderr
            assert python(running, pki / "clients" / client) == "TLSv1.3"
            assert python(running, pki / "clients" / client, name="127.0.0.1") == "TLSv1.3"
        stranger = buildctl(running, other / "clients/ci", ca=pki / "clients/ci/ca.pem")
        assert stranger.returncode != 0
        misled = buildctl(running, pki / "clients/ci", ca=other / "clients/ci/ca.pem")
        assert "x509: certificate signed by unknown authority" in misled.stderr
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            python(running, pki / "clients/ci", name="build-2")


def test_a_renewed_ca_is_the_same_to_those_who_know_the_old_one(bin_dir: Path, tmp_path: Path) -> None:
    """A new certificate of the same key on one side, the old file on the other, in both directions."""
    pki, old = tmp_path / "pki", tmp_path / "old"
    issue(pki, **FLEET)
    subprocess.run(["cp", "-a", pki, old], check=True)
    again = issue(pki, **FLEET, ca={"valid_for": "9000d", "renew_before": "8999d"})
    assert again["authorities"][0]["changed"]
    assert (pki / "clients/ci/ca.pem").read_bytes() != (old / "clients/ci/ca.pem").read_bytes()
    for number, (daemon_side, client_side) in enumerate(((pki, old), (old, pki))):
        directory = daemon_side / "daemons/build-1"
        place = tmp_path / f"run-{number}"
        with daemons.run(bin_dir, place, pair=pair_of(directory), ca=directory / "ca.pem") as running:
            done = buildctl(running, client_side / "clients/ci")
            assert done.returncode == 0, done.stderr
            assert python(running, client_side / "clients/ci") == "TLSv1.3"
