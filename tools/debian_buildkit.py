# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build BuildKit from Debian's packages, for tests and the demo where no release can be downloaded.

Debian has no BuildKit package, but golang-github-docker-docker-dev ships BuildKit's complete source. It is
compiled in a Debian root of its own; a few packages that Debian lacks, all for features that nothing here
uses, are replaced by the files under standins/:

  standins/<generation>/gopath    packages by import path, found before Debian's
  standins/common/overlay         files that replace a whole package inside BuildKit's source (go build -overlay)

Prints the archive as JSON on stdout. Exit code 3: this generation cannot be built from Debian any more.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import _apt
import _cache
import _debroot
import _progress

STANDINS = Path(__file__).resolve().parent / "standins"
SOURCE_PACKAGE = "golang-github-docker-docker-dev"
GOCODE = "/usr/share/gocode"
BUILDKIT = "github.com/moby/buildkit"
WORK = "/gobuild"
PROGRAMS = ("buildkitd", "buildctl")
UNAVAILABLE = 3

_PACKAGES = (
    "golang-go",
    SOURCE_PACKAGE,
    "golang-github-docker-buildx-dev",
    "golang-github-pkg-profile-dev",
    "golang-github-coreos-go-systemd-dev",
    "golang-github-containerd-stargz-snapshotter-dev",
    "golang-github-containerd-nydus-snapshotter-dev",
    "golang-github-spdx-tools-golang-dev",
    "golang-github-mitchellh-hashstructure-dev",
)
# Import paths with a major version, whose files Debian installs without it.
_VERSIONED = {"github.com/coreos/go-systemd": "v22", "github.com/mitchellh/hashstructure": "v2"}
# Not written to disk: tests, and the parts of Amazon's SDK that BuildKit does not use. Saves half a minute.
_AWS = f"{GOCODE}/src/github.com/aws"
_UNPACKED = "\n".join(
    (
        "path-exclude=*_test.go",
        "path-exclude=*/testdata/*",
        "path-exclude=/usr/share/go-*/test/*",
        f"path-exclude={_AWS}/aws-sdk-go/*",
        f"path-exclude={_AWS}/aws-sdk-go-v2/service/*",
        *(
            f"path-include={_AWS}/aws-sdk-go-v2/service/{used}/*"
            for used in ("internal", "s3", "signin", "sso", "ssooidc", "sts")
        ),
        "",
    )
)


@dataclass(frozen=True)
class Generation:
    """One BuildKit that Debian's packages hold.

    `version` is BuildKit's, and `engine` the Docker Engine's whose source contains it (Moby's vendor.mod).
    """

    name: str
    version: str
    engine: str
    suites: tuple[str, ...]
    packages: tuple[str, ...]
    keep_base: bool


GENERATIONS = {
    "0.13": Generation("0.13", "0.13.2", "26.1.5", ("trixie",), _PACKAGES, True),
    "0.25": Generation(
        "0.25",
        "0.25.2",
        "28.5.2",
        ("forky", "sid"),
        (
            *_PACKAGES,
            "golang-github-containerd-accelerated-container-image-dev",
            "golang-github-hashicorp-go-immutable-radix-v2-dev",
            "golang-github-package-url-packageurl-go-dev",
            "golang-github-tonistiigi-go-archvariant-dev",
        ),
        False,
    ),
}


def archive_name(generation: Generation) -> str:
    """Return the archive's file name: like upstream's, but said to be Debian's."""
    return f"buildkit-v{generation.version}+debian.linux-{_apt.architecture()}.tar.gz"


def recipe(generation: Generation) -> str:
    """Return a short hash of all that decides what is built, Debian's packages apart."""
    digest = hashlib.sha256(repr((generation, go_command(generation))).encode())
    for part in (STANDINS / "common", STANDINS / generation.name):
        for path in sorted(part.rglob("*.go")):
            digest.update(str(path.relative_to(STANDINS)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:8]


def cached(generation: Generation) -> _cache.Archive | None:
    """Return the archive that an earlier run built by this recipe."""
    return _cache.get(f"debian-*-{recipe(generation)}/{archive_name(generation)}")


def go_command(generation: Generation) -> list[str]:
    """Return the command that compiles both programs."""
    flags = f"-s -w -X {BUILDKIT}/version.Version=v{generation.version}+debian"
    return [
        "go",
        "build",
        "-v",
        "-trimpath",
        "-overlay",
        f"{WORK}/overlay.json",
        "-ldflags",
        flags,
        "-o",
        f"{WORK}/out/",
        *(f"{BUILDKIT}/cmd/{program}" for program in PROGRAMS),
    ]


def overlay(standins: Path, source: Path) -> dict[str, str]:
    """Return go's overlay: each package's files under `source` replaced by the stand-in's.

    Keys and values are paths inside the root; an empty value hides a file.
    """
    replace: dict[str, str] = {}
    for stand_in in sorted(standins.rglob("*.go")):
        package = stand_in.parent.relative_to(standins)
        inside = f"{GOCODE}/src/{BUILDKIT}/{package}"
        for original in sorted((source / package).glob("*.go")):
            replace.setdefault(f"{inside}/{original.name}", "")
        replace[f"{inside}/{stand_in.name}"] = f"{WORK}/overlay/{package}/{stand_in.name}"
    return replace


def lay_out(root: Path, generation: Generation) -> None:
    """Put the stand-ins, the symlinks for versioned import paths and the overlay into the root."""
    work = root / WORK.lstrip("/")
    shutil.copytree(STANDINS / "common" / "overlay", work / "overlay")
    shutil.copytree(STANDINS / generation.name / "gopath", work / "gopath" / "src")
    (work / "out").mkdir()
    for path, version in _VERSIONED.items():
        parent = work / "gopath" / "src" / path
        parent.mkdir(parents=True)
        (parent / version).symlink_to(f"{GOCODE}/src/{path}")
    replace = overlay(work / "overlay", root / GOCODE.lstrip("/") / "src" / BUILDKIT)
    (work / "overlay.json").write_text(json.dumps({"Replace": replace}))


def go_environment() -> dict[str, str]:
    """Return the environment of the compiler: nothing of this machine's, and no network."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": WORK,
        "GOCACHE": f"{WORK}/cache",
        "GOPATH": f"{WORK}/gopath:{GOCODE}",
        "GO111MODULE": "off",
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
        "CGO_ENABLED": "0",
        "GOGC": "400",  # memory for time
    }


def pack(programs: Path, target: Path) -> None:
    """Pack the programs as upstream packs a release: everything under bin/, root's, executable."""
    partial = target.with_name(target.name + ".part")
    with tarfile.open(partial, "w:gz", compresslevel=6) as archive:
        entry = tarfile.TarInfo("bin")
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(entry)
        for program in PROGRAMS:
            content = (programs / program).read_bytes()
            entry = tarfile.TarInfo(f"bin/{program}")
            entry.size, entry.mode = len(content), 0o755
            entry.uname = entry.gname = "root"
            archive.addfile(entry, io.BytesIO(content))
    partial.replace(target)


def build_in(suite: str, generation: Generation) -> _cache.Archive:
    """Build a generation in a root of one Debian release."""
    stem = f"buildkit-{generation.name}"
    log = _cache.log_file(f"{stem}-{suite}")
    _debroot.remove_leftovers(stem)
    with _debroot.debian(suite, log=log, keep_base=generation.keep_base) as root:
        root.update()
        version = root.candidate(SOURCE_PACKAGE)
        if version.split("+", 1)[0] != generation.engine:
            raise _progress.ToolError(
                f"Debian {suite} has {SOURCE_PACKAGE} {version or '(none)'}; "
                f"BuildKit {generation.version} is in {generation.engine}"
            )
        (root.path / "etc/dpkg/dpkg.cfg.d/gobuild").write_text(_UNPACKED)
        root.install(generation.packages)
        lay_out(root.path, generation)
        root.run(
            f"Compiling BuildKit {generation.version}",
            go_command(generation),
            env=go_environment(),
            hint="have Debian's packages changed? The missing import is named above; standins/ may need it.",
        )
        name = f"debian-{suite}-{version.replace('/', '_')}-{recipe(generation)}"
        target = _cache.subdirectory("archives", name) / archive_name(generation)
        pack(root.path / WORK.lstrip("/") / "out", target)
    _cache.check_contents(target)
    archive = _cache.Archive(target, _cache.put(target), f"{generation.version}+debian", "debian")
    for older in target.parent.parent.glob(f"debian-*/{target.name}"):
        if older != target:
            shutil.rmtree(older.parent)
    return archive


def obtain(generation: Generation) -> _cache.Archive:
    """Return a generation's archive, from the cache or built now.

    Raises ToolError, with code 3 when no Debian release holds what this generation needs.
    """
    with _cache.lock(f"debian-{generation.name}"):
        found = cached(generation)
        if found:
            return found
        _apt.need_root("building BuildKit from Debian's packages")
        _progress.say(
            f"Building BuildKit {generation.version} from Debian's packages, once on this machine: "
            "three to five minutes on two cores."
        )
        failures = []
        for suite in generation.suites:
            try:
                return build_in(suite, generation)
            except _progress.ToolError as error:
                failures.append(f"{suite}: {error}")
                _progress.warn(f"BuildKit {generation.version} could not be built with Debian {suite}")
    raise _progress.ToolError(
        f"BuildKit {generation.version} CANNOT BE BUILT from Debian's packages:\n" + "\n".join(failures),
        code=UNAVAILABLE,
    )


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--generation", choices=sorted(GENERATIONS), required=True)
    options = parser.parse_args(arguments)
    os.umask(0o022)
    print(json.dumps(obtain(GENERATIONS[options.generation]).as_dict()))


if __name__ == "__main__":
    _progress.main(run)
