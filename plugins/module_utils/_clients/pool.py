# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which daemons of a pool make up which builder of buildx."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import platforms
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

_NAME = re.compile(r"[a-z][a-z0-9._-]*")


@dataclass(frozen=True)
class Member:
    """A daemon as a node: its name in buildx, its endpoint, and its platforms, its own first; none if not known."""

    node: str
    endpoint: str
    platforms: t.Tuple[str, ...] = ()


def member(name: str, endpoint: str, given: t.Iterable[str] = ()) -> Member:
    """A daemon of this name, with its platforms in buildx's spelling.

    :raises ClientError: where one of them is none.
    """
    return Member(node_name(name), endpoint, tuple(dict.fromkeys(platforms.normalize(str(one)) for one in given)))


def node_name(name: str) -> str:
    """The name of a daemon as buildx takes names."""
    plain = re.sub(r"[^a-z0-9._-]", "-", name.lower())
    return plain if _NAME.fullmatch(plain) else f"n-{plain}"


def nodes(members: t.Sequence[Member]) -> t.List[Member]:
    """The nodes of one builder for all platforms of the pool, each with the platforms that it builds.

    buildx takes the first node that has a platform and never another. So each platform has one node: the first daemon
    whose own it is, else the first that emulates it. A daemon that no platform is left for is none of the nodes, and
    one whose platforms are not known only where it is the first.

    :raises ClientError: where two daemons have one name.
    """
    names = [one.node for one in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ClientError(f"Two builders are both {twice[0]} to buildx. Give one of them another name.")
    if members and not members[0].platforms:
        return [members[0]]
    owners: t.Dict[str, str] = {}
    for native in (True, False):
        for one in members:
            for platform in one.platforms[:1] if native else one.platforms[1:]:
                owners.setdefault(platform, one.node)
    found = [
        Member(one.node, one.endpoint, tuple(platform for platform in one.platforms if owners[platform] == one.node))
        for one in members
    ]
    return [one for one in found if one.platforms]


def builders(pool: str, members: t.Sequence[Member]) -> t.Dict[str, t.List[Member]]:
    """The builders of a pool with their nodes: one for all platforms, and where a daemon is left out of it, one each.

    :raises ClientError: where two daemons have one name.
    """
    main = nodes(members)
    if len(main) == len(members):
        return {pool: main}
    return {pool: main, **{f"{pool}-{one.node}": [one] for one in members}}
