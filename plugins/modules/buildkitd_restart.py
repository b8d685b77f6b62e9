#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts buildkitd in a moment in which it builds nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_restart
short_description: Restart buildkitd in a moment in which it builds nothing
version_added: 1.1.0
description:
  - Asks the daemon until no build runs and nobody has just connected, and ends it in that moment with SIGTERM; then it
    starts it again. When no such moment comes within O(limit) seconds, O(policy) says what to do.
  - It asks through the unix socket on the daemon's own host, so that the signal follows the answer within some
    milliseconds, and so that a certificate that ended is no obstacle.
  - Clients that only hold a connection do not keep it from restarting. They are cut off when they hold it up for more
    than five seconds.
  - From the last look until the daemon listens no more, the kernel keeps new clients of the TCP port waiting, so that
    none is accepted by a daemon that ends. That takes Linux 5.6.
  - Builds that were sent as internal, such as this collection's own proofs, are not counted.
  - While it waits, the task shows a line every O(progress) seconds that says what still runs.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
    details: Looks once, and says what would be done now.
  diff_mode:
    support: full
  idempotent:
    support: none
    details: It restarts each time, or says why it does not.
  action:
    description: Has an action plugin of the same name, of which some parts run on the controller.
    support: full
    details: The action plugin calls the module several times and shows a line after each.
options:
  unit:
    description: The systemd service that runs the daemon. Exactly one of O(unit), O(pid_file) and O(pid) is required.
    type: str
  pid_file:
    description: The pid file that M(buildfarm.buildkit.buildkitd_process) wrote.
    type: path
  pid:
    description: Number of the daemon's process on the host, which may be in a container. V(0) if it does not run.
    type: int
  socket:
    description: The daemon's unix socket. For one in a container this is the path in there.
    type: path
    default: /run/buildkit/buildkitd.sock
  port:
    description: The daemon's TCP port, to see who has just connected, and to keep clients waiting. V(0) if it has none.
    type: int
    default: 0
  hold:
    description:
      - Whether new clients of O(port) are kept waiting. V(false) where the next daemon has another address behind the
        one that clients dial, as a container of Podman with a published port has. The kernel goes on sending what a
        waiting client sends to the address that was there first.
    type: bool
    default: true
  command:
    description:
      - What starts the daemon again, as a program and its arguments. Without it the daemon is only ended.
      - It is run although somebody else, such as systemd for the next client, may have started the daemon already.
    type: list
    elements: str
    default: []
  policy:
    description:
      - What to do when the daemon still builds after O(limit) seconds, or cannot be asked.
      - V(graceful) keeps new clients of the TCP port waiting until all builds have ended, then sends SIGTERM. Builds
        that take longer than half of O(stop_timeout), or where clients cannot be kept waiting, end after SIGTERM. It is
        refused before v0.14, where SIGTERM kills them.
      - V(skip) leaves it as it is. That is no failure, see RV(restarted).
      - V(now) kills it with all its builds.
      - Without it, V(graceful) from v0.14 on and V(skip) before.
    type: str
    choices: ["", graceful, skip, now]
    default: ""
  limit:
    description: Seconds to wait for a moment in which nothing runs. V(0) means to look once.
    type: float
    default: 600
  waited:
    description: Seconds that were waited before, which the action plugin gives.
    type: float
    default: 0
  stop_timeout:
    description: Seconds that builds may take to end, once it is decided to end the daemon. Then they are killed.
    type: float
    default: 600
  progress:
    description: Seconds between two lines that say what still runs, or V(0) for none. Less than V(3) is taken for V(3).
    type: float
    default: 10
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkit_drain
  - module: buildfarm.buildkit.buildkitd_fingerprint
  - module: buildfarm.buildkit.buildkitd_kill
"""

EXAMPLES = r"""
- name: Restart the daemon when nobody builds, or in ten minutes at the latest
  buildfarm.buildkit.buildkitd_restart:
    unit: buildkit.service
    port: 1234
    command: [systemctl, start, buildkit.service]
  register: daemon

- name: Say what is left to do
  ansible.builtin.debug:
    msg: "{{ daemon.message }}"
  when: not daemon.restarted
"""

RETURN = r"""
restarted:
  description: Whether it was, or in check mode would be, restarted. V(false) if it was left as it is.
  returned: success
  type: bool
  sample: true
how:
  description:
    - V(idle) when nothing ran, V(down) when it did not run or ended by itself, V(ending) when it was ending already,
      and V(skipped) when it was left as it is.
    - Else what O(policy) said, V(graceful) or V(now).
  returned: success
  type: str
  sample: idle
message:
  description: The same as a sentence.
  returned: success
  type: str
  sample: No build ran; waited 3 s for that.
policy:
  description: The policy that held, for this daemon.
  returned: success
  type: str
  sample: graceful
version:
  description: The version of the daemon that ran. Empty if it did not, or if it is unknown.
  returned: success
  type: str
  sample: 0.31.0
builds:
  description: Names of the builds that still ran.
  returned: success
  type: list
  elements: str
  sample: []
problem:
  description: Why the daemon could not be asked. Empty if it could.
  returned: success
  type: str
  sample: ""
waited_seconds:
  description: How long it took until it was decided.
  returned: success
  type: float
  sample: 2.9
stopped_seconds:
  description: How long the daemon then took to end.
  returned: success
  type: float
  sample: 0.1
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc, process, restart, systemd
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError


def _daemon(params: t.Mapping[str, t.Any]) -> t.Optional[proc.ProcessIdentity]:
    if params["pid_file"]:
        return process.running(params["pid_file"])
    pid = systemd.main_pid(params["unit"]) if params["unit"] else params["pid"]
    return proc.identify(pid) if pid else None


def main() -> None:
    """Restarts the daemon, or leaves it, and exits with what became of it."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str"},
            "pid_file": {"type": "path"},
            "pid": {"type": "int"},
            "socket": {"type": "path", "default": "/run/buildkit/buildkitd.sock"},
            "port": {"type": "int", "default": 0},
            "hold": {"type": "bool", "default": True},
            "command": {"type": "list", "elements": "str", "default": []},
            "policy": {"type": "str", "choices": ["", "graceful", "skip", "now"], "default": ""},
            "limit": {"type": "float", "default": 600},
            "waited": {"type": "float", "default": 0},
            "stop_timeout": {"type": "float", "default": 600},
            "progress": {"type": "float", "default": 10},
        },
        required_one_of=[("unit", "pid_file", "pid")],
        mutually_exclusive=[("unit", "pid_file", "pid")],
        supports_check_mode=True,
    )
    params = module.params
    wish = restart.Wish(
        socket=params["socket"],
        port=params["port"],
        hold=params["hold"],
        policy=params["policy"],
        limit=params["limit"],
        waited=params["waited"],
        stop_timeout=params["stop_timeout"],
        command=params["command"],
        ending=bool(params["unit"]) and systemd.show(params["unit"])["ActiveState"] == "deactivating",
    )
    try:
        outcome = restart.decide(_daemon(params), wish, look_once=module.check_mode)
        if outcome.restarted and wish.command and not module.check_mode:
            restart.start(wish.command, params["unit"] or "")
    except (HostError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=outcome.restarted,
        restarted=outcome.restarted,
        how=outcome.how,
        message=outcome.message,
        policy=outcome.policy,
        version=outcome.version,
        builds=outcome.builds,
        problem=outcome.problem,
        waited_seconds=round(outcome.waited, 1),
        stopped_seconds=round(outcome.stopped, 1),
        diff={
            "before": f"buildkitd: {'stopped' if outcome.how == restart.DOWN else 'running'}\n",
            "after": f"buildkitd: {'restarted' if outcome.restarted else 'as it was'}\n",
        },
    )


if __name__ == "__main__":
    main()
