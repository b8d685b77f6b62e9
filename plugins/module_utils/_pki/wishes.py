# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user wants, read from module options and refused where it contradicts itself.

Nothing here looks at the disk.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace
from datetime import timedelta

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import csr, facts, names
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.durations import (
    format_duration,
    parse_duration,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import WishError

DAEMON = "daemon"
CLIENT = "client"

DEFAULT = "default"
"""The name of the authority, and of the group of clients, where nothing else is said."""

BY_CA = "ca"
PINNED = "pinned"
TRUST_MODES = (BY_CA, PINNED)
"""How daemons know good clients: by the CA of their group, or each by its own self-signed certificate."""

DISTRIBUTE = "distribute"
ISSUE = "issue"
RETIRE = "retire"
PHASES = (DISTRIBUTE, ISSUE, RETIRE)
"""The steps of a rollover, in their order; see rollover.py."""

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
    """A CA that is wanted. Its certificate is renewed too when it is older than ``max_age``."""

    name: str
    common_name: str
    key_type: str
    life: Life
    max_age: timedelta | None = None


@dataclass(frozen=True)
class RolloverWish:
    """The phase that the rollover of an authority shall reach, and who was given what; see rollover.py."""

    phase: str | None  # None to stay in the phase it is in
    authority: str = DEFAULT
    given: frozenset[str] = frozenset()
    accept_missing: bool = False
    given_in: str | None = None  # the phase that handed it out; None for the one that ``phase`` follows


@dataclass(frozen=True)
class LeafWish:
    """A certificate that is wanted for one daemon or client."""

    kind: str  # DAEMON or CLIENT
    name: str
    life: Life
    key_type: str  # of a key that is made here; a key behind a request is as it is
    sans: frozenset[str] = frozenset()
    request: csr.Request | None = None
    trusts: frozenset[str] = frozenset()  # fingerprints of the certificates that the host trusts now
    authority: str = DEFAULT  # who signs it; for a client also its group
    admits: frozenset[str] | None = None  # groups of clients that a daemon admits; None for all

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

    authority: AuthorityWish  # the one that signs daemons; all others are like it, see ``named``
    leaves: tuple[LeafWish, ...]
    shared_names: frozenset[str]
    trust: str = BY_CA
    rollover: RolloverWish | None = None
    revoke: tuple[str, ...] = ()  # names of clients, or serial numbers
    accept_missing: bool = False
    ca_name: str = "BuildKit CA"

    def named(self, authority: str) -> AuthorityWish:
        """The authority of that name as it is wanted: all are alike but for their names."""
        return replace(self.authority, name=authority, common_name=_common_name(self.ca_name, authority))

    @property
    def groups(self) -> frozenset[str]:
        """The groups of this run's clients."""
        return frozenset(leaf.authority for leaf in self.leaves if leaf.kind == CLIENT)


def read_wishes(options: t.Mapping[str, t.Any]) -> Wishes:
    """Read the options of the module buildkit_pki, whose argument specification has filled in the defaults.

    :raises WishError: for the first option that makes no sense.
    :raises CsrError: for a request that is not acceptable.
    """
    ca = options["ca"]
    daemon_ca, trust = options["daemon_ca"], options["trust"]
    names.check_name(daemon_ca, "CA")
    if not ca["common_name"].strip() or len(ca["common_name"]) > _LONGEST_COMMON_NAME:
        raise WishError(f"ca.common_name is {ca['common_name']!r}: write 1 to {_LONGEST_COMMON_NAME} characters.")
    _check_secrets(ca)
    max_age = None if ca["max_age"] is None else parse_duration(ca["max_age"], "ca.max_age")
    authority = AuthorityWish(
        daemon_ca, _common_name(ca["common_name"], daemon_ca), ca["key_type"], _life(ca, "ca."), max_age
    )
    life = _life(options, "")
    key_type = options["key_type"]
    daemons = [_daemon(item, life, key_type, daemon_ca) for item in options["daemons"]]
    clients = [_client(item, life, key_type, trust) for item in options["clients"]]
    shared = frozenset(names.any_san(name, "shared_names") for name in options["shared_names"])
    for leaves in (daemons, clients):
        _refuse_duplicates([(leaf.kind, leaf.name) for leaf in leaves])
    wishes = Wishes(
        authority,
        (*daemons, *clients),
        shared,
        trust,
        _rollover(options["rollover"]),
        tuple(options["revoke"]),
        options["accept_missing"],
        ca["common_name"],
    )
    _refuse_duplicates([("group", name) for name in sorted(wishes.groups | {daemon_ca})])
    for name in sorted(wishes.groups):
        if trust == BY_CA and len(_common_name(ca["common_name"], name)) > _LONGEST_COMMON_NAME:
            raise WishError(
                f"The CA of the group {name} would be called {_common_name(ca['common_name'], name)!r}, which is "
                f"longer than {_LONGEST_COMMON_NAME} characters: shorten ca.common_name or the name of the group."
            )
    _refuse_common_sans(daemons, shared)
    return wishes


def _common_name(ca_name: str, authority: str) -> str:
    return ca_name if authority == DEFAULT else f"{ca_name} {authority}"


def _rollover(options: t.Mapping[str, t.Any] | None) -> RolloverWish | None:
    if options is None:
        return None
    names.check_name(options["authority"], "CA")
    return RolloverWish(
        options["phase"],
        options["authority"],
        frozenset(options["given"]),
        bool(options["accept_missing"]),
        options["given_in"],
    )


def _check_secrets(ca: t.Mapping[str, t.Any]) -> None:
    for option in ("passphrase", "previous_passphrase", "import_passphrase"):
        check_passphrase(ca[option], f"ca.{option}")
    if ca["previous_passphrase"] is not None and ca["passphrase"] is None:
        raise WishError(
            "ca.previous_passphrase was given without ca.passphrase: it is the old passphrase, and the new one is "
            "missing. A key that is encrypted once stays so."
        )
    if (ca["import_certificate"] is None) != (ca["import_key"] is None):
        raise WishError("ca.import_certificate and ca.import_key go together: a CA is both.")


def check_passphrase(passphrase: str | None, option: str) -> None:
    """Refuse a passphrase too short to be kept out of results without damage to them.

    :raises WishError: without repeating the passphrase.
    """
    if passphrase is not None and len(passphrase) < SHORTEST_PASSPHRASE:
        raise WishError(
            f"{option} has fewer than {SHORTEST_PASSPHRASE} characters: use a longer one, or leave it out for "
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


def _daemon(item: t.Mapping[str, t.Any], life: Life, key_type: str, authority: str) -> LeafWish:
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
    admits = item["admits"]
    if admits is not None:
        if not admits:
            raise WishError(
                f"admits of the {title} is empty: nobody could build there. Name at least one group of clients, or "
                "leave admits out for all of them."
            )
        for group in admits:
            names.check_name(group, "group")
    return LeafWish(
        DAEMON,
        name,
        life,
        key_type,
        sans=sans,
        request=request,
        trusts=trusts,
        authority=authority,
        admits=None if admits is None else frozenset(admits),
    )


def _client(item: t.Mapping[str, t.Any], life: Life, key_type: str, trust: str) -> LeafWish:
    name = item["name"]
    names.check_name(name, CLIENT)
    names.check_name(item["group"], "group")
    title = f"{CLIENT} {name}"
    request = None
    if item["csr"]:
        if trust == PINNED:
            raise WishError(
                f"The {title} has a csr, and trust is {PINNED}: such a certificate is signed by the client's own key, "
                "which is not here. Leave the csr out, or let the client be known by a CA."
            )
        request = csr.load_request(item["csr"], title)
        csr.check_request(request, name, frozenset(), title)
    return LeafWish(CLIENT, name, life, key_type, request=request, authority=item["group"])


def _fingerprint(text: str, title: str) -> str:
    digits = text.replace(":", "").lower()
    if len(digits) != _FINGERPRINT_DIGITS or set(digits) - set("0123456789abcdef"):
        raise WishError(
            f"trusts of the {title} contains {text!r}: write SHA-256 fingerprints in hex, as buildkit_csr returns them."
        )
    return digits


def _refuse_duplicates(named: t.Sequence[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for kind, name in named:
        # Two names that differ in case only share a directory where the file system ignores case.
        twin = seen.get(name.lower())
        if twin is not None:
            raise WishError(
                f"The {kind}s {twin!r} and {name!r} are listed in one run: every {kind} needs a name "
                "of its own, and a difference in upper and lower case is not enough."
            )
        seen[name.lower()] = name


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
