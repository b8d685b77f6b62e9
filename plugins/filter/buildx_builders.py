# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The builders in buildx that make a pool of daemons usable."""

from __future__ import annotations

DOCUMENTATION = r"""
name: buildx_builders
short_description: The builders of docker buildx that a pool of daemons makes
version_added: 1.1.0
description:
  - The first builder has the name of the pool and is for all platforms, as P(buildfarm.buildkit.buildx_nodes#filter)
    makes it.
  - Where that leaves hosts out, because others build the same platforms, each host is a builder of its own too, of the
    name C(POOL-HOST). P(buildfarm.buildkit.buildkit_pick#filter) chooses between them.
options:
  _input:
    description: Names of hosts in the inventory.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
  pool:
    description: The name of the pool.
    type: str
    default: buildkit
  found:
    description: As O(buildfarm.buildkit.buildx_nodes#filter:found).
    type: list
    elements: dict
    default: []
  group:
    description: As O(buildfarm.buildkit.buildx_nodes#filter:group).
    type: str
    default: ""
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - plugin: buildfarm.buildkit.buildx_nodes
    plugin_type: filter
  - plugin: buildfarm.buildkit.buildkit_pick
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Make all builders of a pool
  buildfarm.buildkit.buildx_builder:
    name: "{{ item.name }}"
    nodes: "{{ item.nodes }}"
    cacert: /etc/buildkit/client/buildkit/ca.pem
    cert: /etc/buildkit/client/buildkit/cert.pem
    key: /etc/buildkit/client/buildkit/key.pem
  loop: "{{ groups['buildkit_daemons'] | buildfarm.buildkit.buildx_builders(hostvars) }}"
"""

RETURN = r"""
_value:
  description: The builders, that for all platforms first.
  type: list
  elements: dict
  sample:
    - name: buildkit
      nodes:
        - name: b1.example.com
          endpoint: tcp://b1.example.com:1234
          platforms: [linux/amd64]
    - name: buildkit-b1.example.com
      nodes:
        - name: b1.example.com
          endpoint: tcp://b1.example.com:1234
          platforms: [linux/amd64]
    - name: buildkit-b2.example.com
      nodes:
        - name: b2.example.com
          endpoint: tcp://b2.example.com:1234
          platforms: [linux/amd64]
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import pool as pools
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils import _pool


def buildx_builders(
    hosts: t.Iterable[str],
    hostvars: t.Mapping[str, t.Any],
    pool: str = "buildkit",
    found: t.Iterable[t.Mapping[str, t.Any]] = (),
    group: str = "",
) -> list[dict[str, t.Any]]:
    """The builders of a pool: {name, nodes}; that for all platforms is the first.

    :raises AnsibleFilterError: where the inventory makes no sense, or two hosts would have one name in buildx.
    """
    try:
        made = pools.builders(pool, _pool.members(hosts, hostvars, found, group))
    except ClientError as error:
        raise AnsibleFilterError(str(error)) from error
    return [{"name": name, "nodes": [_pool.as_node(one) for one in nodes]} for name, nodes in made.items()]


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"buildx_builders": buildx_builders}
