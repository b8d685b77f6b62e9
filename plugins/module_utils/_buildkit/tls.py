# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""TLS as clients of buildkitd speak it, and the meaning of what goes wrong with it.

Python's own ssl does it, because its alerts name the cause: gRPC's C core calls every refused client
certificate "Unwrap failed" and cannot speak TLS to daemons before v0.17, which negotiate no ALPN.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    InputError,
    Kind,
    TlsError,
)

_ALPN = ["h2"]

# X509_V_ERR_* of OpenSSL (x509_vfy.h).
_NOT_YET_VALID, _EXPIRED, _HOSTNAME_MISMATCH, _IP_MISMATCH = 9, 10, 62, 64
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21, 27})

# Reasons with which OpenSSL says that the other side's bytes are no TLS at all.
_NO_TLS = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "UNKNOWN_PROTOCOL",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
    }
)

# Alerts about a certificate that we sent (RFC 8446, section 6.2).
_CERTIFICATE_ALERTS = frozenset(
    {
        "bad_certificate",
        "unsupported_certificate",
        "certificate_revoked",
        "certificate_expired",
        "certificate_unknown",
        "unknown_ca",
        "access_denied",
        "certificate_required",
        "decrypt_error",
    }
)
# What a server under TLS 1.2 sends when it wanted a certificate and got none; only 1.3 has a name for it.
_MISSING_ALERTS = frozenset({"certificate_required", "handshake_failure", "bad_certificate"})


@dataclass(frozen=True)
class Credentials:
    """The files that make a client: paths to PEM files; no client certificate when both names are empty."""

    ca_path: str
    client_cert: str = ""
    client_key: str = ""


class Session(ssl.SSLObject):
    """A TLS session that remembers who the server was.

    Under TLS 1.3 a server may refuse us in the very moment in which the handshake is done, and then ssl cannot say any
    more. C(peer_certificate) is its certificate in DER form.
    """

    peer_certificate: bytes | None = None

    def do_handshake(self) -> None:
        """Go on with the handshake, as ssl does it."""
        super().do_handshake()
        self.peer_certificate = self.getpeercert(binary_form=True)


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """The TLS settings of a client that trusts these CAs and nothing else, and counts subject alternative
    names only.

    :raises InputError: a file that is not there, not readable or not what it should be
    :raises TlsError: a key that does not belong to the certificate
    """
    context = _context()
    authorities = _read("ca_path", credentials.ca_path)
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii"))
    except (ssl.SSLError, ValueError):  # ValueError: nothing in it, or not ASCII
        raise InputError(f"ca_path {credentials.ca_path} is no file with CA certificates in PEM format") from None
    # Like Go's clients, which take any certificate of the bundle as an end of the chain.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if credentials.client_cert:
        _load_client_certificate(context, credentials)
    return context


def stranger_context() -> ssl.SSLContext:
    """The TLS settings of somebody who wants in and does not care who answers."""
    context = _context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(_ALPN)
    context.sslobject_class = Session
    return context


def _load_client_certificate(context: ssl.SSLContext, credentials: Credentials) -> None:
    if b"-----BEGIN CERTIFICATE-----" not in _read("client_cert", credentials.client_cert):
        raise InputError(f"client_cert {credentials.client_cert} holds no certificate in PEM format")
    key = _read("client_key", credentials.client_key)
    if b"ENCRYPTED" in key:
        raise InputError(
            f"client_key {credentials.client_key} is encrypted: give a key without passphrase, as buildctl needs it too"
        )
    try:
        # The password keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(credentials.client_cert, credentials.client_key, password="")
    except ssl.SSLError as error:
        if _reason(error) in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
            raise TlsError(
                Kind.CLIENT_KEY_MISMATCH,
                f"client_key {credentials.client_key} is not the key of client_cert {credentials.client_cert}",
            ) from None
        raise InputError(
            f"client_cert {credentials.client_cert} and client_key {credentials.client_key} cannot be used: "
            f"one of them is not in PEM format or damaged ({_reason(error) or 'unreadable'})"
        ) from None


def _read(option: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{option} {path} cannot be read: {error.strerror}") from None


def check_hostname(context: ssl.SSLContext, hostname: str) -> None:
    """Make sure that a name can be looked for in certificates.

    :raises InputError: no name and no address
    """
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=hostname)
    except ValueError as error:  # UnicodeError is one of them
        raise InputError(f"tls_hostname {hostname!r} is neither a host name nor an IP address ({error})") from None


def _reason(error: ssl.SSLError) -> str:
    # OpenSSL's name of it, which ssl leaves out where it knows none.
    return getattr(error, "reason", None) or ""


def alert_name(error: ssl.SSLError) -> str | None:
    """The alert that the peer sent, as RFC 8446 names it, such as C(unknown_ca); None if the error is no alert."""
    found = re.search(r"alert[ _]([a-z_ ]+)", f"{_reason(error)} {error}", re.IGNORECASE)
    return found.group(1).strip().lower().replace(" ", "_") if found else None


def explain(error: OSError, *, hostname: str, with_certificate: bool) -> TlsError:
    """Name the cause of a TLS session that did not come about or was refused.

    :param error: what ssl or the socket raised, during the handshake or at the first read after it
    :param hostname: the name that was looked for in the certificate
    :param with_certificate: whether we had a client certificate to show
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_verification(error, hostname=hostname)
    if not isinstance(error, ssl.SSLError) or isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return TlsError(
            Kind.NOT_TLS,
            "The connection was closed during the TLS handshake: nobody speaks TLS there, or a proxy has "
            "no server behind it",
        )
    alert = alert_name(error)
    if alert is None:
        if _reason(error) in _NO_TLS:
            return TlsError(Kind.NOT_TLS, "The TLS handshake was answered with something that is not TLS")
        reason = (_reason(error) or str(error)).lower().replace("_", " ")
        return TlsError(Kind.TLS_FAILED, f"The TLS handshake failed: {reason}")
    if not with_certificate and alert in _MISSING_ALERTS:
        return TlsError(
            Kind.CLIENT_CERTIFICATE_MISSING,
            f"The daemon wants a client certificate and got none (alert {alert})",
        )
    if with_certificate and alert in _CERTIFICATE_ALERTS:
        return TlsError(Kind.CLIENT_CERTIFICATE_REFUSED, f"The daemon refused the client certificate (alert {alert})")
    return TlsError(Kind.TLS_FAILED, f"The daemon ended the TLS handshake (alert {alert})")


def _explain_verification(error: ssl.SSLCertVerificationError, *, hostname: str) -> TlsError:
    code, text = error.verify_code, error.verify_message.rstrip(".")
    if code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
        return TlsError(Kind.SERVER_NAME_MISMATCH, f"The certificate of the daemon does not name {hostname}")
    if code == _EXPIRED:
        return TlsError(Kind.SERVER_CERTIFICATE_EXPIRED, "The certificate of the daemon, or of its issuer, has expired")
    if code == _NOT_YET_VALID:
        return TlsError(
            Kind.SERVER_CERTIFICATE_NOT_YET_VALID,
            "The certificate of the daemon, or of its issuer, is not yet valid",
        )
    if code in _UNKNOWN_ISSUER:
        return TlsError(Kind.SERVER_UNKNOWN_CA, f"The certificate of the daemon is of no CA in ca_path ({text})")
    return TlsError(Kind.SERVER_CERTIFICATE_REFUSED, f"The certificate of the daemon is not acceptable ({text})")
