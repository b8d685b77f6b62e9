#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets the container of buildkitd aside for another one, puts it back, or removes it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_container_swap
short_description: Set the container of buildkitd aside for another one, put it back, or remove it
version_added: 1.1.0
description:
  - A container cannot be changed, only replaced, and two cannot have one port. So the old one is stopped and renamed,
    and kept until the new one is proved. This module does what is around that.
  - Touches only containers that the role buildkitd_container made, which have its label.
  - It needs the Python standard library and the engine's command line.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: There is nothing to differ.
  idempotent:
    support: partial
    details: V(held), V(released) and V(back) are done each time.
options:
  engine:
    description: Which engine has it.
    type: str
    choices: [docker, podman]
    required: true
  name:
    description:
      - The name of the container. What is set aside has C(-previous) behind it, what is to take its place C(-next).
    type: str
    required: true
  state:
    description:
      - V(held) keeps the engine from starting the container again when it ends; V(released) undoes that, and starts it
        where it ended.
      - V(back) removes the container, and renames and starts what was set aside. Where nothing was, the container
        stays, and is released if it was held. What was to take its place goes.
      - V(done) removes what was set aside, and what was made to take the place of the container but did not.
      - V(absent) removes these and the container itself, and O(volume) with O(purge).
    type: str
    choices: [held, released, back, done, absent]
    required: true
  kill:
    description: Whether it is killed, with all that it builds, instead of stopped.
    type: bool
    default: false
  stop_timeout:
    description: Seconds that builds may take to end.
    type: int
    default: 600
  volume:
    description: The named volume that O(purge) is about.
    type: str
    default: ""
  purge:
    description: Whether V(absent) also removes the volume.
    type: bool
    default: false
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_container_info
"""

EXAMPLES = r"""
- name: Go back to the container that was set aside
  buildfarm.buildkit.buildkitd_container_swap:
    engine: docker
    name: buildkitd
    state: back
"""

RETURN = r"""
done:
  description: What was, or in check mode would be, done.
  returned: always
  type: list
  elements: str
  sample: [removed buildkitd, renamed buildkitd-previous to buildkitd, released buildkitd]
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import container
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

# What the engine may take beside the builds.
_GRACE_SECONDS = 300


class _Swap:
    """The two containers of one name."""

    def __init__(self, params: t.Mapping[str, t.Any], *, dry_run: bool) -> None:
        self.params = params
        self.dry_run = dry_run
        self.engine = container.Engine(params["engine"])
        self.name = params["name"]
        self.previous = f"{self.name}-previous"
        self.next = f"{self.name}-next"
        self.done: t.List[str] = []

    def _do(self, said: str, *arguments: str) -> None:
        self.done.append(said)
        if self.dry_run:
            return
        finished = self.engine.run(*arguments, seconds=self.params["stop_timeout"] + _GRACE_SECONDS)
        if finished.returncode:
            raise HostError(f"`{self.engine.kind} {' '.join(arguments)}` failed: {' '.join(finished.stderr.split())}")

    def _ours(self, name: str) -> t.Optional[container.Container]:
        found = self.engine.container(name)
        if found is not None and not found.ours:
            raise HostError(f"the container {name} was not made by this collection, and is left alone.")
        return found

    def _end(self, name: str) -> None:
        found = self._ours(name)
        if found is not None and found.running:
            if self.params["kill"]:
                self._do(f"killed {name}", "kill", name)
            else:
                self._do(f"stopped {name}", "stop", "--time", str(self.params["stop_timeout"]), name)

    def _remove(self, name: str) -> None:
        if self._ours(name) is not None:
            self._end(name)
            # Those without a name, which its image may have made.
            self._do(f"removed {name}", "rm", "--force", "--volumes", name)

    def held(self) -> None:
        """A stop while the engine starts a container again would wait for the new one for ever."""
        if self._ours(self.name) is not None:
            self._do(f"held {self.name}", "update", "--restart", "no", self.name)

    def released(self) -> None:
        """Undo that, with what its label says; one that ended meanwhile is started."""
        found = self._ours(self.name)
        if found is not None:
            policy = found.labels.get(container.RESTART_LABEL, "unless-stopped")
            self._do(f"released {self.name}", "update", "--restart", policy, self.name)
            if not found.running:
                self._do(f"started {self.name}", "start", self.name)

    def back(self) -> None:
        """Undo it, from wherever it stopped."""
        found = self._ours(self.name)
        if self._ours(self.previous) is not None:
            self._remove(self.name)
            self._do(f"renamed {self.previous} to {self.name}", "rename", self.previous, self.name)
            self.released()
        elif found is not None and (found.held or not found.running):
            self.released()
        self._remove(self.next)

    def finished(self) -> None:
        """Keep the new one."""
        self._remove(self.previous)
        self._remove(self.next)

    def absent(self) -> None:
        """Leave nothing."""
        if not self.engine.program:
            return
        self._remove(self.name)
        self.finished()
        volume = self.params["volume"]
        if self.params["purge"] and volume and not os.path.isabs(volume) and self.engine.inspect("volume", volume):
            self._do(f"removed the volume {volume}", "volume", "rm", volume)


def main() -> None:
    """Does what the state says."""
    module = AnsibleModule(
        argument_spec={
            "engine": {"type": "str", "choices": ["docker", "podman"], "required": True},
            "name": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["held", "released", "back", "done", "absent"],
                "required": True,
            },
            "kill": {"type": "bool", "default": False},
            "stop_timeout": {"type": "int", "default": 600},
            "volume": {"type": "str", "default": ""},
            "purge": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    swap = _Swap(module.params, dry_run=module.check_mode)
    steps = {
        "back": swap.back,
        "done": swap.finished,
        "held": swap.held,
        "released": swap.released,
        "absent": swap.absent,
    }
    try:
        steps[module.params["state"]]()
    except HostError as error:
        module.fail_json(msg=f"Exchanging the container {swap.name} failed: {error}", done=swap.done)
    module.exit_json(changed=bool(swap.done), done=swap.done)


if __name__ == "__main__":
    main()
