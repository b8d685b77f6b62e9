# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of client bundles: what is in the PKI and what is wished give archives, each with its reasons.

::

    <path>/                       0700, refused when others can enter it
      .lock                       held by a run
      .sealed.json                what is in the encrypted ones, which cannot be read back
      <pool>-<client>.tar.gz      0600
      <pool>-<client>.tar.gz.age  0600, in place of it
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
import typing as t
from dataclasses import dataclass
from datetime import datetime

from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import bundle, sealing
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import facts, keys

_LOCK = ".lock"
_RECORD = ".sealed.json"
_PLAIN = ".tar.gz"
_SEALED = ".tar.gz.age"
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Wish:
    """A client that is to have a bundle.

    :param group: the group of clients that it is in
    :param own_key: the client keeps its key, so that the bundle has none
    :param recipients: whom it is encrypted for, as age writes them
    """

    name: str
    group: str
    own_key: bool
    recipients: tuple[str, ...]
    passphrase: str | None

    @property
    def sealed(self) -> bool:
        """Whether the bundle is encrypted."""
        return bool(self.recipients) or self.passphrase is not None


@dataclass(frozen=True)
class Step:
    """What is to be done for one client, and what to say of it; without ``data`` nothing is."""

    wish: Wish
    path: str
    identity: bundle.Identity
    data: bytes | None
    reasons: list[str]
    before: dict[str, t.Any]
    after: dict[str, t.Any]
    record: dict[str, t.Any] | None


def run(options: t.Mapping[str, t.Any], *, now: datetime, predict: bool) -> dict[str, t.Any]:
    """Return the result of the module buildkit_client_bundles. With ``predict`` nothing is written.

    :raises ClientError: when something is not as it must be; nothing has been changed then.
    :raises PkiError: when a file of the PKI cannot be read.
    """
    path, pool = options["path"], bundle.checked_pool(options["pool"])
    _refuse_exposed(path)
    if options["state"] == "absent":
        names = [bundle.checked_client(client["name"]) for client in options["clients"]]
        with _files.locked_directory(path, _LOCK, timeout=_LOCK_SECONDS, read_only=predict or not os.path.isdir(path)):
            return _remove(path, pool, names, predict=predict)
    if not options["pki_path"]:
        raise ClientError("There is no pki_path: name the PKI directory that the certificates are in.")
    wished = _wishes(options["clients"])
    daemons = bundle.checked_daemons([bundle.daemon_of(item) for item in options["daemons"]])
    wishes = [wish for wish in wished if bundle.admitted(daemons, wish.group)]
    with _files.locked(os.path.join(options["pki_path"], _LOCK), timeout=_LOCK_SECONDS, read_only=True):
        identities = [_identity(options["pki_path"], wish, now) for wish in wishes]
    with _files.locked_directory(path, _LOCK, timeout=_LOCK_SECONDS, read_only=predict):
        record = _read_record(path)
        steps = [
            _plan(path, pool, wish, identity, daemons, record, predict=predict)
            for wish, identity in zip(wishes, identities)
        ]
        if not predict:
            _write(path, steps, record)
    return {
        "changed": any(step.reasons for step in steps),
        "bundles": [_result(step, now) for step in steps],
        "removed": [],
        "warnings": [
            f"The client {wish.name} gets no bundle: no builder admits its group {wish.group}."
            for wish in wished
            if wish not in wishes
        ],
        "diff": [_diff(step) for step in steps if step.reasons],
    }


def _wishes(clients: t.Sequence[t.Mapping[str, t.Any]]) -> list[Wish]:
    wishes: list[Wish] = []
    for client in clients:
        name = bundle.checked_client(client["name"])
        if any(wish.name == name for wish in wishes):
            raise ClientError(f"The client {name} is listed twice: list it once.")
        recipients, passphrase = client.get("recipients") or [], client.get("passphrase")
        if recipients and passphrase:
            raise ClientError(f"The client {name} has recipients and a passphrase: age takes one of the two.")
        if passphrase is not None and len(passphrase) < sealing.LEAST_PASSPHRASE:
            raise ClientError(
                f"The passphrase of the bundle of {name} has fewer than {sealing.LEAST_PASSPHRASE} characters. Use a "
                "longer one: who has the file can try as often as he likes."
            )
        wishes.append(
            Wish(
                name, str(client.get("group") or "default"), bool(client.get("own_key")), tuple(recipients), passphrase
            )
        )
    return wishes


def _refuse_exposed(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        raise ClientError(f"{path} is not a directory: name one for the bundles that is, or is not there yet.")
    if stat.S_IMODE(mode) & 0o077:
        raise ClientError(
            f"Others than its owner have access to {path}, and bundles hold private keys. Name a directory of their "
            f"own, or close this one with 'chmod 0700 {path}'."
        )


def _identity(pki: str, wish: Wish, now: datetime) -> bundle.Identity:
    directory = os.path.join(pki, "clients", wish.name)
    paths = {name: os.path.join(directory, f"{name}.pem") for name in ("ca", "cert", "key")}
    found = {name: _files.read_optional(path) for name, path in paths.items()}
    ca, certificate, key = found["ca"], found["cert"], found["key"]
    if certificate is None:
        known = ", ".join(_names(os.path.join(pki, "clients"))) or "none"
        raise ClientError(
            f"The client {wish.name} has no certificate in {pki} (these have: {known}). Make it with buildkit_pki "
            "first, and mind the spelling."
        )
    if ca is None:
        raise ClientError(f"{paths['ca']} is missing. Run buildkit_pki again, or restore it from a backup.")
    leaf = facts.load_certificates(certificate, paths["cert"])[0]
    stated = facts.facts_of(leaf)
    if now > stated.not_after:
        raise ClientError(
            f"The certificate of the client {wish.name} ended on {bundle.utc(stated.not_after)}: nobody would accept "
            "the bundle. Renew it with buildkit_pki first."
        )
    if key is None and not wish.own_key:
        raise ClientError(
            f"The client {wish.name} has no key.pem in {directory}. If it keeps its key itself, say so with own_key: "
            "true; its bundle is then made without."
        )
    if key is not None and not wish.own_key and keys.spki(keys.load(key, paths["key"])) != keys.spki(leaf):
        raise ClientError(
            f"The key {paths['key']} does not belong to the certificate beside it. Restore the two that belong "
            "together."
        )
    facts.load_certificates(ca, paths["ca"])
    return bundle.Identity(
        name=wish.name,
        ca=ca,
        certificate=certificate,
        key=None if wish.own_key else key,
        serial=stated.serial,
        fingerprint=stated.fingerprint,
        not_before=stated.not_before,
        not_after=stated.not_after,
    )


def _names(directory: str) -> list[str]:
    try:
        return sorted(entry for entry in os.listdir(directory) if not entry.startswith("."))
    except FileNotFoundError:
        return []


def _plan(
    path: str,
    pool: str,
    wish: Wish,
    identity: bundle.Identity,
    daemons: t.Sequence[bundle.Daemon],
    record: t.Mapping[str, t.Any],
    *,
    predict: bool,
) -> Step:
    root = f"{pool}-{wish.name}"
    target, other = (os.path.join(path, root + suffix) for suffix in (_PLAIN, _SEALED))
    if wish.sealed:
        target, other = other, target
    for place in (target, other):
        whose = _anothers(place, pool, wish.name, record)
        if whose:
            raise ClientError(
                f"{place} is the bundle of {whose}, and that of the client {wish.name} of the pool {pool} would have "
                "the same name. Give one of the pools a directory of its own, or another name."
            )
    members = bundle.members_of(pool, identity, bundle.admitted(daemons, wish.group))
    archive = bundle.pack(members, root=root, moment=identity.not_before)
    after = json.loads(members[bundle.FACTS].data)
    existing = _files.read_optional(target)
    noted = _noted(record, target) if wish.sealed else {}
    before = {} if existing is None else dict(noted.get("facts", {}))
    if existing is not None and not wish.sealed:
        current = bundle.decompress(existing)
        before = bundle.facts_in(current)
        fresh = current == archive
    else:
        fresh = existing is not None and noted.get("archive") == hashlib.sha256(archive).hexdigest()
    reasons = []
    if existing is None:
        reasons = ["it is encrypted otherwise"] if os.path.lexists(other) else ["there is none yet"]
    elif wish.sealed and _sealed_otherwise(wish, noted, existing):
        reasons = ["it is encrypted for somebody else"]
    elif not fresh:
        reasons = bundle.differences(before, after)
    elif stat.S_IMODE(os.stat(target).st_mode) != _files.PRIVATE_FILE:
        reasons = ["others had access to it"]
    elif os.path.lexists(other):
        reasons = [f"{os.path.basename(other)} is there too"]
    if not reasons:
        return Step(wish, target, identity, None, [], before, after, noted or None)
    recipients = [sealing.recipient_of(text, wish.name) for text in wish.recipients]
    data, note = (None, None) if predict else _finish(wish, archive, after, recipients)
    return Step(wish, target, identity, data, reasons, before, after, note)


def _anothers(place: str, pool: str, client: str, record: t.Mapping[str, t.Any]) -> str:
    """Whose the bundle at a place is, if not this client's: the pool x-a has a client b as the pool x has one a-b."""
    existing = _files.read_optional(place)
    if existing is None:
        return ""
    if place.endswith(_SEALED):
        stated = _noted(record, place).get("facts")
    else:
        stated = bundle.facts_in(bundle.decompress(existing))
    if not isinstance(stated, dict) or not stated or (stated.get("pool"), stated.get("client")) == (pool, client):
        return ""
    return f"the client {stated.get('client')} of the pool {stated.get('pool')}"


def _sealed_otherwise(wish: Wish, noted: t.Mapping[str, t.Any], existing: bytes) -> bool:
    """Whether an encrypted file is not what the record says, or is for others than wished."""
    if noted.get("file") != hashlib.sha256(existing).hexdigest():
        return True
    if wish.passphrase is None:
        return noted.get("recipients") != sorted(wish.recipients)
    check = noted.get("passphrase")
    if not isinstance(check, dict):
        return True
    return not sealing.same(str(check["check"]), sealing.check_of(wish.passphrase, bytes.fromhex(check["salt"])))


def _finish(
    wish: Wish, archive: bytes, stated: dict[str, t.Any], recipients: t.Sequence[t.Any]
) -> tuple[bytes, dict[str, t.Any] | None]:
    """What to write for a client, and what to note of it."""
    packed = bundle.compress(archive)
    if not wish.sealed:
        return packed, None
    data = sealing.seal(packed, recipients=recipients, passphrase=wish.passphrase)
    note: dict[str, t.Any] = {
        "archive": hashlib.sha256(archive).hexdigest(),
        "file": hashlib.sha256(data).hexdigest(),
        "facts": stated,
        "recipients": sorted(wish.recipients),
    }
    if wish.passphrase is not None:
        salt = secrets.token_bytes(16)
        note["passphrase"] = {"salt": salt.hex(), "check": sealing.check_of(wish.passphrase, salt)}
    return data, note


def _read_record(path: str) -> dict[str, t.Any]:
    """What is known of the encrypted ones; nothing when it is lost, so that they are made again."""
    try:
        found = json.loads(_files.read_optional(os.path.join(path, _RECORD)) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _noted(record: t.Mapping[str, t.Any], place: str) -> dict[str, t.Any]:
    """What is known of the encrypted bundle at a place."""
    found = record.get(os.path.basename(place))
    return found if isinstance(found, dict) else {}


def _write(path: str, steps: t.Sequence[Step], record: dict[str, t.Any]) -> None:
    """Write every bundle that is to be, then the note of it: a run killed in between makes it again."""
    for step in steps:
        if step.data is None:
            continue
        _files.write_atomically(step.path, step.data, alone=True)
        for suffix in (_PLAIN, _SEALED):
            other = os.path.join(path, f"{_stem(step.path)}{suffix}")
            if other != step.path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(other)
    noted = dict(record)
    for step in steps:
        name = os.path.basename(step.path)
        noted.pop(f"{_stem(step.path)}{_SEALED}", None)
        if step.record:
            noted[name] = step.record
    _write_record(path, record, noted)


def _write_record(path: str, before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any]) -> None:
    if after != before:
        data = (json.dumps(after, indent=2, sort_keys=True) + "\n").encode()
        _files.write_atomically(os.path.join(path, _RECORD), data, alone=True)


def _stem(path: str) -> str:
    """The name of a bundle without what follows the client's."""
    name = os.path.basename(path)
    return name[: -len(_SEALED if name.endswith(_SEALED) else _PLAIN)]


def _remove(path: str, pool: str, names: t.Sequence[str], *, predict: bool) -> dict[str, t.Any]:
    removed = []
    record = _read_record(path)
    kept = dict(record)
    for name in names:
        for suffix in (_PLAIN, _SEALED):
            target = os.path.join(path, f"{pool}-{name}{suffix}")
            if _anothers(target, pool, name, record):
                continue
            kept.pop(os.path.basename(target), None)
            if os.path.lexists(target):
                removed.append(target)
                if not predict:
                    os.unlink(target)
    if not predict and os.path.isdir(path):
        _write_record(path, record, kept)
    return {"changed": bool(removed), "bundles": [], "removed": removed, "warnings": [], "diff": []}


def _result(step: Step, now: datetime) -> dict[str, t.Any]:
    return {
        "client": step.wish.name,
        "path": step.path,
        "changed": bool(step.reasons),
        "reasons": step.reasons,
        "encrypted": step.wish.sealed,
        "key": step.identity.key is not None,
        "serial": step.identity.serial,
        "not_after": bundle.utc(step.identity.not_after),
        "days_left": (step.identity.not_after - now).days,
    }


def _diff(step: Step) -> dict[str, str]:
    texts = [json.dumps(side, indent=2) + "\n" if side else "" for side in (step.before, step.after)]
    return {"before_header": step.path, "after_header": step.path, "before": texts[0], "after": texts[1]}
