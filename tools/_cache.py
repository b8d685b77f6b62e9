# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache in the user's cache directory: archives with their sums, base roots, logs and locks.

What comes out of it runs as root on hosts, so nobody else may be able to write to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import _progress

_NAME = re.compile(r"^buildkit-v(?P<version>\d+\.\d+\.\d+[^/]*?)\.(?P<platform>linux-[a-z0-9-]+)\.tar\.gz$")


@dataclass(frozen=True)
class Archive:
    """A BuildKit release archive: where it is, its sha256 (hex), BuildKit's version without "v"."""

    path: Path
    sha256: str
    version: str
    source: str

    def as_dict(self) -> dict[str, str]:
        """Return what the tools print."""
        return {"archive": str(self.path), "sha256": self.sha256, "version": self.version, "source": self.source}


def parse_name(name: str) -> tuple[str, str] | None:
    """Return version and platform of an archive that is named as upstream names its releases."""
    match = _NAME.match(name)
    return (match["version"], match["platform"]) if match else None


def sha256_of(path: Path) -> str:
    """Return a file's sha256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def check_private(path: Path) -> None:
    """Refuse a file or directory that somebody else owns or may write to."""
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode):
        problem = "is a symbolic link"
    elif info.st_uid not in (0, os.geteuid()):
        problem = f"belongs to user {info.st_uid}"
    elif info.st_mode & 0o022:
        problem = f"can be written to by others (mode {stat.S_IMODE(info.st_mode):04o})"
    else:
        return
    raise _progress.ToolError(
        f"refusing the cache: {path} {problem}, so somebody else may have put programs into it. "
        "Delete it, or name another cache directory with XDG_CACHE_HOME."
    )


def root() -> Path:
    """Return the cache directory, made if need be and proved to be ours alone."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "buildfarm-buildkit"
    base.mkdir(parents=True, exist_ok=True, mode=0o755)
    path.mkdir(exist_ok=True, mode=0o700)
    check_private(path)
    return path


def subdirectory(*parts: str) -> Path:
    """Return a directory inside the cache, made if need be and proved to be ours alone."""
    path = root()
    for part in parts:
        path = path / part
        path.mkdir(exist_ok=True, mode=0o700)
        check_private(path)
    return path


def log_file(name: str) -> Path:
    """Return the path of a fresh log; the previous one of that name is gone."""
    path = subdirectory("logs") / f"{name}.log"
    path.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Let one process at a time do a piece of work; the kernel frees the lock of one that died."""
    with (subdirectory("locks") / f"{name}.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            ticker = _progress.Ticker(f"Waiting for another run that holds the lock {stream.name}")
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    ticker.tick()
                    time.sleep(0.5)
            ticker.done()
        yield


def check_contents(path: Path) -> None:
    """Refuse an archive without BuildKit's programs where upstream puts them."""
    wanted = {"bin/buildkitd", "bin/buildctl"}
    try:
        with tarfile.open(path, "r:gz") as archive:
            found = {member.name for member in archive if member.isreg()}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _progress.ToolError(f"{path} is no readable .tar.gz archive: {error}") from error
    missing = sorted(wanted - {name[2:] if name.startswith("./") else name for name in found})
    if missing:
        raise _progress.ToolError(
            f"{path} does not contain {' and '.join(missing)}, as BuildKit's release archives do. "
            "Take the archive buildkit-v<version>.<platform>.tar.gz of a release."
        )


def record_of(path: Path) -> Path:
    """Return the file beside an archive that records its sha256."""
    return path.with_name(path.name + ".sha256")


def put(path: Path) -> str:
    """Record the sum of an archive that was just stored, and return it. Without a record it does not count."""
    digest = sha256_of(path)
    path.chmod(0o644)
    record = record_of(path)
    partial = record.with_name(record.name + ".part")
    partial.write_text(f"{digest}  {path.name}\n")
    partial.chmod(0o644)
    partial.replace(record)
    return digest


def get(pattern: str) -> Archive | None:
    """Return the newest stored archive that matches `pattern` ("<directory>/<file>" with wildcards).

    An archive that no longer has its recorded sum is removed and said so. Raises ToolError when
    somebody else could have written to the cache.
    """
    archives = subdirectory("archives")
    found = sorted(archives.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found:
        parsed = parse_name(path.name)
        record = record_of(path)
        if parsed is None or not record.exists():
            continue
        for part in (path.parent, path, record):
            check_private(part)
        recorded = record.read_text().split()
        if recorded and sha256_of(path) == recorded[0]:
            return Archive(path, recorded[0], parsed[0], "cache")
        _progress.warn(f"{path} is damaged (its sha256 is not the recorded one); removing it")
        record.unlink()
        path.unlink()
    return None
