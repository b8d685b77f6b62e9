# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may build."""

from __future__ import annotations

DOCUMENTATION = r"""
name: clients
short_description: Turn names of clients into what buildkit_pki wants
version_added: 1.0.0
description:
  - Turns names, or dictionaries with C(name), into the value of O(buildfarm.buildkit.buildkit_pki#module:clients).
    A client that is named twice is listed once.
options:
  _input:
    description: Names of clients, or dictionaries.
    type: list
    elements: raw
    required: true
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Make the certificates of two clients
  buildfarm.buildkit.buildkit_pki:
    path: pki
    clients: "{{ ['alice', 'ci'] | buildfarm.buildkit.clients }}"
"""

RETURN = r"""
_value:
  description: One dictionary for each client, in the order in which they were first named.
  type: list
  elements: dict
  sample:
    - name: alice
    - name: ci
"""

import typing as t

from ansible.errors import AnsibleFilterError


def clients(wished: t.Any) -> list[dict[str, t.Any]]:
    """One {name, ...} for each client.

    :raises AnsibleFilterError: where the input is no list, or an item is neither a name nor has one.
    """
    if isinstance(wished, (str, bytes)) or not isinstance(wished, t.Sequence):
        raise AnsibleFilterError(f"buildkit_clients must be a list of names, such as [{wished!s}].")
    found: dict[str, dict[str, t.Any]] = {}
    for item in wished:
        client = dict(item) if isinstance(item, t.Mapping) else {"name": str(item)}
        if not client.get("name"):
            raise AnsibleFilterError(f"Every item of buildkit_clients must be a name or have one; {item!r} has none.")
        found.setdefault(str(client["name"]), client)
    return list(found.values())


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"clients": clients}
