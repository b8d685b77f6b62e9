#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes or removes a set of small text files in one task."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_files
short_description: Write or remove a set of small text files in one task
version_added: 1.0.0
description:
  - Does for a set of files what M(ansible.builtin.copy) does for one, in the time of one. Each file is exchanged in one
    rename, and none is written before all of them have been looked at.
  - Its diff shows the texts of O(files), and of O(secrets) only that they differ.
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
  directories:
    description: Directories to make, and their modes as text. Their parents are made with the usual mode.
    type: dict
    default: {}
  files:
    description:
      - Path of each file, with its C(content) and its C(mode) as text.
      - The directory of a file must exist, or be one of O(directories).
    type: dict
    default: {}
  secrets:
    description:
      - Path and content of each file that may hold a secret. Only its owner can read it, and neither the diff nor
        RV(sha256) tells of its content.
    type: dict
    default: {}
    version_added: 1.1.0
  absent:
    description: Files, links and directories with all that is in them, to remove.
    type: list
    elements: path
    default: []
  empty_directories:
    description: Directories to remove after that, where nothing is left in them.
    type: list
    elements: path
    default: []
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: ansible.builtin.copy
"""

EXAMPLES = r"""
- name: Write configuration and unit
  buildfarm.buildkit.buildkit_files:
    directories:
      /etc/buildkit: "0755"
    files:
      /etc/buildkit/buildkitd.toml:
        content: |
          root = "/var/lib/buildkit"
        mode: "0644"
"""

RETURN = r"""
written:
  description: The files and directories that were, or in check mode would be, made or changed.
  returned: always
  type: list
  elements: str
  sample: [/etc/buildkit/buildkitd.toml]
removed:
  description: What was, or in check mode would be, removed.
  returned: always
  type: list
  elements: str
  sample: [/etc/buildkit/tls/key.pem]
sha256:
  description: The SHA-256 of what each file of O(files) is to hold, by its path.
  returned: always
  type: dict
  sample: {/etc/buildkit/buildkitd.toml: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae}
"""

import glob
import hashlib
import os
import shutil
import stat
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._files import read_optional, write_atomically


def _mode(text: str) -> int:
    return int(str(text), 8)


def _mode_differs(path: str, mode: int) -> bool:
    return stat.S_IMODE(os.stat(path).st_mode) != mode


def _shown(content: t.Optional[bytes], secret: bool) -> str:
    """A file in the diff."""
    if content is None:
        return ""
    return "(a text that is not shown)\n" if secret else content.decode("utf-8", "replace")


def _check(directories: t.Mapping[str, str], files: t.Mapping[str, t.Mapping[str, str]]) -> None:
    """Refuses what could not be written, before anything is. Raises ValueError."""
    for path, mode in [*directories.items(), *((path, wish["mode"]) for path, wish in files.items())]:
        if not os.path.isabs(path):
            raise ValueError(f"{path} is not an absolute path")
        if not 0 <= _mode(mode) <= 0o777:
            raise ValueError(f"the mode {mode} of {path} is not one such as 0644")
    for path in files:
        if os.path.isdir(path):
            raise ValueError(f"{path} is a directory")
        if os.path.dirname(path) not in directories and not os.path.isdir(os.path.dirname(path)):
            raise ValueError(f"there is no directory {os.path.dirname(path)}")


def _leftovers(path: str) -> t.List[str]:
    """What a run that was killed left beside a file, by the names that this collection gives what it is writing."""
    directory, name = os.path.split(glob.escape(path))
    patterns = (f".{name}.*.tmp", f".{name}.tmp", f"{name}.*.new")
    return sorted(found for pattern in patterns for found in glob.glob(os.path.join(directory, pattern)))


def _remove(params: t.Mapping[str, t.Any], *, dry_run: bool) -> t.List[str]:
    """Removes, or only names, what is to be absent and the directories that are empty then."""
    removed: t.List[str] = []
    for path in (one for named in params["absent"] for one in (named, *_leftovers(named))):
        if os.path.lexists(path) and path not in removed:
            removed.append(path)
            if not dry_run:
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)
    for path in params["empty_directories"]:
        if os.path.isdir(path) and all(os.path.join(path, name) in removed for name in os.listdir(path)):
            removed.append(path)
            if not dry_run:
                os.rmdir(path)
    return removed


def main() -> None:
    """Writes what differs, and exits with what that was."""
    module = AnsibleModule(
        argument_spec={
            "directories": {"type": "dict", "default": {}},
            "files": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "absent": {"type": "list", "elements": "path", "default": []},
            "empty_directories": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    directories, secrets = module.params["directories"], module.params["secrets"]
    private = {path: {"content": content, "mode": "0600"} for path, content in secrets.items()}
    files = {**module.params["files"], **private}
    written: t.List[str] = []
    diff = []
    try:
        _check(directories, files)
        for path, text in directories.items():
            if not os.path.isdir(path) or _mode_differs(path, _mode(text)):
                written.append(path)
                if not module.check_mode:
                    os.makedirs(path, mode=_mode(text), exist_ok=True)
                    os.chmod(path, _mode(text))
        for path, wish in files.items():
            before, after, mode = read_optional(path), wish["content"].encode(), _mode(wish["mode"])
            if before == after and not _mode_differs(path, mode):
                continue
            written.append(path)
            diff.append(
                {
                    "before_header": path,
                    "after_header": path,
                    "before": _shown(before, path in secrets),
                    "after": _shown(after, path in secrets) + ("(another one)\n" if path in secrets else ""),
                }
            )
            if not module.check_mode:
                write_atomically(path, after, mode=mode)
        removed = _remove(module.params, dry_run=module.check_mode)
    except (KeyError, TypeError) as error:
        module.fail_json(msg=f"Writing files failed: every one needs content and mode, and {error} is wrong.")
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"Writing files failed: {error}. What was not yet written is as it was.")
    module.exit_json(
        changed=bool(written or removed),
        written=written,
        removed=removed,
        sha256={
            path: hashlib.sha256(wish["content"].encode()).hexdigest()
            for path, wish in files.items()
            if path not in secrets
        },
        diff=diff,
    )


if __name__ == "__main__":
    main()
