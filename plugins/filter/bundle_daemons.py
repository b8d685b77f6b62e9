# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client bundle says of each builder."""

from __future__ import annotations

DOCUMENTATION = r"""
name: bundle_daemons
short_description: What a client bundle says of each builder, from the inventory alone
version_added: 1.1.0
description:
  - Turns names of hosts into the value of O(buildfarm.buildkit.buildkit_client_bundles#module:daemons).
  - The address is that of P(buildfarm.buildkit.endpoints#filter). C(buildkit_platforms) and C(buildkit_admits) are used
    where they are set, and so is the release in C(buildkitd_version) or C(buildkit_version).
  - Builders that clients do not dial by TCP are left out, since they ask for no certificate.
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
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkit_client_bundles
"""

EXAMPLES = r"""
- name: Make one file for each client
  buildfarm.buildkit.buildkit_client_bundles:
    path: /srv/buildfarm/pki/bundles
    pki_path: /srv/buildfarm/pki
    clients: [{name: alice}]
    daemons: "{{ groups['buildkit_daemons'] | buildfarm.buildkit.bundle_daemons(hostvars) }}"
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: One item for each host that clients dial by TCP, in the same order.
  type: list
  elements: dict
  sample:
    - name: b1.example.com
      address: tcp://b1.example.com:1234
      platforms: [linux/amd64]
      admits: [release]
      version: 0.31.0
"""

import typing as t

from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._inventory import builder


def bundle_daemons(hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """One item for each host at tcp://, in the same order: {name, address}, with {platforms, admits, version} if known.

    :raises AnsibleFilterError: where a host returned one of the variables as a fact, or one of them makes no sense.
    """
    items = []
    for host in hosts:
        variables = hostvars[host]
        one = builder(str(host), variables)
        if not one.endpoint.startswith("tcp://"):
            continue
        item: dict[str, t.Any] = {"name": one.name, "address": one.endpoint}
        if one.platforms:
            item["platforms"] = one.platforms
        if one.admits is not None:
            item["admits"] = one.admits
        version = variables.get("buildkitd_version") or variables.get("buildkit_version")
        if version:
            item["version"] = str(version)
        items.append(item)
    return items


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"bundle_daemons": bundle_daemons}
