# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a PKI directory holds, as far as a run needs to know: plain values, read by store.py, judged by plan.py."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import facts, profiles
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import Register
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import DISTRIBUTE, ISSUE

if t.TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.keys import PrivateKey
    from cryptography import x509

NO_ROLLOVER = "none"


@dataclass(frozen=True)
class Authority:
    """A CA, checked to be one and to match its key; ``encryption`` says why its key must be encrypted anew."""

    certificate: x509.Certificate
    key: PrivateKey
    encryption: str = ""


@dataclass(frozen=True)
class Record:
    """Who has what the current phase of a rollover hands out: names of clients and of daemons."""

    given: frozenset[str] = frozenset()
    daemons: frozenset[str] = frozenset()


@dataclass(frozen=True)
class AuthorityState:
    """An authority: the CA that signs, and the one that comes or goes while it is rolled over."""

    current: Authority
    next: Authority | None = None
    previous: Authority | None = None
    retired: t.Mapping[str, Authority] = field(default_factory=dict)  # by the name of its directory
    record: Record = field(default_factory=Record)

    @property
    def phase(self) -> str:
        """The phase that its rollover has reached, or :data:`NO_ROLLOVER`."""
        if self.next is not None:
            return DISTRIBUTE
        return NO_ROLLOVER if self.previous is None else ISSUE

    @property
    def all(self) -> tuple[Authority, ...]:
        """All its CAs, the oldest first."""
        found = (*self.retired.values(), self.previous, self.current, self.next)
        return tuple(one for one in found if one is not None)


@dataclass(frozen=True)
class Leaf:
    """The files of a daemon or client. The key is missing where it is elsewhere, or was not asked for."""

    certificate: x509.Certificate | None = None
    key: PrivateKey | None = None
    bundle: bytes | None = None
    group: str | None = None  # of a pinned client
    superseded: tuple[x509.Certificate, ...] = ()  # earlier ones of a pinned client, kept until they end


@dataclass(frozen=True)
class State:
    """A PKI directory. ``imported`` is the CA to take over, if that was asked for."""

    path: str
    authorities: t.Mapping[str, AuthorityState] = field(default_factory=dict)
    leaves: t.Mapping[tuple[str, str], Leaf] = field(default_factory=dict)  # wished ones, by (kind, name)
    others: t.Mapping[tuple[str, str], Leaf] = field(default_factory=dict)  # not in this run, without keys
    register: Register = field(default_factory=Register)
    imported: Imported | None = None

    def all_leaves(self) -> dict[tuple[str, str], Leaf]:
        """Those of this run and all others."""
        return {**self.others, **self.leaves}


@dataclass(frozen=True)
class Imported:
    """A CA that another tool made, and where it is from."""

    authority: Authority
    path: str


class Issuers:
    """Finds the authority that issued a certificate, by the names and key identifiers that both carry."""

    def __init__(self, authorities: t.Mapping[str, AuthorityState]) -> None:
        self._by_key = {
            (one.certificate.subject, profiles.subject_key_identifier(one.certificate).digest): (name, one)
            for name, authority in authorities.items()
            for one in authority.all
        }

    def of(self, certificate: x509.Certificate) -> tuple[str, Authority] | None:
        """The authority's name and the CA, or None for a self-signed or foreign certificate."""
        return self._by_key.get((certificate.issuer, facts.issuer_key_identifier(certificate)))


def is_pinned(certificate: x509.Certificate) -> bool:
    """Whether a leaf is self-signed, by what it says; :func:`facts.is_pinned_client` looks closer.

    A client may be called like the CA that signed its certificate, but then it refers to the CA's key.
    """
    if certificate.issuer != certificate.subject or facts.facts_of(certificate).is_ca:
        return False
    return facts.issuer_key_identifier(certificate) in (b"", profiles.subject_key_identifier(certificate).digest)
