# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a plan out: keys and certificates are made, and written in an order that any interruption leaves whole.

First the register knows what is there and what is revoked. Then the authorities change, so that no leaf is ever on
disk without its CA; then all leaves; then what is revoked is put away, and the register learns what was issued.
"""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, replace
from datetime import datetime

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts, keys, profiles
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.plan import (
    ISSUE,
    KEEP,
    RENEW,
    AuthorityStep,
    LeafStep,
    Plan,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import AUTHORITY as AUTHORITY_KIND
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import Found, Register
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.rollover import dump_record
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.state import (
    NO_ROLLOVER,
    Authority,
    AuthorityState,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.store import (
    AUTHORITY,
    CA_FILE,
    CERTIFICATE_FILE,
    GROUP_FILE,
    KEY_FILE,
    NEXT,
    PREVIOUS,
    RETIRED,
    REVOKED,
    ROLLOVER_FILE,
    Change,
    Store,
    superseded_file,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.trust import Pending, Trust, is_made, to_pem
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import (
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
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import LeafWish
    from cryptography import x509

FINGERPRINT_DIGITS = 16
"""How much of a retired CA's fingerprint its directory is called."""


@dataclass(frozen=True)
class Outcome:
    """What is in force after the run; in check mode what exists and stays."""

    authorities: t.Mapping[str, AuthorityState]
    leaves: t.Mapping[tuple[str, str], x509.Certificate]
    bundles: t.Mapping[tuple[str, str], bytes]
    register: Register
    daemons_known_by: bytes | None  # what clients verify daemons by


def carry_out(plan: Plan, store: Store, register: Register, passphrase: str | None, now: datetime) -> Outcome:
    """Do all steps of a plan. ``register`` is the one on disk.

    :raises OSError: when the disk refuses; whatever was replaced until then is whole.
    """
    known = plan.revocation.register
    if plan.revocation.marked:
        store.write_register(known)
        register = known
    authorities = {step.wish.name: _after(step, now) for step in plan.authorities}
    changes = [_authority_change(step, authorities[step.wish.name], passphrase) for step in plan.authorities]
    store.write([change for change in changes if change is not None])
    issued = [
        Found(AUTHORITY_KIND, step.wish.name, one.certificate, step.wish.name)
        for step in plan.authorities
        for one in (*authorities[step.wish.name].all, *(() if step.signer is None else (step.signer,)))
    ]
    leaves: dict[tuple[str, str], x509.Certificate] = {}
    files: dict[tuple[str, str], dict[str, bytes]] = {}
    for step in plan.leaves:
        wish, key = step.wish, (step.wish.kind, step.wish.name)
        if step.action != ISSUE:
            leaves[key] = t.cast("x509.Certificate", step.before.certificate)
            continue
        signer = None if plan.signer_of(wish) is None else authorities[wish.authority].current
        leaves[key], files[key] = _issue(step, signer, now)
        issuer = None if signer is None else compat.fingerprint(signer.certificate)
        issued.append(Found(wish.kind, wish.name, leaves[key], wish.authority, issuer))
    trust = _made(plan, authorities, leaves)
    leaf_changes, bundles = [], {}
    for step in plan.leaves:
        wish, key = step.wish, (step.wish.kind, step.wish.name)
        bundle = step.before.bundle or b""
        if step.bundle is not None:
            bundle = to_pem(_wanted(wish, trust))
        bundles[key] = bundle
        if step.action != KEEP:
            leaf_changes.append(_leaf_change(step, bundle, files.get(key), plan.signer_of(wish) is None))
    store.write([*_saved(plan), *leaf_changes])
    for client, name in plan.revocation.moves:
        store.move_to_revoked(client, name)
    for client, certificate in plan.revocation.dropped:
        store.remove_superseded(client, certificate)
    complete = known.with_certificates(issued)
    if not complete.says_the_same_as(register):
        store.write_register(complete)
    return Outcome(authorities, leaves, bundles, complete, to_pem(trust.of_client()))


def foretell(plan: Plan) -> Outcome:
    """What is known of the outcome before anything is done."""
    from_plan = {}
    for step in plan.authorities:
        if step.signer is not None and not step.renew:
            known = AuthorityState(step.signer) if step.before is None else _moved(step, step.before)
            from_plan[step.wish.name] = known
    leaves = {
        (leaf.wish.kind, leaf.wish.name): leaf.before.certificate
        for leaf in plan.leaves
        if leaf.action != ISSUE and leaf.before.certificate is not None
    }
    bundles = {}
    for leaf in plan.leaves:
        if leaf.bundle is None:
            bundles[leaf.wish.kind, leaf.wish.name] = leaf.before.bundle or b""
        elif is_made(leaf.bundle):
            bundles[leaf.wish.kind, leaf.wish.name] = to_pem(leaf.bundle)
    of_client = plan.trust.of_client()
    known_by = to_pem(of_client) if is_made(of_client) else None
    return Outcome(from_plan, leaves, bundles, plan.revocation.register, known_by)


def _after(step: AuthorityStep, now: datetime) -> AuthorityState:
    """An authority with all that this run makes for it."""
    wish = step.wish
    if step.signer is None:
        return AuthorityState(_new_ca(step, now, step.not_after))
    state = AuthorityState(step.signer) if step.before is None else _moved(step, step.before)
    if step.renew:
        old = state.current
        certificate = profiles.build_ca(
            old.certificate.subject, old.key, now=now, not_after=step.not_after, renewed=old.certificate
        )
        state = replace(state, current=replace(old, certificate=certificate))
    if step.move.step == DISTRIBUTE:
        state = replace(state, next=_new_ca(step, now, now + wish.life.valid_for))
    return state


def _moved(step: AuthorityStep, before: AuthorityState) -> AuthorityState:
    """An authority after a move that needs no new CA."""
    state = replace(before, record=step.move.record)
    if step.move.step == ISSUE_PHASE and before.next is not None:
        return replace(state, current=before.next, next=None, previous=before.current)
    if step.move.step == RETIRE and before.previous is not None:
        name = compat.fingerprint(before.previous.certificate)[:FINGERPRINT_DIGITS]
        return replace(state, previous=None, retired={**before.retired, name: before.previous})
    return state


def _new_ca(step: AuthorityStep, now: datetime, not_after: datetime) -> Authority:
    key = keys.generate(step.wish.key_type)
    subject = profiles.subject(step.wish.common_name)
    return Authority(profiles.build_ca(subject, key, now=now, not_after=not_after), key)


def _authority_change(step: AuthorityStep, after: AuthorityState, passphrase: str | None) -> Change | None:
    name = step.wish.name
    record = {ROLLOVER_FILE: dump_record(after.record, after.phase)}
    if step.action == KEEP:
        if step.before is None or after.record == step.before.record:
            return None
        return Change(AUTHORITY, name, record, whole=False)
    if step.action == RENEW and not step.reasons[1:]:
        changed = record if step.before is not None and after.record != step.before.record else {}
        return Change(AUTHORITY, name, {CA_FILE: to_pem((after.current.certificate,)), **changed}, whole=False)
    files = _ca_files("", after.current, passphrase)
    for where, one in ((NEXT, after.next), (PREVIOUS, after.previous)):
        if one is not None:
            files.update(_ca_files(where, one, passphrase))
    for where, one in after.retired.items():
        if one.encryption or step.before is None or where not in step.before.retired:
            files.update(_ca_files(os.path.join(RETIRED, where), one, passphrase))
    if after.phase != NO_ROLLOVER:
        files.update(record)
    return Change(AUTHORITY, name, files, whole=True)


def _ca_files(where: str, authority: Authority, passphrase: str | None) -> dict[str, bytes]:
    return {
        os.path.join(where, CA_FILE): to_pem((authority.certificate,)),
        os.path.join(where, KEY_FILE): keys.to_pem(authority.key, passphrase=passphrase),
    }


def _issue(step: LeafStep, signer: Authority | None, now: datetime) -> tuple[x509.Certificate, dict[str, bytes]]:
    """Make the certificate of a leaf, and its key where that is made here."""
    wish = step.wish
    files = {}
    if wish.request is not None:
        key, public_key = None, wish.request.public_key
    else:
        # A fresh key for every certificate: one that leaked is of use until its certificate ends, not longer.
        key = keys.generate(wish.key_type)
        public_key = key.public_key()
        files[KEY_FILE] = keys.to_pem(key)
    issuer_key = key if signer is None else signer.key
    certificate = profiles.build_leaf(
        wish.name,
        public_key,
        usage=wish.usage,
        sans=wish.sans,
        issuer=None if signer is None else signer.certificate,
        issuer_key=t.cast("keys.PrivateKey", issuer_key),
        now=now,
        not_after=step.not_after,
    )
    files[CERTIFICATE_FILE] = facts.to_pem(certificate).encode("ascii")
    return certificate, files


def _made(
    plan: Plan, authorities: t.Mapping[str, AuthorityState], leaves: t.Mapping[tuple[str, str], x509.Certificate]
) -> Trust:
    """Who trusts whom, with certificates in the place of all that was to be made."""
    trusted: dict[str, Certificates] = {}
    for name, state in authorities.items():
        ordered = (state.previous, state.current, state.next)
        trusted[name] = tuple(one.certificate for one in ordered if one is not None)
    pinned: dict[str, Certificates] = {}
    if plan.trust.mode == PINNED:
        for group, certificates in plan.trust.pinned.items():
            pinned[group] = tuple(
                leaves[CLIENT, one.client] if isinstance(one, Pending) else one for one in certificates
            )
    return replace(plan.trust, authorities=trusted, pinned=pinned)


def _wanted(wish: LeafWish, trust: Trust) -> Certificates:
    return trust.of_daemon(wish.admits) if wish.kind == DAEMON else trust.of_client()


def _leaf_change(step: LeafStep, bundle: bytes, new: t.Mapping[str, bytes] | None, pinned: bool) -> Change:
    files = {}
    if step.bundle is not None:
        files[CA_FILE] = bundle
    if pinned and (step.wish.authority != DEFAULT or step.before.group is not None):
        files[GROUP_FILE] = f"{step.wish.authority}\n".encode()
    if new is None:
        return Change(step.wish.kind, step.wish.name, files, whole=False)
    files[CA_FILE] = bundle
    for certificate in step.superseded:
        files[superseded_file(certificate)] = facts.to_pem(certificate).encode("ascii")
    return Change(step.wish.kind, step.wish.name, {**files, **new}, whole=True)


def _saved(plan: Plan) -> list[Change]:
    return [
        Change(REVOKED, name, {CERTIFICATE_FILE: facts.to_pem(certificate).encode("ascii")}, whole=True)
        for name, certificate in plan.revocation.saved
    ]
