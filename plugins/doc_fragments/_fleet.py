# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option of modules that call several daemons in one task."""

from __future__ import annotations


class ModuleDocFragment:
    """Goes with C(_connection), whose options an item takes what it leaves out from."""

    DOCUMENTATION = r"""
options:
  daemons:
    description:
      - Daemons to call at the same time, instead of O(address). One daemon's failure hides no other's answer.
      - What an item leaves out is taken from the option of the same name of the module, where its address has a use
        for it.
    type: list
    elements: dict
    suboptions:
      address:
        description: As O(address).
        type: str
        required: true
      ca_path:
        description: As O(ca_path).
        type: path
      client_cert:
        description: As O(client_cert).
        type: path
      client_key:
        description: As O(client_key).
        type: path
      tls_hostname:
        description: As O(tls_hostname).
        type: str
"""
