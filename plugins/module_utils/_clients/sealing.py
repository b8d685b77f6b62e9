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

# How much work it is to try a passphrase, as a power of two. pyrage takes what it thinks to be a second of work, from a
# short look at how fast this machine is: in a busy moment that is far less. Below what age itself takes it is asked
# again, up to so many times in all.
_WORK_FACTOR = 18
_TRIES = 4


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
    if passphrase is None:
        return t.cast(bytes, pyrage.encrypt(data, list(recipients)))
    sealed = [t.cast(bytes, pyrage.passphrase.encrypt(data, passphrase))]
    while _work_factor(sealed[-1]) < _WORK_FACTOR and len(sealed) < _TRIES:
        sealed.append(pyrage.passphrase.encrypt(data, passphrase))
    return max(sealed, key=_work_factor)


def _work_factor(sealed: bytes) -> int:
    """What is written in its header (C2SP, age.md, "The scrypt recipient type")."""
    return int(sealed.split(b"\n", 2)[1].split(b" ")[3])


def check_of(passphrase: str, salt: bytes) -> str:
    """What tells later whether a passphrase is still the same: scrypt of it, in hex."""
    return hashlib.scrypt(passphrase.encode(), salt=salt, **_SCRYPT).hex()


def same(one: str, other: str) -> bool:
    """Compare two results of :func:`check_of`."""
    return hmac.compare_digest(one, other)
