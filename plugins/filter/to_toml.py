# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders buildkitd.toml."""

from __future__ import annotations

DOCUMENTATION = r"""
name: to_toml
short_description: Render a dictionary as TOML
version_added: 1.0.0
description:
  - Renders a dictionary as TOML 1.0, with its keys in alphabetical order, so that equal input gives equal text.
requirements:
  - tomli-w (Python library on the controller)
options:
  _input:
    description: What to render. Null has no TOML form and is refused.
    type: dict
    required: true
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - plugin: buildfarm.buildkit.buildkitd_toml
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Write a configuration
  ansible.builtin.copy:
    content: "{{ {'worker': {'oci': {'max-parallelism': 4}}} | buildfarm.buildkit.to_toml }}"
    dest: /etc/buildkit/buildkitd.toml
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""

import typing as t

from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._toml import render


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"to_toml": render}
