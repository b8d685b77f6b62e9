#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells why a running buildkitd must be restarted."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_fingerprint
short_description: Tell why a running buildkitd must be restarted
version_added: 1.0.0
description:
  - buildkitd reads its certificates and its configuration once, at start, and cannot be told to read them again.
  - This module writes the digests of the files that the daemon depends on into an environment file that the daemon is
    started with, and compares them with the environment of the running process. A difference is a reason to restart,
    and nothing else is.
  - Because the running process itself tells what it was started with, a run that was interrupted before its restart is
    made good by the next one.
  - Run it after every file has been written.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  files:
    description: What the daemon depends on, as a name that reads well in a sentence, and the file's path.
    type: dict
    required: true
  digests:
    description:
      - SHA-256 of what files are to hold, by path, as RV(buildfarm.buildkit.buildkit_files#module:sha256) has it.
      - Needed in check mode only, in which the files do not yet hold it.
    type: dict
    default: {}
  secrets:
    description:
      - The same as O(files) for files that may hold a secret. When they were written stands for what is in them.
    type: dict
    default: {}
    version_added: 1.1.0
  environment_file:
    description: Where the digests are written. The daemon must be started with this environment.
    type: path
    required: true
  snapshot:
    description: Where M(buildfarm.buildkit.buildkitd_snapshot) keeps what the daemon was proved with.
    type: path
    version_added: 1.1.0
  unit:
    description: The systemd service that runs the daemon. Exactly one of O(unit) and O(pid_file) is required.
    type: str
  pid_file:
    description: The pid file that M(buildfarm.buildkit.buildkitd_process) wrote.
    type: path
  program:
    description:
      - With O(ready_socket), a daemon that O(pid_file) does not name is found too, as
        M(buildfarm.buildkit.buildkitd_process) finds it by O(buildfarm.buildkit.buildkitd_process#module:argv), and
        recorded there. That is a change.
    type: path
    version_added: 1.1.0
  ready_socket:
    description: The unix socket on which it would answer.
    type: path
    version_added: 1.1.0
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_process
"""

EXAMPLES = r"""
- name: Find out whether buildkitd must be restarted
  buildfarm.buildkit.buildkitd_fingerprint:
    files:
      certificate: /etc/buildkit/tls/cert.pem
      trust bundle: /etc/buildkit/tls/ca.pem
      configuration: /etc/buildkit/buildkitd.toml
    environment_file: /etc/buildkit/fingerprint.env
    unit: buildkit.service
  register: fingerprint

- name: Restart it for that reason only
  ansible.builtin.systemd_service:
    name: buildkit.service
    state: restarted
  when: fingerprint.reasons | length > 0
"""

RETURN = r"""
running:
  description: Whether the daemon runs.
  returned: always
  type: bool
  sample: true
reasons:
  description: Why the running daemon must be restarted. Empty when it need not be, or does not run.
  returned: always
  type: list
  elements: str
  sample: [certificate changed]
proved:
  description: Whether what the daemon depends on is what O(snapshot) holds.
  returned: always
  type: bool
  sample: true
  version_added: 1.1.0
environment:
  description: What the daemon is to be started with.
  returned: always
  type: dict
  sample: {BUILDFARM_SHA256_CERTIFICATE: 0d2c0c39f8d5}
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import (
    fingerprint,
    proc,
    process,
    snapshot,
    systemd,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError


def _pid(params: t.Mapping[str, t.Any]) -> t.Optional[int]:
    if params["unit"]:
        return systemd.main_pid(params["unit"])
    identity = process.running(params["pid_file"])
    return identity.pid if identity else None


def _unrecorded(params: t.Mapping[str, t.Any]) -> t.Optional[proc.ProcessIdentity]:
    """Our daemon that no pid file names. Somebody else's is left to whoever is about to start ours."""
    if not params["program"]:
        return None
    try:
        return process.unrecorded(params["program"], params["ready_socket"])
    except HostError:
        return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as source:
            return source.read()
    except FileNotFoundError:
        return ""


def _write(module: AnsibleModule, path: str, text: str) -> None:
    temporary = os.path.join(module.tmpdir, "fingerprint.env")
    with open(temporary, "w", encoding="utf-8") as target:
        target.write(text)
    module.atomic_move(temporary, path)


def main() -> None:
    """Writes the digests, compares them with the running process, and exits with the reasons."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "dict", "required": True},
            "digests": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": False},  # where they are, not what they are
            "environment_file": {"type": "path", "required": True},
            "snapshot": {"type": "path"},
            "unit": {"type": "str"},
            "pid_file": {"type": "path"},
            "program": {"type": "path"},
            "ready_socket": {"type": "path"},
        },
        required_together=[("program", "ready_socket")],
        required_one_of=[("unit", "pid_file")],
        mutually_exclusive=[("unit", "pid_file")],
        supports_check_mode=True,
    )
    params = module.params
    try:
        stamps = {path: fingerprint.stamp(path) for path in params["secrets"].values()}
        files = {**params["files"], **params["secrets"]}
        wanted = fingerprint.digests(files, {**stamps, **params["digests"]})
        pid = _pid(params)
        found = None if pid else _unrecorded(params)
        if found:
            pid = found.pid
            if not module.check_mode:
                process.record(params["pid_file"], found)
        kept = snapshot.read(params["snapshot"]) if params["snapshot"] else None
        before = _read(params["environment_file"])
        after = fingerprint.environment_file(wanted)
        if before != after and not module.check_mode:
            _write(module, params["environment_file"], after)
    except (HostError, OSError) as error:
        module.fail_json(msg=f"Comparing the running buildkitd with its files failed: {error}")
    module.exit_json(
        changed=before != after or found is not None,
        running=pid is not None,
        reasons=fingerprint.reasons(files, wanted, proc.environment(pid)) if pid else [],
        proved=kept is not None and kept.digests == wanted,
        environment=wanted,
        diff={"before": before, "after": after},
    )


if __name__ == "__main__":
    main()
