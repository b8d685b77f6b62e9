# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The builders of the inventory as nodes of builders in buildx.

Private to this collection.
"""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import pool
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._inventory import builder

Node = dict[str, t.Any]


def members(
    hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Any], found: t.Iterable[t.Mapping[str, t.Any]], group: str
) -> list[pool.Member]:
    """The daemons that a group of clients may build on; of all groups where that is empty.

    :param found: the result ``daemons`` of buildkit_info or buildkit_verify, for platforms that the inventory does not
        tell.
    :raises AnsibleFilterError: where the inventory makes no sense.
    """
    told = {str(item.get("address")): item for item in found}
    known = []
    for host in hosts:
        one = builder(str(host), hostvars[host])
        if group and one.admits is not None and group not in one.admits:
            continue
        workers = told.get(one.endpoint, {}).get("workers") or [{}]
        given = one.platforms if one.platforms is not None else workers[0].get("platforms") or []
        try:
            known.append(pool.member(one.name, one.endpoint, given))
        except ClientError as error:
            raise AnsibleFilterError(f"buildkit_platforms of host {one.name}: {error}") from error
    return known


def as_node(member: pool.Member) -> Node:
    """A node as M(buildfarm.buildkit.buildx_builder) wants it; without platforms where they are not known."""
    node: Node = {"name": member.node, "endpoint": member.endpoint}
    if member.platforms:
        node["platforms"] = list(member.platforms)
    return node
