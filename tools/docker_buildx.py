# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Obtain two docker-buildx of different age for the tests: Debian's packages of trixie and of sid.

The packages are verified with Debian's keys by apt, which works on lists of its own: nothing is installed on this
machine, and its package lists stay as they are.

Prints {"path", "version", "suite", "package", "sha256"} as JSON on stdout: the program, which runs without Docker; the
version of docker-buildx; and the package that it comes from, with its sum.
Exit code 3: this one cannot be had, the other may.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Sequence

import _apt
import _cache
import _debroot
import _progress

PACKAGE = "docker-buildx"
PROGRAM = "usr/libexec/docker/cli-plugins/docker-buildx"
SUITES = {"old": ("trixie",), "new": ("sid", "forky")}
UNAVAILABLE = 3


def cached(age: str) -> dict[str, str] | None:
    """Return what an earlier run obtained; None when there is none, or it is not whole."""
    record = _cache.subdirectory("buildx", age) / "buildx.json"
    if not record.is_file():
        return None
    _cache.check_private(record)
    found: dict[str, str] = json.loads(record.read_text(encoding="utf-8"))
    program, package = Path(found["path"]), Path(found["package"])
    if not program.is_file() or not package.is_file() or _cache.sha256_of(package) != found["sha256"]:
        return None
    _cache.check_private(program)
    return found


def _apt_options(work: Path, mirror: str, suite: str) -> list[str]:
    """Return options that make apt see one suite of the mirror alone, with all its files below `work`."""
    for name in ("state/lists/partial", "cache/archives/partial", "parts"):
        (work / name).mkdir(parents=True, exist_ok=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb [signed-by={_debroot.KEYRING}] {mirror} {suite} main\n", encoding="utf-8")
    settings = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": work / "parts",
        "Dir::Etc::preferencesparts": work / "parts",
        "Dir::Etc::preferences": work / "none",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        # A mirror may be frozen at a date; its signature is checked all the same.
        "Acquire::Check-Valid-Until": "false",
        "APT::Sandbox::User": "root",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def fetch(suite: str, mirror: str, work: Path, log: Path) -> Path:
    """Download the package of a suite into `work`. Raises CommandFailed where the mirror has none."""
    env = _apt.proxy_environment()
    options = _apt_options(work, mirror, suite)
    # apt-get download writes into the directory it is in.
    inside = ["env", "-C", str(work), "apt-get"]
    _progress.run(f"Reading Debian {suite}'s package lists", [*inside, *options, "update"], log=log, env=env)
    _progress.run(f"Downloading {PACKAGE} of {suite}", [*inside, *options, "download", PACKAGE], log=log, env=env)
    return next(work.glob(f"{PACKAGE}_*.deb"))


def keep(age: str, suite: str, package: Path) -> dict[str, str]:
    """Unpack the program into the cache beside its package, and return what the tool prints."""
    directory = _cache.subdirectory("buildx", age)
    for old in directory.iterdir():
        old.unlink()
    kept = directory / package.name.replace("%3a", "_")
    shutil.copyfile(package, kept)
    with tempfile.TemporaryDirectory(dir=str(directory.parent)) as unpacked:
        subprocess.run(["dpkg-deb", "-x", str(kept), unpacked], check=True)
        shutil.move(str(Path(unpacked) / PROGRAM), str(directory / PACKAGE))
    (directory / PACKAGE).chmod(0o755)
    shown = subprocess.run([str(directory / PACKAGE), "version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"\s(?:v)?(\d+\.\d+\.\d+)\S*", shown)
    if not match:
        raise _progress.ToolError(f"{kept.name}: its program does not tell its version, but {shown!r}")
    found = {
        "path": str(directory / PACKAGE),
        "version": match[1],
        "suite": suite,
        "package": str(kept),
        "sha256": _cache.sha256_of(kept),
    }
    (directory / "buildx.json").write_text(json.dumps(found), encoding="utf-8")
    return found


def obtain(age: str) -> dict[str, str]:
    """Return one of the two, downloaded now if it is not in the cache."""
    with _cache.lock(f"buildx-{age}"):
        found = cached(age)
        if found:
            return found
        mirror = _apt.debian_mirror()
        if not mirror:
            raise _progress.ToolError(
                f"this machine's apt uses no Debian mirror. Name one with {_apt.MIRROR_VARIABLE}=", code=UNAVAILABLE
            )
        if not _debroot.KEYRING.exists():
            _apt.install(["debian-archive-keyring"], reason="to verify Debian's packages")
        log = _cache.log_file(f"buildx-{age}")
        problem = ""
        for suite in SUITES[age]:
            with tempfile.TemporaryDirectory(prefix="buildx-") as work:
                try:
                    package = fetch(suite, mirror, Path(work), log)
                except _progress.CommandFailed as error:
                    problem = str(error)
                    _progress.warn(f"Debian {suite} has no {PACKAGE} that can be had")
                    continue
                return keep(age, suite, package)
        raise _progress.ToolError(f"{PACKAGE} cannot be had from Debian.\n{problem}", code=UNAVAILABLE)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("age", choices=sorted(SUITES))
    options = parser.parse_args(arguments)
    os.umask(0o022)
    found = obtain(options.age)
    _progress.say(f"docker-buildx {found['version']} (Debian {found['suite']}): {found['path']}")
    print(json.dumps(found))


if __name__ == "__main__":
    _progress.main(run)
