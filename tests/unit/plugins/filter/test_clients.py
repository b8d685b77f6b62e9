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


def test_a_client_that_is_named_twice_is_listed_once() -> None:
    """The first one counts, at its place."""
    wished = ["ci", {"name": "alice", "note": 1}, "alice", {"name": "ci"}]
    assert clients(wished) == [{"name": "ci"}, {"name": "alice", "note": 1}]


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
