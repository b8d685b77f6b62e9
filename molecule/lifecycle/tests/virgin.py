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
    docker("rm", "-fv", name, stderr=subprocess.DEVNULL)
    docker(
        *("run", "--detach", "--name", name, "--hostname", name, "--network", NETWORK, "--ip", address),
        *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--cgroupns", "private"),
        *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
        *("--mount", "type=tmpfs,target=/run", "--mount", "type=tmpfs,target=/tmp"),
        *("--env", "container=docker", "--volume", "/var/lib/buildkit", *options),
        *(os.environ["BUILDKIT_HOST_IMAGE"], "systemd"),
    )
    try:
        deadline = time.monotonic() + 300
        asked = ["docker", "exec", name, "systemctl", "is-system-running"]
        while subprocess.run(asked, capture_output=True, text=True, check=False).stdout != "running\n":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield name
    finally:
        docker("rm", "-fv", name)
