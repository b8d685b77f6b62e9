# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollover of an authority to a CA with a new key, in three phases. Pure.

==============  ===================  ==================================  =======================================
phase           signs                is trusted                          before it
==============  ===================  ==================================  =======================================
``distribute``  the old CA           old and new                         nothing
``issue``       the new CA           old and new                         all who must trust the new CA do
``retire``      the new CA           new                                 nobody uses a certificate of the old CA
==============  ===================  ==================================  =======================================

Which phase is reached is in the names of the directories below the authority (``next/``, ``previous/``), so one
exchange of its directory is the whole change. ``rollover.json`` beside them records who was given what that phase
hands out; it starts afresh with each phase.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass
from datetime import datetime

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import (
    CutOffError,
    UnreadableError,
    WishError,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import Entry, key_digest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.state import (
    NO_ROLLOVER,
    AuthorityState,
    Record,
    State,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.trust import certificates_in
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import (
    BY_CA,
    CLIENT,
    DAEMON,
    DISTRIBUTE,
    ISSUE,
    PHASES,
    RETIRE,
    RolloverWish,
    Wishes,
)

_FORMAT = 1

REASONS = {
    DISTRIBUTE: "its rollover begins: a new CA is made, and trusted beside the old one",
    ISSUE: "its rollover goes on: the new CA signs from now on, and the old one is still trusted",
    RETIRE: "its rollover ends: the old CA is trusted no longer",
}


@dataclass(frozen=True)
class Move:
    """What a run does about the rollover of one authority. ``step`` is one of PHASES, or empty to stay."""

    step: str
    phase: str  # afterwards; NO_ROLLOVER after ``retire``
    record: Record
    reasons: tuple[str, ...] = ()
    not_given: tuple[str, ...] = ()


def plan_move(name: str, before: AuthorityState, wishes: Wishes, state: State, now: datetime) -> Move:
    """Decide about the rollover of the authority ``name``.

    :raises WishError: when the wished phase cannot follow the one on disk.
    :raises CutOffError: when somebody would be cut off who must not be.
    """
    wish = wishes.rollover if wishes.rollover is not None and wishes.rollover.authority == name else None
    step = wish is not None and wish.phase is not None and _is_step(wish.phase, before, name)
    record = _grown(name, before, wish, step, wishes, state)
    if wish is None or not step:
        told = sorted(record.given - before.record.given)
        reasons = (f"these clients were given what its rollover hands out: {', '.join(told)}",) if told else ()
        return Move("", before.phase, record, reasons, _not_given(name, before, record, wishes, state, now))
    if wish.phase == DISTRIBUTE:
        missing = tuple(_clients_of(name, wishes, state, now))
        return Move(DISTRIBUTE, DISTRIBUTE, Record(), (REASONS[DISTRIBUTE],), missing)
    if wish.phase == ISSUE:
        _refuse_issue(name, before, record, wish, wishes, state, now)
        holders = {entry["name"] for entry in _of_group(name, state, now)}
        return Move(ISSUE, ISSUE, Record(), (REASONS[ISSUE],), tuple(sorted(holders)))
    _refuse_retire(name, before, record, wish, wishes, state, now)
    return Move(RETIRE, NO_ROLLOVER, Record(), (REASONS[RETIRE],))


def parse_record(data: bytes | None, path: str) -> Record:
    """Read ``rollover.json``; None stands for a missing one and gives an empty record.

    :raises UnreadableError: when it is not what :func:`dump_record` writes.
    """
    if data is None:
        return Record()
    try:
        content = json.loads(data.decode("utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']!r} is not {_FORMAT}")
        found = [content[key] for key in ("given", "daemons")]
        if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in found):
            raise ValueError("given and daemons are not lists of names")
    except (ValueError, KeyError, TypeError) as exc:
        raise UnreadableError(
            f"The record of the rollover {path} cannot be read ({type(exc).__name__}: {exc}). It is left as it is: "
            "restore it from a backup, or move it away; the next run then counts everybody as not given anything."
        ) from exc
    return Record(*(frozenset(names) for names in found))


def dump_record(record: Record, phase: str) -> bytes:
    """The bytes of ``rollover.json``; the phase is there for people to read."""
    content = {
        "format": _FORMAT,
        "phase": phase,
        "given": sorted(record.given),
        "daemons": sorted(record.daemons),
    }
    return (json.dumps(content, indent=1) + "\n").encode("utf-8")


def _is_step(phase: str, before: AuthorityState, name: str) -> bool:
    """Tell whether the wished phase is the next one; false when it is reached already.

    :raises WishError: when it is neither.
    """
    at = before.phase
    if phase == at or (phase == RETIRE and at == NO_ROLLOVER and before.retired):
        return False
    following = {NO_ROLLOVER: DISTRIBUTE, DISTRIBUTE: ISSUE, ISSUE: RETIRE}[at]
    if phase != following:
        stands = "is not being rolled over" if at == NO_ROLLOVER else f"is in the phase {at} of its rollover"
        raise WishError(
            f"rollover.phase is {phase}, and the CA {name} {stands}: the phases are {', '.join(PHASES)}, one after "
            f"the other, and never back. The next one is {following}."
        )
    return True


def _grown(
    name: str, before: AuthorityState, wish: RolloverWish | None, step: bool, wishes: Wishes, state: State
) -> Record:
    """The record, with what this run says and shows.

    ``given`` is about what the phase on disk hands out, unless ``given_in`` says another. Beside a phase that is
    reached already it is not taken as that: it may be the repetition of the run that reached it, whose ``given`` was
    about the phase before.
    """
    record = before.record
    if wish is not None and wish.given:
        if before.phase == NO_ROLLOVER and wish.phase != RETIRE:
            raise WishError(
                f"rollover.given names {', '.join(sorted(wish.given))}, and the CA {name} is not being rolled over: "
                f"nobody can have been given anything yet. Begin with the phase {DISTRIBUTE}, without given."
            )
        known = {entry["name"] for entry in state.register.of_kind(CLIENT)}
        known |= {leaf_name for kind, leaf_name in state.all_leaves() if kind == CLIENT}
        unknown = sorted(wish.given - known)
        if unknown:
            raise WishError(
                f"rollover.given names {', '.join(unknown)}, and no client of that name has a certificate: name "
                "clients as they are listed in clients."
            )
        about_this = step or wish.phase is None or before.phase == DISTRIBUTE
        if wish.given_in == before.phase or (wish.given_in is None and about_this):
            record = Record(record.given | wish.given, record.daemons)
    if before.next is not None:
        fingerprint = compat.fingerprint(before.next.certificate)
        seen = {leaf.name for leaf in wishes.leaves if fingerprint in leaf.trusts}
        record = Record(record.given, record.daemons | seen)
    return record


def signs_daemons(name: str, wishes: Wishes, state: State, now: datetime) -> bool:
    """Whether clients need this authority to verify daemons."""
    if name == wishes.authority.name:
        return True
    return any(entry.get("group") == name for entry in state.register.live(DAEMON, now))


def _clients_of(name: str, wishes: Wishes, state: State, now: datetime) -> list[str]:
    """Clients that verify daemons by this authority: all of them, or none."""
    if not signs_daemons(name, wishes, state, now):
        return []
    return sorted({entry["name"] for entry in state.register.live(CLIENT, now)})


def _of_group(name: str, state: State, now: datetime) -> list[Entry]:
    """Live certificates of clients that this authority signed, or may have signed where that was not recorded."""
    return [
        entry
        for entry in state.register.live(CLIENT, now)
        if entry.get("group", name) == name and ("issuer" not in entry or entry["issuer"])
    ]


def _not_given(
    name: str, before: AuthorityState, record: Record, wishes: Wishes, state: State, now: datetime
) -> tuple[str, ...]:
    if before.phase == DISTRIBUTE:
        names = _clients_of(name, wishes, state, now)
    elif before.previous is not None:
        digest = key_digest(before.previous.certificate)
        old = {compat.fingerprint(before.previous.certificate), *state.register.authorities_with_key(digest)}
        names = sorted({entry["name"] for entry in _of_group(name, state, now) if entry.get("issuer") in {None, *old}})
    else:
        names = []
    return tuple(client for client in names if client not in record.given)


def _refuse_issue(
    name: str,
    before: AuthorityState,
    record: Record,
    wish: RolloverWish,
    wishes: Wishes,
    state: State,
    now: datetime,
) -> None:
    clients = _not_given(name, before, record, wishes, state, now)
    daemons = sorted(_daemons_without(name, before, record, wishes, state, now)) if wishes.trust == BY_CA else []
    if wish.accept_missing or not (clients or daemons):
        return
    said = []
    if clients:
        said.append(f"These clients were not yet given a ca.pem with the new CA: {', '.join(clients)}.")
    if daemons:
        said.append(f"These daemons do not trust the new CA yet: {', '.join(daemons)}.")
    raise CutOffError(
        f"The CA {name} cannot issue from its new key yet. {' '.join(said)} They could not build, or be built on, any "
        "more. Hand the files out and name the clients in rollover.given, install ca.pem on the daemons and run with "
        "them and what their hosts trust then (daemons[].trusts); or set rollover.accept_missing to cut them off."
    )


def _daemons_without(
    name: str, before: AuthorityState, record: Record, wishes: Wishes, state: State, now: datetime
) -> t.Iterator[str]:
    """Daemons that admit the group of this authority and are not known to trust its new CA.

    A ca.pem tells by keys: it may hold a certificate of the old CA from before that was renewed. One that is missing or
    damaged tells nothing, so the daemon counts.
    """
    new = compat.fingerprint(t.cast(t.Any, before.next).certificate)
    old = key_digest(before.current.certificate)
    wished = {leaf.name: leaf for leaf in wishes.leaves if leaf.kind == DAEMON}
    for (kind, daemon), leaf in state.all_leaves().items():
        if kind != DAEMON or leaf.certificate is None or compat.not_after(leaf.certificate) <= now:
            continue
        wanted = wished.get(daemon)
        there = certificates_in(leaf.bundle)
        admits = not there or old in {key_digest(one) for one in there}
        if wanted is not None and wanted.admits is not None:
            admits = admits and name in wanted.admits
        if not admits:
            continue
        has = new in wanted.trusts if wanted is not None and wanted.trusts else daemon in record.daemons
        if not has:
            yield daemon


def _refuse_retire(
    name: str,
    before: AuthorityState,
    record: Record,
    wish: RolloverWish,
    wishes: Wishes,
    state: State,
    now: datetime,
) -> None:
    old = t.cast(t.Any, before.previous).certificate
    live = [
        f"{kind} {leaf_name} (until {facts.utc_text(compat.not_after(leaf.certificate))})"
        for (kind, leaf_name), leaf in sorted(state.all_leaves().items())
        if leaf.certificate is not None
        and compat.not_after(leaf.certificate) > now
        and compat.fingerprint(leaf.certificate) not in state.register.revoked()
        and compat.is_signed_by(leaf.certificate, old)
    ]
    if live:
        raise CutOffError(
            f"The old CA of {name} cannot be retired: these still have certificates of it: {', '.join(live)}. Run with "
            "all of them listed, which issues them anew, and install or hand out what it makes; revoke, or remove the "
            "directories of, those that are gone."
        )
    clients = _not_given(name, before, record, wishes, state, now)
    if clients and not wish.accept_missing:
        raise CutOffError(
            f"The old CA of {name} cannot be retired: these clients were not yet given their new certificates, and "
            f"those they hold are still valid: {', '.join(clients)}. Hand them out and name the clients in "
            "rollover.given, or set rollover.accept_missing to cut them off."
        )
