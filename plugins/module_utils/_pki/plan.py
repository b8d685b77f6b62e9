# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner: wishes and the state found on disk give steps, each with its reasons. Pure; it changes nothing.

The rules, in one place:

* A certificate is renewed inside a window before its end, not at a fixed date, and also when it no longer says
  or proves what it should. Nothing else is ever re-issued.
* A CA that cannot be used is an error (see store.py), never a reason to make another. It gets a new key only by a
  rollover that was asked for (rollover.py).
* No certificate outlives its CA.
* What is not among the wishes is left alone; it only keeps its names reserved. Revoking is a wish (revocation.py).
* Who is accepted today is not cut off by the way (guard.py).
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, guard, keys, names
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
    utc_text,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.profiles import CLOCK_SKEW
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import AUTHORITY, key_digest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.revocation import (
    Revocation,
    plan_revocation,
    without_revoked,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.rollover import Move, plan_move
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.state import (
    NO_ROLLOVER,
    Authority,
    AuthorityState,
    Issuers,
    Leaf,
    Record,
    State,
    is_pinned,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.trust import (
    Pending,
    Trust,
    certificates_in,
    differences,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import (
    BY_CA,
    CLIENT,
    DAEMON,
    DEFAULT,
    DISTRIBUTE,
    PINNED,
    RETIRE,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import ISSUE as ISSUE_PHASE

if t.TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.trust import Certificates
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import (
        AuthorityWish,
        LeafWish,
        Life,
        Wishes,
    )
    from cryptography import x509

KEEP = "keep"
CREATE = "create"  # a CA with a new key
IMPORT = "import"  # a CA that another tool made
RENEW = "renew"  # a new certificate for the CA's existing key: all leaves stay valid
CHANGE = "change"  # the certificate in force stays or was made before: a phase, a record or an encryption changes
ISSUE = "issue"  # a new certificate for a leaf
REFRESH = "refresh"  # the leaf stays, a file beside it changes

RENEWED = "the CA certificate is renewed"

_STAY = Move("", NO_ROLLOVER, Record())


@dataclass(frozen=True)
class AuthorityStep:
    """What happens to an authority.

    :param signer: the CA that signs afterwards; None when it is made in this run.
    :param not_after: the end of its certificate afterwards.
    :param trusted: its certificates in all bundles afterwards, see trust.py.
    :param renew: the signer gets a new certificate.
    """

    wish: AuthorityWish
    action: str
    reasons: tuple[str, ...]
    before: AuthorityState | None
    signer: Authority | None
    not_after: datetime
    trusted: Certificates
    move: Move = _STAY
    renew: bool = False

    @property
    def kept(self) -> tuple[Authority, ...]:
        """The CAs that there are and that stay trusted, with a new certificate or without."""
        if self.before is None:
            return () if self.signer is None else (self.signer,)
        found = (None if self.move.step == RETIRE else self.before.previous, self.before.current, self.before.next)
        return tuple(one for one in found if one is not None)


@dataclass(frozen=True)
class LeafStep:
    """What happens to a daemon or client.

    :param not_after: the end of the certificate that is in force afterwards.
    :param bundle: its ``ca.pem`` afterwards, see trust.py; None to leave the file as it is.
    :param superseded: earlier certificates of a pinned client to keep beside a new one.
    """

    wish: LeafWish
    action: str
    reasons: tuple[str, ...]
    before: Leaf
    not_after: datetime
    bundle: Certificates | None = None
    superseded: tuple[x509.Certificate, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All steps of one run, and what the user should know about them."""

    authorities: tuple[AuthorityStep, ...]
    leaves: tuple[LeafStep, ...]
    revocation: Revocation
    trust: Trust
    warnings: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether carrying it out changes anything."""
        actions = [step.action for step in self.authorities] + [step.action for step in self.leaves]
        return self.revocation.changed or any(action != KEEP for action in actions)

    def signer_of(self, wish: LeafWish) -> AuthorityStep | None:
        """The step of the authority that signs a leaf; None for a pinned client, which does it itself."""
        if wish.kind == CLIENT and self.trust.mode == PINNED:
            return None
        return next(step for step in self.authorities if step.wish.name == wish.authority)


def make_plan(wishes: Wishes, state: State, *, now: datetime, predict: bool) -> Plan:
    """Decide what to do.

    :param now: aware; its fraction of a second is dropped, as certificates have none.
    :param predict: true in check mode, where a host does not make the key and the request that it would make.
    :raises PkiError: when the wishes and the state do not go together.
    """
    now = now.replace(microsecond=0)
    _refuse_foreign_trust(wishes, state)
    _refuse_taken_sans(wishes, state, now)
    if wishes.rollover is not None and wishes.rollover.authority not in state.authorities:
        raise WishError(f"rollover names the CA {wishes.rollover.authority}, and {state.path} has no such CA yet.")
    revocation = plan_revocation(wishes, state, now)
    state = _after_revocation(state, revocation)
    steps = {name: _plan_authority(wishes.named(name), wishes, state, now) for name in authority_names(wishes, state)}
    issuers = Issuers(state.authorities)
    drafts = tuple(_plan_certificate(wish, wishes, steps, state, issuers, now, predict) for wish in wishes.leaves)
    trust = _plan_trust(wishes, state, steps, drafts, issuers, now)
    leaves = tuple(_plan_bundle(step, trust, now) for step in drafts)
    if not wishes.accept_missing:
        _refuse_cut_off(wishes, state, steps, leaves, trust, now)
    left_behind = _left_behind(wishes, state, steps, leaves, now)
    warnings = (*revocation.warnings, *left_behind, *_warnings(steps.values(), leaves, now))
    return Plan(tuple(steps.values()), leaves, revocation, trust, warnings)


def authority_names(wishes: Wishes, state: State) -> list[str]:
    """The authorities that there shall be: those on disk and those that this run needs; ``default`` first."""
    wanted = {wishes.authority.name, *state.authorities}
    if state.imported is not None:
        wanted.add(DEFAULT)
    if wishes.trust == BY_CA:
        wanted |= wishes.groups or (set() if _groups_on_record(wishes, state) else {DEFAULT})
    return sorted(wanted, key=lambda name: (name != DEFAULT, name))


def _groups_on_record(wishes: Wishes, state: State) -> set[str]:
    """The groups of all clients that ever had a certificate, whose authority is still there where one is needed.

    With a CA also those that a daemon admits on disk: a new register knows only of clients whose files are there.
    """
    found = {str(entry.get("group") or DEFAULT) for entry in state.register.of_kind(CLIENT)}
    if wishes.trust == BY_CA:
        bundles = {leaf.bundle for (kind, _name), leaf in state.all_leaves().items() if kind == DAEMON}
        admitted = {one for bundle in bundles for one in certificates_in(bundle)}
        found |= {name for name, one in state.authorities.items() if one.current.certificate in admitted}
        return found & set(state.authorities)
    pinned = {leaf.group or DEFAULT for (kind, _name), leaf in state.others.items() if kind == CLIENT}
    return found | pinned


def _refuse_foreign_trust(wishes: Wishes, state: State) -> None:
    """A host that trusts a CA we do not have means a lost or a second PKI directory (never make a new CA then)."""
    ours = set(state.register.fingerprints(AUTHORITY, CLIENT))
    for authority in state.authorities.values():
        ours |= {compat.fingerprint(one.certificate) for one in authority.all}
    if state.imported is not None:
        ours.add(compat.fingerprint(state.imported.authority.certificate))
    for wish in wishes.leaves:
        if wish.trusts and not wish.trusts & ours:
            raise ForeignTrustError(
                f"The {wish.title} already trusts another CA (SHA-256 {', '.join(sorted(wish.trusts))}), and "
                f"{state.path} holds {'a different CA' if ours else 'no CA'}. Carrying on would lock out all "
                "clients that have certificates of the CA it trusts. Restore the PKI directory from a backup, or "
                "point buildkit_pki_dir at the right one; to give up the old trust, remove the builder first."
            )


def _refuse_taken_sans(wishes: Wishes, state: State, now: datetime) -> None:
    others = [
        (name, facts_of(leaf.certificate))
        for (kind, name), leaf in sorted(state.others.items())
        if kind == DAEMON and leaf.certificate is not None and compat.not_after(leaf.certificate) > now
    ]
    for wish in wishes.leaves:
        for name, facts in others:
            common = names.overlap(wish.sans, facts.sans) - wishes.shared_names
            if common:
                raise WishError(
                    f"The {wish.title} asks for {', '.join(sorted(common))}, for which the daemon {name} has a "
                    f"certificate until {utc_text(facts.not_after)}: each could answer for the other. If that "
                    f"daemon is gone, remove {state.path}/daemons/{name}; if they share the name on purpose, list "
                    "it in shared_names."
                )


def _after_revocation(state: State, revocation: Revocation) -> State:
    """The state as it is when all that is revoked is out of it."""
    revoked = revocation.register.revoked()
    gone = {(CLIENT, name) for name, _directory in revocation.moves}
    return replace(
        state,
        register=revocation.register,
        leaves={key: without_revoked(leaf, revoked) for key, leaf in state.leaves.items()},
        others={key: without_revoked(leaf, revoked) for key, leaf in state.others.items() if key not in gone},
    )


def _plan_authority(wish: AuthorityWish, wishes: Wishes, state: State, now: datetime) -> AuthorityStep:
    before = state.authorities.get(wish.name)
    imported = state.imported if wish.name == DEFAULT else None
    if before is None:
        return _plan_new_authority(wish, wishes, state, now)
    if imported is not None and key_digest(imported.authority.certificate) not in {
        key_digest(one.certificate) for one in before.all
    }:
        raise WishError(
            f"{imported.path} is to be taken over as the CA {DEFAULT}, and {state.path} has another CA of that name "
            "already, which is never replaced. Use a directory of its own, or leave ca.import_certificate out."
        )
    move = plan_move(wish.name, before, wishes, state, now)
    signer = before.next if move.step == ISSUE_PHASE and before.next is not None else before.current
    start, end = compat.not_before(signer.certificate), compat.not_after(signer.certificate)
    if start > now:
        raise StoreError(
            f"The CA in {state.path} is valid from {utc_text(start)} on, and this machine's clock says "
            f"{utc_text(now)}: set the clock right. If it is right and was wrong when that certificate was made, "
            "restore ca.pem from a backup; the key beside it is the same."
        )
    encryption = sorted({one.encryption for one in before.all if one.encryption})
    due = _due(end, wish.life, now)
    if not due or now + wish.life.valid_for <= end:
        due = _too_old(start, wish, now)
    reasons = (*([due] if due else []), *move.reasons, *encryption)
    action = RENEW if due else CHANGE if reasons else KEEP
    current = Pending(RENEWED) if due else signer.certificate
    trusted: Certificates = (current,)
    if move.step == DISTRIBUTE:
        trusted = (current, Pending(f"it trusts the new CA of {wish.name} too"))
    elif move.phase == DISTRIBUTE and before.next is not None:
        trusted = (current, before.next.certificate)
    elif move.phase == ISSUE_PHASE:
        old = before.current if move.step else before.previous
        trusted = (*(() if old is None else (old.certificate,)), current)
    not_after = now + wish.life.valid_for if due else end
    return AuthorityStep(wish, action, reasons, before, signer, not_after, trusted, move, bool(due))


def _plan_new_authority(wish: AuthorityWish, wishes: Wishes, state: State, now: datetime) -> AuthorityStep:
    if state.imported is not None and wish.name == DEFAULT:
        authority = state.imported.authority
        reasons = (f"it is taken over from {state.imported.path}",)
        end = compat.not_after(authority.certificate)
        due = _due(end, wish.life, now)
        if not due or now + wish.life.valid_for <= end:
            return AuthorityStep(wish, IMPORT, reasons, None, authority, end, (authority.certificate,))
        trusted: Certificates = (Pending(RENEWED),)
        return AuthorityStep(
            wish, IMPORT, (*reasons, due), None, authority, now + wish.life.valid_for, trusted, renew=True
        )
    reasons = (f"{state.path} holds no CA yet" if not state.authorities else f"there is no CA {wish.name} yet",)
    pending: Certificates = (Pending(f"it trusts the CA {wish.common_name!r} now"),)
    return AuthorityStep(wish, CREATE, reasons, None, None, now + wish.life.valid_for, pending)


def _too_old(start: datetime, wish: AuthorityWish, now: datetime) -> str:
    if wish.max_age is None or now - start - CLOCK_SKEW <= wish.max_age:
        return ""
    return f"it is older than {format_duration(wish.max_age)} (max_age)"


def _plan_certificate(
    wish: LeafWish,
    wishes: Wishes,
    steps: t.Mapping[str, AuthorityStep],
    state: State,
    issuers: Issuers,
    now: datetime,
    predict: bool,
) -> LeafStep:
    """Decide about the certificate of a leaf; its bundle comes later."""
    leaf = state.leaves.get((wish.kind, wish.name), Leaf())
    pinned = wish.kind == CLIENT and wishes.trust == PINNED
    authority = None if pinned else steps[wish.authority]
    end = now + wish.life.valid_for if authority is None else min(now + wish.life.valid_for, authority.not_after)
    if leaf.certificate is None:
        return LeafStep(wish, ISSUE, ("it has no certificate yet",), leaf, end)
    facts = facts_of(leaf.certificate)
    revoked = facts.fingerprint in state.register.revoked()
    reasons = [
        *(["its certificate was revoked"] if revoked else []),
        *_content_reasons(wish, facts),
        *_key_reasons(wish, leaf, facts),
        *_issuer_reasons(wish, leaf.certificate, facts, authority, issuers),
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
        superseded = _live(leaf.superseded, now)
        if pinned and is_pinned(leaf.certificate) and not revoked:
            superseded = _live((*superseded, leaf.certificate), now)
        return LeafStep(wish, ISSUE, tuple(reasons), leaf, end, superseded=superseded)
    if pinned and (leaf.group or DEFAULT) != wish.authority:
        moved = (f"its group changes from {leaf.group or DEFAULT} to {wish.authority}",)
        return LeafStep(wish, REFRESH, moved, leaf, facts.not_after, superseded=_live(leaf.superseded, now))
    return LeafStep(wish, KEEP, (), leaf, facts.not_after, superseded=_live(leaf.superseded, now))


def _live(certificates: t.Iterable[x509.Certificate], now: datetime) -> tuple[x509.Certificate, ...]:
    return tuple(one for one in certificates if compat.not_after(one) > now)


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
            yield "the host has a new key" if wish.kind == DAEMON else "the client has a new key"
    elif leaf.key is None:
        if wish.kind != DAEMON:
            yield "its key is missing"
    elif keys.spki(leaf.key) != certified:
        yield "it does not match its key"
    elif facts.key_type != wish.key_type:
        yield f"key type changes from {facts.key_type} to {wish.key_type}"


def _issuer_reasons(
    wish: LeafWish,
    certificate: x509.Certificate,
    facts: CertificateFacts,
    authority: AuthorityStep | None,
    issuers: Issuers,
) -> t.Iterator[str]:
    if authority is None:
        if not is_pinned(certificate):
            yield "a CA signed it, and clients are to be pinned"
        elif not compat.is_signed_by(certificate, certificate):
            yield "its signature is not its own"
        return
    signer = authority.signer
    if signer is not None and compat.is_signed_by(certificate, signer.certificate):
        if facts.not_after > authority.not_after:
            yield f"it outlives its CA, which ends on {utc_text(authority.not_after)}"
        return
    found = issuers.of(certificate)
    if wish.kind == CLIENT and is_pinned(certificate):
        yield "it is pinned, and clients are to be known by a CA"
    elif found is None:
        yield "it was issued by another CA"
    elif found[0] == wish.authority:
        yield "its CA is rolled over"
    else:
        yield f"its {'group' if wish.kind == CLIENT else 'CA'} changes from {found[0]} to {wish.authority}"


def _plan_trust(
    wishes: Wishes,
    state: State,
    steps: t.Mapping[str, AuthorityStep],
    drafts: t.Sequence[LeafStep],
    issuers: Issuers,
    now: datetime,
) -> Trust:
    pinned = _pinned(state, drafts, now) if wishes.trust == PINNED else {}
    groups = {*wishes.groups, *_groups_on_record(wishes, state)}
    if wishes.trust == BY_CA:
        groups = groups or {DEFAULT}
    else:
        groups |= set(pinned)
    for step in drafts:
        unknown = sorted((step.wish.admits or set()) - groups)
        if unknown:
            raise WishError(
                f"admits of the {step.wish.title} names {', '.join(unknown)}, and there is no such group of clients: "
                f"the groups are {', '.join(sorted(groups)) or 'none'}. A group begins with its first client."
            )
    signers = {wishes.authority.name}
    for (kind, _name), leaf in state.others.items():
        if kind == DAEMON and leaf.certificate is not None and compat.not_after(leaf.certificate) > now:
            found = issuers.of(leaf.certificate)
            if found is not None:
                signers.add(found[0])
    trusted = {name: step.trusted for name, step in steps.items()}
    trust = Trust(wishes.trust, frozenset(groups), frozenset(signers), trusted, pinned)
    for step in drafts:
        if step.wish.kind == DAEMON and not trust.of_daemon(step.wish.admits):
            raise WishError(
                f"The {step.wish.title} would admit nobody: trust is {PINNED}, and none of the clients that it admits "
                "has a certificate that is valid. List at least one client in clients."
            )
    return trust


def _pinned(state: State, drafts: t.Iterable[LeafStep], now: datetime) -> dict[str, Certificates]:
    """The certificates of all clients by group: those in force, and superseded ones that are still out there."""
    revoked = state.register.revoked()
    found: dict[str, tuple[str, Certificates]] = {}
    for (kind, name), leaf in state.others.items():
        if kind == CLIENT and leaf.certificate is not None and is_pinned(leaf.certificate):
            live = _live((*leaf.superseded, leaf.certificate), now)
            found[name] = (leaf.group or DEFAULT, tuple(one for one in live if compat.fingerprint(one) not in revoked))
    for step in drafts:
        if step.wish.kind == CLIENT:
            new = Pending(f"it trusts the new certificate of the client {step.wish.name!r}", step.wish.name)
            current = new if step.action == ISSUE else step.before.certificate
            found[step.wish.name] = (
                step.wish.authority,
                (*step.superseded, *(() if current is None else (current,))),
            )
    groups: dict[str, Certificates] = {}
    for name in sorted(found):
        group, certificates = found[name]
        groups[group] = (*groups.get(group, ()), *certificates)
    return {group: certificates for group, certificates in groups.items() if certificates}


def _plan_bundle(step: LeafStep, trust: Trust, now: datetime) -> LeafStep:
    """Decide about the ``ca.pem`` of a leaf."""
    wanted = trust.of_daemon(step.wish.admits) if step.wish.kind == DAEMON else trust.of_client()
    reasons = differences(step.before.bundle, wanted, now)
    if not reasons:
        return step
    if step.action == ISSUE:
        return replace(step, bundle=wanted)
    return replace(step, action=REFRESH, reasons=(*step.reasons, *reasons), bundle=wanted)


def _refuse_cut_off(
    wishes: Wishes,
    state: State,
    steps: t.Mapping[str, AuthorityStep],
    leaves: t.Iterable[LeafStep],
    trust: Trust,
    now: datetime,
) -> None:
    bundles = {
        step.wish.name: (step.before.bundle, step.bundle, step.wish.admits)
        for step in leaves
        if step.wish.kind == DAEMON and step.bundle is not None and step.before.bundle
    }
    kept: set[str] = set()
    if trust.mode == BY_CA:
        kept = {key_digest(one.certificate) for step in steps.values() for one in step.kept}
    guard.refuse_lost_clients(bundles, kept, _ended_keys(steps), state.register, trust.pinned_groups(), now)
    guard.refuse_unknown_daemons(state, wishes.authority.name, steps[wishes.authority.name].trusted, now)


def _ended_keys(steps: t.Mapping[str, AuthorityStep]) -> set[str]:
    """Digests of the keys of CAs whose rollover has ended, or ends in this run."""
    return {
        key_digest(one.certificate)
        for step in steps.values()
        for one in (step.before.all if step.before else ())
        if one not in step.kept
    }


def _left_behind(
    wishes: Wishes,
    state: State,
    steps: t.Mapping[str, AuthorityStep],
    leaves: t.Iterable[LeafStep],
    now: datetime,
) -> t.Iterator[str]:
    """Warn of daemons that this run does not list, and that go on as before where that matters."""
    revoked, ended = state.register.revoked(), _ended_keys(steps)
    clients: dict[str, tuple[set[str], str | None]] = {}  # fingerprints of a pinned one: before, and in force
    for step in leaves if wishes.trust == PINNED else ():
        if step.wish.kind == CLIENT and step.superseded:
            current = None if step.action == ISSUE else step.before.certificate
            in_force = None if current is None else compat.fingerprint(current)
            clients[step.wish.name] = ({compat.fingerprint(one) for one in step.superseded}, in_force)
    accepting: list[str] = []
    refusing: dict[str, list[str]] = {}
    for (kind, daemon), leaf in sorted(state.others.items()):
        if kind != DAEMON or leaf.certificate is None or compat.not_after(leaf.certificate) <= now:
            continue
        there = {compat.fingerprint(one): one for one in certificates_in(leaf.bundle)}
        if revoked & set(there) or (ended and ended & {key_digest(one) for one in there.values()}):
            accepting.append(daemon)
        for name, (earlier, in_force) in clients.items():
            if earlier & set(there) and in_force not in there:
                refusing.setdefault(name, []).append(daemon)
    if accepting:
        yield (
            f"These daemons are not listed in this run and go on accepting revoked clients or a retired CA: "
            f"{', '.join(accepting)}. Run with them too, and install the ca.pem that they get."
        )
    for name, daemons in refusing.items():
        yield (
            f"These daemons are not listed in this run and do not know the new certificate of the client {name}: "
            f"{', '.join(daemons)}. Run with them too, and install the ca.pem that they get, before it is handed out."
        )


def _due(end: datetime, life: Life, now: datetime) -> str:
    """Say why a certificate is inside its renewal window, or nothing."""
    left = end - now
    if left <= timedelta(0):
        return f"it expired {describe(-left)} ago"
    if left < life.renew_before:
        return f"it expires in {describe(left)} (renew_before {format_duration(life.renew_before)})"
    return ""


def _warnings(steps: t.Iterable[AuthorityStep], leaves: t.Sequence[LeafStep], now: datetime) -> tuple[str, ...]:
    found = []
    for authority in steps:
        if authority.signer is None:
            continue
        facts = facts_of(authority.signer.certificate)
        wish = authority.wish
        title = "The CA" if wish.name == DEFAULT else f"The CA {wish.name}"
        if facts.common_name != wish.common_name:
            found.append(
                f"{title} keeps its name {facts.common_name!r}: another name ({wish.common_name!r} is asked for) "
                "would make it another CA, and void every certificate it issued."
            )
        if facts.key_type != wish.key_type:
            found.append(
                f"{title} keeps its {facts.key_type} key: a key of another type ({wish.key_type} is asked for) would "
                "make it another CA, and void every certificate it issued. A rollover gives it one."
            )
    for authority in steps:
        shortened = [
            step.wish.title
            for step in leaves
            if step.wish.authority == authority.wish.name
            and step.not_after == authority.not_after < now + step.wish.life.valid_for
        ]
        if shortened:
            found.append(
                f"These certificates end with their CA on {utc_text(authority.not_after)}, earlier than valid_for "
                f"asks: {', '.join(shortened)}. Renew the CA earlier, with a longer ca.renew_before."
            )
    return tuple(found)
