# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What M(buildfarm.buildkit.buildkit_pki) wants to know of each builder."""

from __future__ import annotations

DOCUMENTATION = r"""
name: daemons
short_description: Names and addresses of each builder, from the inventory alone
version_added: 1.0.0
description:
  - Turns names of hosts into the value of O(buildfarm.buildkit.buildkit_pki#module:daemons).
  - C(buildkit_names) defaults to the host's name in the inventory and C(ansible_host), where these are DNS names;
    C(buildkit_addresses) to those of the two that are IP addresses.
  - C(buildkit_admits) is the list of the client groups that may build on the host. Without it all may.
  - What a host says about itself is never used. A host that returns one of these variables as a fact is refused,
    because a builder must not be able to claim the name of another.
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
  csr_result:
    description:
      - Name of the variable in which each host's result of M(buildfarm.buildkit.buildkit_csr) was registered.
      - With it each item also has C(csr) and C(trusts).
    type: str
    default: ""
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - plugin: buildfarm.buildkit.endpoints
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Make the certificates of a fleet
  buildfarm.buildkit.buildkit_pki:
    path: pki
    daemons: "{{ ansible_play_hosts | buildfarm.buildkit.daemons(hostvars) }}"
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: One item for each host, in the same order.
  type: list
  elements: dict
  sample:
    - name: b1.example.com
      dns: [b1.example.com]
      ip: [192.0.2.11]
      admits: [release]
"""

import typing as t

from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._inventory import builder


def daemons(hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Any], csr_result: str = "") -> list[dict[str, t.Any]]:
    """One item for each host, in the same order.

    It is {name, dns, ip}, with {admits} where that is set, and with ``csr_result`` also {csr, trusts}.

    :raises AnsibleFilterError: where a host returned one of the variables as a fact, or one of them makes no sense.
    """
    items = []
    for host in hosts:
        known = builder(str(host), hostvars[host])
        item: dict[str, t.Any] = {"name": known.name, "dns": known.dns, "ip": known.ip}
        if known.admits is not None:
            item["admits"] = known.admits
        if csr_result:
            result = hostvars[host].get(csr_result) or {}
            item["csr"] = result.get("csr")
            item["trusts"] = list(result.get("trusts") or [])
        items.append(item)
    return items


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"daemons": daemons}
