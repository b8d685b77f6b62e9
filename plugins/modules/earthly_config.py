#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes Earthly and EarthBuild use a remote daemon."""

from __future__ import annotations

DOCUMENTATION = r"""
module: earthly_config
short_description: Make Earthly and EarthBuild use a remote daemon
version_added: 1.1.0
description:
  - Sets C(buildkit_host), C(tlsca), C(tlscert), C(tlskey) and C(tls_enabled) below C(global) in a user's configuration
    file, C(~/.earthly/config.yml) for Earthly and C(~/.earth/config.yml) for EarthBuild. All else in it stays as it is,
    comments too. Where there is only a C(config.yaml), that is the file.
  - The daemon must be of Earthly's or EarthBuild's own image. BuildKit itself cannot build for them.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows the keys that it sets, and nothing else of the file, which may hold passwords.
  idempotent:
    support: full
requirements:
  - Python 3.8 or newer
options:
  host:
    description:
      - The daemon, as V(tcp://HOST:PORT). Its host must be in its certificate, since there is no other place for a
        name.
      - V(127.0.0.1), V(::1) and V(localhost) are refused. Earthly takes them for a container of its own.
    type: str
    required: true
  ca:
    description: The file with the CA certificates, as an absolute path.
    type: str
    required: true
  certificate:
    description: The file with the client's certificate, as an absolute path.
    type: str
    required: true
  key:
    description: The file with the client's key, as an absolute path.
    type: str
    required: true
  user:
    description:
      - The user whose files these are. They are read and written with that user's rights.
      - By default the one who runs this. Another one needs root (C(become)).
    type: str
  directories:
    description: The directories below the user's home.
    type: list
    elements: str
    default: [.earthly, .earth]
  state:
    description:
      - V(absent) takes these keys away where they have these values, and with them a file or directory in which nothing
        else is.
    type: str
    choices: [present, absent]
    default: present
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Let alice build with earthly on a daemon
  buildfarm.buildkit.earthly_config:
    host: tcp://earthly.example.com:8372
    ca: /etc/buildkit/client/buildkit/ca.pem
    certificate: /etc/buildkit/client/buildkit/cert.pem
    key: /etc/buildkit/client/buildkit/key.pem
    user: alice
  become: true
"""

RETURN = r"""
files:
  description: The files that were, or in check mode would be, written or removed.
  returned: success
  type: list
  elements: str
  sample: [/home/alice/.earthly/config.yml]
"""

import contextlib
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import earthly, users
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError


def _file_in(directory: str) -> str:
    """The file that is read: config.yaml only where it is alone."""
    paths = [os.path.join(directory, name) for name in earthly.NAMES]
    return paths[1] if os.path.exists(paths[1]) and not os.path.exists(paths[0]) else paths[0]


def _plan(path: str, wanted: t.Mapping[str, t.Any], state: str) -> t.Optional[t.Tuple[str, str]]:
    """The file as it is and as it shall be; None where that is the same. Raises ClientError and OSError."""
    try:
        before = (_files.read_optional(path) or b"").decode("utf-8")
        after = earthly.merge(before, wanted) if state == "present" else earthly.remove(before, wanted)
    except UnicodeDecodeError:
        raise ClientError(f"{path} is no text. Nothing was changed.") from None
    except ClientError as error:
        raise ClientError(f"{path} cannot be edited. {error}") from error
    if before == after:
        return None
    why = users.why_not_writable(os.path.dirname(path))
    if why:
        raise ClientError(f"{why} by this user. Give the directory back to its user (chown -R).")
    return before, after


def _write(path: str, text: str) -> None:
    """Write the file, or remove it and its directory where nothing is left."""
    if text.strip() or os.path.islink(path):
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        # Others may have linked it from elsewhere, and set its mode.
        target = os.path.realpath(path)
        mode = os.stat(target).st_mode & 0o777 if os.path.exists(target) else 0o600
        _files.write_atomically(target, text.encode("utf-8"), mode=mode)
        return
    os.unlink(path)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))


def _run(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """Do what the options say. Raises ClientError and OSError."""
    params = module.params
    wanted = earthly.settings(params["host"], params["ca"], params["certificate"], params["key"])
    if params["state"] == "absent" and not users.is_known(params["user"] or ""):
        return {"changed": False, "files": [], "diff": []}
    entry = users.entry_of(params["user"] or "")
    diff = []
    with users.acting_as(entry):
        paths = [_file_in(os.path.join(entry.pw_dir, directory)) for directory in params["directories"]]
        # All of them are looked at before one is written.
        plans = {path: plan for path in paths for plan in [_plan(path, wanted, params["state"])] if plan}
        for path, (before, after) in plans.items():
            sides = {"before": earthly.shown(before, wanted), "after": earthly.shown(after, wanted)}
            diff.append({"before_header": path, "after_header": path, **sides})
            if not module.check_mode:
                _write(path, after)
    return {"changed": bool(plans), "files": list(plans), "diff": diff}


def main() -> None:
    """Edits the files, and exits with which."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "ca": {"type": "str", "required": True},
            "certificate": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": False},
            "user": {"type": "str"},
            "directories": {"type": "list", "elements": "str", "default": [*earthly.DIRECTORIES]},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        result = _run(module)
    except ClientError as error:
        module.fail_json(msg=f"Configuring Earthly failed. {error}")
    except OSError as error:
        module.fail_json(msg=f"Configuring Earthly failed: {users.said(error)} What was not yet written is as it was.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
