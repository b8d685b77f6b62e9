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

from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._deps import TOMLI_W, MissingLibraryError, require


def _plain(value: t.Any, path: str) -> t.Any:
    """The value in plain Python types, keys sorted; Ansible's own types carry tags that a TOML library may not know."""
    if isinstance(value, bool):
        return value
    if isinstance(value, t.Mapping):
        return {str(key): _plain(value[key], f"{path}.{key}".lstrip(".")) for key in sorted(value, key=str)}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, t.Iterable):
        return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    raise AnsibleFilterError(f"Rendering TOML failed: {path or 'the value'} is {value!r}, which TOML cannot express.")


def to_toml(value: t.Any) -> str:
    """The value as TOML 1.0.

    :raises AnsibleFilterError: where it is no dictionary or holds what TOML cannot express, or tomli-w is missing.
    """
    try:
        require(TOMLI_W)
    except MissingLibraryError as error:
        raise AnsibleFilterError(str(error)) from error
    import tomli_w

    if not isinstance(value, t.Mapping):
        raise AnsibleFilterError(f"Rendering TOML failed: a dictionary is needed, not {type(value).__name__}.")
    return tomli_w.dumps(_plain(value, ""))


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"to_toml": to_toml}
