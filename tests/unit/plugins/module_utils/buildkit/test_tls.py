# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS settings, and what ssl's errors mean."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import tls
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    InputError,
    Kind,
    TlsError,
)


def ssl_error(reason: str, kind: type[ssl.SSLError] = ssl.SSLError, **attributes: Any) -> ssl.SSLError:
    """An error as ssl raises it."""
    error = kind(1, f"[SSL: {reason}] {reason.lower().replace('_', ' ')} (_ssl.c:2580)")
    error.reason = reason
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def test_clients_are_strict(make: Callable[..., Any]) -> None:
    """A client wants TLS 1.2 at least, a certificate of its CAs alone, intermediates too, and a name in the SANs."""
    context = tls.client_context(tls.Credentials(make("ca").cert))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname is True
    assert context.hostname_checks_common_name is False
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert context.cert_store_stats()["x509"] == 1


def test_several_cas_are_trusted(make: Callable[..., Any], tmp_path: Path) -> None:
    """A bundle, as there is one while a CA is replaced, is read as a whole."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"".join(Path(make(name).cert).read_bytes() for name in ("old", "new")))
    assert tls.client_context(tls.Credentials(str(bundle))).cert_store_stats()["x509"] == 2


@pytest.mark.parametrize("key_type", ["ec", "rsa"])
def test_client_certificate_is_loaded(make: Callable[..., Any], key_type: str) -> None:
    """Certificates of both common key types are accepted with their keys."""
    files = make("client", key_type=key_type)
    tls.client_context(tls.Credentials(files.cert, files.cert, files.key))


@pytest.mark.parametrize("option", ["ca_path", "client_cert", "client_key"])
@pytest.mark.parametrize("content", [None, "directory", b"", b"text", b"\xff\x00binary"])
def test_unusable_files_are_named(make: Callable[..., Any], tmp_path: Path, option: str, content: Any) -> None:
    """A file that is missing, no file, empty or something else is refused by the name of its option and its path."""
    bad = tmp_path / "bad.pem"
    if content == "directory":
        bad.mkdir()
    elif content is not None:
        bad.write_bytes(content)
    good = make("good")
    paths = {"ca_path": good.cert, "client_cert": good.cert, "client_key": good.key, option: str(bad)}
    with pytest.raises(InputError, match=option) as caught:
        tls.client_context(tls.Credentials(**paths))
    assert str(bad) in str(caught.value)


@pytest.mark.parametrize(("cert_type", "key_type"), [("ec", "ec"), ("rsa", "rsa"), ("ec", "rsa"), ("rsa", "ec")])
def test_key_of_another_certificate_is_its_own_kind(make: Callable[..., Any], cert_type: str, key_type: str) -> None:
    """A key that does not belong to the certificate is told from one that cannot be read."""
    cert, other = make("client", key_type=cert_type), make("other", key_type=key_type)
    with pytest.raises(TlsError, match="is not the key of") as caught:
        tls.client_context(tls.Credentials(cert.cert, cert.cert, other.key))
    assert caught.value.kind is Kind.CLIENT_KEY_MISMATCH


def test_encrypted_key_is_refused_without_asking(make: Callable[..., Any]) -> None:
    """A key with a passphrase is refused; nobody is asked for one on the terminal."""
    files = make("client", passphrase=b"secret")
    with pytest.raises(InputError, match="encrypted"):
        tls.client_context(tls.Credentials(files.cert, files.cert, files.key))


@pytest.mark.parametrize("name", ["builder.example.com", "192.0.2.10", "2001:db8::1", "localhost"])
def test_names_are_accepted(name: str) -> None:
    """Host names and both kinds of IP addresses can be looked for."""
    tls.check_hostname(tls.stranger_context(), name)


@pytest.mark.parametrize("name", [".example.com", "a" * 64 + ".example.com", "a..b"])
def test_what_is_no_name_is_refused(name: str) -> None:
    """What could be in no certificate is refused before anything is contacted."""
    with pytest.raises(InputError, match="neither a host name nor an IP address"):
        tls.check_hostname(tls.stranger_context(), name)


@pytest.mark.parametrize(
    ("reason", "alert"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "certificate_required"),
        ("TLSV1_ALERT_UNKNOWN_CA", "unknown_ca"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "certificate_expired"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "handshake_failure"),
        ("WRONG_VERSION_NUMBER", None),
    ],
)
def test_alerts_have_the_names_of_the_standard(reason: str, alert: str | None) -> None:
    """OpenSSL's prefixes are gone, and what is no alert has no name."""
    assert tls.alert_name(ssl_error(reason)) == alert


def test_alert_is_found_in_the_text_too() -> None:
    """A reason that this Python has no name for is read from the message."""
    error = ssl.SSLError(1, "[SSL] tlsv13 alert certificate required (_ssl.c:2580)")
    assert tls.alert_name(error) == "certificate_required"


@pytest.mark.parametrize(
    ("error", "with_certificate", "kind"),
    [
        (ssl_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), False, Kind.CLIENT_CERTIFICATE_MISSING),
        # Under TLS 1.2 there is no alert for it: the newest daemons send the first, 0.13 the second.
        (ssl_error("SSLV3_ALERT_HANDSHAKE_FAILURE"), False, Kind.CLIENT_CERTIFICATE_MISSING),
        (ssl_error("SSLV3_ALERT_BAD_CERTIFICATE"), False, Kind.CLIENT_CERTIFICATE_MISSING),
        (ssl_error("SSLV3_ALERT_BAD_CERTIFICATE"), True, Kind.CLIENT_CERTIFICATE_REFUSED),
        (ssl_error("TLSV1_ALERT_UNKNOWN_CA"), True, Kind.CLIENT_CERTIFICATE_REFUSED),
        (ssl_error("SSLV3_ALERT_CERTIFICATE_EXPIRED"), True, Kind.CLIENT_CERTIFICATE_REFUSED),
        (ssl_error("SSLV3_ALERT_HANDSHAKE_FAILURE"), True, Kind.TLS_FAILED),
        (ssl_error("TLSV1_ALERT_PROTOCOL_VERSION"), True, Kind.TLS_FAILED),
        (ssl_error("NO_PROTOCOLS_AVAILABLE"), True, Kind.TLS_FAILED),
        (ssl_error("WRONG_VERSION_NUMBER"), True, Kind.NOT_TLS),
        (ssl_error("UNEXPECTED_EOF_WHILE_READING", ssl.SSLEOFError), True, Kind.NOT_TLS),
        (ConnectionResetError(), True, Kind.NOT_TLS),
        *(
            (
                ssl_error("CERTIFICATE_VERIFY_FAILED", ssl.SSLCertVerificationError, verify_code=code),
                True,
                kind,
            )
            for code, kind in (
                (9, Kind.SERVER_CERTIFICATE_NOT_YET_VALID),
                (10, Kind.SERVER_CERTIFICATE_EXPIRED),
                (18, Kind.SERVER_UNKNOWN_CA),
                (19, Kind.SERVER_UNKNOWN_CA),
                (20, Kind.SERVER_UNKNOWN_CA),
                (26, Kind.SERVER_CERTIFICATE_REFUSED),
                (62, Kind.SERVER_NAME_MISMATCH),
                (64, Kind.SERVER_NAME_MISMATCH),
            )
        ),
    ],
)
def test_errors_are_explained(error: OSError, with_certificate: bool, kind: Kind) -> None:
    """Each way in which TLS can fail has its kind."""
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_message = "the reason."
    found = tls.explain(error, hostname="builder.example.com", with_certificate=with_certificate)
    assert found.kind is kind
    assert not found.message.endswith(".")
