# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run over a PKI directory: read, plan, carry out, report. What the module buildkit_pki does."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass
from datetime import datetime

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import facts, keys, profiles
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import StoreError, UnreadableError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.plan import (
    ISSUE,
    KEEP,
    REFRESH,
    AuthorityStep,
    LeafStep,
    Plan,
    State,
    make_plan,
    trust_bundle,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import AUTHORITY as AUTHORITY_KIND
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.store import (
    AUTHORITY,
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    Change,
    Store,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import (
    CLIENT,
    DAEMON,
    Wishes,
    read_wishes,
)

if t.TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.keys import PrivateKey
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import Register
    from cryptography import x509

Found = t.List[t.Tuple[str, str, "x509.Certificate"]]
"""Certificates with kind and name, as the register wants them."""


@dataclass(frozen=True)
class _Reading:
    """What one look at the directory gave."""

    state: State
    register: Register
    found: Found
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Outcome:
    """The certificates in force after the run; in check mode those that exist and stay."""

    authority: x509.Certificate | None
    leaves: t.Mapping[tuple[str, str], x509.Certificate]


def run(options: t.Mapping[str, t.Any], *, now: datetime, predict: bool) -> dict[str, t.Any]:
    """Bring a PKI directory to what ``options`` of buildkit_pki ask for and return the module's result.

    :param predict: only say what would happen; the directory stays as it is to the last byte.
    :raises PkiError: before anything was changed.
    :raises LockTimeoutError: when another run holds the directory.
    :raises OSError: when the disk refuses; whatever was replaced until then is whole.
    """
    wishes = read_wishes(options)
    store = Store(os.path.abspath(options["path"]))
    passphrase = options["ca"]["passphrase"]
    timeout = options["lock_timeout"]
    store.check()
    if predict or not store.exists():
        # On a directory that is not there yet, a refusal must not leave one behind.
        with store.locked(timeout=timeout, read_only=True):
            reading = _read(store, wishes, passphrase)
            plan = make_plan(wishes, reading.state, now=now, predict=predict)
        if predict:
            return _report(plan, _predicted(plan), store, reading.warnings)
    with store.locked(timeout=timeout, read_only=False):
        store.recover()
        reading = _read(store, wishes, passphrase)
        plan = make_plan(wishes, reading.state, now=now, predict=False)
        outcome = _carry_out(plan, store, reading, passphrase, now)
    return _report(plan, outcome, store, reading.warnings)


def _read(store: Store, wishes: Wishes, passphrase: str | None) -> _Reading:
    store.check_keys()
    authority = store.read_authority(wishes.authority.name, passphrase)
    register = store.read_register()
    present = {kind: store.names(kind) for kind in (DAEMON, CLIENT)}
    if authority is None and (register.entries or any(present.values())):
        raise StoreError(
            f"{store.path} has certificates on record and no CA: {store.directory(AUTHORITY, wishes.authority.name)} "
            "is lost. Restore it from a backup; no new CA is made in its place, because every builder and client "
            "would have to be given it. To start over on purpose, use another directory."
        )
    found: Found = []
    if authority is not None:
        found.append((AUTHORITY_KIND, wishes.authority.name, authority.certificate))
    leaves = {}
    for wish in wishes.leaves:
        leaf = leaves[wish.kind, wish.name] = store.read_leaf(wish.kind, wish.name)
        if leaf.certificate is not None:
            found.append((wish.kind, wish.name, leaf.certificate))
    other_daemons, warnings = {}, []
    for kind, names in present.items():
        for name in names:
            if (kind, name) in leaves:
                continue
            try:
                certificate = store.read_certificate(kind, name)
            except UnreadableError as exc:
                warnings.append(f"The {kind} {name} is not part of this run and was passed over: {exc}")
                continue
            if certificate is None:
                continue
            found.append((kind, name, certificate))
            if kind == DAEMON:
                other_daemons[name] = facts.facts_of(certificate)
    state = State(store.path, authority, leaves, other_daemons, register.authorities())
    return _Reading(state, register, found, tuple(warnings))


def _carry_out(plan: Plan, store: Store, reading: _Reading, passphrase: str | None, now: datetime) -> _Outcome:
    register = reading.register.with_certificates(reading.found)
    certificate, key = _carry_out_authority(plan.authority, store, passphrase, now)
    bundle = trust_bundle(certificate)
    issued: Found = [(AUTHORITY_KIND, plan.authority.wish.name, certificate)]
    leaves: dict[tuple[str, str], x509.Certificate] = {}
    changes = []
    for step in plan.leaves:
        wish = step.wish
        if step.action == ISSUE:
            leaf, files = _issue(step, certificate, key, now)
            changes.append(Change(wish.kind, wish.name, {CA_FILE: bundle, **files}, whole=True))
            issued.append((wish.kind, wish.name, leaf))
        else:
            leaf = t.cast("x509.Certificate", step.before.certificate)
            if step.action == REFRESH:
                changes.append(Change(wish.kind, wish.name, {CA_FILE: bundle}, whole=False))
        leaves[wish.kind, wish.name] = leaf
    store.write(changes)
    complete = register.with_certificates(issued)
    if complete is not reading.register:
        store.write_register(complete)
    return _Outcome(certificate, leaves)


def _carry_out_authority(
    step: AuthorityStep, store: Store, passphrase: str | None, now: datetime
) -> tuple[x509.Certificate, PrivateKey]:
    name = step.wish.name
    if step.before is None:
        key = keys.generate(step.wish.key_type)
        subject = profiles.subject(step.wish.common_name)
        certificate = profiles.build_ca(subject, key, now=now, not_after=step.not_after)
        files = {CA_FILE: trust_bundle(certificate), KEY_FILE: keys.to_pem(key, passphrase=passphrase)}
        store.write_ignore_file()
        store.write([Change(AUTHORITY, name, files, whole=True)])
        return certificate, key
    key = step.before.key
    if step.action == KEEP:
        return step.before.certificate, key
    subject = step.before.certificate.subject
    certificate = profiles.build_ca(subject, key, now=now, not_after=step.not_after)
    store.write([Change(AUTHORITY, name, {CA_FILE: trust_bundle(certificate)}, whole=False)])
    return certificate, key


def _issue(
    step: LeafStep, issuer: x509.Certificate, issuer_key: PrivateKey, now: datetime
) -> tuple[x509.Certificate, dict[str, bytes]]:
    wish = step.wish
    files = {}
    if wish.request is not None:
        public_key = wish.request.public_key
    else:
        # A fresh key for every certificate: one that leaked is of use until its certificate ends, not longer.
        key = keys.generate(wish.key_type)
        public_key = key.public_key()
        files[KEY_FILE] = keys.to_pem(key)
    certificate = profiles.build_leaf(
        wish.name,
        public_key,
        usage=wish.usage,
        sans=wish.sans,
        issuer=issuer,
        issuer_key=issuer_key,
        now=now,
        not_after=step.not_after,
    )
    files[CERTIFICATE_FILE] = facts.to_pem(certificate).encode("ascii")
    return certificate, files


def _predicted(plan: Plan) -> _Outcome:
    before = plan.authority.before
    return _Outcome(
        before.certificate if before is not None and plan.authority.action == KEEP else None,
        {
            (step.wish.kind, step.wish.name): step.before.certificate
            for step in plan.leaves
            if step.action != ISSUE and step.before.certificate is not None
        },
    )


def _report(plan: Plan, outcome: _Outcome, store: Store, warnings: tuple[str, ...]) -> dict[str, t.Any]:
    authority = plan.authority
    items: dict[str, list[dict[str, t.Any]]] = {DAEMON: [], CLIENT: []}
    before: dict[str, t.Any] = {}
    after: dict[str, t.Any] = {}
    directory = store.directory(AUTHORITY, authority.wish.name)
    old = authority.before.certificate if authority.before else None
    _compare(authority, directory, old, outcome.authority, store, before, after)
    for step in plan.leaves:
        wish = step.wish
        directory = store.directory(wish.kind, wish.name)
        certificate = outcome.leaves.get((wish.kind, wish.name))
        items[wish.kind].append(_item(step, directory, certificate))
        _compare(step, directory, step.before.certificate, certificate, store, before, after)
    return {
        "changed": plan.changed,
        "authorities": [_item(authority, store.directory(AUTHORITY, authority.wish.name), outcome.authority)],
        "daemons": items[DAEMON],
        "clients": items[CLIENT],
        "trust_bundle": None if outcome.authority is None else trust_bundle(outcome.authority).decode("ascii"),
        "diff": {"before": before, "after": after},
        "warnings": [*warnings, *plan.warnings],
    }


def _item(step: AuthorityStep | LeafStep, directory: str, certificate: x509.Certificate | None) -> dict[str, t.Any]:
    return {
        "name": step.wish.name,
        "changed": step.action != KEEP,
        "reasons": list(step.reasons),
        "serial": None if certificate is None else facts.serial_hex(certificate),
        "not_after": facts.utc_text(step.not_after),
        "path": directory,
        "certificate": None if certificate is None else facts.to_pem(certificate),
    }


def _compare(
    step: AuthorityStep | LeafStep,
    directory: str,
    old: x509.Certificate | None,
    new: x509.Certificate | None,
    store: Store,
    before: dict[str, t.Any],
    after: dict[str, t.Any],
) -> None:
    """Enter what changes into the two sides of the diff: facts, never PEM."""
    if step.action == KEEP:
        return
    where = os.path.relpath(directory, store.path)
    before[where] = {} if old is None else _facts_for_diff(facts.facts_of(old))
    if new is not None:
        after[where] = _facts_for_diff(facts.facts_of(new))
    else:
        after[where] = {"not_after": facts.utc_text(step.not_after), "serial": "chosen when it is issued"}
        if isinstance(step, LeafStep):
            after[where]["sans"] = sorted(step.wish.sans)
    if step.action == REFRESH:
        before[where]["ca_file"], after[where]["ca_file"] = "outdated", "current"


def _facts_for_diff(found: facts.CertificateFacts) -> dict[str, t.Any]:
    return {
        "fingerprint": found.fingerprint,
        "key_type": found.key_type,
        "not_after": facts.utc_text(found.not_after),
        "sans": found.sorted_sans,
        "serial": found.serial,
        "subject": found.common_name,
    }
