# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a certificate says, as far as people ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
except ImportError:  # reported by _deps before any certificate is read
    pass


@dataclass(frozen=True)
class Certificate:
    """Facts of a certificate.

    :param subject: as RFC 4514 writes names, such as C(CN=builder.example.com)
    :param sans: the subject alternative names, such as C(DNS:builder.example.com) and C(IP:192.0.2.10)
    :param not_before: start of its validity, UTC
    :param not_after: end of its validity, UTC
    :param fingerprint: SHA-256 of its DER form, in hexadecimal
    """

    subject: str
    issuer: str
    sans: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    fingerprint: str

    def days_left(self, now: datetime) -> int:
        """Whole days until it expires; negative once it has."""
        return (self.not_after - now).days

    @property
    def validity(self) -> str:
        """The time in which it is valid, for messages."""
        return f"valid from {_timestamp(self.not_before)} to {_timestamp(self.not_after)}"

    def as_dict(self, now: datetime) -> dict[str, Any]:
        """The form that modules return; times as in RFC 3339, UTC."""
        return {
            "subject": self.subject,
            "issuer": self.issuer,
            "sans": list(self.sans),
            "not_before": _timestamp(self.not_before),
            "not_after": _timestamp(self.not_after),
            "days_left": self.days_left(now),
            "fingerprint": self.fingerprint,
        }


def from_der(der: bytes) -> Certificate:
    """Read a certificate that a peer sent.

    :raises ValueError: not a certificate
    """
    return _describe(x509.load_der_x509_certificate(der))


def from_file(path: str) -> Certificate | None:
    """Read the first certificate of a PEM file; None if there is none to be read."""
    try:
        with open(path, "rb") as file:
            parsed = x509.load_pem_x509_certificate(file.read())
    except (OSError, ValueError):
        return None
    return _describe(parsed)


def _timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _describe(parsed: x509.Certificate) -> Certificate:
    return Certificate(
        subject=parsed.subject.rfc4514_string(),
        issuer=parsed.issuer.rfc4514_string(),
        sans=_sans(parsed),
        not_before=_utc(parsed, "not_valid_before"),
        not_after=_utc(parsed, "not_valid_after"),
        fingerprint=parsed.fingerprint(hashes.SHA256()).hex(),
    )


def _utc(parsed: x509.Certificate, name: str) -> datetime:
    aware: datetime | None = getattr(parsed, f"{name}_utc", None)  # since cryptography 42
    if aware is not None:
        return aware
    naive: datetime = getattr(parsed, name)
    return naive.replace(tzinfo=timezone.utc)


def _sans(parsed: x509.Certificate) -> tuple[str, ...]:
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    known: dict[type[Any], str] = {
        x509.DNSName: "DNS",
        x509.IPAddress: "IP",
        x509.RFC822Name: "email",
        x509.UniformResourceIdentifier: "URI",
    }
    return tuple(f"{known[type(name)]}:{name.value}" for name in names if type(name) in known)
