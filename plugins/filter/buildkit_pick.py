# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of several equal builders a repository builds on."""

from __future__ import annotations

DOCUMENTATION = r"""
name: buildkit_pick
short_description: Choose one of several builders by a key, always the same one
version_added: 1.1.0
description:
  - Each daemon has a cache of its own, so a repository should always build on the same one. This chooses it by
    consistent hashing of a key, such as the name of the repository. When a builder comes or goes, few keys move.
  - The order of the input does not matter.
options:
  _input:
    description: Names of builders or of daemons, or their endpoints.
    type: list
    elements: str
    required: true
  key:
    description:
      - What is built, such as V(team/app) or, in BuildKit's own convention, V(<repository>:<context>).
    type: str
    required: true
  algorithm:
    description:
      - V(ketama) gives each builder about the same share of the keys.
      - V(moby) gives what C(consistenthash) of BuildKit's examples gives from 0.13 on, and what the driver option
        C(loadbalance=sticky) of docker buildx does. Its shares are uneven.
    type: str
    choices: [ketama, moby]
    default: ketama
  ranked:
    description: Whether to return all of the input. The one for the key is the first, and the others would take over.
    type: bool
    default: false
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Tell the builder of this repository to all that follows
  ansible.builtin.set_fact:
    app_builder: "{{ ['buildkit-b1', 'buildkit-b2', 'buildkit-b3'] | buildfarm.buildkit.buildkit_pick('team/app') }}"

- name: Build there
  ansible.builtin.command:
    cmd: docker buildx build --builder {{ app_builder }} .
  changed_when: true
"""

RETURN = r"""
_value:
  description: The one for the key. A list of all with O(ranked=true).
  type: raw
  sample: buildkit-b2
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import ring


def buildkit_pick(nodes: t.Any, key: str, algorithm: str = "ketama", ranked: bool = False) -> str | list[str]:
    """The node of a key, or with ``ranked`` every node in the order in which they take over.

    :raises AnsibleFilterError: where there is nothing to choose from, or no such algorithm.
    """
    if isinstance(nodes, (str, bytes, t.Mapping)) or not isinstance(nodes, t.Iterable):
        raise AnsibleFilterError(f"buildkit_pick chooses from a list of names, and got {nodes!r}.")
    names = [str(node) for node in nodes]
    if not names:
        raise AnsibleFilterError("buildkit_pick has nothing to choose from: the list of builders is empty.")
    if algorithm not in ring.ALGORITHMS:
        raise AnsibleFilterError(
            f"buildkit_pick knows the algorithms {' and '.join(ring.ALGORITHMS)}, and not {algorithm}."
        )
    found = ring.order(names, str(key), algorithm)
    return found if ranked else found[0]


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function, as Ansible wants it."""
        return {"buildkit_pick": buildkit_pick}
