# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tools need from this machine's apt: packages, the Debian mirror it uses, its proxy."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Iterable, Sequence

import _cache
import _progress

_CODE_NAMES = ("buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid")
DEBIAN_SUITES = frozenset((*_CODE_NAMES, "oldoldstable", "oldstable", "stable", "testing", "unstable"))
MIRROR_VARIABLE = "BUILDFARM_DEBIAN_MIRROR"
_OPTIONS = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]


def one_line_entries(text: str) -> Iterable[tuple[str, list[str]]]:
    """Yield address and suites of each "deb" line of a sources.list (sources.list(5))."""
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", " ", line.split("#", 1)[0]).split()
        if len(words) >= 3 and words[0] == "deb":
            yield words[1], [words[2]]


def deb822_entries(text: str) -> Iterable[tuple[str, list[str]]]:
    """Yield address and suites of each stanza of a .sources file (sources.list(5))."""
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0].isspace():
                fields[name] = fields.get(name, "") + " " + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        for uri in fields.get("uris", "").split():
            yield uri, fields.get("suites", "").split()


def debian_mirror(directory: Path = Path("/etc/apt")) -> str | None:
    """Return the mirror of Debian's main archive that this machine's apt uses; None when it uses none.

    BUILDFARM_DEBIAN_MIRROR comes first. Ubuntu's suites have other names, so its mirrors do not count,
    nor do security and backports archives.
    """
    if os.environ.get(MIRROR_VARIABLE):
        return os.environ[MIRROR_VARIABLE].rstrip("/")
    parts = directory / "sources.list.d"
    one_line = [directory / "sources.list", *sorted(parts.glob("*.list"))]
    entries: list[tuple[str, list[str]]] = []
    for path in one_line:
        if path.is_file():
            entries.extend(one_line_entries(path.read_text(errors="replace")))
    for path in sorted(parts.glob("*.sources")):
        entries.extend(deb822_entries(path.read_text(errors="replace")))
    for uri, suites in entries:
        if uri.startswith(("http://", "https://")) and DEBIAN_SUITES.intersection(suites):
            return uri.rstrip("/")
    return None


def proxy_environment() -> dict[str, str]:
    """Return this process's environment, with apt's own proxy where the environment names none."""
    env = dict(os.environ)
    for scheme in ("http", "https"):
        if f"{scheme}_proxy" in env or not shutil.which("apt-config"):
            continue
        shown = subprocess.run(
            ["apt-config", "shell", "PROXY", f"Acquire::{scheme}::Proxy"], capture_output=True, text=True, check=False
        ).stdout
        value = shown.partition("=")[2].strip().strip("'\"")
        if value and value != "DIRECT":
            env[f"{scheme}_proxy"] = value
    env["DEBIAN_FRONTEND"] = "noninteractive"
    return env


def need_root(purpose: str) -> None:
    """Refuse to go on without root."""
    if os.geteuid() != 0:
        raise _progress.ToolError(f"{purpose} needs root. Run this as root (sudo), or give what it would make.")


def install(packages: Sequence[str], *, reason: str) -> None:
    """Install packages on this machine, which must have apt."""
    need_root(f"installing {' '.join(packages)} ({reason})")
    if not shutil.which("apt-get"):
        raise _progress.ToolError(
            f"{' '.join(packages)} must be installed ({reason}), and this machine has no apt to do it with. "
            "Install it with this system's package manager."
        )
    log = _cache.log_file("apt-" + packages[0])
    env = proxy_environment()
    command = ["apt-get", *_OPTIONS, "install", "-y", "--no-install-recommends", *packages]
    title = f"Installing {' '.join(packages)} ({reason})"
    try:
        _progress.run(title, command, log=log, env=env)
    except _progress.CommandFailed:
        _progress.say("the package lists may be missing or old: refreshing them")
        # An unreadable third-party source is no reason to stop: the installation that follows decides.
        with contextlib.suppress(_progress.CommandFailed):
            _progress.run("Refreshing the package lists", ["apt-get", *_OPTIONS, "update"], log=log, env=env)
        _progress.run(title, command, log=log, env=env, hint="look at apt's message above; is a mirror reachable?")


def need_programs(programs: dict[str, str], *, reason: str) -> None:
    """Install the packages of those programs that are missing: {program: package}."""
    missing = sorted({package for program, package in programs.items() if not shutil.which(program)})
    if missing:
        install(missing, reason=reason)


def architecture() -> str:
    """Return Debian's name of this machine's architecture, one that the tools can build for."""
    machine = os.uname().machine
    known = {"x86_64": "amd64", "aarch64": "arm64"}
    if machine not in known:
        raise _progress.ToolError(f"the test bed can be built on x86_64 and aarch64 machines, not on {machine}")
    return known[machine]
