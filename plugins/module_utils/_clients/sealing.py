# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encryption of files for a person: the age format (age-encryption.org/v1), by the library pyrage."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

with contextlib.suppress(ImportError):  # the module reports it, see _deps.require
    import pyrage

LEAST_PASSPHRASE = 12
_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1, "dklen": 32}


def recipient_of(text: str, whose: str) -> t.Any:
    """The recipient that a text names: age1... or the public part of an SSH key (ssh-ed25519 or ssh-rsa).

    :param whose: for the message.
    :raises ClientError: when it is neither.
    """
    kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
    try:
        return kind.Recipient.from_str(text)
    except pyrage.RecipientError:
        if text.upper().startswith("AGE-SECRET"):
            raise ClientError(f"A recipient of {whose} is a secret key. Give the public one, age1...") from None
        raise ClientError(
            f"The recipient {text[:40]!r} of {whose} is none that age knows. Write age1..., or the public part of an "
            "SSH key of type ed25519 or rsa."
        ) from None


def seal(data: bytes, *, recipients: t.Sequence[t.Any], passphrase: str | None) -> bytes:
    """Encrypt for all ``recipients``, or with ``passphrase`` where there is one. No two results are the same."""
    if passphrase is not None:
        return t.cast(bytes, pyrage.passphrase.encrypt(data, passphrase))
    return t.cast(bytes, pyrage.encrypt(data, list(recipients)))


def check_of(passphrase: str, salt: bytes) -> str:
    """What tells later whether a passphrase is still the same: scrypt of it, in hex."""
    return hashlib.scrypt(passphrase.encode(), salt=salt, **_SCRYPT).hex()


def same(one: str, other: str) -> bool:
    """Compare two results of :func:`check_of`."""
    return hmac.compare_digest(one, other)
