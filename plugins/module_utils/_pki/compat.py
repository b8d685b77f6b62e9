# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that knows how versions of the cryptography library differ: 3.4 on Ubuntu 22.04 to 50."""

from __future__ import annotations

from datetime import datetime, timezone

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    MALFORMED: tuple[type[Exception], ...] = (
        ValueError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    )
    """What the library raises when a certificate or request is damaged, or of a kind that it does not know."""
except ImportError:
    pass  # the module reports it, see _deps.require


def not_before(certificate: x509.Certificate) -> datetime:
    """Start of validity, in UTC and aware of it (the library has that from version 42 only)."""
    try:
        return certificate.not_valid_before_utc
    except AttributeError:
        return certificate.not_valid_before.replace(tzinfo=timezone.utc)


def not_after(certificate: x509.Certificate) -> datetime:
    """End of validity, in UTC and aware of it (the library has that from version 42 only)."""
    try:
        return certificate.not_valid_after_utc
    except AttributeError:
        return certificate.not_valid_after.replace(tzinfo=timezone.utc)


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether ``issuer`` has that name and its key made the signature (the library has that from 40).

    RSA with PKCS #1 v1.5 and ECDSA are known, which is all that this collection signs with, and Ed25519; every
    other signature counts as foreign.
    """
    return certificate.issuer == issuer.subject and has_signature_of(issuer.public_key(), certificate)


def has_signature_of(key: object, certificate: x509.Certificate) -> bool:
    """Tell whether ``key`` made the signature of ``certificate``."""
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
            return True
        algorithm = certificate.signature_hash_algorithm
        if algorithm is None:
            return False
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(algorithm))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), algorithm)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate in DER, in lower-case hex without colons."""
    return certificate.fingerprint(hashes.SHA256()).hex()
