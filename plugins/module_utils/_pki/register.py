# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The register: a record of every certificate that was issued, kept as ``issued.json``.

It outlives the certificates' files, so it also knows the certificates a CA had before a renewal. It can be
lost without harm: every run enters the certificates it finds and misses there.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import UnreadableError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.facts import facts_of, utc_text

if t.TYPE_CHECKING:
    from cryptography import x509

AUTHORITY = "ca"

_FORMAT = 1


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
                if not all(isinstance(entry[key], str) for key in ("kind", "fingerprint")):
                    raise ValueError("an entry has no kind or fingerprint")
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

    def with_certificates(self, found: t.Iterable[tuple[str, str, x509.Certificate]]) -> Register:
        """Add what is missing of ``found``: triples of kind, name and certificate."""
        known = {entry["fingerprint"] for entry in self.entries}
        added = []
        for kind, name, certificate in found:
            facts = facts_of(certificate)
            if facts.fingerprint in known:
                continue
            known.add(facts.fingerprint)
            added.append(
                {
                    "serial": facts.serial,
                    "kind": kind,
                    "name": name,
                    "not_before": utc_text(facts.not_before),
                    "not_after": utc_text(facts.not_after),
                    "fingerprint": facts.fingerprint,
                }
            )
        return Register((*self.entries, *added)) if added else self

    def authorities(self) -> frozenset[str]:
        """Fingerprints of every CA certificate there ever was, renewed ones included."""
        return frozenset(entry["fingerprint"] for entry in self.entries if entry["kind"] == AUTHORITY)
