# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates themselves: every extension, OpenSSL's opinion, and real handshakes."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import subprocess
import threading
import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts, keys, profiles
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

SANS = ("DNS:localhost", "DNS:*.build.example.com", "IP:127.0.0.1", "IP:2001:db8::1")
LIFE = timedelta(days=30)


@dataclass(frozen=True)
class Made:
    """A certificate with its key, as objects and as files."""

    certificate: x509.Certificate
    key: t.Any
    cert_path: Path
    key_path: Path


def save(directory: Path, name: str, certificate: x509.Certificate, key: t.Any) -> Made:
    """Write a certificate and its key where OpenSSL and Python's ssl can read them."""
    made = Made(certificate, key, directory / f"{name}.crt", directory / f"{name}.key")
    made.cert_path.write_text(facts.to_pem(certificate))
    made.key_path.write_bytes(keys.to_pem(key))
    return made


def make_ca(directory: Path, name: str, key_type: str = "ecdsa-p256", key: t.Any = None) -> Made:
    """A CA from now on, for handshakes check the clock."""
    key = key or keys.generate(key_type)
    now = datetime.now(timezone.utc).replace(microsecond=0)
    certificate = profiles.build_ca(profiles.subject("Test CA"), key, now=now, not_after=now + 2 * LIFE)
    return save(directory, name, certificate, key)


def make_leaf(directory: Path, ca: Made, usage: str, key_type: str = "ecdsa-p256") -> Made:
    """A leaf of that CA."""
    key = keys.generate(key_type)
    now = datetime.now(timezone.utc).replace(microsecond=0)
    certificate = profiles.build_leaf(
        usage,
        key.public_key(),
        usage=usage,
        sans=SANS if usage == facts.SERVER else (),
        issuer=ca.certificate,
        issuer_key=ca.key,
        now=now,
        not_after=now + LIFE,
    )
    return save(directory, f"{ca.cert_path.stem}-{usage}", certificate, key)


@pytest.fixture(params=keys.KEY_TYPES)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Made]:
    """A CA, a daemon and a client, all with keys of one type."""
    ca = make_ca(tmp_path, "ca", request.param)
    return {
        "ca": ca,
        "server": make_leaf(tmp_path, ca, facts.SERVER, request.param),
        "client": make_leaf(tmp_path, ca, facts.CLIENT, request.param),
    }


def extensions(certificate: x509.Certificate) -> dict[str, tuple[bool, t.Any]]:
    """All extensions by name: criticality and value."""
    return {one.oid._name: (one.critical, one.value) for one in certificate.extensions}


def uses(usage: x509.KeyUsage) -> set[str]:
    """The names of the bits that are set."""
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return {name for name in (*names, "key_cert_sign", "crl_sign") if getattr(usage, name)}


def test_a_ca_has_exactly_the_extensions_of_a_ca(family: dict[str, Made]) -> None:
    """Path length 0 and no usage but signing, both critical; self-signed; a random serial number."""
    certificate = family["ca"].certificate
    found = extensions(certificate)
    assert set(found) == {"basicConstraints", "keyUsage", "subjectKeyIdentifier"}
    critical, constraints = found["basicConstraints"]
    assert critical
    assert constraints.ca
    assert constraints.path_length == 0
    critical, usage = found["keyUsage"]
    assert critical
    assert uses(usage) == {"key_cert_sign", "crl_sign"}
    assert found["subjectKeyIdentifier"][0] is False
    assert certificate.version is x509.Version.v3
    assert certificate.issuer == certificate.subject
    assert compat.is_signed_by(certificate, certificate)
    assert certificate.serial_number.bit_length() > 100


@pytest.mark.parametrize(
    ("who", "purpose"),
    [("server", ExtendedKeyUsageOID.SERVER_AUTH), ("client", ExtendedKeyUsageOID.CLIENT_AUTH)],
)
def test_a_leaf_has_exactly_the_extensions_of_its_kind(
    family: dict[str, Made], who: str, purpose: x509.ObjectIdentifier
) -> None:
    """One purpose, never both; names only for daemons; identifiers that tie it to its CA."""
    certificate = family[who].certificate
    found = extensions(certificate)
    names = {"subjectAltName"} if who == "server" else set()
    assert set(found) == names | {
        "basicConstraints",
        "keyUsage",
        "extendedKeyUsage",
        "subjectKeyIdentifier",
        "authorityKeyIdentifier",
    }
    critical, constraints = found["basicConstraints"]
    assert critical
    assert not constraints.ca
    critical, usage = found["keyUsage"]
    assert critical
    rsa = keys.type_of(family[who].key).startswith("rsa")
    assert uses(usage) == {"digital_signature"} | ({"key_encipherment"} if rsa else set())
    assert found["extendedKeyUsage"][0] is False
    assert list(found["extendedKeyUsage"][1]) == [purpose]
    assert found["authorityKeyIdentifier"][0] is False
    assert (
        found["authorityKeyIdentifier"][1].key_identifier
        == extensions(family["ca"].certificate)["subjectKeyIdentifier"][1].digest
    )
    assert certificate.subject.rfc4514_string() == f"CN={who}"
    assert certificate.issuer == family["ca"].certificate.subject


def test_a_daemon_has_dns_names_and_addresses_of_their_own_kind(family: dict[str, Made]) -> None:
    """An address as a DNS name would be ignored by every client; SANs are not critical beside a subject."""
    critical, names = extensions(family["server"].certificate)["subjectAltName"]
    assert not critical
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "*.build.example.com"}
    assert set(names.get_values_for_type(x509.IPAddress)) == {
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("2001:db8::1"),
    }
    assert facts.facts_of(family["server"].certificate).sans == set(SANS)


def test_serial_numbers_are_never_the_same(tmp_path: Path) -> None:
    """Two certificates for the same wish differ in their serial number."""
    ca = make_ca(tmp_path, "ca")
    serials = {make_leaf(tmp_path, ca, facts.CLIENT).certificate.serial_number for _round in range(5)}
    assert len(serials) == 5


def test_validity_starts_an_hour_early_for_slow_clocks(tmp_path: Path, now: datetime) -> None:
    """The end is where it was asked for."""
    key = keys.generate("ecdsa-p256")
    certificate = profiles.build_ca(profiles.subject("CA"), key, now=now, not_after=now + LIFE)
    assert compat.not_before(certificate) == now - timedelta(hours=1)
    assert compat.not_after(certificate) == now + LIFE


@pytest.mark.parametrize(
    ("who", "own", "other"), [("server", "sslserver", "sslclient"), ("client", "sslclient", "sslserver")]
)
def test_openssl_accepts_a_leaf_for_its_own_purpose_only(
    family: dict[str, Made], who: str, own: str, other: str
) -> None:
    """The independent judge, in its strict mode."""
    assert openssl_verify(family["ca"], family[who], own) == ""
    assert "unsuitable certificate purpose" in openssl_verify(family["ca"], family[who], other)


def test_openssl_accepts_leaves_under_a_ca_renewed_with_the_same_key(tmp_path: Path) -> None:
    """A renewal needs no new leaves, and another key does not pass as one."""
    ca = make_ca(tmp_path, "ca")
    leaf = make_leaf(tmp_path, ca, facts.SERVER)
    renewed = make_ca(tmp_path, "renewed", key=ca.key)
    assert renewed.certificate.serial_number != ca.certificate.serial_number
    assert openssl_verify(renewed, leaf, "sslserver") == ""
    assert openssl_verify(make_ca(tmp_path, "other"), leaf, "sslserver") != ""
    assert compat.is_signed_by(leaf.certificate, renewed.certificate)


def test_a_signature_of_another_ca_with_the_same_name_is_told_apart(tmp_path: Path) -> None:
    """Names prove nothing, keys do."""
    ca, twin = make_ca(tmp_path, "ca"), make_ca(tmp_path, "twin")
    leaf = make_leaf(tmp_path, ca, facts.CLIENT)
    assert leaf.certificate.issuer == twin.certificate.subject
    assert compat.is_signed_by(leaf.certificate, ca.certificate)
    assert not compat.is_signed_by(leaf.certificate, twin.certificate)


def openssl_verify(ca: Made, leaf: Made, purpose: str) -> str:
    """Errors of ``openssl verify``, or nothing."""
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", ca.cert_path, leaf.cert_path],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def handshake(server: Made, server_ca: Made, client: Made | None, client_ca: Made, name: str) -> bytes:
    """One mutually authenticated connection over loopback; returns what the server said after it."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(server.cert_path, server.key_path)
    accepting.load_verify_locations(server_ca.cert_path)
    accepting.verify_mode = ssl.CERT_REQUIRED
    dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dialling.load_verify_locations(client_ca.cert_path)
    dialling.hostname_checks_common_name = False
    if client:
        dialling.load_cert_chain(client.cert_path, client.key_path)

    def serve(listener: socket.socket) -> None:
        connection, _address = listener.accept()
        try:
            with accepting.wrap_socket(connection, server_side=True) as wrapped:
                wrapped.sendall(b"welcome")
        except OSError:
            connection.close()  # the client's side of the story is what the tests look at

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            plain = socket.create_connection(listener.getsockname(), timeout=120)
            with dialling.wrap_socket(plain, server_hostname=name) as wrapped:
                return wrapped.recv(100)
        finally:
            thread.join(timeout=120)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "a.build.example.com"])
def test_a_daemon_and_a_client_of_one_ca_talk(family: dict[str, Made], name: str) -> None:
    """Every name the daemon has can be dialled."""
    assert handshake(family["server"], family["ca"], family["client"], family["ca"], name) == b"welcome"


def test_a_name_that_the_daemon_does_not_have_is_refused(family: dict[str, Made]) -> None:
    """The common name does not count, nor does a wildcard for two labels."""
    for name in ("server", "a.b.build.example.com"):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname mismatch|not valid for"):
            handshake(family["server"], family["ca"], family["client"], family["ca"], name)


def test_strangers_are_refused_on_either_side(tmp_path: Path) -> None:
    """No certificate, a certificate of another CA, and one for the other purpose all fail."""
    ca, other = make_ca(tmp_path, "ca"), make_ca(tmp_path, "other")
    server, client = make_leaf(tmp_path, ca, facts.SERVER), make_leaf(tmp_path, ca, facts.CLIENT)
    assert handshake(server, ca, client, ca, "localhost") == b"welcome"
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, ca, client, other, "localhost")
    for stranger in (None, make_leaf(tmp_path, other, facts.CLIENT), server):
        with pytest.raises(OSError, match=r"(?i)certificate|unknown|reset|eof|closed"):
            assert handshake(server, ca, stranger, ca, "localhost") == b"welcome"
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client, ca, client, ca, "client")


def test_pinned_clients_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """A certificate and the one before it, in one bundle: OpenSSL accepts both, whichever it finds first."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    made = []
    for number in range(6):
        key = keys.generate("ecdsa-p256")
        certificate = profiles.build_leaf(
            "ci",
            key.public_key(),
            usage=facts.CLIENT,
            sans=(),
            issuer=None,
            issuer_key=key,
            now=now,
            not_after=now + LIFE,
        )
        made.append(save(tmp_path, f"ci-{number}", certificate, key).cert_path)
    (tmp_path / "bundle").write_text("".join(path.read_text() for path in made))
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", tmp_path / "bundle", *made]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count(": OK")) == (0, 6), done.stderr
