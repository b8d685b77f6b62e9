#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs buildkitd as a plain process."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_process
short_description: Run buildkitd as a plain process, on hosts without systemd
version_added: 1.0.0
description:
  - Starts, stops and restarts one daemon that has a pid file and a log.
  - The pid file records the process number, its start time and its executable. A process is signalled only when all
    three still match, so that a number that was given to another process kills nobody.
  - Where no pid file names a living process, but one answers on O(ready_socket), it is ours if it runs the program of
    O(argv), or the same program of another version beside it. Then it is recorded, which is a change, or stopped.
    Another one is left alone, and nothing is started.
  - The daemon is not started again at boot. Where there is systemd, use it.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: O(state=restarted) restarts each time.
options:
  argv:
    description: The program, as an absolute path, and its arguments. Required unless O(state=stopped). Then, with
      O(ready_socket), a daemon without a pid file is found too.
    type: list
    elements: str
  pid_file:
    description: Where the process is recorded. Its directory is made with mode 0700 when it is missing.
    type: path
    required: true
  log_file:
    description: Where the daemon's output is appended, with mode 0600. Required unless O(state=stopped).
    type: path
  environment:
    description:
      - Variables to start the daemon with.
      - It has no others, also no proxies of the module's own environment, but C(PATH) with the usual directories and
        C(HOME) of the user, which may be set here too.
    type: dict
    default: {}
  environment_file:
    description:
      - A file on the host with more variables, C(NAME=value) on each line, as systemd reads it. For what may be a
        secret. A file that is not there is none.
    type: path
    version_added: 1.1.0
  ready_socket:
    description: The unix socket that accepts once the daemon is ready. Required unless O(state=stopped).
    type: path
  start_timeout:
    description: Seconds that the daemon may take until it is ready.
    type: int
    default: 60
  stop_timeout:
    description: Seconds that the daemon may take to end after SIGTERM, before SIGKILL.
    type: int
    default: 600
  state:
    description: The state that is wanted. V(restarted) stops a running daemon first, and always changes.
    type: str
    choices: [started, stopped, restarted]
    default: started
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_fingerprint
"""

EXAMPLES = r"""
- name: Run buildkitd
  buildfarm.buildkit.buildkitd_process:
    argv:
      - /usr/local/bin/buildkitd
      - --config=/etc/buildkit/buildkitd.toml
      - --addr=unix:///run/buildkit/buildkitd.sock
    pid_file: /run/buildkit/buildkitd.pid
    log_file: /var/log/buildkit/buildkitd.log
    ready_socket: /run/buildkit/buildkitd.sock
"""

RETURN = r"""
pid:
  description: Process number of the running daemon. V(0) when none runs, and when check mode only predicts a start.
  returned: always
  type: int
  sample: 4711
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc, process
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError


def _unrecorded(params: t.Mapping[str, t.Any]) -> t.Optional[proc.ProcessIdentity]:
    """Our daemon that no pid file names. Raises HostError where another one is in the way of a start."""
    if not (params["argv"] and params["ready_socket"]):
        return None
    try:
        return process.unrecorded(params["argv"][0], params["ready_socket"])
    except HostError:
        if params["state"] == "stopped":
            return None  # what is not ours is not stopped
        raise


def main() -> None:
    """Brings the daemon into the wanted state and exits with its process number."""
    module = AnsibleModule(
        argument_spec={
            "argv": {"type": "list", "elements": "str"},
            "pid_file": {"type": "path", "required": True},
            "log_file": {"type": "path"},
            "environment": {"type": "dict", "default": {}},
            "environment_file": {"type": "path"},
            "ready_socket": {"type": "path"},
            "start_timeout": {"type": "int", "default": 60},
            "stop_timeout": {"type": "int", "default": 600},
            "state": {"type": "str", "choices": ["started", "stopped", "restarted"], "default": "started"},
        },
        required_if=[
            ("state", "started", ("argv", "log_file", "ready_socket")),
            ("state", "restarted", ("argv", "log_file", "ready_socket")),
        ],
        supports_check_mode=True,
    )
    params = module.params
    try:
        recorded = process.running(params["pid_file"])
        before = recorded or _unrecorded(params)
        changed = bool(before) if params["state"] == "stopped" else params["state"] == "restarted" or not recorded
        after = before
        if changed and not module.check_mode:
            if before and not recorded:
                process.record(params["pid_file"], before)
            if before and params["state"] != "started":
                process.stop(params["pid_file"], timeout=params["stop_timeout"])
                after = None
            if not after and params["state"] != "stopped":
                after = process.start(
                    params["argv"],
                    pid_file=params["pid_file"],
                    log_file=params["log_file"],
                    environment={
                        **{name: str(value) for name, value in params["environment"].items()},
                        **process.read_environment(params["environment_file"]),
                    },
                    ready_socket=params["ready_socket"],
                    timeout=params["start_timeout"],
                )
    except (HostError, OSError) as error:
        module.fail_json(msg=str(error))
    runs_after = params["state"] != "stopped" if changed else bool(before)
    module.exit_json(
        changed=changed,
        pid=after.pid if after else 0,
        diff={
            "before": f"buildkitd: {'running' if before else 'stopped'}\n",
            "after": f"buildkitd: {'running' if runs_after else 'stopped'}\n",
        },
    )


if __name__ == "__main__":
    main()
