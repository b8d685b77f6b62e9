# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who trusts whom: the certificates that stand in the ``ca.pem`` of a daemon and of a client.

A client knows daemons by the authority that signs them. A daemon knows clients by the authorities of the groups that it
admits or, in the mode ``pinned``, by the certificates of those clients. While an authority is rolled over, both of its
CAs are in. For a certificate that is not made yet stands the reason why ca.pem will change (:class:`Pending`).
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import UnreadableError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import DEFAULT, PINNED

if t.TYPE_CHECKING:
    from cryptography import x509

    Certificates = t.Tuple[t.Union[x509.Certificate, "Pending"], ...]

OUTDATED = "its CA file is missing or outdated"


@dataclass(frozen=True)
class Pending:
    """A certificate that this run makes: why bundles change for it, and the client it is for, if it is pinned."""

    reason: str
    client: str = ""


@dataclass(frozen=True)
class Trust:
    """All that can be trusted when a run is through."""

    mode: str
    groups: frozenset[str]  # of clients, all there are
    signers: frozenset[str]  # the authorities that sign daemons
    authorities: t.Mapping[str, Certificates]  # by name, the oldest first
    pinned: t.Mapping[str, Certificates]  # certificates of clients by group, in the order of their names

    def of_daemon(self, admits: t.AbstractSet[str] | None) -> Certificates:
        """What a daemon knows the clients by that it admits."""
        known = self.pinned if self.mode == PINNED else self.authorities
        return _join(known, self.groups if admits is None else admits)

    def pinned_groups(self) -> dict[str, str]:
        """The groups of pinned certificates that are made, by fingerprint."""
        return {
            compat.fingerprint(one): group
            for group, certificates in self.pinned.items()
            for one in certificates
            if not isinstance(one, Pending)
        }

    def of_client(self) -> Certificates:
        """What clients know daemons by."""
        return _join(self.authorities, self.signers)


def _join(known: t.Mapping[str, Certificates], wanted: t.AbstractSet[str]) -> Certificates:
    ordered = sorted(wanted, key=lambda name: (name != DEFAULT, name))
    return tuple(certificate for name in ordered for certificate in known.get(name, ()))


def is_made(certificates: Certificates) -> bool:
    """Whether all of them exist."""
    return not any(isinstance(one, Pending) for one in certificates)


@lru_cache(maxsize=512)
def to_pem(certificates: Certificates) -> bytes:
    """The contents of a ``ca.pem``; all certificates must be made."""
    made = (t.cast("x509.Certificate", certificate) for certificate in certificates)
    return "".join(facts.to_pem(certificate) for certificate in made).encode("ascii")


@lru_cache(maxsize=512)
def certificates_in(bundle: bytes | None) -> tuple[x509.Certificate, ...]:
    """What a ``ca.pem`` holds; nothing where it is missing or damaged, for it is only a copy."""
    if not bundle:
        return ()
    try:
        return tuple(facts.load_certificates(bundle, "ca.pem"))
    except UnreadableError:
        return ()


@lru_cache(maxsize=512)
def differences(stored: bytes | None, wanted: Certificates, now: datetime) -> tuple[str, ...]:
    """Why a ``ca.pem`` must be written anew, or nothing.

    The order does not matter, and a client that has expired may stay: nobody is to restart a daemon for that.
    """
    there = certificates_in(stored)
    pending = {one.reason for one in wanted if isinstance(one, Pending)}
    old = {compat.fingerprint(one): one for one in there}
    new = {compat.fingerprint(one): one for one in wanted if not isinstance(one, Pending)}
    added = [one for fingerprint, one in new.items() if fingerprint not in old]
    removed = [one for fingerprint, one in old.items() if fingerprint not in new]
    removed = [one for one in removed if facts.facts_of(one).is_ca or compat.not_after(one) > now]
    if not there:
        return (OUTDATED,)
    if not added and not removed and not pending:
        return ()
    coming, going = {_title(one) for one in added}, {_title(one) for one in removed}
    reasons = {f"it trusts {title} now" for title in coming - going} | pending
    if not pending:
        reasons |= {f"it trusts {title} no longer" for title in going - coming}
    return tuple(sorted(reasons)) or (OUTDATED,)


def _title(certificate: x509.Certificate) -> str:
    found = facts.facts_of(certificate)
    return f"the {'CA' if found.is_ca else 'client'} {found.common_name!r}"
