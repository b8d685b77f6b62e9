# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificate signing requests: made on a host, checked on the controller.

A request proves one thing: whoever sent it holds the private key. Names, usage and life come from the
controller alone, because a host must not be able to claim another's name.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts, keys, profiles
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import CsrError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
except ImportError:
    pass  # the module reports it, see _deps.require

if t.TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.keys import PrivateKey, PublicKey


@dataclass(frozen=True)
class Request:
    """What a checked request leaves: its public key, and the names it mentions."""

    public_key: PublicKey
    common_name: str | None
    sans: frozenset[str]


def build_request(name: str, key: PrivateKey) -> str:
    """Make a request in PEM for ``key``, with ``name`` as its only subject and without other names."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(profiles.subject(name))
    return builder.sign(key, keys.signature_hash(key)).public_bytes(Encoding.PEM).decode("ascii")


def load_request(pem: str, whose: str) -> Request:
    """Read a request and check what can be checked without knowing the wishes.

    :param whose: for the message, such as ``daemon build-1``.
    :raises CsrError: when it is malformed, its signature fails or its key is too weak or unusual.
    """
    what = f"The CSR of {whose}"
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        signed = request.is_signature_valid
        public_key = request.public_key()
        common_name = facts.common_name(request.subject)
        sans = facts.sans_of(request.extensions)
    except compat.MALFORMED as exc:
        raise CsrError(
            f"{what} is no readable certificate signing request in PEM format ({str(exc)[:120]}): make a new one "
            "on the host with buildkit_csr."
        ) from exc
    if not signed:
        raise CsrError(
            f"{what} carries a signature that its own key did not make: it was altered or forged. Make a new one "
            "on the host with buildkit_csr."
        )
    if not keys.is_supported(public_key):
        raise CsrError(
            f"{what} is for a key of type {keys.type_of(public_key)}, which is not accepted: use "
            f"{', '.join(keys.KEY_TYPES)} or a larger RSA key."
        )
    return Request(t.cast("PublicKey", public_key), common_name, sans)


def check_request(request: Request, name: str, sans: t.AbstractSet[str], whose: str) -> None:
    """Refuse a request that asks for more than it is going to get.

    :raises CsrError: when its subject is someone else or it asks for SANs that are not ``sans``.
    """
    if request.common_name is not None and request.common_name != name:
        raise CsrError(
            f"The CSR of {whose} asks for other names: its subject is {request.common_name!r}. Was it made on "
            f"another host? Make it with the name {name!r}."
        )
    foreign = sorted(request.sans - sans)
    if foreign:
        raise CsrError(
            f"The CSR of {whose} asks for other names: {', '.join(foreign)}. Names come from the inventory alone; "
            "add them there if the daemon shall have them, or make a CSR without names."
        )
