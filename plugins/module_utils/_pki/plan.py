# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner: wishes and the state found on disk give steps, each with its reasons. Pure; it changes nothing.

The rules, in one place:

* A certificate is renewed inside a window before its end, not at a fixed date, and also when it no longer says
  or proves what it should. Nothing else is ever re-issued.
* A CA that cannot be used is an error (see store.py), never a reason to make another.
* No certificate outlives its CA.
* What is not among the wishes is left alone; it only keeps its names reserved.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, keys, names
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.durations import (
    describe,
    format_duration,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import (
    CsrError,
    ForeignTrustError,
    StoreError,
    WishError,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.facts import (
    CertificateFacts,
    facts_of,
    to_pem,
    utc_text,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import DAEMON

if t.TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.keys import PrivateKey
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import (
        AuthorityWish,
        LeafWish,
        Life,
        Wishes,
    )
    from cryptography import x509

KEEP = "keep"
CREATE = "create"  # a CA with a new key
RENEW = "renew"  # a new certificate for the CA's existing key: all leaves stay valid
ISSUE = "issue"  # a new certificate for a leaf
REFRESH = "refresh"  # the leaf stays, the CA file beside it changes


@dataclass(frozen=True)
class Authority:
    """A CA as found on disk, checked to be one and to match its key."""

    certificate: x509.Certificate
    key: PrivateKey


@dataclass(frozen=True)
class Leaf:
    """The files of a daemon or client as found on disk. A daemon whose key is on its host has none here."""

    certificate: x509.Certificate | None = None
    key: PrivateKey | None = None
    bundle: bytes | None = None


@dataclass(frozen=True)
class State:
    """What a PKI directory holds, as far as a run needs to know."""

    path: str
    authority: Authority | None = None
    leaves: t.Mapping[tuple[str, str], Leaf] = field(default_factory=dict)  # wished ones, by (kind, name)
    other_daemons: t.Mapping[str, CertificateFacts] = field(default_factory=dict)  # not in this run, by name
    past_authorities: frozenset[str] = frozenset()  # fingerprints from the register


@dataclass(frozen=True)
class AuthorityStep:
    """What happens to the CA. ``not_after`` is the end of the certificate that is in force afterwards."""

    wish: AuthorityWish
    action: str
    reasons: tuple[str, ...]
    before: Authority | None
    not_after: datetime


@dataclass(frozen=True)
class LeafStep:
    """What happens to a daemon or client. ``not_after`` is the end of the certificate in force afterwards."""

    wish: LeafWish
    action: str
    reasons: tuple[str, ...]
    before: Leaf
    not_after: datetime


@dataclass(frozen=True)
class Plan:
    """All steps of one run, and what the user should know about them."""

    authority: AuthorityStep
    leaves: tuple[LeafStep, ...]
    warnings: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether carrying it out changes anything."""
        return self.authority.action != KEEP or any(step.action != KEEP for step in self.leaves)


def make_plan(wishes: Wishes, state: State, *, now: datetime, predict: bool) -> Plan:
    """Decide what to do.

    :param now: aware; its fraction of a second is dropped, as certificates have none.
    :param predict: true in check mode, where a host does not make the key and the request that it would make.
    :raises PkiError: when the wishes and the state do not go together.
    """
    now = now.replace(microsecond=0)
    _refuse_foreign_trust(wishes, state)
    _refuse_taken_sans(wishes, state, now)
    authority = _plan_authority(wishes.authority, state, now)
    leaves = tuple(_plan_leaf(wish, state, authority, now, predict) for wish in wishes.leaves)
    return Plan(authority, leaves, _warnings(authority, leaves, now))


def trust_bundle(authority: x509.Certificate) -> bytes:
    """What clients and daemons verify each other by: the contents of every ``ca.pem`` beside a leaf."""
    return to_pem(authority).encode("ascii")


def _refuse_foreign_trust(wishes: Wishes, state: State) -> None:
    """A host that trusts a CA we do not have means a lost or a second PKI directory (never make a new CA then)."""
    ours = set(state.past_authorities)
    if state.authority:
        ours.add(compat.fingerprint(state.authority.certificate))
    for wish in wishes.leaves:
        if wish.trusts and not wish.trusts & ours:
            raise ForeignTrustError(
                f"The {wish.title} already trusts another CA (SHA-256 {', '.join(sorted(wish.trusts))}), and "
                f"{state.path} holds {'a different CA' if ours else 'no CA'}. Carrying on would lock out all "
                "clients that have certificates of the CA it trusts. Restore the PKI directory from a backup, or "
                "point buildkit_pki_dir at the right one; to give up the old trust, remove the builder first."
            )


def _refuse_taken_sans(wishes: Wishes, state: State, now: datetime) -> None:
    for wish in wishes.leaves:
        for name, facts in sorted(state.other_daemons.items()):
            common = names.overlap(wish.sans, facts.sans) - wishes.shared_names
            if common and facts.not_after > now:
                raise WishError(
                    f"The {wish.title} asks for {', '.join(sorted(common))}, for which the daemon {name} has a "
                    f"certificate until {utc_text(facts.not_after)}: each could answer for the other. If that "
                    f"daemon is gone, remove {state.path}/daemons/{name}; if they share the name on purpose, list "
                    "it in shared_names."
                )


def _plan_authority(wish: AuthorityWish, state: State, now: datetime) -> AuthorityStep:
    before = state.authority
    if before is None:
        reasons = (f"{state.path} holds no CA yet",)
        return AuthorityStep(wish, CREATE, reasons, None, now + wish.life.valid_for)
    start, end = compat.not_before(before.certificate), compat.not_after(before.certificate)
    if start > now:
        raise StoreError(
            f"The CA in {state.path} is valid from {utc_text(start)} on, and this machine's clock says "
            f"{utc_text(now)}: set the clock right."
        )
    due = _due(end, wish.life, now)
    if due and now + wish.life.valid_for > end:
        return AuthorityStep(wish, RENEW, (due,), before, now + wish.life.valid_for)
    return AuthorityStep(wish, KEEP, (), before, end)


def _plan_leaf(wish: LeafWish, state: State, authority: AuthorityStep, now: datetime, predict: bool) -> LeafStep:
    leaf = state.leaves.get((wish.kind, wish.name), Leaf())
    end = min(now + wish.life.valid_for, authority.not_after)
    if leaf.certificate is None:
        return LeafStep(wish, ISSUE, ("it has no certificate yet",), leaf, end)
    facts = facts_of(leaf.certificate)
    reasons = [
        *_content_reasons(wish, facts),
        *_key_reasons(wish, leaf, facts),
        *_issuer_reasons(leaf.certificate, facts, authority),
    ]
    due = _due(facts.not_after, wish.life, now)
    if due and end > facts.not_after:
        reasons.append(due)
    if facts.not_before > now:
        reasons.append(f"it is valid only from {utc_text(facts.not_before)} on")
    if reasons:
        if wish.kind == DAEMON and wish.request is None and leaf.key is None and not predict:
            raise CsrError(
                f"The certificate of the {wish.title} must be re-issued ({'; '.join(reasons)}), and its key is on "
                "its host: pass a CSR from there, made with buildkit_csr."
            )
        return LeafStep(wish, ISSUE, tuple(reasons), leaf, end)
    if authority.action == RENEW:
        return LeafStep(wish, REFRESH, ("the CA certificate is renewed",), leaf, facts.not_after)
    if authority.before and leaf.bundle != trust_bundle(authority.before.certificate):
        return LeafStep(wish, REFRESH, ("its CA file is missing or outdated",), leaf, facts.not_after)
    return LeafStep(wish, KEEP, (), leaf, facts.not_after)


def _content_reasons(wish: LeafWish, facts: CertificateFacts) -> t.Iterator[str]:
    if facts.common_name != wish.name:
        yield f"its subject is {facts.common_name!r}, not {wish.name!r}"
    for san in sorted(wish.sans - facts.sans):
        yield f"SAN {san} added"
    for san in sorted(facts.sans - wish.sans):
        yield f"SAN {san} removed"
    if facts.is_ca or facts.usage != {wish.usage}:
        found = "a CA" if facts.is_ca else " and ".join(sorted(facts.usage)) or "other purposes"
        yield f"it is for {found}, not for a {wish.usage}"


def _key_reasons(wish: LeafWish, leaf: Leaf, facts: CertificateFacts) -> t.Iterator[str]:
    certified = keys.spki(leaf.certificate)
    if wish.request is not None:
        if keys.spki(wish.request.public_key) != certified:
            yield "the host has a new key"
    elif leaf.key is None:
        if wish.kind != DAEMON:
            yield "its key is missing"
    elif keys.spki(leaf.key) != certified:
        yield "it does not match its key"
    elif facts.key_type != wish.key_type:
        yield f"key type changes from {facts.key_type} to {wish.key_type}"


def _issuer_reasons(
    certificate: x509.Certificate, facts: CertificateFacts, authority: AuthorityStep
) -> t.Iterator[str]:
    if authority.before is None or not compat.is_signed_by(certificate, authority.before.certificate):
        yield "it was issued by another CA"
    elif facts.not_after > authority.not_after:
        yield f"it outlives its CA, which ends on {utc_text(authority.not_after)}"


def _due(end: datetime, life: Life, now: datetime) -> str:
    """Say why a certificate is inside its renewal window, or nothing."""
    left = end - now
    if left <= timedelta(0):
        return f"it expired {describe(-left)} ago"
    if left < life.renew_before:
        return f"it expires in {describe(left)} (renew_before {format_duration(life.renew_before)})"
    return ""


def _warnings(authority: AuthorityStep, leaves: t.Iterable[LeafStep], now: datetime) -> tuple[str, ...]:
    found = []
    if authority.before is not None:
        facts = facts_of(authority.before.certificate)
        wish = authority.wish
        if facts.common_name != wish.common_name:
            found.append(
                f"The CA keeps its name {facts.common_name!r}: another name ({wish.common_name!r} is asked for) "
                "would make it another CA, and void every certificate it issued."
            )
        if facts.key_type != wish.key_type:
            found.append(
                f"The CA keeps its {facts.key_type} key: a key of another type ({wish.key_type} is asked for) would "
                "make it another CA, and void every certificate it issued."
            )
    shortened = [
        step.wish.title for step in leaves if step.not_after == authority.not_after < now + step.wish.life.valid_for
    ]
    if shortened:
        found.append(
            f"These certificates end with their CA on {utc_text(authority.not_after)}, earlier than valid_for asks: "
            f"{', '.join(shortened)}. Renew the CA earlier, with a longer ca.renew_before."
        )
    return tuple(found)
