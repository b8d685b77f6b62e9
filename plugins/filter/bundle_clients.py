# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is to have a client bundle."""

from __future__ import annotations

DOCUMENTATION = r"""
name: bundle_clients
short_description: Who is to have a client bundle, and how it is encrypted
version_added: 1.1.0
description:
  - Turns what P(buildfarm.buildkit.clients#filter) takes into the value of
    O(buildfarm.buildkit.buildkit_client_bundles#module:clients). A client that sent a CSR keeps its key.
options:
  _input:
    description: Names of clients, or dictionaries with C(name), and with C(group) and C(csr) where wanted.
    type: list
    elements: raw
    required: true
  encrypt:
    description:
      - For whom to encrypt the bundle of a client, by its name, as a dictionary with C(recipients) or C(passphrase).
      - The bundle of a client that is not in it is not encrypted.
    type: dict
    default: {}
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
    clients: "{{ buildkit_clients | buildfarm.buildkit.bundle_clients({'alice': {'recipients': [alice_age_key]}}) }}"
    daemons: "{{ groups['buildkit_daemons'] | buildfarm.buildkit.bundle_daemons(hostvars) }}"
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: One item for each client, in the order in which they were first named.
  type: list
  elements: dict
  sample:
    - name: alice
      recipients: [age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p]
    - name: ci
      group: release
      own_key: true
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.filter.clients import clients

_KEYS = {"recipients", "passphrase"}


def bundle_clients(wished: t.Any, encrypt: t.Mapping[str, t.Any] | None = None) -> list[dict[str, t.Any]]:
    """One {name, ...} for each client.

    :raises AnsibleFilterError: where the clients make no sense, or ``encrypt`` names somebody else or says what is not
        known.
    """
    known = clients(wished)
    sealed = dict(encrypt or {})
    strangers = sorted(set(sealed) - {client["name"] for client in known})
    if strangers:
        raise AnsibleFilterError(
            f"The bundle of {', '.join(strangers)} is to be encrypted, and there is no such client. Mind the spelling, "
            "or another's would be left open."
        )
    found = []
    for client in known:
        how = sealed.get(client["name"], {})
        if not isinstance(how, t.Mapping) or not set(how) <= _KEYS:
            raise AnsibleFilterError(
                f"How to encrypt the bundle of {client['name']} must be recipients or passphrase, such as "
                f"{{{client['name']}: {{recipients: [age1...]}}}}."
            )
        item: dict[str, t.Any] = {"name": client["name"], **how}
        if "group" in client:
            item["group"] = client["group"]
        if "csr" in client:
            item["own_key"] = True
        found.append(item)
    return found


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"bundle_clients": bundle_clients}
