# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The register: a record of every certificate that was issued, kept as ``issued.json``.

It outlives the certificates' files, so it also knows the certificates that were replaced, and which are revoked.
When it is lost, a run enters the certificates that it finds, those that were revoked with the time of that run. What
cannot come back is a certificate that was replaced: nobody is then named who still holds one of an old CA.

An entry has ``kind`` (ca, daemon, client), ``name``, ``group`` (of a client; of others the authority), ``serial``,
``not_before``, ``not_after``, ``fingerprint``, ``issuer`` (fingerprint of the CA certificate that signed it, null for a
self-signed one), ``revoked`` (null or when), and of a CA ``key`` (SHA-256 of its public key), by which a renewed
certificate of a CA is known to be the same CA. Version 1.0.0 wrote neither of group, issuer, revoked and key; entries
get them while their certificates are still there.
"""

from __future__ import annotations

import hashlib
import json
import typing as t
from dataclasses import dataclass
from datetime import datetime

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, keys
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import UnreadableError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.facts import facts_of, utc_text

if t.TYPE_CHECKING:
    from cryptography import x509

AUTHORITY = "ca"

_FORMAT = 1
_ALWAYS = ("kind", "name", "serial", "not_after", "fingerprint")
_OFTEN = ("group", "issuer", "revoked", "key")

Entry = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Found:
    """A certificate that is on disk. ``issuer`` is the certificate of its CA, None of a self-signed or foreign one."""

    kind: str
    name: str
    certificate: x509.Certificate
    group: str | None = None
    issuer: str | None = None  # fingerprint
    revoked: str | None = None


@dataclass(frozen=True)
class Register:
    """An immutable list of entries, oldest first."""

    entries: tuple[t.Mapping[str, t.Any], ...] = ()

    @classmethod
    def parse(cls, data: bytes | None, path: str) -> Register:
        """Read the file; None stands for a missing one and gives an empty register.

        :raises UnreadableError: when it is not what :meth:`dump` writes.
        """
        if data is None:
            return cls()
        try:
            content = json.loads(data.decode("utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']!r} is not {_FORMAT}")
            entries = tuple(content["certificates"])
            for entry in entries:
                missing = [key for key in _ALWAYS if not isinstance(entry[key], str)]
                missing += [key for key in _OFTEN if not isinstance(entry.get(key, ""), (str, type(None)))]
                if missing:
                    raise ValueError(f"an entry has no text for {missing[0]}")
        except (ValueError, KeyError, TypeError) as exc:
            raise UnreadableError(
                f"The register {path} cannot be read ({type(exc).__name__}: {exc}). It is left as it is: restore it "
                "from a backup, or move it away; the next run then starts a new one from the certificates."
            ) from exc
        return cls(entries)

    def dump(self) -> bytes:
        """The bytes of the file."""
        content = {"format": _FORMAT, "certificates": list(self.entries)}
        return (json.dumps(content, indent=1) + "\n").encode("utf-8")

    def with_certificates(self, found: t.Iterable[Found]) -> Register:
        """Add what is missing of ``found``, and what is missing in entries of 1.0.0.

        What was put away as revoked is revoked, also for a register from a backup that is older than that.
        """
        places = {entry["fingerprint"]: place for place, entry in enumerate(self.entries)}
        entries = list(self.entries)
        for one in found:
            fingerprint = compat.fingerprint(one.certificate)
            place = places.get(fingerprint)
            if place is None:
                places[fingerprint] = len(entries)
                entries.append(_entry(one))
                continue
            if "issuer" not in entries[place]:
                entries[place] = {**_entry(one), **entries[place]}
            if one.revoked and not entries[place].get("revoked"):
                entries[place] = {**entries[place], "revoked": one.revoked}
        return Register(tuple(entries))

    def with_revoked(self, fingerprints: t.Collection[str], moment: str) -> Register:
        """Mark certificates as revoked; one that is already keeps its time."""
        return Register(
            tuple(
                {**entry, "revoked": moment}
                if entry["fingerprint"] in fingerprints and not entry.get("revoked")
                else entry
                for entry in self.entries
            )
        )

    def says_the_same_as(self, other: Register) -> bool:
        """Whether both know the same certificates, revoked in the same way; what 1.0.0 left out does not count."""
        return [(entry["fingerprint"], entry.get("revoked")) for entry in self.entries] == [
            (entry["fingerprint"], entry.get("revoked")) for entry in other.entries
        ]

    def of_kind(self, kind: str) -> list[Entry]:
        """All entries of a kind, oldest first."""
        return [entry for entry in self.entries if entry["kind"] == kind]

    def live(self, kind: str, now: datetime) -> list[Entry]:
        """The entries of a kind that are neither expired nor revoked."""
        moment = utc_text(now)  # ISO 8601 in UTC sorts as time does
        return [
            entry for entry in self.of_kind(kind) if not entry.get("revoked") and str(entry.get("not_after")) > moment
        ]

    def fingerprints(self, *kinds: str) -> frozenset[str]:
        """Fingerprints of every certificate of these kinds that there ever was."""
        return frozenset(entry["fingerprint"] for entry in self.entries if entry["kind"] in kinds)

    def revoked(self) -> frozenset[str]:
        """Fingerprints of those that are revoked."""
        return frozenset(entry["fingerprint"] for entry in self.entries if entry.get("revoked"))

    def authorities_with_key(self, key: str) -> frozenset[str]:
        """Fingerprints of the certificates that a CA with this key (SHA-256) ever had."""
        return frozenset(entry["fingerprint"] for entry in self.of_kind(AUTHORITY) if entry.get("key") == key)


def key_digest(key: object) -> str:
    """SHA-256 of a public key, in hex; ``key`` is a key or a certificate."""
    return hashlib.sha256(keys.spki(key)).hexdigest()


def _entry(found: Found) -> dict[str, t.Any]:
    facts = facts_of(found.certificate)
    entry: dict[str, t.Any] = {
        "serial": facts.serial,
        "kind": found.kind,
        "name": found.name,
        "group": found.group,
        "not_before": utc_text(facts.not_before),
        "not_after": utc_text(facts.not_after),
        "fingerprint": facts.fingerprint,
        "issuer": found.issuer,
        "revoked": found.revoked,
    }
    if found.kind == AUTHORITY:
        entry["key"] = key_digest(found.certificate)
    return entry
