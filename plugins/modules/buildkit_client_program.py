#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs one program out of a file or an archive with a pinned checksum."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_client_program
short_description: Install one program from a file or an archive with a pinned checksum
version_added: 1.1.0
description:
  - Installs C(buildctl) out of a release of BuildKit, C(docker-buildx) from its release, or any one program.
  - The file is verified before anything is written, and the program changes in one rename. Beside it a small file notes
    what it was made of, so that a second run needs no file.
  - A program that was installed by other means is never overwritten or removed.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - Python 3.8 or newer
options:
  path:
    description: Where the program goes.
    type: path
    required: true
  src:
    description:
      - The file, on the host. Without it the module only says what is to be done, as RV(needed).
    type: path
  sha256:
    description: The checksum of the file. Required if O(state=present).
    type: str
  member:
    description: The path of the program in a tar archive, such as V(bin/buildctl). Empty where the file is the program.
    type: str
    default: ""
  state:
    description: Whether it shall be there.
    type: str
    choices: [present, absent]
    default: present
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_release
"""

EXAMPLES = r"""
- name: Install buildctl
  buildfarm.buildkit.buildkit_client_program:
    path: /usr/local/bin/buildctl
    src: /root/buildkit-v0.31.0.linux-amd64.tar.gz
    sha256: "{{ buildkit_sha256 }}"
    member: bin/buildctl
  become: true
"""

RETURN = r"""
needed:
  description: Whether the program is not the one out of that file.
  returned: success
  type: bool
"""

import os
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import programs, users
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError


def _run(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """Do what the options say. Raises ClientError and OSError."""
    params, path = module.params, module.params["path"]
    if not os.path.isabs(path):
        raise ClientError(f"{path} is no absolute path. Write the whole path.")
    exposed = users.why_not_roots_own(path)
    if exposed:
        raise ClientError(f"{exposed}, who could lead root elsewhere meanwhile. Choose a directory of root's.")
    before = programs.installed_from(path)
    if params["state"] == "absent":
        ours = os.path.lexists(programs.stamp_of(path))
        if ours and not module.check_mode:
            programs.remove(path)
        return {"changed": ours, "needed": False, "diff": {"before": {"sha256": before}, "after": {"sha256": ""}}}
    wanted = params["sha256"].lower()
    if not re.fullmatch(r"[0-9a-f]{64}", wanted):
        raise ClientError("Its sha256 must be 64 hexadecimal digits, as sha256sum prints them.")
    needed = before != wanted
    if needed:
        programs.refuse_foreign(path)
        why = users.why_not_writable(path)
        if why:
            raise ClientError(f"{why}. Use become: true, or choose another directory.")
        if params["src"] and not module.check_mode:
            programs.install(params["src"], wanted, params["member"], path)
    changed = needed and bool(params["src"])
    return {"changed": changed, "needed": needed, "diff": {"before": {"sha256": before}, "after": {"sha256": wanted}}}


def main() -> None:
    """Installs or removes the program, and exits with whether that changed something."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "src": {"type": "path"},
            "sha256": {"type": "str"},
            "member": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["sha256"])],
        supports_check_mode=True,
    )
    doing = f"{'Installing' if module.params['state'] == 'present' else 'Removing'} {module.params['path']} failed"
    try:
        result = _run(module)
    except ClientError as error:
        module.fail_json(msg=f"{doing}. {error}")
    except OSError as error:
        module.fail_json(msg=f"{doing}: {error}. The program that was there is still there.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
