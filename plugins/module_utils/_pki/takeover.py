# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a CA that mkcert, openssl or cfssl made, to go on with it."""

from __future__ import annotations

import typing as t
from datetime import datetime

from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts, keys
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import StoreError, WishError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.state import Authority, AuthorityState, Imported


def read_import(ca: t.Mapping[str, t.Any], existing: AuthorityState | None, now: datetime) -> Imported | None:
    """Read the CA that the options ca.import_* name, if they do.

    :param existing: the authority in whose place it would be. With one, the files may be gone again, and the key is
        not looked at: nothing is taken over twice.
    :raises PkiError: when it cannot serve as a CA.
    """
    path, key_path = ca["import_certificate"], ca["import_key"]
    if path is None:
        return None
    pem = _files.read_optional(path)
    if existing is not None:
        if pem is None:
            return None
        return Imported(Authority(facts.load_certificates(pem, path)[0], existing.current.key), path)
    key_pem = _files.read_optional(key_path)
    for found, wanted in ((pem, path), (key_pem, key_path)):
        if found is None:
            raise WishError(f"The CA to take over is not there: {wanted} is missing on the machine where this runs.")
    certificate = facts.load_certificates(t.cast(bytes, pem), path)[0]
    key = keys.load(t.cast(bytes, key_pem), key_path, passphrase=ca["import_passphrase"], option="ca.import_passphrase")
    if not keys.can_be_ca(key):
        raise StoreError(
            f"The CA key {key_path} is of type {keys.type_of(key)}, which cannot be taken over: only RSA of 2048 "
            "bits or more and ECDSA on P-256, P-384 or P-521 are. Let a new CA be made instead."
        )
    if keys.spki(key) != keys.spki(certificate):
        raise StoreError(f"The key {key_path} does not belong to the certificate {path}: name the two that do.")
    if not facts.may_sign_certificates(certificate):
        raise StoreError(f"{path} is not the certificate of a CA: it may not sign certificates. Name the CA's own.")
    if not compat.is_signed_by(certificate, certificate):
        raise StoreError(
            f"{path} is the certificate of an intermediate CA: it is not self-signed, and not every client takes such "
            "a one to verify by. Take over its root, or let a new CA be made."
        )
    if compat.not_after(certificate) <= now:
        raise StoreError(
            f"The CA certificate {path} expired on {facts.utc_text(compat.not_after(certificate))}: renew it with the "
            "tool that made it, or let a new CA be made."
        )
    return Imported(Authority(certificate, key), path)
