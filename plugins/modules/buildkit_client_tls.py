#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs the certificate of a client on its machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_client_tls
short_description: Install a client's certificate, key and CA on its machine
version_added: 1.1.0
description:
  - Writes C(ca.pem), C(cert.pem) and C(key.pem) of a client into a directory, in which they change together, by one
    rename. Whatever kills a run, a tool never finds a key beside a foreign certificate.
  - The three names are links into C(current), which is a link to one directory below C(versions/). The version before
    is kept.
  - Only the owner can read any of it, and the members of O(group) where that is given.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows checksums of the certificates, and nothing of the key.
  idempotent:
    support: full
requirements:
  - Python 3.8 or newer
options:
  path:
    description: The directory, as an absolute path.
    type: str
    required: true
  ca:
    description: The CA certificates that daemons are verified by, in PEM format. Required if O(state=present).
    type: str
  certificate:
    description: The client's certificate, in PEM format. Required if O(state=present).
    type: str
  key:
    description: The client's key, in PEM format. Required if O(state=present).
    type: str
  owner:
    description: The user that it belongs to. Where that is not root, it is written with that user's rights.
    type: str
    default: root
  group:
    description:
      - The group whose members may read it, the key too, and so build on every builder that admits the client. Empty
        means none.
    type: str
    default: ""
  state:
    description: Whether it shall be there.
    type: str
    choices: [present, absent]
    default: present
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Install the certificate of this machine
  buildfarm.buildkit.buildkit_client_tls:
    path: /etc/buildkit/client/buildkit
    ca: "{{ lookup('ansible.builtin.file', 'pki/clients/ci-1/ca.pem') }}"
    certificate: "{{ lookup('ansible.builtin.file', 'pki/clients/ci-1/cert.pem') }}"
    key: "{{ lookup('ansible.builtin.file', 'pki/clients/ci-1/key.pem') }}"
    group: builders
  become: true
"""

RETURN = r"""
reasons:
  description: Why something changed or would change, in words.
  returned: success
  type: list
  elements: str
  sample: [cert.pem is another one]
"""

import grp
import hashlib
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import identity, users
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

_SHOWN = ("ca.pem", "cert.pem")


def _group_id(name: str, *, check_mode: bool) -> int:
    """The number of a group; -1 for none, and in check mode for one that is still to be made. Raises ClientError."""
    if not name:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if check_mode:
            return -1
        raise ClientError(f"There is no group {name} on this host. Make it first, or name another one.") from None


def _contents(params: t.Mapping[str, t.Any]) -> t.Dict[str, bytes]:
    """The three files. Raises ClientError where one is no PEM text."""
    given = {"ca.pem": params["ca"], "cert.pem": params["certificate"], "key.pem": params["key"]}
    for name, text in given.items():
        kind = "PRIVATE KEY" if name == "key.pem" else "CERTIFICATE"
        if f"{kind}-----" not in text:
            raise ClientError(f"What was given for {name} holds no {kind.lower()} in PEM format. Nothing was changed.")
    return {name: text.strip().encode("ascii", "replace") + b"\n" for name, text in given.items()}


def _shown(contents: t.Mapping[str, t.Optional[bytes]]) -> t.Dict[str, t.Optional[str]]:
    return {
        name: hashlib.sha256(data).hexdigest() if data else None for name, data in contents.items() if name in _SHOWN
    }


def _run(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """Do what the options say. Raises ClientError, OSError and LockTimeoutError."""
    params = module.params
    if not os.path.isabs(params["path"]):
        raise ClientError(f"{params['path']} is no absolute path. The tools are given it, and run anywhere.")
    present = params["state"] == "present"
    contents = _contents(params) if present else {}
    # A user who is no more leaves a directory that root alone can remove.
    owner = users.entry_of(params["owner"] if present or users.is_known(params["owner"]) else "")
    group = _group_id(params["group"], check_mode=module.check_mode) if present else -1
    access = identity.Access(owner.pw_uid, group, shared=bool(params["group"]))
    directory = identity.IdentityDirectory(params["path"], access)
    # Root's own directory is written by whoever runs this, so that the message of a missing become is the plain one.
    actor = owner if owner.pw_uid else users.entry_of("")
    with users.acting_as(actor):
        exposed = users.why_not_roots_own(params["path"])
        if exposed:
            raise ClientError(
                f"{exposed}, who could lead root elsewhere meanwhile. Name that user as owner, or choose a directory "
                "of root's."
            )
        directory.refuse_foreign_files()
        if present:
            directory.refuse_other_use()
        before = _shown({name: _files.read_optional(directory.at(name)) for name in identity.FILES})
        if present:
            reasons = directory.reasons(contents)
            after = _shown(contents)
        else:
            reasons = ["it shall be absent"] if directory.traces() else []
            after = _shown({})
        why = users.why_not_writable(params["path"]) if reasons else ""
        if why:
            raise ClientError(f"{why} by {actor.pw_name}. Use become: true, or choose another directory.")
        if reasons and not module.check_mode:
            if present:
                directory.install(contents)
            else:
                directory.remove()
    return {"changed": bool(reasons), "reasons": reasons, "diff": {"before": before, "after": after}}


def main() -> None:
    """Installs or removes the three files, and exits with what that changed."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "str", "required": True},
            "ca": {"type": "str"},
            "certificate": {"type": "str"},
            "key": {"type": "str", "no_log": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["ca", "certificate", "key"])],
        supports_check_mode=True,
    )
    verb = "Installing" if module.params["state"] == "present" else "Removing"
    doing = f"{verb} the client certificate in {module.params['path']} failed"
    try:
        result = _run(module)
    except (ClientError, _files.LockTimeoutError) as error:
        module.fail_json(msg=f"{doing}. {error}")
    except OSError as error:
        module.fail_json(msg=f"{doing}: {error}. What was there before is still in use.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
