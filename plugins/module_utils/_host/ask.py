# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two questions to a daemon through its unix socket, from its own host, by the buildctl that lies beside it.

Hosts have no gRPC library, and the answer must be as fresh as can be: buildctl takes about 20 ms.
"""

from __future__ import annotations

import os
import subprocess
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

TIMEOUT = 5.0  # seconds for a call
# A record that is STARTED (api/services/control/control.proto, BuildHistoryEventType) is of a build that runs.
_RUNNING = '{{if eq (printf "%s" .Type) "STARTED"}}{{.Record.Ref}}\n{{end}}'
_VERSION = "{{.BuildkitVersion.Version}}"


def builds(pid: int, path: str) -> t.List[str]:
    """The names of the builds that run now, without those that were sent as internal. Raises HostError."""
    return _buildctl(pid, path, "histories", _RUNNING).split()


def version(pid: int, path: str) -> str:
    """What the daemon says that it is, such as v0.13.2; empty if it does not. Raises HostError."""
    return _buildctl(pid, path, "info", _VERSION).strip()


def _buildctl(pid: int, path: str, question: str, template: str) -> str:
    """What ``buildctl debug`` prints, asked in the file system as the daemon sees it, which may be a container's.

    It is run in the socket's directory: the address of a unix socket has no room for a long path.
    """
    directory, name = os.path.split(path)
    try:
        program = os.path.join(os.path.dirname(os.readlink(f"/proc/{pid}/exe")), "buildctl")
        done = subprocess.run(
            [f"/proc/{pid}/root{program}", "--addr", f"unix:///proc/self/cwd/{name}", "debug", question, "--format", template],
            cwd=f"/proc/{pid}/root{directory}",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"Asking buildkitd on {path} with buildctl failed: {error}.") from error
    if done.returncode:
        raise HostError(f"Asking buildkitd on {path} with buildctl failed: {done.stderr.strip()[-500:]}")
    return done.stdout
