# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Obtain a BuildKit release archive for the demo and the tests.

Sources, in this order:

  1. BUILDKIT_ARCHIVE=<file> with BUILDKIT_ARCHIVE_SHA256=<hex> (and BUILDKIT_VERSION= where the file is not named
     buildkit-v<version>.<platform>.tar.gz); with --generation 0.13 or 0.25 only if it is of that generation
  2. the cache (XDG_CACHE_HOME or ~/.cache, buildfarm-buildkit/), which only root or this user may write to
  3. the pinned upstream release, if upstream answers within 5 seconds
  4. a build from Debian's packages (debian_buildkit.py)

Prints {"archive", "sha256", "version", "source"} as JSON on stdout; source is given, cache, upstream or debian.
Exit code 3: this generation cannot be had, the other may.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import threading
import urllib.request
from pathlib import Path
from typing import Any, Mapping, Sequence

import _apt
import _cache
import _progress
import debian_buildkit

CHECKOUT = Path(__file__).resolve().parent.parent
UPSTREAM = "https://github.com/moby/buildkit/releases/download"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
_DEFAULT_VERSION = re.compile(r"^buildkitd_version:.*?\b(\d+\.\d+\.\d+)\b", re.MULTILINE)
_SUM_VERSION = re.compile(r"""^\s+["']?(\d+\.\d+\.\d+)["']?:\s*(?:#.*)?$""")
_SUM_PLATFORM = re.compile(r"""^\s+(linux-[a-z0-9-]+):\s*["']?([0-9a-f]{64})["']?\s*(?:#.*)?$""")


def platform() -> str:
    """Return this machine's platform as upstream names it."""
    return f"linux-{_apt.architecture()}"


def belongs(version: str, generation: str) -> bool:
    """Tell whether a version is of a generation; all are of "default"."""
    return generation == "default" or version.startswith(generation + ".")


def given(environment: Mapping[str, str], generation: str) -> _cache.Archive | None:
    """Return the archive that the user named, verified; None when there is none of this generation.

    Raises ToolError when it is not what its sha256 says, or no BuildKit archive for this machine.
    """
    name = environment.get("BUILDKIT_ARCHIVE", "")
    wanted = environment.get("BUILDKIT_ARCHIVE_SHA256", "").strip().lower()
    if not name:
        if wanted:
            raise _progress.ToolError(
                "BUILDKIT_ARCHIVE_SHA256 is set, but BUILDKIT_ARCHIVE is not: name the archive as well."
            )
        return None
    path = Path(name).expanduser().absolute()
    if not re.fullmatch(r"[0-9a-f]{64}", wanted):
        raise _progress.ToolError(
            f"BUILDKIT_ARCHIVE={name} needs BUILDKIT_ARCHIVE_SHA256=<64 hex digits>, so that it is proved to be "
            "the archive you mean. Take the sum from whoever published the archive."
        )
    if not path.is_file():
        raise _progress.ToolError(f"BUILDKIT_ARCHIVE={name}: there is no such file.")
    parsed = _cache.parse_name(path.name)
    version = environment.get("BUILDKIT_VERSION", "").strip().lstrip("v") or (parsed[0] if parsed else "")
    if not version:
        raise _progress.ToolError(
            f"BUILDKIT_ARCHIVE={name}: cannot tell its version. Set BUILDKIT_VERSION=<version>, or name the file "
            "buildkit-v<version>.<platform>.tar.gz."
        )
    if not belongs(version, generation):
        _progress.say(f"BUILDKIT_ARCHIVE is version {version}; generation {generation} comes from elsewhere")
        return None
    if parsed and parsed[1] != platform():
        raise _progress.ToolError(f"BUILDKIT_ARCHIVE={name} is for {parsed[1]}; this machine is {platform()}.")
    actual = _cache.sha256_of(path)
    if actual != wanted:
        raise _progress.ToolError(
            f"BUILDKIT_ARCHIVE={name} has the wrong sha256:\n  expected {wanted}\n  actual   {actual}\n"
            "Download it again, or correct BUILDKIT_ARCHIVE_SHA256."
        )
    _cache.check_contents(path)
    return _cache.Archive(path, actual, version, "given")


def parse_sums(text: str) -> dict[str, dict[str, str]]:
    """Return {version: {platform: sha256}} of the role's checksum file, which is plain two-level YAML."""
    sums: dict[str, dict[str, str]] = {}
    version = ""
    for line in text.splitlines():
        start = _SUM_VERSION.match(line)
        entry = _SUM_PLATFORM.match(line)
        if start:
            version = start[1]
        elif entry and version:
            sums.setdefault(version, {})[entry[1]] = entry[2]
    return sums


def pinned(generation: str, checkout: Path = CHECKOUT) -> tuple[str, str] | None:
    """Return version and sha256 of the upstream release for a generation; None when the role pins none."""
    role = checkout / "roles" / "buildkitd"
    try:
        sums = parse_sums((role / "vars" / "main" / "checksums.yml").read_text())
        defaults = (role / "defaults" / "main.yml").read_text()
    except FileNotFoundError:
        return None
    if generation == "default":
        match = _DEFAULT_VERSION.search(defaults)
        version = match[1] if match else ""
    else:
        version = debian_buildkit.GENERATIONS[generation].version
    digest = sums.get(version, {}).get(platform())
    return (version, digest) if digest else None


def cached(generation: str, *, debian_only: bool) -> _cache.Archive | None:
    """Return what an earlier run obtained: the pinned release before a build from Debian's packages."""
    release = None if debian_only else pinned(generation)
    if release:
        found = _cache.get(f"upstream/buildkit-v{release[0]}.{platform()}.tar.gz")
        if found and found.sha256 == release[1]:
            return found
    return debian_buildkit.cached(debian_buildkit.GENERATIONS[debian_generation(generation)])


def debian_generation(generation: str) -> str:
    """Return what stands in for a generation when only Debian is there: 0.13 is in a stable release."""
    return "0.13" if generation == "default" else generation


def connect(url: str, *, timeout: float = CONNECT_TIMEOUT_S) -> Any:
    """Open an http or https URL for reading; name resolution, connection and redirects together have `timeout` s.

    Raises ToolError when it cannot be opened in that time.
    """
    outcome: list[Any] = [f"no answer within {timeout:g} s"]
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())

    def ask() -> None:
        try:
            outcome[0] = opener.open(url, timeout=READ_TIMEOUT_S)
        except (OSError, ValueError, http.client.HTTPException) as error:
            outcome[0] = str(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout)
    if isinstance(outcome[0], str):
        raise _progress.ToolError(outcome[0])
    return outcome[0]


def download(response: Any, target: Path) -> None:
    """Save what an opened URL gives, and show that it moves."""
    ticker = _progress.Ticker(f"Downloading {response.url}")
    partial = target.with_name(target.name + ".part")
    total = int(response.headers.get("Content-Length") or 0)
    got = 0
    try:
        with response, partial.open("wb") as stream:
            for block in iter(lambda: response.read(1 << 18), b""):
                stream.write(block)
                got += len(block)
                ticker.tick(f"{got >> 20} of {total >> 20} MB" if total else f"{got >> 20} MB")
        if total and got != total:
            raise OSError(f"the connection ended after {got} of {total} bytes")
        partial.replace(target)
    except (OSError, http.client.HTTPException) as error:
        ticker.done(ok=False)
        raise _progress.ToolError(f"downloading {response.url}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    ticker.done()


def upstream(generation: str, *, base: str) -> _cache.Archive | None:
    """Return the pinned upstream release, downloaded and verified; None when it cannot be had.

    Raises ToolError when upstream answers with another archive than the one pinned.
    """
    release = pinned(generation)
    if release is None:
        _progress.say("no upstream release is pinned in roles/buildkitd; going on without")
        return None
    version, digest = release
    name = f"buildkit-v{version}.{platform()}.tar.gz"
    url = f"{base.rstrip('/')}/v{version}/{name}"
    try:
        response = connect(url)
    except _progress.ToolError as problem:
        _progress.say(f"BuildKit's releases cannot be reached ({problem}); going on without")
        return None
    with _cache.lock("upstream"):
        target = _cache.subdirectory("archives", "upstream") / name
        try:
            download(response, target)
        except _progress.ToolError as error:
            _progress.warn(str(error))
            return None
        actual = _cache.sha256_of(target)
        if actual != digest:
            target.unlink()
            raise _progress.ToolError(
                f"{url} has the wrong sha256:\n  pinned {digest}\n  actual {actual}\n"
                "Something between here and upstream changes downloads, or the release was replaced. Do not use it."
            )
        _cache.check_contents(target)
        return _cache.Archive(target, _cache.put(target), version, "upstream")


def obtain(generation: str, *, debian_only: bool, offline: bool, upstream_url: str) -> _cache.Archive:
    """Return the archive from the first source that has it."""
    found = None if debian_only else given(os.environ, generation)
    found = found or cached(generation, debian_only=debian_only)
    if found:
        return found
    if offline:
        raise _progress.ToolError(
            "there is no BuildKit archive in the cache, and --offline forbids to fetch one. "
            "Give one with BUILDKIT_ARCHIVE= and BUILDKIT_ARCHIVE_SHA256=.",
            code=debian_buildkit.UNAVAILABLE,
        )
    if not debian_only:
        found = upstream(generation, base=upstream_url)
    return found or debian_buildkit.obtain(debian_buildkit.GENERATIONS[debian_generation(generation)])


def check_runc(*, install: bool) -> None:
    """Install runc when asked to, or say that it is missing: BuildKit's own is not in a Debian build."""
    if shutil.which("runc") or shutil.which("buildkit-runc"):
        return
    if install:
        _apt.install(["runc"], reason="BuildKit runs build steps with it")
    else:
        _progress.warn("there is no runc on this machine; BuildKit needs one to run build steps (package runc)")


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generation", choices=["default", *sorted(debian_buildkit.GENERATIONS)], default="default")
    parser.add_argument("--debian-only", action="store_true", help="only what is built from Debian's packages")
    parser.add_argument("--offline", action="store_true", help="only what is given or in the cache")
    parser.add_argument("--install-runc", action="store_true", help="install runc on this machine if it is missing")
    parser.add_argument("--upstream-url", default=UPSTREAM, metavar="URL", help="default: %(default)s")
    options = parser.parse_args(arguments)
    os.umask(0o022)
    archive = obtain(
        options.generation,
        debian_only=options.debian_only,
        offline=options.offline,
        upstream_url=options.upstream_url,
    )
    check_runc(install=options.install_runc)
    _progress.say(f"BuildKit {archive.version} ({archive.source}): {archive.path}")
    print(json.dumps(archive.as_dict()))


if __name__ == "__main__":
    _progress.main(run)
