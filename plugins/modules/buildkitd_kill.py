#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills a running buildkitd with its build steps."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_kill
short_description: Kill a running buildkitd with all its build steps, at once
version_added: 1.1.0
description:
  - For an emergency, such as a stolen client key, in which a stop that waits for running builds would wait for those of
    the thief too.
  - The daemon and everything that it started are first frozen, then killed, so that no build step outlives it. Steps
    run outside the unit's control group, where C(systemctl kill) does not find them.
  - It does not start the daemon again; M(ansible.builtin.systemd_service) or M(buildfarm.buildkit.buildkitd_process)
    does. Do that at once, because systemd has the unit's C(Restart) too.
  - Whether the daemon runs is all that counts, so a second run kills it again.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: It changes nothing where no daemon runs.
options:
  unit:
    description: The systemd service that runs the daemon. Exactly one of O(unit) and O(pid_file) is required.
    type: str
  pid_file:
    description: The pid file that M(buildfarm.buildkit.buildkitd_process) wrote.
    type: path
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_process
"""

EXAMPLES = r"""
- name: End all builds at once
  buildfarm.buildkit.buildkitd_kill:
    unit: buildkit.service

- name: Start the daemon again
  ansible.builtin.systemd_service:
    name: buildkit.service
    state: restarted
"""

RETURN = r"""
killed:
  description: How many processes were killed, the daemon among them. In check mode those that run now.
  returned: always
  type: int
  sample: 4
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc, process, systemd
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError


def _daemon(params: t.Mapping[str, t.Any]) -> t.Optional[proc.ProcessIdentity]:
    if params["pid_file"]:
        return process.running(params["pid_file"])
    pid = systemd.main_pid(params["unit"])
    return proc.identify(pid) if pid else None


def main() -> None:
    """Kills the daemon where it runs and exits with the number of processes that it was."""
    module = AnsibleModule(
        argument_spec={"unit": {"type": "str"}, "pid_file": {"type": "path"}},
        required_one_of=[("unit", "pid_file")],
        mutually_exclusive=[("unit", "pid_file")],
        supports_check_mode=True,
    )
    try:
        daemon = _daemon(module.params)
        killed = 0
        if daemon is not None:
            killed = 1 + len(proc.descendants(daemon.pid)) if module.check_mode else process.kill_tree(daemon)
    except (HostError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=killed > 0,
        killed=killed,
        diff={
            "before": f"buildkitd: {'running' if killed else 'stopped'}\n",
            "after": "buildkitd: stopped\n",
        },
    )


if __name__ == "__main__":
    main()
