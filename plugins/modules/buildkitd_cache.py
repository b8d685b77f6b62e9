#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Empties the build cache."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_cache
short_description: Empty the build cache of a daemon that does not run any more
version_added: 1.0.0
description:
  - Removes everything in the directory of the build cache. The directory stays, because it may be a file system of its
    own.
  - A daemon that was killed amid a build leaves file systems mounted there. They are unmounted first.
  - Stop the daemon before. Its state is lost with the cache.
  - A directory that is not empty and never was a daemon's is refused.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
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
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_process
"""

EXAMPLES = r"""
- name: Empty the build cache
  buildfarm.buildkit.buildkitd_cache:
    path: /var/lib/buildkit
"""

RETURN = r"""
removed:
  description: What was, or in check mode would be, removed.
  returned: always
  type: list
  elements: str
  sample: [/var/lib/buildkit/cache.db, /var/lib/buildkit/runc-overlayfs]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import cache
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError


def main() -> None:
    """Empties the directory and exits with what was in it."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}},
        supports_check_mode=True,
    )
    path = module.params["path"]
    try:
        cache.check(path)
        removed = cache.entries(path)
        if not module.check_mode:
            cache.empty(path)
    except HostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"Emptying the build cache {path} failed: {error}")
    module.exit_json(changed=bool(removed), removed=removed)


if __name__ == "__main__":
    main()
