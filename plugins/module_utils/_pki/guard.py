# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuses to cut off clients that are in use, where nobody said that this is meant. Pure.

What is meant: revoking a certificate, leaving a group out of ``admits``, and the end of a rollover, which has checks
of its own. What is not: clients that were known by a CA and are to be pinned from now on (or the reverse), whose new
certificates are not handed out yet; and a new CA for daemons that clients do not know yet.
"""

from __future__ import annotations

import typing as t
from datetime import datetime

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import CutOffError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import (
    AUTHORITY,
    Entry,
    Register,
    key_digest,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.state import Issuers, Leaf, State
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.trust import Pending, certificates_in
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import CLIENT, DAEMON, DEFAULT

if t.TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.trust import Certificates
    from cryptography import x509

_REMEDY = (
    "If they shall go, revoke them. If they get new files by this, hand those out at a time when that does no harm, "
    "and say so with accept_missing."
)


class Known:
    """What a ``ca.pem`` accepts, in terms of the register."""

    def __init__(self, certificates: t.Iterable[x509.Certificate], more_keys: t.Iterable[str] = ()) -> None:
        self.fingerprints, self.keys = set(), set(more_keys)
        for one in certificates:
            self.fingerprints.add(compat.fingerprint(one))
            if facts.facts_of(one).is_ca:
                self.keys.add(key_digest(one))

    def accepts(self, entry: Entry, key_of: t.Mapping[str, str]) -> bool:
        """Whether the client's certificate that is on record would be accepted."""
        issuer = entry.get("issuer")
        if issuer is None:
            return entry["fingerprint"] in self.fingerprints
        return key_of.get(issuer) in self.keys


def refuse_lost_clients(
    bundles: t.Mapping[str, tuple[bytes, Certificates, t.Optional[t.FrozenSet[str]]]],
    kept_keys: t.AbstractSet[str],
    ended_keys: t.AbstractSet[str],
    register: Register,
    groups_now: t.Mapping[str, str],
    now: datetime,
) -> None:
    """Refuse new contents of daemons' ``ca.pem`` that would no longer accept a live client.

    :param bundles: by daemon: what its ca.pem holds, what it shall hold, and the groups that it admits (None for all).
    :param kept_keys: digests of the keys of all CAs that stay trusted, whichever certificates they get.
    :param ended_keys: those of CAs whose rollover has ended.
    :param groups_now: by fingerprint: the groups of pinned certificates, which change without a new certificate.
    :raises CutOffError: naming the clients.
    """
    key_of = {entry["fingerprint"]: str(entry.get("key")) for entry in register.of_kind(AUTHORITY)}
    live = [
        entry
        for entry in register.live(CLIENT, now)
        if "issuer" in entry and key_of.get(entry["issuer"]) not in ended_keys
    ]
    lost: dict[str, set[str]] = {}
    seen = set()
    for daemon, bundle in bundles.items():
        if bundle in seen:
            continue
        seen.add(bundle)
        stored, wanted, groups = bundle
        before = Known(certificates_in(stored))
        made = [one for one in wanted if not isinstance(one, Pending)]
        renewed = kept_keys & before.keys if len(made) < len(wanted) else ()
        after = Known(made, renewed)
        for entry in live:
            group = groups_now.get(entry["fingerprint"], entry.get("group"))
            admitted = groups is None or group in groups
            if admitted and before.accepts(entry, key_of) and not after.accepts(entry, key_of):
                lost.setdefault(entry["name"], set()).add(daemon)
    if lost:
        daemons = sorted(set().union(*lost.values()))
        raise CutOffError(
            f"This would cut off clients that hold valid certificates: {', '.join(sorted(lost))} (on "
            f"{', '.join(daemons[:3])}{' and others' if len(daemons) > 3 else ''}). The daemons would no longer accept "
            f"what these clients have. {_REMEDY}"
        )


def refuse_unknown_daemons(state: State, wanted: str, certificates: Certificates, now: datetime) -> None:
    """Refuse another CA for daemons while there are clients whose ``ca.pem`` on disk does not have it.

    :param wanted: the name of the authority that signs daemons from now on.
    :param certificates: what it will be trusted by.
    :raises CutOffError: naming the clients.
    """
    issuers = Issuers(state.authorities)
    moved = []
    for (kind, _name), leaf in state.leaves.items():
        if kind == DAEMON and leaf.certificate is not None and compat.not_after(leaf.certificate) > now:
            found = issuers.of(leaf.certificate)
            if found is not None and found[0] != wanted:
                moved.append(found[0])
    if not moved:
        return
    new = {key_digest(one) for one in certificates if not isinstance(one, Pending)}
    lacking = []
    for name in sorted({entry["name"] for entry in state.register.live(CLIENT, now)}):
        client = state.all_leaves().get((CLIENT, name), Leaf())
        there = {key_digest(one) for one in certificates_in(client.bundle)}
        if not new & there:
            lacking.append(name)
    if lacking:
        raise CutOffError(
            f"daemon_ca changes from {moved[0]} to {wanted or DEFAULT}, and these clients do not have its certificate "
            f"yet: {', '.join(lacking)}. They would refuse the daemons. Run with all clients and without daemons "
            "first, which puts the new CA into the clients' ca.pem beside the old one, and hand that out; or set "
            "accept_missing to cut them off."
        )
