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
  - A client that is named twice is listed once, with all that was said of it. It is refused when that contradicts
    itself, such as two groups.
options:
  _input:
    description: Names of clients, or dictionaries with C(name), and with C(group) and C(csr) where wanted.
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
    clients: "{{ ['alice', {'name': 'ci', 'group': 'release'}] | buildfarm.buildkit.clients }}"
"""

RETURN = r"""
_value:
  description: One dictionary for each client, in the order in which they were first named.
  type: list
  elements: dict
  sample:
    - name: alice
    - name: ci
      group: release
"""

import typing as t

from ansible.errors import AnsibleFilterError

_KEYS = ("name", "group", "csr")


def clients(wished: t.Any) -> list[dict[str, t.Any]]:
    """One {name, ...} for each client.

    :raises AnsibleFilterError: where the input is no list, an item is neither a name nor has one or says what is not
        known, or two items contradict each other.
    """
    if isinstance(wished, (str, bytes)) or not isinstance(wished, t.Sequence):
        raise AnsibleFilterError(f"buildkit_clients must be a list of names, such as [{wished!s}].")
    found: dict[str, dict[str, t.Any]] = {}
    for item in wished:
        said = _client(item)
        client = found.setdefault(said["name"], said)
        for key, value in said.items():
            if client.setdefault(key, value) != value:
                shown = f" ({client[key]} and {value})" if key == "group" else ""
                raise AnsibleFilterError(
                    f"buildkit_clients names the client {client['name']} twice, with a different {key}{shown}. Leave "
                    "one of the two out."
                )
    return list(found.values())


def _client(item: t.Any) -> dict[str, t.Any]:
    said = dict(item) if isinstance(item, t.Mapping) else {"name": item}
    if not said.get("name") and said.get("name") != 0:
        raise AnsibleFilterError(f"Every item of buildkit_clients must be a name or have one; {item!r} has none.")
    unknown = [str(key) for key in said if key not in _KEYS]
    if unknown:
        raise AnsibleFilterError(
            f"The client {said['name']} of buildkit_clients has {', '.join(unknown)}; only {', '.join(_KEYS)} are "
            "known."
        )
    return {key: str(value) for key, value in said.items() if value is not None}


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"clients": clients}
