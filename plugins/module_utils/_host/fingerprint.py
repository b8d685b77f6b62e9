# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running buildkitd was started with, told by the process itself.

buildkitd reads its certificates and its configuration once, at start. So each start gets the digests of these
files in its environment, from a file written after all of them; the environment of the running process, compared
with the files as they are now, says whether a restart is owed, and why. No record beside the process can go stale,
and a run that was killed between the change and the restart is noticed by the next one.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.release import sha256_of

_PREFIX = "BUILDFARM_SHA256_"


def variable(part: str) -> str:
    """The environment variable that carries the digest of a part, such as "trust bundle"."""
    return _PREFIX + part.upper().replace(" ", "_").replace("-", "_")


def digests(files: t.Mapping[str, str], known: t.Mapping[str, str]) -> t.Dict[str, str]:
    """Variable to digest, for each part and its file: the one that is known, else that of the file as it is.

    A file that is not there has the digest "absent".
    """
    found = {}
    for part, path in files.items():
        found[variable(part)] = known.get(path) or (sha256_of(path) if os.path.isfile(path) else "absent")
    return found


def stamp(path: str) -> str:
    """What tells one writing of a file that may hold a secret from another, without a digest of the secret.

    A digest that everyone may read would let anyone try passwords until one fits.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return "absent"
    return f"{found.st_mtime_ns}-{found.st_ino}"


def environment_file(wanted: t.Mapping[str, str]) -> str:
    """The text of a systemd EnvironmentFile (systemd.exec(5)) with these variables, in a fixed order."""
    return "".join(f"{name}={value}\n" for name, value in sorted(wanted.items()))


def reasons(files: t.Mapping[str, str], wanted: t.Mapping[str, str], started_with: t.Mapping[str, str]) -> t.List[str]:
    """One sentence for each part that a running process was not started with, in the order of ``files``."""
    found = []
    for part in files:
        name = variable(part)
        if name not in started_with:
            found.append(f"the running daemon does not say which {part} it was started with")
        elif started_with[name] != wanted[name]:
            found.append(f"{part} changed")
    return found
