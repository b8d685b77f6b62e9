# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TOML text of a dictionary.

Private to this collection.
"""

from __future__ import annotations

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


def render(value: t.Any) -> str:
    """The value as TOML 1.0, its keys in alphabetical order.

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
