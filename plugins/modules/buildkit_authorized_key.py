#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets a key of SSH reach the daemon on this host, and nothing else."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_authorized_key
short_description: Let a key of SSH run one command on a builder, and nothing else
version_added: 1.1.0
description:
  - Puts a key into C(~/.ssh/authorized_keys) of a user with C(restrict) and C(command=). So whoever has the key reaches
    the builder's unix socket through it, and gets no shell, no forwarding and no file.
  - Where the key is there already with other options, its line is replaced. Lines of other keys stay as they are.
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
  user:
    description:
      - The user who logs in with the key. The file is read and written with that user's rights.
      - It must be able to use the daemon's unix socket.
    type: str
    default: root
  key:
    description: The public key in one line, as C(ssh-keygen) writes it.
    type: str
    required: true
  command:
    description: The command, without quotes.
    type: str
    default: /usr/local/bin/buildctl dial-stdio
  state:
    description: Whether the key may. With V(absent) its line goes, whatever its options are.
    type: str
    choices: [present, absent]
    default: present
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Let a workstation use the builder through SSH
  buildfarm.buildkit.buildkit_authorized_key:
    key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice@ws-1
  become: true
"""

RETURN = r"""
file:
  description: The file.
  returned: success, where there is such a user
  type: str
  sample: /root/.ssh/authorized_keys
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import authorized, users
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

_LOCK_SECONDS = 60.0


def _run(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """Do what the options say. Raises ClientError and OSError."""
    params = module.params
    present = params["state"] == "present"
    line = authorized.line_of(params["key"], params["command"])
    if not present and not users.is_known(params["user"]):
        return {"changed": False}
    entry = users.entry_of(params["user"])
    path = os.path.join(entry.pw_dir, ".ssh", "authorized_keys")

    def wanted(text: str) -> str:
        return authorized.put(text, line, params["key"]) if present else authorized.take(text, params["key"])

    with users.acting_as(entry):
        before = _read(path)
        changed = before != wanted(before)
        why = users.why_not_writable(os.path.dirname(path)) if changed else ""
        if why:
            raise ClientError(f"{why} by {entry.pw_name}. Give it back to its user (chown -R).")
        if changed and not module.check_mode:
            _files.make_private_directory(os.path.dirname(path))
            # In one play several machines tell the same builder of their keys.
            with _files.holding_directory(os.path.dirname(path), timeout=_LOCK_SECONDS):
                _write(path, wanted(_read(path)))
    return {"changed": changed, "file": path}


def _read(path: str) -> str:
    """The file's text; bytes that are none stay what they are."""
    return (_files.read_optional(path) or b"").decode("utf-8", "surrogateescape")


def _write(path: str, text: str) -> None:
    """Write the file, as private as sshd wants it or as it is."""
    target = os.path.realpath(path)
    mode = os.stat(target).st_mode & 0o777 if os.path.exists(target) else _files.PRIVATE_FILE
    _files.write_atomically(target, text.encode("utf-8", "surrogateescape"), mode=mode)


def main() -> None:
    """Edits the file, and exits with whether that changed it."""
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "default": "root"},
            "key": {"type": "str", "required": True, "no_log": False},
            "command": {"type": "str", "default": "/usr/local/bin/buildctl dial-stdio"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    doing = f"{'Letting a key in' if module.params['state'] == 'present' else 'Taking a key away'} failed"
    try:
        result = _run(module)
    except (ClientError, _files.LockTimeoutError) as error:
        module.fail_json(msg=f"{doing}. {error}")
    except OSError as error:
        module.fail_json(msg=f"{doing}: {error}. The file is as it was.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
