# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The garbage collection that a configuration makes."""

from __future__ import annotations

DOCUMENTATION = r"""
name: buildkitd_gc_policy
short_description: Foretell the garbage collection of a daemon with a configuration
version_added: 1.1.0
description:
  - Gives the rules that a daemon of a release makes of a configuration, as
    O(buildfarm.buildkit.buildkit_verify#module:gc_policy) takes them. Limits of a worker become the rules that the
    release makes of them, and percentages become bytes of the disk.
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
  - module: buildfarm.buildkit.buildkit_verify
"""

EXAMPLES = r"""
- name: Show what a builder with a cache of 200 GB will do
  ansible.builtin.debug:
    msg: "{{ {} | buildfarm.buildkit.buildkitd_gc_policy('0.25.2', {'cache_size': '200GB'}, disk=536870912000) }}"
"""

RETURN = r"""
_value:
  description: The rules. V(null) where they depend on a disk that is not known. Empty without garbage collection.
  type: list
  elements: dict
"""

import typing as t

from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config import settings


def buildkitd_gc_policy(
    config: t.Any,
    version: str,
    simple: t.Mapping[str, t.Any] | None = None,
    own: t.Mapping[str, t.Any] | None = None,
    disk: int = 0,
) -> list[dict[str, t.Any]] | None:
    """The rules.

    :raises AnsibleFilterError: naming everything that is wrong
    """
    return settings.gc_policy(config, str(version), simple or {}, own or {}, int(disk))


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"buildkitd_gc_policy": buildkitd_gc_policy}
