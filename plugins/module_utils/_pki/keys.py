# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private keys: made, written, read and compared."""

from __future__ import annotations

import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import (
    PassphraseError,
    UnreadableError,
)

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
except ImportError:
    pass  # the module reports it, see _deps.require

if t.TYPE_CHECKING:
    PrivateKey = t.Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]
    PublicKey = t.Union[ec.EllipticCurvePublicKey, rsa.RSAPublicKey]

KEY_TYPES = ("ecdsa-p256", "ecdsa-p384", "rsa-3072")
"""What this collection makes. ``ecdsa-p256`` is what every client of BuildKit handles and is the fastest."""

_CURVES = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}
_SMALLEST_RSA = 3072
_SMALLEST_RSA_OF_CA = 2048  # a CA that others made is taken as it is, down to what Go and OpenSSL still accept


def generate(key_type: str) -> PrivateKey:
    """Make a key of one of :data:`KEY_TYPES`."""
    if key_type == "rsa-3072":
        return rsa.generate_private_key(public_exponent=65537, key_size=3072)
    return ec.generate_private_key(ec.SECP384R1() if key_type == "ecdsa-p384" else ec.SECP256R1())


def type_of(key: object) -> str:
    """Name the type of a public or private key: one of :data:`KEY_TYPES`, ``rsa-4096``, ``Ed25519`` and so on."""
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        return "ecdsa-" + _CURVES.get(key.curve.name, key.curve.name)
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        return f"rsa-{key.key_size}"
    return type(key).__name__.lstrip("_").replace("PublicKey", "").replace("PrivateKey", "")


def is_supported(key: object) -> bool:
    """Tell whether a key is strong enough, and of a kind that all clients of BuildKit can use."""
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        return key.key_size >= _SMALLEST_RSA
    return type_of(key) in KEY_TYPES


def can_be_ca(key: object) -> bool:
    """Tell whether the key of a CA that others may have made is strong enough, and of a kind that all can verify."""
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        return key.key_size >= _SMALLEST_RSA_OF_CA
    return type_of(key) in ("ecdsa-p256", "ecdsa-p384", "ecdsa-p521")


def signature_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    """The hash to sign with, as strong as the key."""
    if type_of(key) == "ecdsa-p521":
        return hashes.SHA512()
    return hashes.SHA384() if type_of(key) == "ecdsa-p384" else hashes.SHA256()


def to_pem(key: PrivateKey, *, passphrase: str | None = None) -> bytes:
    """Write a key as PKCS #8 in PEM, encrypted when there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def is_encrypted(pem: bytes) -> bool:
    """Tell whether a key in PEM is encrypted, in PKCS #8 or in OpenSSL's traditional format."""
    return b"ENCRYPTED" in pem


def load(pem: bytes, path: str, *, passphrase: str | None = None, option: str = "ca.passphrase") -> PrivateKey:
    """Read a key.

    :param path: where it came from, for the message.
    :param option: which option the passphrase is, for the message.
    :raises PassphraseError: when it is encrypted and the passphrase is missing or wrong, or the reverse.
    :raises UnreadableError: when it is no key. Ask :func:`is_supported` whether one can sign.
    """
    encrypted = is_encrypted(pem)
    if encrypted and not passphrase:
        raise PassphraseError(
            f"The private key {path} is encrypted and no passphrase was given. For a CA, give the one it was "
            f"encrypted with ({option}); the key of a daemon or client must not be encrypted."
        )
    if passphrase and not encrypted:
        raise PassphraseError(
            f"A passphrase was given ({option}), but the private key {path} is not encrypted. Leave it out."
        )
    try:
        key = serialization.load_pem_private_key(pem, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        if encrypted:
            raise PassphraseError(
                f"The private key {path} cannot be decrypted: the passphrase is wrong ({option}), or the file is "
                "damaged. It is left as it is."
            ) from exc
        raise UnreadableError(
            f"{path} holds no readable private key ({_short(exc)}). It is left as it is: restore it from a "
            "backup, or move it away if it is of no use."
        ) from exc
    return t.cast("PrivateKey", key)


def spki(key: object) -> bytes:
    """The public half of a key in DER, to compare keys by; private and public keys give the same."""
    public: t.Any = key.public_key() if hasattr(key, "public_key") else key
    encoded: bytes = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _short(exc: Exception) -> str:
    """The first line of a library's message, without the pages that OpenSSL adds."""
    return (str(exc).splitlines() or [""])[0][:120] or type(exc).__name__
