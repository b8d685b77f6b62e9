# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Revoking certificates of clients: by the client's name all that it has, by serial number a single one. Pure.

The register is what makes a certificate revoked. Its files go to ``revoked/clients/`` afterwards, so that a lost
register can be rebuilt with its revocations.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace
from datetime import datetime

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import WishError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import Entry, Register, key_digest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.state import Leaf, State
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import CLIENT, Wishes

if t.TYPE_CHECKING:
    from cryptography import x509


@dataclass(frozen=True)
class Revocation:
    """What a run does to revoke.

    :param marked: entries of the register that become revoked in this run.
    :param moves: directories of clients that go away: the client's name and the name of the new directory.
    :param saved: revoked certificates of clients that stay: the name of the new directory and the certificate.
    :param dropped: files of superseded certificates that go: the client's name and the certificate.
    """

    register: Register
    marked: tuple[Entry, ...] = ()
    moves: tuple[tuple[str, str], ...] = ()
    saved: tuple[tuple[str, x509.Certificate], ...] = ()
    dropped: tuple[tuple[str, x509.Certificate], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether it changes anything."""
        return bool(self.marked or self.moves)

    @property
    def tidies(self) -> bool:
        """Whether it puts certificates away that were revoked earlier, or with what changes."""
        return bool(self.saved or self.dropped)


def plan_revocation(wishes: Wishes, state: State, now: datetime) -> Revocation:
    """Find what is to be revoked.

    :raises WishError: for a name or serial number that is not known, or a client that is wished as well.
    """
    named = [entry for text in wishes.revoke for entry in _named(text, wishes, state, now)]
    already = state.register.revoked()
    marked = tuple({entry["fingerprint"]: entry for entry in named if entry["fingerprint"] not in already}.values())
    register = state.register.with_revoked({entry["fingerprint"] for entry in marked}, facts.utc_text(now))
    revoked = register.revoked()
    moves, saved, dropped = [], [], []
    for (kind, name), leaf in sorted(state.all_leaves().items()):
        if kind != CLIENT:
            continue
        over = leaf.certificate is not None and compat.fingerprint(leaf.certificate) in revoked
        if over and (kind, name) not in state.leaves:
            moves.append((name, directory_name(name, t.cast("x509.Certificate", leaf.certificate))))
            continue
        ended = [one for one in leaf.superseded if compat.fingerprint(one) in revoked]
        dropped += [(name, one) for one in ended]
        if over:
            ended.append(t.cast("x509.Certificate", leaf.certificate))
        saved += [(directory_name(name, one), one) for one in ended]
    trusted = {
        fingerprint
        for authority in state.authorities.values()
        for one in (authority.previous, authority.current, authority.next)
        if one is not None
        for fingerprint in state.register.authorities_with_key(key_digest(one.certificate))
    }
    accepted = {
        entry["fingerprint"]: entry for entry in named if entry.get("issuer") in trusted and _is_live(entry, now)
    }
    warnings = tuple(_still_accepted(entry) for entry in accepted.values())
    return Revocation(register, marked, tuple(moves), tuple(saved), tuple(dropped), warnings)


def directory_name(name: str, certificate: x509.Certificate) -> str:
    """Where a revoked certificate goes, below ``revoked/clients/``."""
    return f"{name}-{facts.serial_hex(certificate)[:8]}"


def without_revoked(leaf: Leaf, revoked: t.AbstractSet[str]) -> Leaf:
    """A leaf without the superseded certificates that are revoked."""
    return replace(leaf, superseded=tuple(one for one in leaf.superseded if compat.fingerprint(one) not in revoked))


def _named(text: str, wishes: Wishes, state: State, now: datetime) -> list[Entry]:
    """The entries that a name or serial number means."""
    entries = state.register.of_kind(CLIENT)
    of_name = [entry for entry in entries if entry.get("name") == text]
    if of_name:
        if (CLIENT, text) in state.leaves:
            raise WishError(
                f"The client {text} is to be revoked and is listed in clients as well: take it off that list, or "
                "revoke the serial number of its certificate, and it gets a new one."
            )
        leaf = state.others.get((CLIENT, text))
        here = compat.fingerprint(leaf.certificate) if leaf and leaf.certificate is not None else None
        return [entry for entry in of_name if _is_live(entry, now) or entry["fingerprint"] == here]
    serial = text.replace(":", "").lower()
    of_serial = [entry for entry in entries if str(entry.get("serial", "")).lstrip("0") == serial.lstrip("0")]
    if serial.strip("0") and of_serial:
        return of_serial + _beside(of_serial[0], entries, state)
    others = [entry for entry in state.register.entries if entry.get("serial") == serial or entry.get("name") == text]
    hint = f" That is a {others[0]['kind']}, and only clients can be revoked." if others else ""
    raise WishError(
        f"revoke names {text!r}, and {state.path} has no client of that name and no client's certificate with that "
        f"serial number.{hint} The register issued.json has the names and serial numbers of all there ever were."
    )


def _beside(revoked: Entry, entries: list[Entry], state: State) -> list[Entry]:
    """What goes with the certificate in force of a client that this run does not list: its superseded ones."""
    leaf = state.others.get((CLIENT, revoked["name"]))
    if leaf is None or leaf.certificate is None or compat.fingerprint(leaf.certificate) != revoked["fingerprint"]:
        return []
    superseded = {compat.fingerprint(one) for one in leaf.superseded}
    return [entry for entry in entries if entry["fingerprint"] in superseded]


def _is_live(entry: Entry, now: datetime) -> bool:
    return str(entry.get("not_after")) > facts.utc_text(now)


def _still_accepted(entry: Entry) -> str:
    return (
        f"Daemons go on accepting the revoked certificate {entry['serial']} of the client {entry['name']} until "
        f"{entry['not_after']}, because they know it by its CA alone. To end that earlier, leave the group "
        f"{entry.get('group')} out of admits, or roll its CA over."
    )
