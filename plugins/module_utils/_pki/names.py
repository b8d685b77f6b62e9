# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names: of daemons and clients (which become file names) and in certificates (what clients dial).

A subject alternative name (SAN) is a string throughout, as OpenSSL writes it: ``DNS:build.example.com`` in
lower case, or ``IP:2001:db8::1`` in its shortest form. Equal strings are equal names.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import WishError

# 64 characters is also the longest common name that RFC 5280 (appendix A, ub-common-name) allows.
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,63}")

# Underscores are not in RFC 1123 but in many a network, and both Go and OpenSSL match them.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_LONGEST_DNS_NAME = 253


def check_name(name: str, what: str) -> None:
    """Refuse a name that cannot safely name a directory and a certificate.

    :param what: whose name it is, such as ``daemon``.
    :raises WishError: with the characters that are allowed.
    """
    if not _SAFE_NAME.fullmatch(name):
        raise WishError(
            f"{name!r} cannot be the name of a {what}: it becomes the name of a directory and the subject of a "
            "certificate. Use at most 64 letters, digits and . _ @ + -, with a letter, a digit or _ first."
        )


def dns_san(name: str, whose: str) -> str:
    """The SAN for a host name; ``*.`` may stand before it.

    :param whose: who asks for it, such as ``daemon build-1``.
    :raises WishError: when it is no host name, with a hint where the mistake is a known one.
    """
    plain = name.lower()
    if plain.endswith("."):
        plain = plain[:-1]
    where = f"{whose} asks for the DNS name {name!r}, "
    if not plain.isascii():
        raise WishError(f"{where}which is not ASCII: certificates carry its IDNA form{_idna_hint(plain)}.")
    if _is_address(plain.strip("[]")):
        raise WishError(f"{where}which is an IP address: list it under ip.")
    wildcard = plain.startswith("*.")
    labels = (plain[2:] if wildcard else plain).split(".")
    if wildcard and len(labels) < 2:
        raise WishError(
            f"{where}but clients do not match a wildcard with fewer than two labels after it: "
            "write something like *.build.example.com."
        )
    if len(plain) > _LONGEST_DNS_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise WishError(
            f"{where}which is no host name: write it without scheme, port, path or spaces, such as build-1.example.com."
        )
    return f"DNS:{plain}"


def ip_san(address: str, whose: str) -> str:
    """The SAN for an IPv4 or IPv6 address.

    :raises WishError: when it is none, or one that nobody can dial.
    """
    where = f"{whose} asks for the IP address {address!r}, "
    try:
        parsed = ipaddress.ip_address(address.strip())
    except ValueError:
        raise WishError(
            f"{where}which is none: write it without brackets, port or prefix length, such as 192.0.2.10 or "
            "2001:db8::10. Host names belong under dns."
        ) from None
    if "%" in str(parsed):
        raise WishError(f"{where}but a certificate cannot carry a zone: leave out the part from % on.")
    if parsed.is_unspecified:
        raise WishError(f"{where}which a daemon can listen on but nobody dials: list the addresses clients use.")
    return f"IP:{parsed}"


def any_san(name: str, whose: str) -> str:
    """The SAN for text that may be either an IP address or a host name."""
    return ip_san(name, whose) if _is_address(name.strip()) else dns_san(name, whose)


def overlap(one: t.AbstractSet[str], other: t.AbstractSet[str]) -> set[str]:
    """The SANs of either side that let it answer for a name of the other, wildcards included."""
    found = set(one & other)
    for left, right in ((one, other), (other, one)):
        for wildcard in left:
            covered = {name for name in right if _covers(wildcard, name)}
            if covered:
                found |= covered | {wildcard}
    return found


def _covers(wildcard: str, name: str) -> bool:
    """Tell whether ``DNS:*.example.com`` matches ``DNS:a.example.com``: one label, never two (RFC 6125, 6.4.3)."""
    return (
        wildcard.startswith("DNS:*.")
        and name.startswith("DNS:")
        and not name.startswith("DNS:*.")
        and name.partition(".")[2] == wildcard[len("DNS:*.") :]
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _idna_hint(name: str) -> str:
    try:
        return f", {name.encode('idna').decode('ascii')}"
    except UnicodeError:
        return ", which begins with xn--"
