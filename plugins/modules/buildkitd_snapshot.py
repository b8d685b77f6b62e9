#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps what a daemon was proved with, and puts it back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_snapshot
short_description: Keep what a buildkitd was proved with, and put it back when a change fails
version_added: 1.1.0
description:
  - After a proof it copies configuration, units and certificate, and notes the version in use. After a restart that
    failed it puts all of that back, so that the daemon can be started as it was.
  - The key is copied with the certificate, into a directory that only root can enter. It does not leave the host.
  - The CA file is put back only if that accepts nobody whom the new one does not accept. A client that was revoked
    stays revoked.
  - It neither stops nor starts anything.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: partial
    details: Changes nothing, and does not say what would be put back.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  path:
    description: The directory of the copies. Nothing else may be in it.
    type: path
    required: true
  state:
    description: V(kept) after a proof, V(restored) after a failure.
    type: str
    choices: [kept, restored]
    required: true
  tls_dir:
    description: The directory with C(ca.pem), C(cert.pem) and C(key.pem).
    type: path
    required: true
  files:
    description: What each file is called in a sentence, by its path. Those that do not exist are not kept,
      and are removed when the rest is put back.
    type: dict
    default: {}
  links:
    description: The same for links, of which the target is kept.
    type: dict
    default: {}
  fingerprint:
    description: RV(buildfarm.buildkit.buildkitd_fingerprint#module:environment). Needed to keep.
    type: dict
    default: {}
  argv:
    description:
      - The command line of a daemon that runs without an init system.
      - Both when it is kept and when it is restored, where RV(restored) says whether it was another one.
    type: list
    elements: str
    default: []
  environment:
    description: The variables of such a daemon, in the same way. They are no secrets.
    type: dict
    default: {}
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_fingerprint
  - module: buildfarm.buildkit.buildkitd_restart
"""

EXAMPLES = r"""
- name: Keep what was proved
  buildfarm.buildkit.buildkitd_snapshot:
    path: /etc/buildkit/proved
    state: kept
    tls_dir: /etc/buildkit/tls
    files:
      /etc/buildkit/buildkitd.toml: configuration
    links:
      /usr/local/lib/buildkit/current: BuildKit
    fingerprint: "{{ fingerprint.environment }}"
"""

RETURN = r"""
restored:
  description: What was put back.
  returned: when O(state=restored)
  type: list
  elements: str
  sample: [BuildKit 0.30.0, configuration]
left:
  description: What was not put back, and why.
  returned: when O(state=restored)
  type: list
  elements: str
  sample: []
argv:
  description: O(argv) as it was kept.
  returned: when O(state=restored)
  type: list
  elements: str
  sample: []
environment:
  description: O(environment) as it was kept.
  returned: when O(state=restored)
  type: dict
  sample: {}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import snapshot
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError


def main() -> None:
    """Keeps or restores, and exits with what that was."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["kept", "restored"], "required": True},
            "tls_dir": {"type": "path", "required": True},
            "files": {"type": "dict", "default": {}},
            "links": {"type": "dict", "default": {}},
            "fingerprint": {"type": "dict", "default": {}},
            "argv": {"type": "list", "elements": "str", "default": []},
            "environment": {"type": "dict", "default": {}},
        },
        required_if=[("state", "kept", ("fingerprint",))],
        supports_check_mode=True,
    )
    params = module.params
    try:
        if params["state"] == "kept":
            before = snapshot.read(params["path"])
            changed = before is None or before.digests != params["fingerprint"]
            if changed and not module.check_mode:
                snapshot.keep(
                    params["path"],
                    params["fingerprint"],
                    files=list(params["files"]),
                    links=list(params["links"]),
                    tls_dir=params["tls_dir"],
                    argv=params["argv"],
                    environment=params["environment"],
                )
            module.exit_json(changed=changed)
        if module.check_mode:
            module.exit_json(changed=False, restored=[], left=[], argv=[], environment={})
        names = {**params["files"], **params["links"]}
        restored, left, manifest = snapshot.restore(
            params["path"],
            tls_dir=params["tls_dir"],
            names=names,
            argv=params["argv"],
            environment=params["environment"],
        )
    except HostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        what = "Keeping what was proved" if params["state"] == "kept" else "Going back to what was proved"
        module.fail_json(msg=f"{what} failed: {error}")
    module.exit_json(
        changed=bool(restored),
        restored=restored,
        left=left,
        argv=manifest.argv,
        environment=manifest.environment,
    )


if __name__ == "__main__":
    main()
