# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters daemons and endpoints: what the inventory says of a builder, and nobody else."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.filter.daemons import daemons
from ansible_collections.buildfarm.buildkit.plugins.filter.endpoints import endpoints


def known_as(host: str, **variables: t.Any) -> tuple[list[str], list[str], str]:
    """Names, addresses and endpoint of a host with these variables."""
    hostvars = {host: variables}
    [daemon], [endpoint] = daemons([host], hostvars), endpoints([host], hostvars)
    assert set(daemon) == {"name", "dns", "ip"}
    assert daemon["name"] == host
    assert set(endpoint) == {"address"}
    return daemon["dns"], daemon["ip"], endpoint["address"]


@pytest.mark.parametrize(
    ("host", "variables", "dns", "ip", "endpoint"),
    [
        ("b1.example.com", {}, ["b1.example.com"], [], "tcp://b1.example.com:1234"),
        ("b1", {"ansible_host": "192.0.2.11"}, ["b1"], ["192.0.2.11"], "tcp://192.0.2.11:1234"),
        ("b1", {"ansible_host": "b1.example.com"}, ["b1", "b1.example.com"], [], "tcp://b1.example.com:1234"),
        ("b1", {"ansible_host": "b1"}, ["b1"], [], "tcp://b1:1234"),
        ("b1", {"ansible_host": ""}, ["b1"], [], "tcp://b1:1234"),
        ("192.0.2.11", {}, [], ["192.0.2.11"], "tcp://192.0.2.11:1234"),
        ("2001:db8::1", {}, [], ["2001:db8::1"], "tcp://[2001:db8::1]:1234"),
        ("b1", {"buildkit_port": 4321}, ["b1"], [], "tcp://b1:4321"),
        ("b1", {"buildkit_port": "4321"}, ["b1"], [], "tcp://b1:4321"),
        ("b1", {"buildkit_names": ["n1", "n2"]}, ["n1", "n2"], [], "tcp://n1:1234"),
        (
            "b1",
            {"ansible_host": "192.0.2.11", "buildkit_names": ["n1"]},
            ["n1"],
            ["192.0.2.11"],
            "tcp://n1:1234",
        ),
        (
            "b1",
            {"ansible_host": "192.0.2.11", "buildkit_addresses": ["2001:db8::2", "192.0.2.12"]},
            ["b1"],
            ["2001:db8::2", "192.0.2.12"],
            "tcp://[2001:db8::2]:1234",
        ),
        ("b1", {"buildkit_names": [], "buildkit_addresses": ["192.0.2.12"]}, [], ["192.0.2.12"], "tcp://192.0.2.12:1234"),
        ("b1", {"buildkit_names": [], "buildkit_addresses": []}, [], [], "tcp://b1:1234"),
        ("192.0.2.11", {"buildkit_names": ["n1"], "buildkit_addresses": []}, ["n1"], [], "tcp://n1:1234"),
        ("b1", {"buildkit_endpoint": "tcp://lb.example.com:99", "buildkit_names": ["n1"]}, ["n1"], [], "tcp://lb.example.com:99"),
        ("b1", {"buildkit_endpoint": "unix:///run/b.sock"}, ["b1"], [], "unix:///run/b.sock"),
    ],
)  # fmt: skip
def test_names_addresses_and_endpoint(
    host: str, variables: dict[str, t.Any], dns: list[str], ip: list[str], endpoint: str
) -> None:
    """What is set counts; else the name in the inventory and ansible_host, sorted by what they are."""
    assert known_as(host, **variables) == (dns, ip, endpoint)


def test_one_item_for_each_host_in_order() -> None:
    """As many hosts as there are, whatever else is in hostvars."""
    hostvars = {name: {} for name in ("b", "a", "c")}
    assert [item["name"] for item in daemons(["b", "a"], hostvars)] == ["b", "a"]
    assert endpoints(["b", "a"], hostvars) == [{"address": "tcp://b:1234"}, {"address": "tcp://a:1234"}]
    assert daemons([], hostvars) == []


def test_the_garbage_collection_of_each() -> None:
    """Where one must be in effect, none at all included; a host of which nothing is known has no wish."""
    hostvars = {name: {} for name in ("a", "b", "c", "d")}
    rules = [{"all": True}]
    found = endpoints(["a", "b", "c", "d"], hostvars, {"a": rules, "b": [], "c": None})
    assert [item.get("gc_policy") for item in found] == [rules, [], None, None]


def test_requests_and_trust_of_the_hosts() -> None:
    """Those of the registered result; a host that was skipped or never came so far has none."""
    hostvars = {
        "a": {"result": {"csr": "PEM", "trusts": ("0f",), "changed": True}},
        "b": {"result": {"skipped": True}},
        "c": {},
    }
    assert [(item["csr"], item["trusts"]) for item in daemons(list(hostvars), hostvars, csr_result="result")] == [
        ("PEM", ["0f"]),
        (None, []),
        (None, []),
    ]


def test_groups_that_a_builder_admits() -> None:
    """Where they are set, an empty list too; nothing is said of the others, which admit all."""
    hostvars = {"a": {"buildkit_admits": ("release", "ops")}, "b": {}, "c": {"buildkit_admits": []}}
    items = daemons(list(hostvars), hostvars)
    assert [item.get("admits", "all") for item in items] == [["release", "ops"], "all", []]


@pytest.mark.parametrize(
    "variable",
    [
        "buildkit_admits",
        "buildkit_names",
        "buildkit_port",
        "buildkit_pki_valid_for",
        "buildkit_clients",
        "buildkitd_config",
    ],
)
@pytest.mark.parametrize("of", [daemons, endpoints])
def test_a_fact_of_the_host_is_refused(of: t.Callable[..., t.Any], variable: str) -> None:
    """A builder that claims a variable, even with the inventory's own value, is named with what it claimed."""
    facts = {"os_family": "Debian", variable: ["other.example.com"]}
    with pytest.raises(AnsibleFilterError, match=rf"Host bad returned {variable} as a fact\. .* is refused"):
        of(["good", "bad"], {"good": {"ansible_facts": {}}, "bad": {"ansible_facts": facts}})


@pytest.mark.parametrize("variable", ["buildkit_names", "buildkit_addresses", "buildkit_admits"])
@pytest.mark.parametrize("value", ["192.0.2.11", 7, {"a": 1}])
@pytest.mark.parametrize("of", [daemons, endpoints])
def test_what_is_no_list_is_refused(of: t.Callable[..., t.Any], variable: str, value: t.Any) -> None:
    """A text would otherwise be read as a list of letters."""
    with pytest.raises(AnsibleFilterError, match=rf"{variable} of host b1 must be a list, such as \["):
        of(["b1"], {"b1": {variable: value}})


@pytest.mark.parametrize(
    "address", ["http://b1.example.com", "b1.example.com:1234", "tcp://b1:port", "unix://relative", "tcp://:1234"]
)
@pytest.mark.parametrize("of", [daemons, endpoints])
def test_an_endpoint_that_nobody_can_dial_is_refused(of: t.Callable[..., t.Any], address: str) -> None:
    """While certificates are planned, before anything is made; with the host and how to write it."""
    with pytest.raises(AnsibleFilterError, match=r"endpoint of host b1 .*(tcp://HOST:PORT|tcp://builder|unix:///run)"):
        of(["b1"], {"b1": {"buildkit_endpoint": address}})
