# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of buildkitd.toml."""

from __future__ import annotations

DOCUMENTATION = r"""
name: buildkitd_toml
short_description: Render the configuration of buildkitd
version_added: 1.1.0
description:
  - Renders C(buildkitd.toml) for a release, with its keys in alphabetical order, so that equal input gives equal text.
  - What P(buildfarm.buildkit.buildkitd_config_problems#filter) finds is refused.
requirements:
  - tomli-w (Python library on the controller)
options:
  _input:
    description: The configuration as a dictionary, with the names of C(buildkitd.toml).
    type: dict
    required: true
  version:
    description: The BuildKit release that is to read it, such as V(0.25.2).
    type: str
    required: true
  simple:
    description:
      - What the simple variables say. C(cache_size) is a size as buildkitd reads it, or percent of the disk.
        C(max_parallelism) is a number, C(registry_mirrors) a dictionary from a registry to the list of its mirrors, and
        C(proxy) a dictionary of C(http), C(https) and C(no).
      - What is empty or left out is not set.
    type: dict
    default: {}
  own:
    description: What the role decides itself, as a part of the configuration.
    type: dict
    default: {}
  disk:
    description:
      - Bytes of the file system that holds the cache, as RV(buildfarm.buildkit.buildkitd_host_info#module:disk_size)
        has it. From it the garbage collection is sized, unless the configuration or C(cache_size) decides it.
      - V(0) if it is not known.
    type: int
    default: 0
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - plugin: buildfarm.buildkit.buildkitd_config_problems
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Write a configuration
  ansible.builtin.copy:
    content: "{{ {'worker': {'oci': {'selinux': true}}} | buildfarm.buildkit.buildkitd_toml('0.25.2') }}"
    dest: /etc/buildkit/buildkitd.toml
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""

import typing as t

from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config import settings
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._toml import render


def buildkitd_toml(
    config: t.Any,
    version: str,
    simple: t.Mapping[str, t.Any] | None = None,
    own: t.Mapping[str, t.Any] | None = None,
    disk: int = 0,
) -> str:
    """The text.

    :raises AnsibleFilterError: naming everything that is wrong, or tomli-w where it is missing
    """
    return render(settings.whole(config, str(version), simple or {}, own or {}, int(disk)))


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"buildkitd_toml": buildkitd_toml}
