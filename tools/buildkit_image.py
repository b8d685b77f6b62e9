# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a container image with a real BuildKit for the tests, as an archive for `docker load` and `podman load`.

BuildKit comes from buildkit_archive.py; runc, a shell, CA certificates and what rootless needs from Debian's packages.
The flavours have entry point, volumes, user and variables of the images that they stand in for, and are not those:

  buildkit    as moby/buildkit: privileged, entry point buildkitd
  rootless    as moby/buildkit with -rootless: user 1000, entry point rootlesskit buildkitd
  earthly     as earthly/buildkitd: configured by variables alone, data on /tmp/earthly (earthly-entrypoint.sh)
  earthbuild  the same with its data on /tmp/earthbuild

Prints {"image", "id", "archive", "sha256", "version", "flavour"} as JSON on stdout. The archive is the same for the
same packages, and kept in the cache. Exit code 3: this generation cannot be had, the other may.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Iterable, Iterator, Mapping, Sequence

import _apt
import _cache
import _debroot
import _progress
import buildkit_archive
import debian_buildkit

SUITE = "trixie"
REPOSITORY = "localhost/buildkit"
EARTHLY_ENTRYPOINT = Path(__file__).resolve().with_name("earthly-entrypoint.sh")
ROOTLESS_UID = 1000
_PACKAGES = (
    "busybox-static",
    "ca-certificates",
    "fuse-overlayfs",
    "rootlesskit",
    "runc",
    "slirp4netns",
    "uidmap",
)
_PROGRAMS = ("busybox", "runc")
_ROOTLESS_PROGRAMS = ("fuse-overlayfs", "newgidmap", "newuidmap", "rootlesskit", "slirp4netns")
# Debian has these setuid root; then they want CAP_SYS_ADMIN too, which no container of an ordinary user has.
_CAPABILITIES = {"usr/bin/newgidmap": 1 << 6, "usr/bin/newuidmap": 1 << 7}
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
# What the entry point and people who look into a container use of busybox.
_APPLETS = (
    *("[", "awk", "cat", "chmod", "cut", "date", "df", "echo", "env", "find", "grep", "head", "hostname", "id", "ls"),
    *("mkdir", "mount", "mv", "nc", "ps", "rm", "sed", "sh", "sleep", "stat", "tail", "test", "touch", "wc", "wget"),
)
_SUBORDINATE = "user:100000:65536\n"
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n",
    "etc/group": "root:x:0:\nuser:x:1000:\n",
    "etc/subuid": _SUBORDINATE,
    "etc/subgid": _SUBORDINATE,
}
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOME = "/home/user"
_CREATED = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Flavour:
    """What one kind of image has besides BuildKit: programs, files of its own, and its configuration for engines.

    `owned` are directories of the user of the rootless image.
    """

    config: Mapping[str, object]
    programs: tuple[str, ...] = _PROGRAMS
    scripts: Mapping[str, Path] = field(default_factory=dict)
    owned: tuple[str, ...] = ()


def _earthly(name: str) -> Flavour:
    directory = str(PurePosixPath("/", "tmp", name))
    return Flavour(
        config={
            "Entrypoint": ["/usr/bin/entrypoint.sh"],
            "Cmd": ["buildkitd", "--config=/etc/buildkitd.toml"],
            "Env": [
                _PATH,
                f"EARTHLY_TMP_DIR={directory}",
                "BUILDKIT_TCP_TRANSPORT_ENABLED=false",
                "BUILDKIT_TLS_ENABLED=false",
                "BUILDKIT_DEBUG=false",
                "BUILDKIT_MAX_PARALLELISM=20",
                "CACHE_SIZE_MB=0",
                "CACHE_SIZE_PCT=0",
                "CACHE_KEEP_DURATION=0",
            ],
            "Volumes": {directory: {}},
        },
        scripts={"usr/bin/entrypoint.sh": EARTHLY_ENTRYPOINT},
    )


FLAVOURS = {
    "buildkit": Flavour(
        config={
            "Entrypoint": ["buildkitd"],
            "Env": [_PATH, "BUILDKIT_SETUP_CGROUPV2_ROOT=1"],
            "Volumes": {"/var/lib/buildkit": {}},
        }
    ),
    "rootless": Flavour(
        config={
            "Entrypoint": ["rootlesskit", "buildkitd"],
            "Env": [
                _PATH,
                f"HOME={_HOME}",
                "USER=user",
                f"XDG_RUNTIME_DIR=/run/user/{ROOTLESS_UID}",
                f"TMPDIR={_HOME}/.local/tmp",
                f"BUILDKIT_HOST=unix:///run/user/{ROOTLESS_UID}/buildkit/buildkitd.sock",
            ],
            "User": f"{ROOTLESS_UID}:{ROOTLESS_UID}",
            "Volumes": {f"{_HOME}/.local/share/buildkit": {}},
        },
        programs=(*_PROGRAMS, *_ROOTLESS_PROGRAMS),
        owned=(
            f"run/user/{ROOTLESS_UID}",
            *("home/user", "home/user/.local", "home/user/.local/tmp"),
            *("home/user/.local/share", "home/user/.local/share/buildkit"),
        ),
    ),
    "earthly": _earthly("earthly"),
    "earthbuild": _earthly("earthbuild"),
}


class Layer:
    """One layer of an image, written so that the same content gives the same bytes."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._directories: set[str] = set()

    def directory(self, name: str, *, mode: int = 0o755, owner: int = 0) -> None:
        """Add a directory, and those above it that are not there yet."""
        parent = os.path.dirname(name)
        if parent and parent not in self._directories:
            self.directory(parent)
        if name not in self._directories:
            self._directories.add(name)
            self._add(name, kind=tarfile.DIRTYPE, mode=mode, owner=owner)

    def file(self, name: str, content: IO[bytes], *, size: int, mode: int, capability: int = 0) -> None:
        """Add a file, which belongs to root, with a set of file capabilities (capabilities(7))."""
        self.directory(os.path.dirname(name))
        self._add(name, kind=tarfile.REGTYPE, mode=mode, size=size, content=content, capability=capability)

    def data(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        """Add a file whose content is given."""
        self.file(name, io.BytesIO(content), size=len(content), mode=mode)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self.directory(os.path.dirname(name))
        self._add(name, kind=tarfile.SYMTYPE, mode=0o777, target=target)

    def _add(
        self,
        name: str,
        *,
        kind: bytes,
        mode: int,
        owner: int = 0,
        size: int = 0,
        target: str = "",
        capability: int = 0,
        content: IO[bytes] | None = None,
    ) -> None:
        entry = tarfile.TarInfo(name)
        if capability:
            # struct vfs_cap_data of linux/capability.h, revision 2 with the effective bit: permitted and inheritable.
            value = struct.pack("<5I", 0x02000001, capability, 0, 0, 0)
            entry.pax_headers = {"SCHILY.xattr.security.capability": value.decode(errors="surrogateescape")}
        entry.type, entry.mode, entry.size, entry.linkname = kind, mode, size, target
        entry.uid = entry.gid = owner
        self._tar.addfile(entry, content)


@contextlib.contextmanager
def written(path: Path) -> Iterator[Layer]:
    """Write a tar file."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        yield Layer(tar)


def libraries(shown: str) -> list[str]:
    """Return the absolute paths of the shared libraries that ldd(1) showed; none for a static program."""
    paths = set()
    for line in shown.splitlines():
        before, _arrow, after = line.strip().partition(" => ")
        path = (after or before).split(" (")[0]
        if path.startswith("/"):
            paths.add(path)
    return sorted(paths)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def kept(path: Path) -> str:
    """Return the sha256 of a file that an earlier run kept; empty when it is not there, or not whole any more."""
    record = _cache.record_of(path)
    if not path.is_file() or not record.is_file():
        return ""
    for part in (path, record):
        _cache.check_private(part)
    recorded = record.read_text().split()
    if recorded and _cache.sha256_of(path) == recorded[0]:
        return recorded[0]
    _progress.warn(f"{path} is damaged (its sha256 is not the recorded one); making it again")
    return ""


def keep(partial: Path, path: Path) -> str:
    """Keep a finished file instead of those of its kind before ("<kind>-<hash>.tar"), and return its sha256."""
    for old in path.parent.glob(f"{path.stem.rpartition('-')[0]}-????????????.tar*"):
        old.unlink()
    partial.replace(path)
    return _cache.put(path)


def _collect(root: _debroot.Root, programs: Iterable[str], target: Path) -> None:
    """Copy programs and their libraries out of a Debian root, and links followed, into a tree of their own."""
    names = [_CERTIFICATES]
    for program in programs:
        found = shutil.which(program, path=":".join(str(root.path / part) for part in ("usr/bin", "usr/sbin")))
        if not found:
            raise _progress.ToolError(f"Debian {SUITE}'s packages {' '.join(_PACKAGES)} have no program {program}")
        inside = "/" + str(Path(found).relative_to(root.path))
        names += [inside[1:], *(path[1:] for path in libraries(root.output(["ldd", inside])))]
    for name in names:
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root.path / name, copy)


def runtime(programs: Sequence[str]) -> Path:
    """Return a tar file of programs with their libraries from Debian's packages, made now if it is not kept.

    The caller holds the lock of the images.
    """
    kind = "rootless" if set(_ROOTLESS_PROGRAMS) & set(programs) else "plain"
    path = _cache.subdirectory("images") / f"runtime-{kind}-{_digest(SUITE, _PACKAGES, programs)}.tar"
    if kept(path):
        return path
    log = _cache.log_file("buildkit-image")
    _debroot.remove_leftovers("buildkit-image")
    with _debroot.debian(SUITE, log=log, keep_base=True) as root:
        root.update()
        root.install(_PACKAGES)
        # Both kinds from one root: making it is what takes the time.
        for wanted, name in ((_PROGRAMS, "plain"), ((*_PROGRAMS, *_ROOTLESS_PROGRAMS), "rootless")):
            tree = root.path / "collected" / name
            _collect(root, wanted, tree)
            partial = path.parent / "runtime.part"
            with written(partial) as layer:
                for file in sorted(path for path in tree.rglob("*") if path.is_file()):
                    with file.open("rb") as content:
                        size, mode = file.stat().st_size, file.stat().st_mode & 0o755
                        layer.file(str(file.relative_to(tree)), content, size=size, mode=mode)
            keep(partial, path.parent / f"runtime-{name}-{_digest(SUITE, _PACKAGES, wanted)}.tar")
    return path


def base_layer(flavour: Flavour, source: Path, target: Path) -> str:
    """Write the layer below BuildKit, and return its sha256."""
    with written(target) as layer, tarfile.open(source) as programs:
        for name in ("dev", "proc", "root", "run", "sys", "var/lib"):
            layer.directory(name)
        layer.directory("tmp", mode=0o1777)
        for name in flavour.owned:
            layer.directory(name, mode=0o700, owner=ROOTLESS_UID)
        for name, text in _TEXTS.items():
            layer.data(name, text.encode())
        for entry in programs:
            content = programs.extractfile(entry)
            if content:
                capability = _CAPABILITIES.get(entry.name, 0)
                layer.file(entry.name, content, size=entry.size, mode=entry.mode, capability=capability)
        for name in _APPLETS:
            layer.link(f"bin/{name}", "/usr/bin/busybox")
        for name, script in flavour.scripts.items():
            layer.data(name, script.read_bytes(), mode=0o755)
    return _cache.sha256_of(target)


def buildkit_layer(archive: Path, target: Path) -> str:
    """Write the layer with BuildKit's two programs, and return its sha256."""
    with written(target) as layer, tarfile.open(archive) as release:
        for entry in release:
            name = entry.name.removeprefix("./")
            content = release.extractfile(entry)
            if content and name in {f"bin/{program}" for program in debian_buildkit.PROGRAMS}:
                layer.file(f"usr/{name}", content, size=entry.size, mode=0o755)
    return _cache.sha256_of(target)


def write_archive(target: Path, *, image: str, config: Mapping[str, object], layers: Mapping[str, Path]) -> None:
    """Write an image as `docker save` does (Docker image specification v1.2).

    `layers` are tar files by their sha256, the lowest first.
    """
    described = {
        "architecture": _apt.architecture(),
        "os": "linux",
        "created": _CREATED,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in layers]},
        "history": [{"created": _CREATED, "created_by": Path(__file__).name} for _layer in layers],
    }
    text = json.dumps(described, sort_keys=True).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    members = {digest: f"{digest}/layer.tar" for digest in layers}
    manifest = [{"Config": name, "RepoTags": [image], "Layers": list(members.values())}]
    with written(target) as archive:
        archive.data(name, text)
        for digest, path in layers.items():
            with path.open("rb") as content:
                archive.file(members[digest], content, size=path.stat().st_size, mode=0o644)
        archive.data("manifest.json", json.dumps(manifest, sort_keys=True).encode())


def identity_of(archive: Path) -> str:
    """Return the image ID of an archive: the sha256 of its configuration."""
    with tarfile.open(archive) as opened:
        manifest = opened.extractfile("manifest.json")
        return str(json.load(manifest)[0]["Config"]).removesuffix(".json") if manifest else ""


def image_name(version: str, flavour: str) -> str:
    """Return repository and tag of an image. The tag bears the version, without the "+" that no tag may have."""
    suffix = "" if flavour == "buildkit" else f"-{flavour}"
    return f"{REPOSITORY}:v{version.replace('+', '-')}{suffix}"


def make(release: _cache.Archive, name: str) -> dict[str, str]:
    """Return the image of a flavour with a release, made now if it is not kept."""
    flavour = FLAVOURS[name]
    image = image_name(release.version, name)
    with _cache.lock("buildkit-image"):
        images = _cache.subdirectory("images")
        source = runtime(flavour.programs)
        scripts = sorted((target, script.read_bytes()) for target, script in flavour.scripts.items())
        recipe = _digest(
            source.name, release.sha256, image, flavour.config, flavour.owned, scripts, _APPLETS, _TEXTS, _CAPABILITIES
        )
        path = images / f"{name}-{release.version}-{recipe}.tar"
        sha256 = kept(path)
        if not sha256:
            ticker = _progress.Ticker(f"Making the image {image}")
            parts = [images / "base.part", images / "buildkit.part"]
            layers = {
                base_layer(flavour, source, parts[0]): parts[0],
                buildkit_layer(release.path, parts[1]): parts[1],
            }
            ticker.tick()
            partial = images / "image.part"
            write_archive(partial, image=image, config=flavour.config, layers=layers)
            for part in parts:
                part.unlink()
            sha256 = keep(partial, path)
            ticker.done()
    return {
        "image": image,
        "id": identity_of(path),
        "archive": str(path),
        "sha256": sha256,
        "version": release.version,
        "flavour": name,
    }


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generation", choices=sorted(debian_buildkit.GENERATIONS), default="0.13")
    parser.add_argument("--flavour", choices=sorted(FLAVOURS), default="buildkit", help="default: %(default)s")
    options = parser.parse_args(arguments)
    os.umask(0o022)
    release = buildkit_archive.obtain(
        options.generation, debian_only=False, offline=False, upstream_url=buildkit_archive.UPSTREAM
    )
    made = make(release, options.flavour)
    _progress.say(f"{made['image']}: {made['archive']}")
    print(json.dumps(made))


if __name__ == "__main__":
    _progress.main(run)
