# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts beside those of the scenario, on which nothing was done yet."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator

NETWORK = "buildfarm-lifecycle"


def docker(*arguments: str, **options) -> str:
    """Runs docker on the machine that holds the hosts, and returns what it prints."""
    done = subprocess.run(["docker", *arguments], check=True, text=True, stdout=subprocess.PIPE, timeout=900, **options)
    return done.stdout


@contextlib.contextmanager
def virgin(name: str, address: str, *options: str) -> Iterator[str]:
    """A host with systemd, made as those of the scenario, with more options for docker."""
    subprocess.run(["docker", "rm", "-fv", name], capture_output=True, check=False)  # most often there is none
    docker(
        *("run", "--detach", "--name", name, "--hostname", name, "--network", NETWORK, "--ip", address),
        *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--cgroupns", "private"),
        *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
        *("--mount", "type=tmpfs,target=/run", "--mount", "type=tmpfs,target=/tmp"),
        *("--env", "container=docker", "--volume", "/var/lib/buildkit", *options),
        *(os.environ["BUILDKIT_HOST_IMAGE"], "systemd"),
    )
    try:
        deadline = time.monotonic() + 900
        asked = ["docker", "exec", name, "systemctl", "is-system-running"]
        while (state := subprocess.run(asked, capture_output=True, text=True, check=False).stdout) != "running\n":
            assert time.monotonic() < deadline, state + docker("exec", name, "systemctl", "--failed", "--no-pager")
            if state == "degraded\n":  # as it would stay after something timed out on a slow machine
                again = "systemctl restart $(systemctl --failed --plain --quiet | cut -d' ' -f1)"
                subprocess.run(["docker", "exec", name, "sh", "-c", again], capture_output=True, check=False)
            time.sleep(0.2)
        yield name
    finally:
        docker("rm", "-fv", name)
