# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wishes, and those that are refused before anything on disk is looked at."""

from __future__ import annotations

import typing as t
from datetime import timedelta

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import csr, keys, wishes
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import CsrError, WishError

Wish = t.Callable[..., t.Dict[str, t.Any]]

ONE = {"name": "build-1", "dns": ["build-1.example.com"], "ip": ["192.0.2.11"]}
TWO = {"name": "build-2", "dns": ["build-2.example.com"]}


def test_wishes_are_read_with_their_defaults(wish: Wish) -> None:
    """About a third of the life is the renewal window; SANs are in one spelling; clients have none."""
    found = wishes.read_wishes(wish(daemons=[ONE], clients=["ci"]))
    assert found.authority == wishes.AuthorityWish(
        "default", "BuildKit CA", "ecdsa-p256", wishes.Life(timedelta(days=3650), timedelta(days=1216))
    )
    daemon, client = found.leaves
    assert (daemon.kind, daemon.name) == ("daemon", "build-1")
    assert daemon.sans == {"DNS:build-1.example.com", "IP:192.0.2.11"}
    assert daemon.life == wishes.Life(timedelta(days=90), timedelta(days=30))
    assert (client.kind, client.name, client.sans) == ("client", "ci", frozenset())


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ({"daemons": [{"name": "build-1"}]}, "daemon build-1 has neither dns nor ip"),
        ({"daemons": [ONE, {**TWO, "ip": ["192.0.2.11"]}]}, "build-1 and build-2 both ask for IP:192.0.2.11"),
        ({"daemons": [ONE, {**TWO, "dns": ["*.example.com"]}]}, "both ask for DNS:*.example.com, DNS:build-1"),
        ({"daemons": [ONE, {**TWO, "name": "build-1"}]}, "'build-1' and 'build-1' are listed in one run"),
        ({"clients": ["ci", "CI"]}, "'ci' and 'CI' are listed in one run"),
        ({"daemons": [{**ONE, "name": "../build-1"}]}, "'../build-1' cannot be the name of a daemon"),
        ({"daemons": [{**ONE, "name": ".build"}]}, "'.build' cannot be the name of a daemon"),
        ({"clients": ["a b"]}, "'a b' cannot be the name of a client"),
        ({"daemons": [{**ONE, "dns": ["b\u00fccher.example"]}]}, "not ASCII"),
        ({"daemons": [{**ONE, "trusts": ["abc"]}]}, "trusts of the daemon build-1 contains 'abc'"),
        ({"valid_for": "90x"}, "valid_for is '90x'"),
        ({"renew_before": "soon"}, "renew_before is 'soon'"),
        ({"renew_before": "90d"}, "renew_before (90d) is not shorter than valid_for (90d)"),
        ({"valid_for": "10d", "renew_before": "2w"}, "renew_before (14d) is not shorter than valid_for (10d)"),
        ({"ca": {"valid_for": "1d", "renew_before": "2d"}}, "ca.renew_before (2d) is not shorter than ca.valid_for"),
        ({"ca": {"valid_for": "1y"}}, "ca.valid_for is '1y'"),
        ({"ca": {"common_name": " "}}, "ca.common_name"),
        ({"ca": {"common_name": "x" * 65}}, "ca.common_name"),
        ({"ca": {"passphrase": "short"}}, "fewer than 8 characters"),
        ({"ca": {"passphrase": ""}}, "fewer than 8 characters"),
        ({"ca": {"previous_passphrase": "long enough"}}, "ca.previous_passphrase was given without ca.passphrase"),
        ({"ca": {"import_key": "/ca.key"}}, "ca.import_certificate and ca.import_key go together"),
        ({"ca": {"import_passphrase": "short"}}, "ca.import_passphrase has fewer than 8 characters"),
        ({"ca": {"max_age": "old"}}, "ca.max_age is 'old'"),
        ({"daemons": [{**ONE, "admits": []}]}, "admits of the daemon build-1 is empty"),
        ({"daemons": [{**ONE, "admits": ["../x"]}]}, "'../x' cannot be the name of a group"),
        ({"clients": [{"name": "ci", "group": "a/b"}]}, "'a/b' cannot be the name of a group"),
        ({"clients": [{"name": "a", "group": "G"}, {"name": "b", "group": "g"}]}, "groups 'G' and 'g' are listed"),
        ({"clients": [{"name": "a", "group": "x" * 60}]}, "longer than 64 characters"),
        ({"daemon_ca": "a b"}, "'a b' cannot be the name of a CA"),
        ({"rollover": {"phase": "issue", "authority": "../x"}}, "'../x' cannot be the name of a CA"),
        ({"trust": "pinned", "clients": [{"name": "ci", "csr": "x"}]}, "has a csr, and trust is pinned"),
        ({"shared_names": ["a b"]}, "shared_names asks for the DNS name 'a b'"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(wish: Wish, wanted: dict[str, t.Any], problem: str) -> None:
    """The message names the option or the one concerned, and what was written."""
    with pytest.raises(WishError) as caught:
        wishes.read_wishes(wish(**wanted))
    assert problem in str(caught.value)


def test_a_passphrase_is_never_repeated(wish: Wish) -> None:
    """Not even one that is refused."""
    with pytest.raises(WishError) as caught:
        wishes.read_wishes(wish(ca={"passphrase": "qwzx"}))
    assert "qwzx" not in str(caught.value)


@pytest.mark.parametrize("shared", ["build-1.example.com", "192.0.2.11"])
def test_names_may_be_shared_on_purpose(wish: Wish, shared: str) -> None:
    """What is listed in shared_names may stand on several daemons, and nothing else."""
    twin = {**ONE, "name": "twin", "dns": ["build-1.example.com"], "ip": []}
    if shared == "192.0.2.11":
        twin.update(dns=["twin.example.com"], ip=[shared])
    assert len(wishes.read_wishes(wish(daemons=[ONE, twin], shared_names=[shared])).leaves) == 2
    with pytest.raises(WishError):
        wishes.read_wishes(wish(daemons=[ONE, twin], shared_names=["other.example.com"]))


def test_fingerprints_are_taken_in_either_spelling(wish: Wish) -> None:
    """OpenSSL writes upper case with colons."""
    colons = ":".join(["AB"] * 32)
    found = wishes.read_wishes(wish(daemons=[{**ONE, "trusts": [colons]}]))
    assert found.leaves[0].trusts == {"ab" * 32}


def test_a_request_is_checked_against_the_wish(wish: Wish) -> None:
    """The right one is taken, one of another daemon is not."""
    key = keys.generate("ecdsa-p256")
    good = wishes.read_wishes(wish(daemons=[{**ONE, "csr": csr.build_request("build-1", key)}])).leaves[0]
    assert good.request is not None
    assert keys.spki(good.request.public_key) == keys.spki(key)
    with pytest.raises(CsrError, match="daemon build-1 asks for other names"):
        wishes.read_wishes(wish(daemons=[{**ONE, "csr": csr.build_request("build-2", key)}]))
