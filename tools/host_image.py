# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the image of a test host from Debian's packages, once for each content, and print its name.

The image is Debian trixie with systemd and Python. Its command says what it is: "systemd" (the default) a
host with systemd as PID 1, "idle" a host without an init system, anything else a program that is run. It
carries the CA certificates of the machine that it was made on. Start it with:

  --cap-add ALL --cap-drop SYS_RESOURCE --security-opt seccomp=unconfined --security-opt apparmor=unconfined
  --cgroupns=private --tmpfs /run --tmpfs /tmp -v /var/lib/buildkit

With -e HOST_CGROUPS=machine its limits hold on a machine with cgroup v1 too.

The flavour "engines" has Docker and Podman as well. Neither can use an overlay on an overlay, so add:

  -v /var/lib/docker -v /var/lib/containers --device /dev/fuse --device /dev/net/tun
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import subprocess
from pathlib import Path
from typing import Sequence

import _apt
import _cache
import _debroot
import _progress

SUITE = "trixie"
REPOSITORY = "buildfarm-buildkit-host"
ENTRYPOINT = Path(__file__).resolve().with_name("host-entrypoint.sh")
PACKAGES = (
    "binutils",
    "busybox-static",
    "ca-certificates",
    "containernetworking-plugins",
    "dbus",
    "docker-buildx",
    "iproute2",
    "iptables",
    "nftables",
    "openssh-server",
    "openssl",
    "procps",
    "python3",
    "python3-cryptography",
    "python3-venv",
    "runc",
    "sudo",
    "systemd",
    "systemd-sysv",
)
# Docker and Podman, and what the modules of Ansible for Docker import on a host.
_ENGINES = (
    "aardvark-dns",
    "catatonit",
    "crun",
    "docker-cli",
    "docker.io",
    "fuse-overlayfs",
    "iptables",
    "netavark",
    "nftables",
    "passt",
    "podman",
    "python3-requests",
    "slirp4netns",
    "uidmap",
)
# Files that only a running host may have, or that only building the image needed.
_REMOVED = ("etc/machine-id", "var/lib/dbus/machine-id", "usr/sbin/policy-rc.d")
# Engines that start at boot: a host uses one of them at most, and says which.
_WANTS = "etc/systemd/system"
_STARTED = (
    f"{_WANTS}/multi-user.target.wants/containerd.service",
    f"{_WANTS}/multi-user.target.wants/docker.service",
    f"{_WANTS}/multi-user.target.wants/podman.service",
    f"{_WANTS}/multi-user.target.wants/podman-restart.service",
    f"{_WANTS}/sockets.target.wants/docker.socket",
    f"{_WANTS}/sockets.target.wants/podman.socket",
    f"{_WANTS}/timers.target.wants/podman-auto-update.timer",
)
FLAVOURS = {"plain": (PACKAGES, _REMOVED), "engines": ((*PACKAGES, *_ENGINES), (*_REMOVED, *_STARTED))}
# On a machine with cgroup v1 the hosts' cgroup v2 has no controllers, and Podman's limit of processes would fail.
_PODMAN = ("etc/containers/containers.conf.d/50-no-controllers.conf", "[containers]\npids_limit = 0\n")
_CHANGES = (
    'ENTRYPOINT ["/usr/local/sbin/host-entrypoint"]',
    'CMD ["systemd"]',
    "ENV container=docker LANG=C.UTF-8",
)
# A container cannot load kernel modules; without this unit, systemctl is-system-running says "running".
_MASKED = ("systemd-modules-load.service",)


def image_name(flavour: str = "plain") -> str:
    """Return the image's name: its tag stands for all that decides its content."""
    packages, removed = FLAVOURS[flavour]
    parts = (SUITE, _apt.architecture(), packages, removed, _CHANGES, _MASKED)
    content = repr(parts if flavour == "plain" else (*parts, _PODMAN)).encode()
    return f"{REPOSITORY}:{hashlib.sha256(content + ENTRYPOINT.read_bytes()).hexdigest()[:12]}"


def exists(name: str) -> bool:
    """Tell whether the engine has an image."""
    try:
        return subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def need_engine() -> None:
    """Refuse to go on when no engine answers."""
    try:
        shown = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
        problem = shown.stderr.strip() if shown.returncode else ""
    except FileNotFoundError:
        problem = "there is no docker command"
    if problem:
        raise _progress.ToolError(f"no Docker engine answers ({problem}). Try: python tools/docker_engine.py start")


def furnish(root: _debroot.Root, flavour: str) -> None:
    """Turn a Debian root into a test host."""
    packages, removed = FLAVOURS[flavour]
    root.update()
    root.install(packages)
    root.run("Emptying the package cache", ["apt-get", "clean"])
    for name in removed:
        (root.path / name).unlink(missing_ok=True)
    (root.path / "etc/machine-id").touch()
    units = root.path / "etc/systemd/system"
    for unit in _MASKED:
        (units / unit).symlink_to("/dev/null")
    if flavour == "engines":
        settings = root.path / _PODMAN[0]
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(_PODMAN[1])
    target = root.path / "usr/local/sbin/host-entrypoint"
    target.write_bytes(ENTRYPOINT.read_bytes())
    target.chmod(0o755)


def import_image(root: _debroot.Root, name: str) -> None:
    """Hand the root to the engine."""
    pack = ["tar", "-C", str(root.path), "--numeric-owner", "--exclude=./var/lib/apt/lists/*_*", "-c", "."]
    load = ["docker", "import", *(word for change in _CHANGES for word in ("--change", change)), "-", name]
    _progress.run(
        f"Importing {name}",
        ["bash", "-c", f"set -o pipefail; {shlex.join(pack)} | {shlex.join(load)}"],
        log=root.log,
        hint="is there space left for the engine's images (docker system df)?",
    )


def obtain(flavour: str = "plain") -> str:
    """Return the name of the image, built now if the engine does not have it."""
    name = image_name(flavour)
    need_engine()
    stem = "host-image" if flavour == "plain" else f"host-image-{flavour}"
    with _cache.lock("host-image"):
        if exists(name):
            return name
        _progress.say(f"Building the test hosts' image {name}, once on this machine: up to a minute.")
        log = _cache.log_file(stem)
        _debroot.remove_leftovers("host-image")
        with _debroot.debian(SUITE, log=log, keep_base=True) as root:
            furnish(root, flavour)
            import_image(root, name)
    return name


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flavour", choices=sorted(FLAVOURS), default="plain", help="default: %(default)s")
    parser.add_argument("--name-only", action="store_true", help="print the name without building the image")
    options = parser.parse_args(arguments)
    os.umask(0o022)
    print(image_name(options.flavour) if options.name_only else obtain(options.flavour))


if __name__ == "__main__":
    _progress.main(run)
