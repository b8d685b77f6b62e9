# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where clients dial each builder."""

from __future__ import annotations

DOCUMENTATION = r"""
name: endpoints
short_description: Where clients dial each builder, from the inventory alone
version_added: 1.0.0
description:
  - Turns names of hosts into the value of O(buildfarm.buildkit.buildkit_verify#module:daemons).
  - The address is C(buildkit_endpoint) where it is set. Else it is the first of C(buildkit_names) or
    C(buildkit_addresses) where one is set, else C(ansible_host) or the host's name, with C(buildkit_port).
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
  gc_policies:
    description: The garbage collection that must be in effect, by host. V(null) and hosts that are left out have none.
    type: dict
    default: {}
    version_added: 1.1.0
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - plugin: buildfarm.buildkit.daemons
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show where the builders are
  ansible.builtin.debug:
    msg: "{{ groups['buildkit_daemons'] | buildfarm.buildkit.endpoints(hostvars) | map(attribute='address') }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: One item for each host, in the same order.
  type: list
  elements: dict
  sample:
    - address: tcp://192.0.2.11:1234
"""

import typing as t

from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._inventory import builder


def endpoints(
    hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Any], gc_policies: t.Mapping[str, t.Any] | None = None
) -> list[dict[str, t.Any]]:
    """One item for each host, in the same order: {address}, with {gc_policy} where one must be in effect.

    :raises AnsibleFilterError: where a host returned one of the variables as a fact, or one of them makes no sense.
    """
    items = []
    for host in hosts:
        item: dict[str, t.Any] = {"address": builder(str(host), hostvars[host]).endpoint}
        wished = (gc_policies or {}).get(str(host))
        items.append(item if wished is None else {**item, "gc_policy": wished})
    return items


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"endpoints": endpoints}
