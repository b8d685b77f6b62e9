# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user wants, read from module options and refused where it contradicts itself.

Nothing here looks at the disk.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import timedelta

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import csr, facts, names
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.durations import (
    format_duration,
    parse_duration,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import WishError

DAEMON = "daemon"
CLIENT = "client"

SHORTEST_PASSPHRASE = 8
"""Ansible blots a secret out of a module's whole result, so a short one would blot out parts of certificates."""

_FINGERPRINT_DIGITS = 64
_LONGEST_COMMON_NAME = 64  # RFC 5280, appendix A, ub-common-name


@dataclass(frozen=True)
class Life:
    """How long a certificate is valid, and how long before its end it is renewed."""

    valid_for: timedelta
    renew_before: timedelta


@dataclass(frozen=True)
class AuthorityWish:
    """The CA that is wanted."""

    name: str
    common_name: str
    key_type: str
    life: Life


@dataclass(frozen=True)
class LeafWish:
    """A certificate that is wanted for one daemon or client."""

    kind: str  # DAEMON or CLIENT
    name: str
    life: Life
    key_type: str  # of a key that is made here; a key behind a request is as it is
    sans: frozenset[str] = frozenset()
    request: csr.Request | None = None
    trusts: frozenset[str] = frozenset()  # fingerprints of the CAs that the host trusts now

    @property
    def title(self) -> str:
        """How messages call it, such as ``daemon build-1``."""
        return f"{self.kind} {self.name}"

    @property
    def usage(self) -> str:
        """What its certificate is for, as in facts.py."""
        return facts.SERVER if self.kind == DAEMON else facts.CLIENT


@dataclass(frozen=True)
class Wishes:
    """All that one run asks for."""

    authority: AuthorityWish
    leaves: tuple[LeafWish, ...]
    shared_names: frozenset[str]


def read_wishes(options: t.Mapping[str, t.Any]) -> Wishes:
    """Read the options of the module buildkit_pki, whose argument specification has filled in the defaults.

    :raises WishError: for the first option that makes no sense.
    :raises CsrError: for a request that is not acceptable.
    """
    ca = options["ca"]
    if not ca["common_name"].strip() or len(ca["common_name"]) > _LONGEST_COMMON_NAME:
        raise WishError(f"ca.common_name is {ca['common_name']!r}: write 1 to {_LONGEST_COMMON_NAME} characters.")
    check_passphrase(ca["passphrase"])
    authority = AuthorityWish("default", ca["common_name"], ca["key_type"], _life(ca, "ca."))
    life = _life(options, "")
    key_type = options["key_type"]
    daemons = [_daemon(item, life, key_type) for item in options["daemons"]]
    clients = [_client(item, life, key_type) for item in options["clients"]]
    shared = frozenset(names.any_san(name, "shared_names") for name in options["shared_names"])
    for leaves in (daemons, clients):
        _refuse_duplicates(leaves)
    _refuse_common_sans(daemons, shared)
    return Wishes(authority, (*daemons, *clients), shared)


def check_passphrase(passphrase: str | None) -> None:
    """Refuse a passphrase too short to be kept out of results without damage to them.

    :raises WishError: without repeating the passphrase.
    """
    if passphrase is not None and len(passphrase) < SHORTEST_PASSPHRASE:
        raise WishError(
            f"ca.passphrase has fewer than {SHORTEST_PASSPHRASE} characters: use a longer one, or leave it out for "
            "a key that is not encrypted."
        )


def _life(options: t.Mapping[str, t.Any], prefix: str) -> Life:
    valid_for = parse_duration(options["valid_for"], f"{prefix}valid_for")
    if options["renew_before"] is None:
        third = valid_for / 3
        unit = timedelta(days=1) if third >= timedelta(days=1) else timedelta(minutes=1)
        return Life(valid_for, third // unit * unit)
    renew_before = parse_duration(options["renew_before"], f"{prefix}renew_before")
    if renew_before >= valid_for:
        raise WishError(
            f"{prefix}renew_before ({format_duration(renew_before)}) is not shorter than {prefix}valid_for "
            f"({format_duration(valid_for)}): a certificate would be due for renewal from its first moment. A third "
            "of its life is a good choice and the default."
        )
    return Life(valid_for, renew_before)


def _daemon(item: t.Mapping[str, t.Any], life: Life, key_type: str) -> LeafWish:
    name = item["name"]
    names.check_name(name, DAEMON)
    title = f"{DAEMON} {name}"
    sans = frozenset(
        [names.dns_san(one, title) for one in item["dns"]] + [names.ip_san(one, title) for one in item["ip"]]
    )
    if not sans:
        raise WishError(
            f"The {title} has neither dns nor ip: clients verify a daemon by these names and by nothing else. List "
            "what they dial."
        )
    request = None
    if item["csr"]:
        request = csr.load_request(item["csr"], title)
        csr.check_request(request, name, sans, title)
    trusts = frozenset(_fingerprint(text, title) for text in item["trusts"])
    return LeafWish(DAEMON, name, life, key_type, sans=sans, request=request, trusts=trusts)


def _client(item: t.Mapping[str, t.Any], life: Life, key_type: str) -> LeafWish:
    names.check_name(item["name"], CLIENT)
    return LeafWish(CLIENT, item["name"], life, key_type)


def _fingerprint(text: str, title: str) -> str:
    digits = text.replace(":", "").lower()
    if len(digits) != _FINGERPRINT_DIGITS or set(digits) - set("0123456789abcdef"):
        raise WishError(
            f"trusts of the {title} contains {text!r}: write SHA-256 fingerprints in hex, as buildkit_csr returns them."
        )
    return digits


def _refuse_duplicates(leaves: t.Sequence[LeafWish]) -> None:
    seen: dict[str, str] = {}
    for leaf in leaves:
        # Two names that differ in case only share a directory where the file system ignores case.
        twin = seen.get(leaf.name.lower())
        if twin is not None:
            raise WishError(
                f"The {leaf.kind}s {twin!r} and {leaf.name!r} are listed in one run: every {leaf.kind} needs a name "
                "of its own, and a difference in upper and lower case is not enough."
            )
        seen[leaf.name.lower()] = leaf.name


def _refuse_common_sans(daemons: t.Sequence[LeafWish], shared: t.AbstractSet[str]) -> None:
    for index, daemon in enumerate(daemons):
        for other in daemons[:index]:
            common = names.overlap(daemon.sans, other.sans) - shared
            if common:
                raise WishError(
                    f"The daemons {other.name} and {daemon.name} both ask for {', '.join(sorted(common))}: each "
                    "could answer for the other. Give each name to one daemon, or list those that they share in "
                    "shared_names."
                )
