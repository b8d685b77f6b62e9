#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_drain
short_description: Wait until BuildKit daemons build nothing
version_added: 1.1.0
description:
  - Waits until no build runs on one daemon or a fleet, as one does before a restart, a shutdown or maintenance. It
    asks the daemon which builds run, and so is exact where a count of connections or a pause is not.
  - It changes nothing, and keeps nobody from building. A build may begin in the moment after the task, so do at once
    what it was for, or close the port before. A client that has connected but not sent its build yet is not counted.
  - Builds that were sent as internal, such as this collection's own proofs, are not counted.
  - While it waits, the task shows a line every O(progress) seconds that says what still runs.
  - Speaks gRPC itself. It needs no buildctl and no Docker.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
  - buildfarm.buildkit._connection
  - buildfarm.buildkit._fleet
attributes:
  check_mode:
    support: full
    details: Says what runs now, and neither waits nor fails for it.
  diff_mode:
    support: none
    details: There is nothing to differ.
  idempotent:
    support: full
  action:
    description: Has an action plugin of the same name, of which some parts run on the controller.
    support: full
    details:
      - The action plugin calls the module several times, each time for O(progress) seconds at most, and shows a line
        after each. The module runs where any module would run (C(delegate_to), C(become) and connection variables
        apply). As an C(async) task it is called once, and shows no lines.
options:
  timeout:
    description:
      - Seconds to wait. The default is ten minutes, V(0) means to look once.
      - It counts from the first call of the module, and includes the time that Ansible needs to run it.
    type: float
    default: 600
  poll:
    description: Seconds between two looks. A look takes some milliseconds.
    type: float
    default: 1
  idle_for:
    description:
      - Seconds for which no build must have been seen, at most O(timeout). More than V(0) bridges the moment between
        two builds of one job.
    type: float
    default: 0
  on_timeout:
    description:
      - What to do when builds still run after O(timeout). V(fail) fails the task, V(continue) goes on with
        RV(drained=false).
      - A daemon that cannot be asked is a failure in any case.
    type: str
    choices: [fail, continue]
    default: fail
  progress:
    description:
      - Seconds between two lines that say what still runs, at least V(1), or V(0) for none. Nothing is shown for a task
        with C(no_log).
    type: float
    default: 10
seealso:
  - module: buildfarm.buildkit.buildkit_info
  - module: buildfarm.buildkit.buildkit_verify
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Wait until nobody builds on this host
  buildfarm.buildkit.buildkit_drain:
    address: unix:///run/buildkit/buildkitd.sock
  become: true

- name: Restart it in that moment
  ansible.builtin.systemd_service:
    name: buildkit.service
    state: restarted
  become: true

- name: Give the builds of a fleet half an hour, and go on all the same
  buildfarm.buildkit.buildkit_drain:
    daemons: "{{ groups['buildkit_daemons'] | buildfarm.buildkit.endpoints(hostvars) }}"
    ca_path: pki/clients/ops/ca.pem
    client_cert: pki/clients/ops/cert.pem
    client_key: pki/clients/ops/key.pem
    timeout: 1800
    idle_for: 5
    on_timeout: continue
  delegate_to: localhost
  run_once: true
  register: builders

- name: Say who was still building
  ansible.builtin.debug:
    msg: "{{ builders.summary }}"
  when: not builders.drained
  run_once: true
"""

RETURN = r"""
drained:
  description: Whether nothing runs on any of them.
  returned: when the options make sense, on failure too
  type: bool
  sample: true
waited_seconds:
  description: How long it took.
  returned: when the options make sense, on failure too
  type: float
  sample: 42.1
daemons:
  description: What was seen of each daemon, in the order in which they were given. A list even for one.
  returned: when the options make sense, on failure too
  type: list
  elements: dict
  contains:
    address:
      description: As it was given.
      type: str
    drained:
      description: Whether no build was seen for O(idle_for) seconds.
      type: bool
    waited_seconds:
      description: How long that took.
      type: float
    idle_seconds:
      description: For how many of the last seconds no build was seen.
      type: float
    builds:
      description: What still ran when it was looked last, the oldest first.
      type: list
      elements: dict
      contains:
        ref:
          description: Its name.
          type: str
        frontend:
          description: Its frontend. V(null) for LLB, and where the client drives the frontend itself.
          type: str
        started:
          description: When it began, UTC, by the daemon's clock.
          type: str
        age_seconds:
          description: For how long it has been running.
          type: float
    builds_seen:
      description: The names of the builds that were seen while it waited, at most 1000.
      type: list
      elements: str
    failure:
      description: Why it could not be asked. V(null) if it could.
      type: dict
      contains:
        kind:
          description: The cause, as in RV(buildfarm.buildkit.buildkit_verify#module:daemons[].failure.kind).
          type: str
        message:
          description: What happened.
          type: str
        remedy:
          description: What to try.
          type: str
  sample:
    - address: tcp://build-1.example.com:1234
      drained: true
      waited_seconds: 42.1
      idle_seconds: 0.0
      builds: []
      builds_seen: [hi3srs8ueyhcivigk3svtz0qx]
      failure: null
summary:
  description: One line for each daemon.
  returned: when the options make sense, on failure too
  type: list
  elements: str
  sample:
    - "tcp://build-1.example.com:1234: no build runs; waited 42 s"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import drain
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import options as connection
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._deps import (
    CRYPTOGRAPHY,
    GRPCLIB,
    PROTOBUF,
    MissingLibraryError,
    require,
)

# What only this module has, as DOCUMENTATION describes it. C(progress) is for the action plugin.
_OPTIONS = {
    "timeout": {"type": "float", "default": 600},
    "poll": {"type": "float", "default": 1},
    "idle_for": {"type": "float", "default": 0},
    "on_timeout": {"type": "str", "choices": list(drain.ON_TIMEOUT), "default": "fail"},
    "progress": {"type": "float", "default": 10},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**connection.module_arguments(_OPTIONS), supports_check_mode=True)
    options = module.params
    wish = drain.Wish(
        **{name: options[name] for name in ("connect_timeout", "timeout", "poll", "idle_for", "progress")}
    )
    try:
        connection.check_python()
        require(GRPCLIB, PROTOBUF, CRYPTOGRAPHY)
        daemons = connection.read_daemons(options)
        wish.check()
        reports = drain.wait(daemons, wish.to_look_once() if module.check_mode else wish)
    except (InputError, MissingLibraryError) as error:
        module.fail_json(msg=str(error))
    may_run_on = module.check_mode or options["on_timeout"] == "continue"
    result = drain.conclude([report.as_dict() for report in reports], may_run_on=may_run_on)
    if "msg" in result:
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
