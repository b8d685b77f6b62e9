#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends what a daemon left running, and empties its build cache."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_cache
short_description: End what a daemon left running, and empty its build cache
version_added: 1.0.0
description:
  - Ends the build steps that outlived a daemon that was killed, and unmounts what it left mounted. Steps run outside
    the daemon's control group, so neither systemd nor the next daemon ends them.
  - Then removes everything in the directory of the build cache, unless O(purge=false), and the directory itself unless
    it is a mount point.
  - Stop the daemon before. While one holds the directory's lock, the module refuses to do anything.
  - A directory that is not empty and never was a daemon's is refused; so is one below which something is mounted that
    no daemon mounts, be it of another file system or of the same.
  - A directory of the system or of another engine, such as C(/var/lib), is always refused. With O(purge=false), one
    that never was a daemon's is left alone.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
    details: It looks at what runs now, also while the daemon itself still runs.
  diff_mode:
    support: none
    details: What is in a cache has no useful difference.
  idempotent:
    support: full
options:
  path:
    description: The directory, C(root) of buildkitd.toml. It may be absent.
    type: path
    required: true
  purge:
    description: Whether the cache is removed. V(false) only ends and unmounts what a daemon that was killed left.
    type: bool
    default: true
    version_added: 1.1.0
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_process
  - module: buildfarm.buildkit.buildkitd_kill
"""

EXAMPLES = r"""
- name: Empty the build cache
  buildfarm.buildkit.buildkitd_cache:
    path: /var/lib/buildkit

- name: End the steps of a daemon that was killed, and keep its cache
  buildfarm.buildkit.buildkitd_cache:
    path: /var/lib/buildkit
    purge: false
"""

RETURN = r"""
removed:
  description: What was, or in check mode would be, removed.
  returned: always
  type: list
  elements: str
  sample: [/var/lib/buildkit/cache.db, /var/lib/buildkit/runc-overlayfs, /var/lib/buildkit]
ended:
  description: The processes of build steps that were, or in check mode would be, killed.
  returned: always
  type: list
  elements: str
  sample: ["4711 (/usr/bin/cc)"]
unmounted:
  description: What was, or in check mode would be, unmounted.
  returned: always
  type: list
  elements: str
  sample: [/var/lib/buildkit/runc-overlayfs/executor/nkp2ra97ovxc2jw5ardtvbbep/rootfs]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import cache
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError


def main() -> None:
    """Ends, unmounts and removes, and exits with what that was."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "purge": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    path, purge = module.params["path"], module.params["purge"]
    try:
        cache.refuse_others_directory(path)
        if purge:
            cache.check(path)
        elif cache.is_anothers(path):
            module.exit_json(changed=False, removed=[], ended=[], unmounted=[])
        ended = [f"{one.pid} ({one.executable})" for one in cache.steps(path)]
        records = cache.records(path)
        unmounted = cache.own_mounts(path)
        removed = cache.purged(path) if purge else []
        if not module.check_mode:
            cache.refuse_a_running_daemon(path)
            unmounted = cache.end_steps(path)
            if purge:
                cache.purge(path)
    except HostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{'Emptying' if purge else 'Clearing up'} the build cache {path} failed: {error}")
    module.exit_json(
        changed=bool(removed or ended or records or unmounted), removed=removed, ended=ended, unmounted=unmounted
    )


if __name__ == "__main__":
    main()
