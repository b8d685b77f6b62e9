# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The builders of the inventory as nodes of one builder in buildx."""

from __future__ import annotations

DOCUMENTATION = r"""
name: buildx_nodes
short_description: The builders of the inventory as nodes of one builder of docker buildx
version_added: 1.1.0
description:
  - Turns names of hosts into the value of O(buildfarm.buildkit.buildx_builder#module:nodes).
  - buildx takes the first node that has a platform, and never another. So each platform gets one node. It is the first
    host whose own platform it is, else the first that emulates it. Hosts that no platform is left for are left out.
  - The platforms of a host are C(buildkit_platforms), its own first. Where that is not set they are those in O(found).
  - A host whose platforms are not known is a node only where it is the first, which then is the only one.
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
  found:
    description:
      - What RV(buildfarm.buildkit.buildkit_info#module:daemons) or
        RV(buildfarm.buildkit.buildkit_verify#module:daemons) said of the daemons.
    type: list
    elements: dict
    default: []
  group:
    description: A group of clients. Hosts whose C(buildkit_admits) leave it out are left out. Empty means all hosts.
    type: str
    default: ""
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildx_builder
  - plugin: buildfarm.buildkit.buildx_builders
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Make one builder for all platforms
  buildfarm.buildkit.buildx_builder:
    name: buildkit
    nodes: "{{ groups['buildkit_daemons'] | buildfarm.buildkit.buildx_nodes(hostvars) }}"
    cacert: /etc/buildkit/client/buildkit/ca.pem
    cert: /etc/buildkit/client/buildkit/cert.pem
    key: /etc/buildkit/client/buildkit/key.pem
"""

RETURN = r"""
_value:
  description: The nodes, in the order of the hosts.
  type: list
  elements: dict
  sample:
    - name: b1.example.com
      endpoint: tcp://b1.example.com:1234
      platforms: [linux/amd64, linux/386]
    - name: b2.example.com
      endpoint: tcp://b2.example.com:1234
      platforms: [linux/arm64]
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import pool
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils import _pool


def buildx_nodes(
    hosts: t.Iterable[str],
    hostvars: t.Mapping[str, t.Any],
    found: t.Iterable[t.Mapping[str, t.Any]] = (),
    group: str = "",
) -> list[dict[str, t.Any]]:
    """The nodes of one builder, in the order of the hosts: {name, endpoint, platforms}.

    :raises AnsibleFilterError: where the inventory makes no sense, or two hosts would have one name in buildx.
    """
    try:
        return [_pool.as_node(one) for one in pool.nodes(_pool.members(hosts, hostvars, found, group))]
    except ClientError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"buildx_nodes": buildx_nodes}
