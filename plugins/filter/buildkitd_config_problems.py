# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a configuration of buildkitd."""

from __future__ import annotations

DOCUMENTATION = r"""
name: buildkitd_config_problems
short_description: Say everything that is wrong with a configuration of buildkitd
version_added: 1.1.0
description:
  - buildkitd ignores keys that it does not know without a word, and limits that others override. This filter compares
    a dictionary with what the wanted release knows, and gives one message for each thing that is wrong.
  - These are unknown keys, with the one that is most likely meant; keys that the release does not have yet; values of
    the wrong type or unit; limits of the garbage collection that would be ignored beside others; and what the role
    alone decides.
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
  variable:
    description: The variable that holds the configuration, for the messages. It ends with C(config).
    type: str
    default: buildkitd_config
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - plugin: buildfarm.buildkit.buildkitd_toml
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Refuse a configuration that the release would not understand
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems | join(' ') }}"
  vars:
    config: {worker: {oci: {maxParallelism: 4}}}
    problems: "{{ config | buildfarm.buildkit.buildkitd_config_problems('0.25.2') }}"
"""

RETURN = r"""
_value:
  description: One message for each thing that is wrong. Empty if the configuration can be used.
  type: list
  elements: str
  sample:
    - >-
      buildkitd_config: worker.oci.maxParallelism is no key of buildkitd.toml, and buildkitd would ignore it silently;
      the nearest one is worker.oci.max-parallelism.
"""

import typing as t

from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config import settings


def buildkitd_config_problems(
    config: t.Any,
    version: str,
    simple: t.Mapping[str, t.Any] | None = None,
    own: t.Mapping[str, t.Any] | None = None,
    disk: int = 0,
    variable: str = "buildkitd_config",
) -> list[str]:
    """One message for each thing that is wrong."""
    return settings.problems(config, str(version), simple or {}, own or {}, int(disk), variable)


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"buildkitd_config_problems": buildkitd_config_problems}
