# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run over a PKI directory: read, plan, carry out, report. What the module buildkit_pki does."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass
from datetime import datetime

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts, profiles
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import StoreError, UnreadableError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.execution import carry_out, foretell
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.plan import authority_names, make_plan
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import AUTHORITY as AUTHORITY_KIND
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import Found, Register, key_digest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.report import report
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.state import (
    AuthorityState,
    Imported,
    Issuers,
    Leaf,
    State,
    is_pinned,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.store import AUTHORITY, Store
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.takeover import read_import
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import (
    BY_CA,
    CLIENT,
    DAEMON,
    DEFAULT,
    AuthorityWish,
    Wishes,
    read_wishes,
)

if t.TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.plan import Plan
    from cryptography import x509


@dataclass(frozen=True)
class _Reading:
    """What one look at the directory gave. ``register`` is the one on disk, that of ``state`` is complete."""

    state: State
    register: Register
    warnings: tuple[str, ...]


def run(options: t.Mapping[str, t.Any], *, now: datetime, predict: bool) -> dict[str, t.Any]:
    """Bring a PKI directory to what ``options`` of buildkit_pki ask for and return the module's result.

    :param predict: only say what would happen; the directory stays as it is to the last byte.
    :raises PkiError: before anything was changed.
    :raises LockTimeoutError: when another run holds the directory.
    :raises OSError: when the disk refuses; whatever was replaced until then is whole.
    """
    wishes = read_wishes(options)
    store = Store(os.path.abspath(options["path"]))
    timeout = options["lock_timeout"]
    store.check()
    tidy = store.is_tidy()
    if predict or not store.exists():
        # On a directory that is not there yet, a refusal must not leave one behind.
        with store.locked(timeout=timeout, read_only=True):
            reading = _read(store, wishes, options["ca"], now)
            plan = make_plan(wishes, reading.state, now=now, predict=predict)
        if predict:
            result = report(plan, foretell(plan), reading.state, reading.warnings, now)
            return {**result, "due": not tidy or _writes(plan, reading)}
    with store.locked(timeout=timeout, read_only=False):
        store.recover()
        reading = _read(store, wishes, options["ca"], now)
        plan = make_plan(wishes, reading.state, now=now, predict=False)
        if not reading.state.authorities:
            store.write_ignore_file()
        outcome = carry_out(plan, store, reading.register, options["ca"]["passphrase"], now)
    return {**report(plan, outcome, reading.state, reading.warnings, now), "due": not tidy or _writes(plan, reading)}


def _writes(plan: Plan, reading: _Reading) -> bool:
    """Whether a plan writes anything, be it only what nobody is told of as a change."""
    revocation = plan.revocation
    return plan.changed or revocation.tidies or not revocation.register.says_the_same_as(reading.register)


def _read(store: Store, wishes: Wishes, ca: t.Mapping[str, t.Any], now: datetime) -> _Reading:
    store.check_keys()
    warnings: list[str] = []
    authorities: dict[str, AuthorityState] = {}
    for name in store.names(AUTHORITY):
        found, told = store.read_authority(name, ca["passphrase"], ca["previous_passphrase"])
        warnings += told
        if found is not None:
            authorities[name] = found
    register = store.read_register()
    imported = read_import(ca, authorities.get(DEFAULT), now)
    leaves = {(wish.kind, wish.name): store.read_leaf(wish.kind, wish.name) for wish in wishes.leaves}
    others: dict[tuple[str, str], Leaf] = {}
    for kind in (DAEMON, CLIENT):
        for name in store.names(kind):
            if (kind, name) in leaves:
                continue
            try:
                others[kind, name] = store.read_public(kind, name)
            except UnreadableError as exc:
                warnings.append(f"The {kind} {name} is not part of this run and was passed over: {exc}")
    complete = register.with_certificates(_found(store, authorities, {**others, **leaves}, now))
    state = State(store.path, authorities, leaves, others, complete, imported)
    _refuse_lost_authorities(store, wishes, state, imported, now)
    return _Reading(state, register, tuple(warnings))


def _found(
    store: Store, authorities: t.Mapping[str, AuthorityState], leaves: t.Mapping[tuple[str, str], Leaf], now: datetime
) -> t.Iterator[Found]:
    """All certificates on disk, as the register wants them."""
    for name, authority in authorities.items():
        for one in authority.all:
            yield Found(AUTHORITY_KIND, name, one.certificate, name)
    issuers = Issuers(authorities)

    def leaf(kind: str, name: str, certificate: x509.Certificate, group: str, revoked: str | None) -> Found:
        issuer = issuers.of(certificate)
        if issuer is not None:
            return Found(kind, name, certificate, issuer[0], compat.fingerprint(issuer[1].certificate), revoked)
        return Found(kind, name, certificate, group, None, revoked)

    for (kind, name), files in leaves.items():
        for certificate in (*files.superseded, files.certificate):
            if certificate is not None:
                yield leaf(kind, name, certificate, files.group or DEFAULT, None)
    for _directory, certificate in store.read_revoked():
        name = facts.common_name(certificate.subject) or ""
        yield leaf(CLIENT, name, certificate, DEFAULT, facts.utc_text(now))


def _refuse_lost_authorities(
    store: Store, wishes: Wishes, state: State, imported: Imported | None, now: datetime
) -> None:
    """A CA that is on record and not on disk is lost, and never made anew."""
    on_record = {entry["name"] for entry in state.register.of_kind(AUTHORITY_KIND)}
    used = bool(state.register.entries or state.others or any(leaf.certificate for leaf in state.leaves.values()))
    if imported is not None:
        certificate = imported.authority.certificate
        known = state.register.authorities_with_key(key_digest(certificate))
        if not used or known or compat.fingerprint(certificate) in state.register.fingerprints(AUTHORITY_KIND):
            on_record.discard(DEFAULT)
            used = False
    needed = set(authority_names(wishes, state))
    if wishes.trust == BY_CA and not wishes.accept_missing:
        live = state.register.live(CLIENT, now)
        needed |= {entry["group"] for entry in live if entry.get("issuer") and entry.get("group") in on_record}
    for name in sorted(needed - set(state.authorities)):
        lost = used and (not state.authorities or _is_signed_by_lost(wishes.named(name), state))
        if lost or name in on_record:
            raise StoreError(
                f"{store.path} has certificates on record and no CA: {store.directory(AUTHORITY, name)} "
                "is lost. Restore it from a backup; no new CA is made in its place, because every builder and client "
                "would have to be given it. To start over on purpose, use another directory; to go on without the CA "
                "of a group, list none of its clients and set accept_missing, which cuts them off."
            )


def _is_signed_by_lost(wish: AuthorityWish, state: State) -> bool:
    """Whether there are certificates of a CA of that name, which is not there."""
    issuers = Issuers(state.authorities)
    subject = profiles.subject(wish.common_name)
    return any(
        leaf.certificate is not None
        and leaf.certificate.issuer == subject
        and not is_pinned(leaf.certificate)
        and issuers.of(leaf.certificate) is None
        for leaf in state.all_leaves().values()
    )
