# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment that makes a daemon use a proxy."""

from __future__ import annotations

DOCUMENTATION = r"""
name: buildkitd_proxy
short_description: The environment variables that make a daemon use a proxy
version_added: 1.1.0
description:
  - Each variable is there in capitals and in small letters, because git knows one and most programs the other.
  - There may be a password in them. Keep them in a file that only root can read.
options:
  _input:
    description: The proxy, as C(http), C(https) and C(no). What is empty or left out is not set.
    type: dict
    required: true
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Show the names of the variables
  ansible.builtin.debug:
    msg: "{{ {'https': 'http://proxy.example.com:3128', 'no': ['.example.com']} | buildfarm.buildkit.buildkitd_proxy }}"
"""

RETURN = r"""
_value:
  description: Name to value, in alphabetical order.
  type: dict
  sample: {HTTPS_PROXY: "http://proxy.example.com:3128", https_proxy: "http://proxy.example.com:3128"}
"""

import typing as t

from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config.simple import proxy_environment


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"buildkitd_proxy": proxy_environment}
