# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private keys."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import keys
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import PassphraseError, UnreadableError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

WORDS = "correct horse"


@pytest.mark.parametrize("key_type", keys.KEY_TYPES)
def test_a_key_survives_the_way_to_disk_and_back(key_type: str) -> None:
    """Every type is written as PKCS #8 and read as the same key, encrypted or not."""
    key = keys.generate(key_type)
    assert keys.type_of(key) == keys.type_of(key.public_key()) == key_type
    for passphrase in (None, WORDS):
        pem = keys.to_pem(key, passphrase=passphrase)
        again = keys.load(pem, "key.pem", passphrase=passphrase)
        assert keys.spki(again) == keys.spki(key.public_key())
        kind = b"ENCRYPTED PRIVATE KEY" if passphrase else b"PRIVATE KEY"
        assert pem.startswith(b"-----BEGIN " + kind)


def test_two_keys_differ() -> None:
    """Comparing keys by their public half tells them apart."""
    assert keys.spki(keys.generate("ecdsa-p256")) != keys.spki(keys.generate("ecdsa-p256"))


@pytest.mark.parametrize(
    ("written_with", "read_with", "problem"),
    [
        (WORDS, None, "is encrypted and no passphrase was given"),
        (WORDS, "wrong battery", "the passphrase is wrong"),
        (None, WORDS, "is not encrypted"),
    ],
)
def test_a_passphrase_that_does_not_fit_is_an_error(
    written_with: str | None, read_with: str | None, problem: str
) -> None:
    """Missing, wrong and superfluous are told apart, and the passphrase is not repeated."""
    pem = keys.to_pem(keys.generate("ecdsa-p256"), passphrase=written_with)
    with pytest.raises(PassphraseError, match=problem) as caught:
        keys.load(pem, "/srv/pki/key.pem", passphrase=read_with)
    assert "/srv/pki/key.pem" in str(caught.value)
    assert (read_with or "?") not in str(caught.value).replace("passphrase", "")


@pytest.mark.parametrize("pem", [b"", b"not a key", keys.to_pem(keys.generate("ecdsa-p256"))[:60]])
def test_what_is_no_key_is_unreadable(pem: bytes) -> None:
    """An empty, foreign or cut file is an error that says the file stays."""
    with pytest.raises(UnreadableError, match="left as it is"):
        keys.load(pem, "key.pem")


@pytest.mark.parametrize(
    ("key", "name", "supported"),
    [
        (ec.generate_private_key(ec.SECP521R1()), "ecdsa-p521", False),
        (ec.generate_private_key(ec.SECP256K1()), "ecdsa-secp256k1", False),
        (rsa.generate_private_key(public_exponent=65537, key_size=2048), "rsa-2048", False),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519", False),
        (ec.generate_private_key(ec.SECP384R1()), "ecdsa-p384", True),
    ],
)
def test_other_types_are_named_and_not_accepted(key: object, name: str, supported: bool) -> None:
    """What other tools made is called by its name."""
    assert keys.type_of(key).lower() == name.lower()
    assert keys.is_supported(key) is supported


def test_keys_of_other_tools_are_read() -> None:
    """The traditional format of OpenSSL is read too: a host may bring it."""
    key = keys.generate("ecdsa-p256")
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    assert keys.spki(keys.load(pem, "key.pem")) == keys.spki(key)
