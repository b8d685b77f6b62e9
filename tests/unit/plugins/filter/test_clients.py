# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter clients."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.filter.clients import clients


def test_names_and_dictionaries() -> None:
    """In the order in which they come; a number is a name too."""
    assert clients(["alice", {"name": "ci"}, 7]) == [{"name": "alice"}, {"name": "ci"}, {"name": "7"}]
    assert clients([]) == []


def test_groups_and_requests_are_kept() -> None:
    """What is not set is not said."""
    wished = [{"name": "ci", "group": "release", "csr": None}, {"name": "bob", "csr": "PEM"}]
    assert clients(wished) == [{"name": "ci", "group": "release"}, {"name": "bob", "csr": "PEM"}]


def test_a_client_that_is_named_twice_is_listed_once() -> None:
    """At its first place, with all that was said of it; the input is left as it is."""
    wished = ["ci", {"name": "alice", "group": "release"}, "alice", {"name": "ci", "group": "release"}]
    before = [dict(item) if isinstance(item, dict) else item for item in wished]
    assert clients(wished) == [{"name": "ci", "group": "release"}, {"name": "alice", "group": "release"}]
    assert wished == before


def test_a_contradiction_is_refused() -> None:
    """Nobody can be in two groups, and the first mention does not silently win."""
    with pytest.raises(AnsibleFilterError, match=r"names the client ci twice, with a different group \(a and b\)"):
        clients([{"name": "ci", "group": "a"}, "alice", {"name": "ci", "group": "b"}])


def test_what_is_not_known_is_refused() -> None:
    """A misspelled group would let the client in everywhere."""
    with pytest.raises(AnsibleFilterError, match="The client ci of buildkit_clients has gruop; only name, group, csr"):
        clients([{"name": "ci", "gruop": "release"}])


@pytest.mark.parametrize("wished", ["alice", {"name": "alice"}, None, 7])
def test_what_is_no_list_is_refused(wished: t.Any) -> None:
    """With how it is written."""
    with pytest.raises(AnsibleFilterError, match=r"buildkit_clients must be a list of names, such as \["):
        clients(wished)


@pytest.mark.parametrize("item", [{}, {"name": ""}, {"nmae": "alice"}, ""])
def test_an_item_without_a_name_is_refused(item: t.Any) -> None:
    """It is shown."""
    with pytest.raises(AnsibleFilterError, match="Every item of buildkit_clients must be a name or have one"):
        clients(["ci", item])
