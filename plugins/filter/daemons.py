# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory says of each builder: its names, its addresses, and the endpoint that clients dial."""

from __future__ import annotations

DOCUMENTATION = r"""
name: daemons
short_description: Names, addresses and endpoint of each builder, from the inventory alone
version_added: 1.0.0
description:
  - Turns host names into what M(buildfarm.buildkit.buildkit_pki) and M(buildfarm.buildkit.buildkit_verify) want to know
    of each builder.
  - C(buildkit_names) defaults to the host's name in the inventory and C(ansible_host), where these are DNS names;
    C(buildkit_addresses) to those of the two that are IP addresses.
  - C(buildkit_endpoint) defaults to the first of C(buildkit_names) or C(buildkit_addresses) where one is set, else to
    C(ansible_host) or the host's name, with C(buildkit_port).
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
"""

EXAMPLES = r"""
- name: Show where the builders are
  ansible.builtin.debug:
    msg: "{{ groups['buildkit_daemons'] | buildfarm.buildkit.daemons(hostvars) | map(attribute='endpoint') }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: One item for each host, in the same order, with C(name), C(dns), C(ip) and C(endpoint).
  type: list
  elements: dict
  sample:
    - name: b1.example.com
      dns: [b1.example.com]
      ip: [192.0.2.11]
      endpoint: tcp://192.0.2.11:1234
"""

import ipaddress
import typing as t

from ansible.errors import AnsibleFilterError

# What decides about a certificate or an address. Facts outrank the inventory, so none may come from a host.
_INVENTORY_ONLY = ("buildkit_addresses", "buildkit_endpoint", "buildkit_names", "buildkit_port")
_DEFAULT_PORT = 1234


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _endpoint(host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _daemon(name: str, variables: t.Mapping[str, t.Any], csr_result: str) -> dict[str, t.Any]:
    claimed = [variable for variable in _INVENTORY_ONLY if variable in variables.get("ansible_facts", {})]
    if claimed:
        raise AnsibleFilterError(
            f"Host {name} returned {', '.join(claimed)} as a fact. What goes into its certificate comes from the "
            f"inventory alone, so this run is refused. Look for what sets that fact on the host or in the fact cache; "
            f"a builder that claims another's name may be compromised."
        )
    known_as = list(dict.fromkeys([name, str(variables.get("ansible_host") or name)]))
    names = variables.get("buildkit_names")
    addresses = variables.get("buildkit_addresses")
    for variable, value in (("buildkit_names", names), ("buildkit_addresses", addresses)):
        if isinstance(value, str) or not isinstance(value, (list, tuple, type(None))):
            raise AnsibleFilterError(f"{variable} of host {name} must be a list, such as [{value}].")
    dial = [str(item) for item in [*(names or []), *(addresses or [])]] or [known_as[-1]]
    daemon = {
        "name": name,
        "dns": [str(item) for item in names] if names is not None else [k for k in known_as if not _is_ip(k)],
        "ip": [str(item) for item in addresses] if addresses is not None else [k for k in known_as if _is_ip(k)],
        "endpoint": str(
            variables.get("buildkit_endpoint")
            or _endpoint(dial[0], int(variables.get("buildkit_port") or _DEFAULT_PORT))
        ),
    }
    if csr_result:
        result = variables.get(csr_result) or {}
        daemon["csr"] = result.get("csr")
        daemon["trusts"] = list(result.get("trusts") or [])
    return daemon


def daemons(hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Any], csr_result: str = "") -> list[dict[str, t.Any]]:
    """What is known of each host from the inventory alone.

    :returns: one item for each host, in the same order: {name, dns, ip, endpoint}, and with ``csr_result`` {csr, trusts}.
    :raises AnsibleFilterError: where a host returned one of the variables as a fact, or one is no list.
    """
    return [_daemon(str(host), hostvars[host], csr_result) for host in hosts]


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"daemons": daemons}
