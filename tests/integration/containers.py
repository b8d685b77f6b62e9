# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real buildkitd in real containers of Docker and Podman, from an image that needs no registry."""

from __future__ import annotations

import re
import resource
import secrets
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import until

_CHECKOUT = Path(__file__).resolve().parents[2]

# What --privileged means, less what a machine may not have itself (CAP_SYS_RESOURCE); no network.
_FLAGS = (
    *("--network=none", "--cgroupns=host", "--cap-add=ALL", "--cap-drop=SYS_RESOURCE"),
    *("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"),
    *("--tmpfs=/run", "--tmpfs=/tmp", "--volume=/var/lib/buildkit", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"),
)
_ENTRYPOINT = ("--change", 'ENTRYPOINT ["/bin/buildkitd"]', "--change", "ENV PATH=/bin")
_OPTIONS = ("--oci-worker-snapshotter=native", "--containerd-worker=false")


@contextmanager
def docker(bin_dir: Path, directory: Path) -> Iterator[str]:
    """Run buildkitd in a Docker container until the block ends, and yield its name."""
    subprocess.run([sys.executable, "tools/docker_engine.py", "start"], cwd=_CHECKOUT, check=True)
    with _running("docker", bin_dir, directory, ("--security-opt=systempaths=unconfined",)) as name:
        yield name


@contextmanager
def podman(bin_dir: Path, directory: Path) -> Iterator[str]:
    """Run buildkitd in a Podman container until the block ends, and yield its name."""
    # Podman raises limits beyond what a machine without CAP_SYS_RESOURCE allows.
    limits = [
        f"--ulimit={name}={min(4096, resource.getrlimit(number)[1])}"
        for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
    ]
    with _running("podman", bin_dir, directory, ("--security-opt=unmask=ALL", *limits)) as name:
        yield name


@contextmanager
def _running(engine: str, bin_dir: Path, directory: Path, flags: tuple[str, ...]) -> Iterator[str]:
    name = f"buildfarm-buildkit-test-{secrets.token_hex(4)}"
    archive = _image_archive(bin_dir, directory)
    _call(engine, "import", *_ENTRYPOINT, str(archive), f"{name}:test")
    try:
        _call(engine, "run", "--detach", f"--name={name}", *_FLAGS, *flags, f"{name}:test", *_OPTIONS)
        _wait_until_ready(engine, name)
        yield name
    finally:
        _call(engine, "rm", "--force", "--volumes", name)
        _call(engine, "rmi", f"{name}:test")


def _image_archive(bin_dir: Path, directory: Path) -> Path:
    """A root with buildkitd, buildctl, this machine's runc and the libraries that it needs."""
    root = directory / "root"
    for name in ("bin", "etc", "proc", "run", "sys", "tmp", "var/lib"):
        (root / name).mkdir(parents=True)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="ascii")
    runc = shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert runc, "runc is missing: apt-get install runc"
    for program in (bin_dir / "buildkitd", bin_dir / "buildctl", Path(runc)):
        shutil.copy(program, root / "bin")
    libraries = subprocess.run(["ldd", runc], check=True, capture_output=True, text=True).stdout
    for library in re.findall(r"/\S+", libraries):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    archive = directory / "image.tar"
    subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
    return archive


def _wait_until_ready(engine: str, name: str) -> None:
    asked = [engine, "exec", name, "buildctl", "--timeout", "30", "debug", "workers"]
    try:
        until(lambda: subprocess.run(asked, capture_output=True, check=False).returncode == 0, "an answer of buildkitd")
    except AssertionError:
        logs = subprocess.run([engine, "logs", name], capture_output=True, text=True, check=False)
        raise RuntimeError(f"buildkitd did not start in {engine}:\n{logs.stdout}{logs.stderr}") from None


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} failed: {done.stderr}"
