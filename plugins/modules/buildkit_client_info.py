#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what the role buildkit_client has noted of each pool on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_client_info
short_description: Read what the role buildkit_client has set up on a host
version_added: 1.1.0
description:
  - The role notes for each pool for whom it has set up what. So it can take away later what the inventory does not tell
    of any more, such as the builders of a user who left the list. This module reads these notes.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
requirements:
  - Python 3.8 or newer
options:
  path:
    description: The directory with one directory for each pool.
    type: path
    default: /usr/local/lib/buildkit-client
  pool:
    description: The pool.
    type: str
    default: buildkit
  group:
    description: A group. RV(others) are in it for the sake of other pools.
    type: str
    default: buildkit-client
  users:
    description: The users for whom it shall be set up. RV(gone_users) are the others.
    type: list
    elements: str
    default: []
  forwards:
    description: The forwards that there shall be, as for the role. RV(gone_forwards) are the others.
    type: list
    elements: dict
    default: []
  dir:
    description: The directory of the certificate that there shall be. Empty for none.
    type: str
    default: ""
  profile:
    description: The file that shall tell the shells. Empty for none.
    type: str
    default: ""
  builders:
    description: The names of the builders that there shall be.
    type: list
    elements: str
    default: []
  link:
    description: The link to a program that there shall be. Empty for none.
    type: str
    default: ""
  link_target:
    description: Where it shall lead.
    type: str
    default: ""
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Ask for whom builders are set up
  buildfarm.buildkit.buildkit_client_info:
  register: set_up
"""

RETURN = r"""
note:
  description: What is noted of the pool. Empty where nothing was set up.
  returned: success
  type: dict
  sample:
    client: ci-1
    pool: buildkit
    users: [alice]
gone_users:
  description: Users for whom something was set up, who are not in O(users).
  returned: success
  type: list
  elements: str
  sample: [bob]
gone_forwards:
  description: Forwards that were set up, which are not in O(forwards), or there with another user or builder.
  returned: success
  type: list
  elements: dict
  sample: []
forwards:
  description: What is to be noted of O(forwards).
  returned: success
  type: list
  elements: dict
  sample: []
taken:
  description: The names of O(forwards) that forwards of other pools have already.
  returned: success
  type: list
  elements: str
  sample: []
problems:
  description: Why what there shall be cannot be - another pool has it, it was put there by other means, or it is in a
    directory in which others could lead root elsewhere.
  returned: success
  type: list
  elements: str
  sample: ["/usr/local/bin/docker-buildx was put there by other means: remove it, or choose another place"]
ours:
  description: Which of O(profile) and O(link) are there and were put there by the role.
  returned: success
  type: list
  elements: str
  sample: [/etc/profile.d/buildkit-buildkit.sh]
unknown:
  description: Users of O(forwards) who are not on this host.
  returned: success
  type: list
  elements: str
  sample: []
theirs:
  description: The directories, profiles and programs of other pools.
  returned: success
  type: list
  elements: str
  sample: []
others:
  description: Users who are in O(group) for the sake of other pools.
  returned: success
  type: list
  elements: str
  sample: []
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import notes, users

# In every profile file of the role.
_MARK = b"# The remote BuildKit builders of the pool "


def _ours(params: t.Mapping[str, t.Any], note: t.Mapping[str, t.Any]) -> t.List[str]:
    """Which of the files are there, and the role's. Raises OSError."""
    profile, link, found = params["profile"], params["link"], []
    written = b"" if os.path.islink(profile) else _files.read_optional(profile) or b""
    if _MARK in written or (written and note.get("profile") == profile):
        found.append(profile)
    target = os.readlink(link) if os.path.islink(link) else ""
    if target and (target == params["link_target"] or link in note.get("programs", [])):
        found.append(link)
    return [path for path in found if not users.why_not_roots_own(path)]


def _problems(params: t.Mapping[str, t.Any], ours: t.Sequence[str]) -> t.List[str]:
    """What is in the way, beside other pools. Raises OSError."""
    problems = []
    for path in (params["profile"], params["link"]):
        exposed = users.why_not_roots_own(path) if path else ""
        if exposed:
            problems.append(f"{path} cannot be written by root: {exposed}. Choose a directory of root's")
        elif path and os.path.lexists(path) and path not in ours:
            problems.append(f"{path} was put there by other means: remove it, or choose another place")
    return problems


def main() -> None:
    """Reads the notes, and exits with them and what is gone."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/usr/local/lib/buildkit-client"},
            "pool": {"type": "str", "default": "buildkit"},
            "group": {"type": "str", "default": "buildkit-client"},
            "users": {"type": "list", "elements": "str", "default": []},
            "forwards": {"type": "list", "elements": "dict", "default": []},
            "dir": {"type": "str", "default": ""},
            "profile": {"type": "str", "default": ""},
            "builders": {"type": "list", "elements": "str", "default": []},
            "link": {"type": "str", "default": ""},
            "link_target": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        found = notes.read(params["path"])
        note = found.get(params["pool"], {})
        ours = _ours(params, note)
        problems = notes.in_use(found, params, params["pool"]) + _problems(params, ours)
    except (OSError, ValueError) as error:
        module.fail_json(
            msg=f"Reading what is set up here failed: {error}. Put the file below {params['path']} right, or remove "
            "it: then only what the inventory tells of can be taken away."
        )
    named = sorted({str(forward.get("user") or "root") for forward in params["forwards"]})
    module.exit_json(
        changed=False,
        note=note,
        gone_users=notes.gone_users(note, params["users"]),
        gone_forwards=notes.gone_forwards(note, params["forwards"]),
        forwards=[notes.forward(one) for one in params["forwards"]],
        taken=notes.taken(found, params["forwards"], params["pool"]),
        problems=problems,
        ours=ours,
        unknown=[name for name in named if not users.is_known(name)],
        theirs=notes.theirs(found, params["pool"]),
        others=notes.members(found, params["group"], params["pool"]),
    )


if __name__ == "__main__":
    main()
