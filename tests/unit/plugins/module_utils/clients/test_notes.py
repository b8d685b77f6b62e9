# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has noted, and what of it the inventory tells no more."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import notes

SSH: dict[str, t.Any] = {"name": "one", "via": "ssh", "user": "alice", "builder": "b1", "known_hosts": "x", "port": 22}


def test_who_and_what_is_gone() -> None:
    """A user who left; a forward that left, or that has another user or builder; not one with another host key."""
    note = {"users": ["alice", "bob"], "forwards": [notes.forward(SSH), notes.forward({"name": "two", "via": "tls"})]}
    assert notes.gone_users(note, ["bob", "zoe"]) == ["alice"]
    assert [one["name"] for one in notes.gone_forwards(note, [{**SSH, "known_hosts": "y", "port": 23}])] == ["two"]
    for other in ({"user": "bob"}, {"builder": "b2"}, {"login": "build"}, {"via": "tls"}):
        assert [one["name"] for one in notes.gone_forwards(note, [{**SSH, **other}])] == ["one", "two"]
    assert notes.gone_users({}, ["alice"]) == []
    assert notes.gone_forwards({}, [SSH]) == []


def test_a_name_of_another_pools_forward_is_taken() -> None:
    """The units would be the same."""
    found: dict[str, dict[str, t.Any]] = {"a": {"forwards": [notes.forward(SSH)]}, "b": {}}
    assert notes.taken(found, [SSH, {"name": "two"}], without="b") == ["one"]
    assert notes.taken(found, [SSH], without="a") == []


def test_other_pools_keep_their_members(tmp_path: Path) -> None:
    """Those in the same group, and not those of another."""
    for pool, group, user in (("a", "g", "alice"), ("b", "g", "bob"), ("c", "other", "zoe")):
        (tmp_path / pool).mkdir()
        (tmp_path / pool / "bundle.json").write_text(f'{{"users": ["{user}"], "group": "{group}"}}')
    (tmp_path / "empty").mkdir()
    found = notes.read(str(tmp_path))
    assert sorted(found) == ["a", "b", "c"]
    assert notes.members(found, "g", without="a") == ["bob"]
    assert notes.read(str(tmp_path / "nowhere")) == {}


@pytest.mark.parametrize(("text", "why"), [("[]", "is no dictionary"), ("{", "Expecting property name")])
def test_a_damaged_note_is_an_error(tmp_path: Path, text: str, why: str) -> None:
    """Rather than a forgotten user."""
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "bundle.json").write_text(text)
    with pytest.raises(ValueError, match=why):
        notes.read(str(tmp_path))
