#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes what the network of build steps left on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_network
short_description: Remove what the network of build steps left on a host
version_added: 1.1.0
description:
  - Where build steps had a network of their own, removes its bridge, its nftables table, its leases of addresses and
    its rules of iptables. Chains of iptables that other CNI networks use stay.
  - Stop the daemon before; it makes all of that again when it starts.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The result says what is removed.
  idempotent:
    support: full
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_host_info
  - module: buildfarm.buildkit.buildkitd_cache
"""

EXAMPLES = r"""
- name: Remove the network of build steps
  buildfarm.buildkit.buildkitd_network:
"""

RETURN = r"""
removed:
  description: What was, or in check mode would be, removed.
  returned: always
  type: list
  elements: str
  sample: [interface buildkit0, nftables table inet buildkit, /var/lib/cni/networks/buildkit, rules of iptables]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import network
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError


def main() -> None:
    """Removes it and exits with what that was."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        found = network.traces()
        if found and not module.check_mode:
            network.remove()
    except (HostError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(found), removed=found)


if __name__ == "__main__":
    main()
