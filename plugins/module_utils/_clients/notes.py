# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role buildkit_client has noted of each pool on a host, and what of it the inventory tells no more::

<path>/<pool>/bundle.json
"""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files

_NOTE = "bundle.json"
# What makes a forward another one: its key must not be used by another user, or on another builder.
_SAME = {"name": "", "via": "", "user": "root", "builder": "", "login": "root"}

Forward = t.Dict[str, t.Any]


def read(path: str) -> t.Dict[str, t.Dict[str, t.Any]]:
    """The notes of all pools.

    :raises ValueError: where one is not what the role writes.
    """
    found = {}
    for pool in sorted(os.listdir(path)) if os.path.isdir(path) else []:
        place = os.path.join(path, pool, _NOTE)
        data = _files.read_optional(place)
        if data is not None:
            note = json.loads(data.decode("utf-8"))
            if not isinstance(note, dict):
                raise ValueError(f"{place} is no dictionary")
            found[pool] = note
    return found


def forward(wish: t.Mapping[str, t.Any]) -> Forward:
    """What is noted of a forward."""
    return {key: str(wish.get(key) or default) for key, default in _SAME.items()}


def gone_users(note: t.Mapping[str, t.Any], users: t.Sequence[str]) -> t.List[str]:
    """The users for whom something was set up, and shall no longer be."""
    return [user for user in note.get("users", []) if user not in users]


def gone_forwards(note: t.Mapping[str, t.Any], forwards: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[Forward]:
    """The forwards that were set up, and shall no longer be as they are."""
    wished = [forward(one) for one in forwards]
    return [one for one in note.get("forwards", []) if one not in wished]


def members(notes: t.Mapping[str, t.Mapping[str, t.Any]], group: str, without: str) -> t.List[str]:
    """The users who are in a group for the sake of other pools than one."""
    return sorted(
        {
            user
            for pool, note in notes.items()
            if pool != without and note.get("group") == group
            for user in note["users"]
        }
    )


def taken(
    notes: t.Mapping[str, t.Mapping[str, t.Any]], forwards: t.Sequence[t.Mapping[str, t.Any]], without: str
) -> t.List[str]:
    """The names of forwards that other pools than one have already."""
    theirs = {one["name"] for pool, note in notes.items() if pool != without for one in note.get("forwards", [])}
    return [one["name"] for one in forwards if one.get("name") in theirs]


def in_use(notes: t.Mapping[str, t.Mapping[str, t.Any]], wish: t.Mapping[str, t.Any], without: str) -> t.List[str]:
    """Why other pools are in the way of one: what would be theirs and its own, so that each run undid the other's.

    :param wish: its C(dir), C(profile), C(users) and C(builders).
    """
    problems = []
    for pool, note in notes.items():
        if pool == without:
            continue
        for key, what in (("dir", "certificate"), ("profile", "profile")):
            if wish[key] and os.path.normpath(wish[key]) == os.path.normpath(note.get(key) or "/"):
                problems.append(f"the pool {pool} has its {what} in {wish[key]} already: choose another place")
        shared = sorted(set(wish["builders"]) & set(note.get("builders", [])))
        users = sorted(set(wish["users"]) & set(note.get("users", [])))
        if shared and users:
            problems.append(
                f"the pool {pool} has a builder {shared[0]} for {users[0]} already: choose another name for one of them"
            )
    return problems


def theirs(notes: t.Mapping[str, t.Mapping[str, t.Any]], without: str) -> t.List[str]:
    """The directories, profiles and programs of other pools than one."""
    found: t.Set[str] = set()
    for pool, note in notes.items():
        if pool != without:
            found.update(note.get("programs", []), (note.get("dir", ""), note.get("profile", "")))
    return sorted(found - {""})
