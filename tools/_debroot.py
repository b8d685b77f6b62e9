# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian roots made by debootstrap, used for a while and removed.

Whatever is run in a root runs in mount and process namespaces of its own: its mounts and processes are
gone with it, however it ends, and nothing has to be cleaned up but files.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Iterator, Mapping, Sequence

import _apt
import _cache
import _progress

SCRIPTS = Path("/usr/share/debootstrap/scripts")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
# First process of the namespace: it takes everything along when this tool is killed. A program like apt, which
# changes its user in between, would lose the kernel's order to die with its parent.
_FIRST = ("--", "sh", "-c", '"$@"; exit $?', "sh")
# Test roots: no time is spent on making a crash safe, on manuals, or on indexes of translations.
_DPKG = """force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
"""
# A mirror may be frozen at a date; its signature is checked all the same.
_APT = """Acquire::Languages "none";
Acquire::Retries "3";
Acquire::Check-Valid-Until "false";
APT::Install-Recommends "false";
"""
_HINT = (
    "is a Debian mirror reachable, and does it have this release? "
    f"Name one with {_apt.MIRROR_VARIABLE}=http://<mirror>/debian"
)


class Root:
    """A Debian root under construction."""

    def __init__(self, path: Path, *, suite: str, log: Path) -> None:
        self.path = path
        self.suite = suite
        self.log = log
        self.env = _apt.proxy_environment()

    def bootstrap(self) -> None:
        """Fill the root with a minimal Debian."""
        mirror = _apt.debian_mirror() or ""
        script = [] if (SCRIPTS / self.suite).exists() else [mirror, str(SCRIPTS / "sid")]
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", self.suite, str(self.path)]
        _progress.run(
            f"Making a Debian {self.suite} root",
            [*_NAMESPACES, "--mount-proc", *_FIRST, *command, *(script or ([mirror] if mirror else []))],
            log=self.log,
            env=self.env,
            hint=_HINT,
        )

    def prepare(self) -> None:
        """Set the root up for unattended installations with this machine's resolver, proxy and CAs."""
        etc = self.path / "etc"
        (etc / "dpkg/dpkg.cfg.d/buildfarm").write_text(_DPKG)
        (etc / "apt/apt.conf.d/90buildfarm").write_text(_APT)
        policy = self.path / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        for name in ("resolv.conf", "ssl/certs/ca-certificates.crt"):
            source = Path("/etc") / name
            if source.is_file() and not (etc / name).is_symlink():
                shutil.copyfile(source, etc / name)

    def run(self, title: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, hint: str = "") -> None:
        """Run a command inside the root."""
        _progress.run(title, self._inside(argv), log=self.log, env=env or self.env, hint=hint)

    def _inside(self, argv: Sequence[str]) -> list[str]:
        return [*_NAMESPACES, f"--mount-proc={self.path}/proc", *_FIRST, "chroot", str(self.path), *argv]

    def output(self, argv: Sequence[str]) -> str:
        """Return what a short command inside the root prints, whatever its exit code."""
        return subprocess.run(self._inside(argv), env=self.env, capture_output=True, text=True, check=False).stdout

    def install(self, packages: Sequence[str]) -> None:
        """Install packages inside the root."""
        title = f"Installing {len(packages)} packages and what they need in the {self.suite} root"
        command = ["apt-get", "install", "-y", *packages]
        try:
            self.run(title, command)
        except _progress.CommandFailed:
            _progress.say("the mirror may stutter, or have newer packages by now: trying again")
            self.update()
            self.run(title, command, hint=_HINT)

    def update(self) -> None:
        """Read the mirror's package lists, all of them: apt would go on without one that it did not get."""
        title = f"Reading Debian {self.suite}'s package lists"
        command = ["apt-get", "-o", "APT::Update::Error-Mode=any", "update"]
        try:
            self.run(title, command)
        except _progress.CommandFailed:
            self.run(title, command, hint=_HINT)

    def candidate(self, package: str) -> str:
        """Return the version of a package that would be installed; empty when there is none."""
        for line in self.output(["apt-cache", "policy", package]).splitlines():
            name, _separator, value = line.strip().partition(": ")
            if name == "Candidate":
                return "" if value == "(none)" else value
        return ""


def need_tools() -> None:
    """Install what making a root needs."""
    _apt.need_root("making a Debian root with debootstrap")
    _apt.need_programs({"debootstrap": "debootstrap", "unshare": "util-linux"}, reason="to make Debian roots")
    if not KEYRING.exists():
        _apt.install(["debian-archive-keyring"], reason="to verify Debian's packages")


def _remove(path: Path) -> None:
    """Remove a root, and whatever is mounted there never with it."""
    for attempt in range(1, 11):
        done = subprocess.run(
            ["rm", "-rf", "--one-file-system", "--", str(path)], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return
        # The processes of a command that was just killed may still be writing their last.
        time.sleep(0.1 * attempt)
    _progress.warn(f"{path} could not be removed: {_progress.fit(done.stderr.strip(), 200)}")


@contextlib.contextmanager
def debian(suite: str, *, log: Path, keep_base: bool) -> Iterator[Root]:
    """Give a prepared Debian root, which is removed at the end.

    With `keep_base` the minimal root is kept in the cache, so that the next one is unpacked in seconds.
    The caller holds a lock of the suite's or purpose's name.
    """
    need_tools()
    roots = _cache.subdirectory("roots")
    path = Path(tempfile.mkdtemp(prefix=f"{log.stem}-", dir=str(roots)))
    try:
        path.chmod(0o755)
        built = Root(path, suite=suite, log=log)
        if keep_base:
            _from_base(built, roots / f"base-{suite}-{_apt.architecture()}.tar")
        else:
            built.bootstrap()
        built.prepare()
        yield built
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            _remove(path)


def _from_base(built: Root, base: Path) -> None:
    """Unpack the kept minimal root, or make and keep it."""
    with _cache.lock(base.stem):
        if not base.exists():
            built.bootstrap()
            partial = base.with_suffix(".part")
            _progress.run(
                "Keeping the minimal root for the next time",
                [
                    "tar",
                    "-C",
                    str(built.path),
                    "--numeric-owner",
                    "--exclude=./var/cache/apt/archives/*.deb",
                    "-cf",
                    str(partial),
                    ".",
                ],
                log=built.log,
            )
            partial.replace(base)
            return
        _cache.check_private(base)
    _progress.run(
        f"Unpacking the minimal Debian {built.suite} root",
        ["tar", "-C", str(built.path), "--numeric-owner", "-xpf", str(base)],
        log=built.log,
        hint=f"delete {base} and try again",
    )


def remove_leftovers(log_stem: str) -> None:
    """Remove the roots of runs that were killed; the caller holds the lock that such a run would hold."""
    for path in _cache.subdirectory("roots").glob(f"{log_stem}-*"):
        if path.is_dir():
            _progress.say(f"removing {path}, left behind by a run that was killed")
            _remove(path)
