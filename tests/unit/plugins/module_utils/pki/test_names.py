# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of daemons and clients, and names in certificates."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import names
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import WishError


@pytest.mark.parametrize("name", ["build-1", "build-1.example.com", "alice@example.com", "CI_2", "_x", "a" * 64])
def test_a_plain_name_names_a_directory(name: str) -> None:
    """Host names, mail addresses and underscores are fine."""
    names.check_name(name, "daemon")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../evil",
        "a/b",
        "/etc",
        ".hidden",
        "a b",
        " a",
        "a\n",
        "a\0b",
        "-rf",
        "b\u00fccher",
        "a" * 65,
        "~",
    ],
)
def test_a_name_that_could_leave_its_directory_is_refused(name: str) -> None:
    """Paths, hidden names, blanks, options and what is too long for a subject never become file names."""
    with pytest.raises(WishError, match="cannot be the name of a client"):
        names.check_name(name, "client")


@pytest.mark.parametrize(
    ("name", "san"),
    [
        ("build-1.example.com", "DNS:build-1.example.com"),
        ("BUILD.Example.COM", "DNS:build.example.com"),
        ("build.example.com.", "DNS:build.example.com"),
        ("localhost", "DNS:localhost"),
        ("*.build.example.com", "DNS:*.build.example.com"),
        ("my_host", "DNS:my_host"),
        ("xn--bcher-kva.example", "DNS:xn--bcher-kva.example"),
    ],
)
def test_host_names_become_one_spelling(name: str, san: str) -> None:
    """Case and the final dot do not make another name."""
    assert names.dns_san(name, "daemon b") == san


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("192.0.2.1", "list it under ip"),
        ("[2001:db8::1]", "list it under ip"),
        ("*.com", "fewer than two labels"),
        ("*", "no host name"),
        ("a.*.example.com", "no host name"),
        ("tcp://build.example.com", "without scheme"),
        ("build.example.com:1234", "without scheme, port"),
        ("", "no host name"),
        ("a..b", "no host name"),
        ("-a.example", "no host name"),
        ("a b", "no host name"),
        ("a" * 64 + ".example", "no host name"),
        (".".join(["a" * 50] * 6), "no host name"),
    ],
)
def test_what_no_client_could_dial_is_refused_with_a_hint(name: str, hint: str) -> None:
    """The message says whose name it is and what to write instead."""
    with pytest.raises(WishError, match="daemon b asks for") as caught:
        names.dns_san(name, "daemon b")
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("address", "san"),
    [("192.0.2.10", "IP:192.0.2.10"), ("2001:DB8:0:0::1", "IP:2001:db8::1"), ("::1", "IP:::1")],
)
def test_addresses_become_their_shortest_form(address: str, san: str) -> None:
    """One address has one spelling."""
    assert names.ip_san(address, "daemon b") == san


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("build-1", "belong under dns"),
        ("192.0.2.0/24", "prefix length"),
        ("192.0.2.1:1234", "port"),
        ("[2001:db8::1]", "brackets"),
        (str(ipaddress.IPv4Address(0)), "nobody dials"),
        ("::", "nobody dials"),
        ("fe80::1%eth0", ""),
        ("300.1.1.1", ""),
    ],
)
def test_what_is_no_address_to_dial_is_refused(address: str, hint: str) -> None:
    """Listen addresses, networks and host names are told apart from addresses."""
    with pytest.raises(WishError, match="daemon b asks for the IP address") as caught:
        names.ip_san(address, "daemon b")
    assert hint in str(caught.value)


def test_text_of_either_kind_is_told_apart() -> None:
    """shared_names takes host names and addresses alike."""
    assert names.any_san("192.0.2.1", "shared_names") == "IP:192.0.2.1"
    assert names.any_san("pool.example.com", "shared_names") == "DNS:pool.example.com"


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ({"DNS:a.x.org"}, {"DNS:b.x.org"}, set()),
        ({"DNS:a.x.org", "IP:192.0.2.1"}, {"IP:192.0.2.1"}, {"IP:192.0.2.1"}),
        ({"DNS:*.x.org"}, {"DNS:a.x.org"}, {"DNS:*.x.org", "DNS:a.x.org"}),
        ({"DNS:a.x.org"}, {"DNS:*.x.org"}, {"DNS:*.x.org", "DNS:a.x.org"}),
        ({"DNS:*.x.org"}, {"DNS:a.b.x.org"}, set()),
        ({"DNS:*.x.org"}, {"DNS:x.org"}, set()),
        ({"DNS:*.x.org"}, {"DNS:*.x.org"}, {"DNS:*.x.org"}),
    ],
)
def test_overlap_counts_what_a_wildcard_covers(one: set[str], other: set[str], common: set[str]) -> None:
    """A wildcard stands for exactly one label, as in every TLS client."""
    assert names.overlap(one, other) == common
