# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The builders of the inventory as nodes and builders of buildx."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.filter.buildx_builders import buildx_builders
from ansible_collections.buildfarm.buildkit.plugins.filter.buildx_nodes import buildx_nodes
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import buildx

AMD = ["linux/amd64", "linux/amd64/v2", "linux/386", "linux/arm64"]  # arm64 emulated
ARM = ["linux/arm64", "linux/arm/v7"]


def fleet(**platforms: t.Any) -> dict[str, dict[str, t.Any]]:
    """Hosts with these platforms, or these variables."""
    return {
        name: value if isinstance(value, dict) else {} if value is None else {"buildkit_platforms": value}
        for name, value in platforms.items()
    }


def node(name: str, *platforms: str) -> dict[str, t.Any]:
    """A node at the host's own name."""
    return {"name": name, "endpoint": f"tcp://{name}:1234", **({"platforms": [*platforms]} if platforms else {})}


def test_each_platform_has_one_node_and_its_own_before_an_emulated_one() -> None:
    """Though the first host says that it could build for arm64 too."""
    hostvars = fleet(b1=AMD, b2=ARM)
    expected = [node("b1", "linux/amd64", "linux/amd64/v2", "linux/386"), node("b2", "linux/arm64", "linux/arm/v7")]
    assert buildx_nodes(hostvars, hostvars) == expected
    assert buildx_builders(hostvars, hostvars) == [{"name": "buildkit", "nodes": expected}]


def test_equal_hosts_become_builders_of_their_own() -> None:
    """Beside the one for all platforms, which has only one of them."""
    hostvars = fleet(b1=["linux/amd64"], b2=["linux/x86_64"], b3=ARM)
    assert buildx_builders(hostvars, hostvars, pool="farm") == [
        {"name": "farm", "nodes": [node("b1", "linux/amd64"), node("b3", *ARM)]},
        {"name": "farm-b1", "nodes": [node("b1", "linux/amd64")]},
        {"name": "farm-b2", "nodes": [node("b2", "linux/amd64")]},
        {"name": "farm-b3", "nodes": [node("b3", *ARM)]},
    ]


@pytest.mark.parametrize(
    ("platforms", "expected"),
    [
        ({"b1": None, "b2": None}, [node("b1")]),
        ({"b1": None, "b2": ARM}, [node("b1")]),
        ({"b1": AMD, "b2": None}, [node("b1", *AMD)]),
        ({"b1": None}, [node("b1")]),
        ({}, []),
    ],
)
def test_unknown_platforms_take_nothing_from_others(platforms: dict[str, t.Any], expected: list[t.Any]) -> None:
    """buildx asks the daemon then, so such a node is the only one or none."""
    hostvars = fleet(**platforms)
    assert buildx_nodes(hostvars, hostvars) == expected


def test_what_the_daemons_said_counts_where_the_inventory_says_nothing() -> None:
    """As buildkit_info and buildkit_verify return it, by the address."""
    hostvars = fleet(b1=None, b2=["linux/arm64"])
    found = [
        {"address": "tcp://b1:1234", "workers": [{"platforms": AMD}, {"platforms": ["linux/s390x"]}]},
        {"address": "tcp://b2:1234", "workers": [{"platforms": AMD}]},
        {"address": "tcp://b3:1234", "workers": []},
    ]
    assert buildx_nodes(hostvars, hostvars, found) == [
        node("b1", "linux/amd64", "linux/amd64/v2", "linux/386"),
        node("b2", "linux/arm64"),
    ]
    assert buildx_nodes(["b1"], hostvars, [{"address": "tcp://b1:1234", "workers": []}]) == [node("b1")]


def test_a_group_of_clients_sees_the_hosts_that_admit_it() -> None:
    """And without a group all of them are there."""
    hostvars = fleet(
        b1={"buildkit_admits": ["release"], "buildkit_platforms": ["linux/amd64"]},
        b2={"buildkit_platforms": ["linux/arm64"]},
    )
    assert [one["name"] for one in buildx_nodes(hostvars, hostvars, group="release")] == ["b1", "b2"]
    assert [one["name"] for one in buildx_nodes(hostvars, hostvars, group="default")] == ["b2"]
    assert [one["name"] for one in buildx_nodes(hostvars, hostvars)] == ["b1", "b2"]


def test_every_builder_is_one_that_buildx_takes() -> None:
    """Names that are none in buildx are made so."""
    hostvars = fleet(**{"192.0.2.1": ["linux/amd64"], "B_2.Example": ["linux/amd64"], "2001:db8::1": ARM})
    made = buildx_builders(hostvars, hostvars)
    assert [one["name"] for one in made] == [
        "buildkit",
        "buildkit-n-192.0.2.1",
        "buildkit-b_2.example",
        "buildkit-n-2001-db8--1",
    ]
    for one in made:
        buildx.wish(one["name"], one["nodes"], {"cacert": "/c/ca.pem"})


def test_two_hosts_of_one_name_are_refused() -> None:
    """To buildx they would be one."""
    hostvars = fleet(**{"b-1": ["linux/amd64"], "B-1": ["linux/arm64"]})
    for made in (buildx_nodes, buildx_builders):
        with pytest.raises(AnsibleFilterError, match="Two builders are both b-1"):
            made(hostvars, hostvars)


@pytest.mark.parametrize("platforms", ["linux/amd64", ["amd64"]])
def test_platforms_that_are_none_are_refused(platforms: t.Any) -> None:
    """With the variable's name."""
    with pytest.raises(AnsibleFilterError, match="buildkit_platforms of host b1"):
        buildx_nodes(["b1"], {"b1": {"buildkit_platforms": platforms}})
