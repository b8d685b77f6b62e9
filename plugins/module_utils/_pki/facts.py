# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a certificate says, as plain values for results, comparisons and diffs."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass
from datetime import datetime

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, keys
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import UnreadableError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    pass  # the module reports it, see _deps.require

SERVER = "server"
CLIENT = "client"

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

_Extension = t.TypeVar("_Extension", bound="x509.ExtensionType")


@dataclass(frozen=True)
class CertificateFacts:
    """A certificate in plain values. Times are aware and in UTC, hex is in lower case without colons."""

    common_name: str | None
    sans: frozenset[str]
    serial: str
    not_before: datetime
    not_after: datetime
    fingerprint: str
    key_type: str
    is_ca: bool
    usage: frozenset[str]  # of SERVER and CLIENT; both when the certificate does not restrict itself

    @property
    def sorted_sans(self) -> list[str]:
        """The SANs in an order that does not depend on the certificate's."""
        return sorted(self.sans)


def facts_of(certificate: x509.Certificate) -> CertificateFacts:
    """Read a certificate's facts.

    :raises ValueError: when an extension is malformed (the library parses them on first use).
    """
    constraints = _extension(certificate.extensions, x509.BasicConstraints)
    return CertificateFacts(
        common_name=common_name(certificate.subject),
        sans=sans_of(certificate.extensions),
        serial=serial_hex(certificate),
        not_before=compat.not_before(certificate),
        not_after=compat.not_after(certificate),
        fingerprint=compat.fingerprint(certificate),
        key_type=keys.type_of(certificate.public_key()),
        is_ca=constraints is not None and constraints.ca,
        usage=_usage(certificate),
    )


def parse_fully(certificate: x509.Certificate) -> None:
    """Make the library read now what it would read on first use only.

    :raises Exception: one of ``compat.MALFORMED``.
    """
    facts_of(certificate)
    certificate.issuer.rfc4514_string()
    keys.spki(certificate)


def common_name(subject: x509.Name) -> str | None:
    """The first common name of a subject, if it has one."""
    found = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else None


def sans_of(extensions: x509.Extensions) -> frozenset[str]:
    """The SANs of a certificate or request, spelled as in names.py; kinds other than DNS and IP keep their name."""
    alternative = _extension(extensions, x509.SubjectAlternativeName)
    if alternative is None:
        return frozenset()
    return frozenset(_spell(name) for name in alternative)


def may_sign_certificates(certificate: x509.Certificate) -> bool:
    """Tell whether it is a CA whose key usage lets it sign (RFC 5280, 4.2.1.3)."""
    constraints = _extension(certificate.extensions, x509.BasicConstraints)
    usage = _extension(certificate.extensions, x509.KeyUsage)
    return constraints is not None and constraints.ca and (usage is None or usage.key_cert_sign)


def is_pinned_client(certificate: x509.Certificate) -> bool:
    """Tell whether a daemon can accept it by itself: self-signed, for a client, and no CA."""
    found = facts_of(certificate)
    return CLIENT in found.usage and not found.is_ca and compat.is_signed_by(certificate, certificate)


def serial_hex(certificate: x509.Certificate) -> str:
    """The serial number in hex with whole octets, as ``openssl x509 -serial`` prints it but in lower case."""
    digits = f"{certificate.serial_number:x}"
    return digits.zfill(len(digits) + len(digits) % 2)


def utc_text(moment: datetime) -> str:
    """A moment in UTC as ISO 8601 to the second, such as ``2026-11-21T02:50:00Z``."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def issuer_key_identifier(certificate: x509.Certificate) -> bytes:
    """The key identifier of the issuer that the certificate refers to; empty without one."""
    found = _extension(certificate.extensions, x509.AuthorityKeyIdentifier)
    return b"" if found is None else found.key_identifier or b""


def to_pem(certificate: x509.Certificate) -> str:
    """A certificate in PEM."""
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def load_certificates(pem: bytes, path: str) -> list[x509.Certificate]:
    """Read all certificates of a PEM text, in their order; at least one, each with readable extensions.

    :param path: where it came from, for the message.
    :raises UnreadableError: when there is none or one is malformed.
    """
    blocks = _BLOCK.findall(pem)
    if not blocks or len(blocks) != pem.count(b"-----BEGIN CERTIFICATE-----"):
        raise UnreadableError(
            f"{path} holds no complete certificate in PEM format. It is left as it is: restore it from a backup, "
            "or move it away if it is of no use."
        )
    certificates = []
    for block in blocks:
        try:
            certificate = x509.load_pem_x509_certificate(block)
            parse_fully(certificate)
        except compat.MALFORMED as exc:
            raise UnreadableError(
                f"{path} holds a malformed certificate ({str(exc)[:120]}). It is left as it is: restore it from a "
                "backup, or move it away if it is of no use."
            ) from exc
        certificates.append(certificate)
    return certificates


def _usage(certificate: x509.Certificate) -> frozenset[str]:
    extended = _extension(certificate.extensions, x509.ExtendedKeyUsage)
    if extended is None:
        return frozenset((SERVER, CLIENT))
    known = {
        ExtendedKeyUsageOID.SERVER_AUTH: (SERVER,),
        ExtendedKeyUsageOID.CLIENT_AUTH: (CLIENT,),
        # anyExtendedKeyUsage (RFC 5280, 4.2.1.12); old versions of the library have no name for it
        x509.ObjectIdentifier("2.5.29.37.0"): (SERVER, CLIENT),
    }
    return frozenset(use for purpose in extended for use in known.get(purpose, ()))


def _spell(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return f"DNS:{name.value.lower()}"
    if isinstance(name, x509.IPAddress):
        return f"IP:{name.value}"
    return f"{type(name).__name__}:{name.value}"


def _extension(extensions: x509.Extensions, kind: type[_Extension]) -> _Extension | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
