# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of a run, as the module buildkit_pki returns it."""

from __future__ import annotations

import os
import typing as t
from datetime import datetime

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.plan import (
    KEEP,
    REFRESH,
    AuthorityStep,
    LeafStep,
    Plan,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import AUTHORITY as AUTHORITY_KIND
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.store import AUTHORITY, Store
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import CLIENT, DAEMON

if t.TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.execution import Outcome
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import Register
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.state import Authority, State
    from cryptography import x509


def report(plan: Plan, outcome: Outcome, state: State, warnings: tuple[str, ...], now: datetime) -> dict[str, t.Any]:
    """Tell what was done, or what would be done, by what is known of the outcome."""
    store = Store(state.path)
    before: dict[str, t.Any] = {}
    after: dict[str, t.Any] = {}
    authorities = []
    for step in plan.authorities:
        directory = store.directory(AUTHORITY, step.wish.name)
        old = step.before.current.certificate if step.before else None
        found = outcome.authorities.get(step.wish.name)
        new = None if found is None else found.current.certificate
        authorities.append(
            {
                **_item(step, directory, new),
                "phase": step.move.phase,
                "next": _summary(found.next if found else None),
                "previous": _summary(found.previous if found else None),
                "not_given": list(step.move.not_given),
            }
        )
        _compare(step, directory, old, new, store, before, after)
    items: dict[str, list[dict[str, t.Any]]] = {DAEMON: [], CLIENT: []}
    for leaf in plan.leaves:
        key = (leaf.wish.kind, leaf.wish.name)
        directory = store.directory(*key)
        certificate = outcome.leaves.get(key)
        bundle = outcome.bundles.get(key)
        items[leaf.wish.kind].append(
            {**_item(leaf, directory, certificate), "ca": None if bundle is None else bundle.decode("ascii")}
        )
        _compare(leaf, directory, leaf.before.certificate, certificate, store, before, after)
    for entry in plan.revocation.marked:
        where = f"revoked {entry['kind']} {entry['name']} {entry['serial']}"
        before[where], after[where] = {"revoked": None}, {"revoked": facts.utc_text(now)}
    known_by = outcome.daemons_known_by
    return {
        "changed": plan.changed,
        "authorities": authorities,
        "daemons": items[DAEMON],
        "clients": items[CLIENT],
        "trust_bundle": None if known_by is None else known_by.decode("ascii"),
        "expires": _expires(plan, outcome, state, now),
        "revoked": _revoked(outcome.register),
        "diff": {"before": before, "after": after},
        "warnings": [*warnings, *plan.warnings],
    }


def _expires(plan: Plan, outcome: Outcome, state: State, now: datetime) -> list[dict[str, t.Any]]:
    """When each certificate in force ends, the soonest first; in check mode those that are there already."""
    found: list[tuple[str, str, str | None, x509.Certificate]] = []
    for name, authority in outcome.authorities.items():
        for one in (authority.previous, authority.current, authority.next):
            if one is not None:
                found.append((AUTHORITY_KIND, name, name, one.certificate))
    gone = {(CLIENT, name) for name, _directory in plan.revocation.moves}
    leaves = {key: leaf.certificate for key, leaf in state.all_leaves().items() if key not in gone}
    groups = {entry["fingerprint"]: entry.get("group") for entry in outcome.register.entries}
    groups.update(plan.trust.pinned_groups())
    revoked = outcome.register.revoked()
    for (kind, name), certificate in {**leaves, **outcome.leaves}.items():
        if certificate is not None:
            fingerprint = compat.fingerprint(certificate)
            if fingerprint not in revoked:
                found.append((kind, name, groups.get(fingerprint), certificate))
    ordered = sorted(found, key=lambda one: (compat.not_after(one[3]), one[0], one[1]))
    return [
        {
            "kind": kind,
            "name": name,
            "group": group,
            "serial": facts.serial_hex(certificate),
            "not_after": facts.utc_text(compat.not_after(certificate)),
            "days_left": (compat.not_after(certificate) - now).days,
        }
        for kind, name, group, certificate in ordered
        if compat.not_after(certificate) > now
    ]


def _revoked(register: Register) -> list[dict[str, t.Any]]:
    return [
        {key: entry.get(key) for key in ("name", "serial", "revoked", "not_after")}
        for entry in register.entries
        if entry.get("revoked")
    ]


def _summary(authority: Authority | None) -> dict[str, str] | None:
    if authority is None:
        return None
    found = facts.facts_of(authority.certificate)
    return {"serial": found.serial, "fingerprint": found.fingerprint, "not_after": facts.utc_text(found.not_after)}


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
    if isinstance(step, AuthorityStep) and step.before is not None and step.move.phase != step.before.phase:
        before[where]["phase"], after[where]["phase"] = step.before.phase, step.move.phase


def _facts_for_diff(found: facts.CertificateFacts) -> dict[str, t.Any]:
    return {
        "fingerprint": found.fingerprint,
        "key_type": found.key_type,
        "not_after": facts.utc_text(found.not_after),
        "sans": found.sorted_sans,
        "serial": found.serial,
        "subject": found.common_name,
    }
