# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""BuildKit releases on a host: one directory per version, and a link that says which one is in use.

<install_dir>/<version>/bin/...   what the archive holds, complete or not there at all
<install_dir>/<version>/.sha256   the archive's checksum, so that another archive of the same name is noticed
<install_dir>/current             link to the version in use
<bin_dir>/<program>               links into <install_dir>/current/bin
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import shutil
import stat
import tarfile
import tempfile
import time
import typing as t
import zlib

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

# The programs that are put into PATH; the emulators and CNI plugins of a release are found beside buildkitd.
LINKED_PROGRAMS = ("buildctl", "buildkitd", "buildkit-runc")

# Where the role buildkitd puts an archive of the controller for a moment; here a killed run leaves it.
INCOMING = ".incoming"

# One release, also one of a candidate or of a distribution; safe as the name of a directory.
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+([-+~.][0-9A-Za-z.+~-]*)?")

# Release platforms by `uname -m` (hack/release of moby/buildkit names its archives by GOARCH and GOARM).
PLATFORMS = {
    "x86_64": "linux-amd64",
    "amd64": "linux-amd64",
    "aarch64": "linux-arm64",
    "arm64": "linux-arm64",
    "armv7l": "linux-arm-v7",
    "armv8l": "linux-arm-v7",
    "ppc64le": "linux-ppc64le",
    "riscv64": "linux-riscv64",
    "s390x": "linux-s390x",
}


def sha256_of(path: str) -> str:
    """The SHA-256 of a file, in lower-case hexadecimal. Raises OSError when it cannot be read."""
    with open(path, "rb") as source:
        return _digest(source)


def _digest(source: t.BinaryIO) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: source.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def installed_sha256(install_dir: str, version: str) -> str:
    """The checksum of the archive that a version directory was unpacked from; empty when it is not there."""
    try:
        with open(os.path.join(install_dir, version, ".sha256"), encoding="ascii") as stamp:
            return stamp.read().strip()
    except OSError:
        return ""


def current_version(install_dir: str) -> str:
    """The version in use; empty when none is."""
    try:
        return os.path.basename(os.readlink(os.path.join(install_dir, "current")))
    except OSError:
        return ""


def has_runc(install_dir: str, version: str) -> t.Optional[bool]:
    """Whether a version brings its own runc, as upstream's do; None when it is not installed."""
    programs = os.path.join(install_dir, version, "bin")
    return os.path.exists(os.path.join(programs, "buildkit-runc")) if os.path.isdir(programs) else None


def check_version(version: str) -> None:
    """Refuses what does not name one release, or could not be the name of a directory. Raises HostError."""
    if not _VERSION.fullmatch(version):
        raise HostError(f"The version {version!r} names no release of BuildKit. Name one, such as 0.31.0.")


def refuse_foreign_programs(install_dir: str, bin_dir: str) -> None:
    """Raises HostError where ``bin_dir`` holds something else with the name of one of our links.

    Nothing that is not ours is overwritten, be it a file or a link to somewhere else.
    """
    for program in LINKED_PROGRAMS:
        link = os.path.join(bin_dir, program)
        if os.path.lexists(link) and not _is_our_link(install_dir, bin_dir, program):
            what = f"link to {os.readlink(link)}" if os.path.islink(link) else "file"
            raise HostError(
                f"Linking {link} to BuildKit failed: a {what} that is not ours is there. Remove it (or the package it "
                f"belongs to), or set buildkitd_bin_dir to another directory."
            )


def missing_links(install_dir: str, bin_dir: str, version: str) -> t.List[str]:
    """The programs of an installed version that are not yet linked from ``bin_dir``."""
    missing = []
    for program in LINKED_PROGRAMS:
        if not os.path.exists(os.path.join(install_dir, version, "bin", program)):
            continue
        if not _is_our_link(install_dir, bin_dir, program):
            missing.append(program)
    return missing


def _is_our_link(install_dir: str, bin_dir: str, program: str) -> bool:
    link = os.path.join(bin_dir, program)
    return os.path.islink(link) and os.readlink(link) == _link_target(install_dir, program)


def _link_target(install_dir: str, program: str) -> str:
    return os.path.join(install_dir, "current", "bin", program)


@contextlib.contextmanager
def opened_archive(path: str) -> t.Iterator[t.BinaryIO]:
    """The archive, opened once: what is verified is what is unpacked, whatever becomes of the path meanwhile.

    Raises HostError when there is none, or it is no regular file; a link is not followed.
    """
    try:
        # O_NONBLOCK: opening a pipe must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(
            f"Opening the archive {path} failed: {error.strerror}. It must be a file on this host, and no link to one."
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise HostError(f"Opening the archive {path} failed: it is no regular file. Name the archive itself.")
        with os.fdopen(descriptor, "rb", closefd=False) as archive:
            yield archive
    finally:
        os.close(descriptor)


def verify_archive(source: t.BinaryIO, path: str, sha256: str) -> t.Set[str]:
    """Refuses an archive that is not the one pinned, or that holds no bin/buildkitd. Raises HostError.

    :param path: for the messages alone
    :return: the names of its files
    """
    source.seek(0)
    found = _digest(source)
    if found != sha256.lower():
        raise HostError(
            f"Verifying {path} failed: its sha256 is {found}, expected {sha256.lower()}. The archive is damaged or "
            f"not the one that was pinned; nothing was installed. Fetch it again, or correct the checksum if you "
            f"are sure of the archive."
        )
    source.seek(0)
    try:
        with tarfile.open(fileobj=source) as archive:
            names = {_relative(member.name) for member in archive.getmembers() if member.isfile()}
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise HostError(f"Reading the archive {path} failed: {error}. It must be a tar archive.") from error
    if "bin/buildkitd" not in names:
        raise HostError(
            f"The archive {path} has no bin/buildkitd, so it is no BuildKit release for Linux "
            f"(buildkit-v<version>.linux-<arch>.tar.gz). Nothing was installed."
        )
    return names


def _relative(name: str) -> str:
    return os.path.normpath(name).lstrip("/")


def unpack(source: t.BinaryIO, sha256: str, install_dir: str, version: str) -> None:
    """Unpacks the regular files under bin/ into the version's directory.

    A new version appears complete or not at all; one from another archive is not installed until it is complete.
    """
    os.makedirs(install_dir, mode=0o755, exist_ok=True)
    _clear_staging(install_dir)
    staging = tempfile.mkdtemp(prefix=f".{version}.", dir=install_dir)
    try:
        os.makedirs(os.path.join(staging, "bin"))
        source.seek(0)
        with tarfile.open(fileobj=source) as archive:
            for member in archive:
                name = _relative(member.name)
                if member.isfile() and os.path.dirname(name) == "bin":
                    _write_program(archive, member, os.path.join(staging, name))
        with open(os.path.join(staging, ".sha256"), "w", encoding="ascii") as stamp:
            stamp.write(sha256.lower() + "\n")
        os.chmod(staging, 0o755)
        os.chmod(os.path.join(staging, "bin"), 0o755)
        target = os.path.join(install_dir, version)
        if os.path.lexists(target):
            _replace_programs(target, staging)
        else:
            os.rename(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _clear_staging(install_dir: str) -> None:
    """Removes what killed runs left; one that is being written is younger than an hour."""
    for entry in os.listdir(install_dir):
        path = os.path.join(install_dir, entry)
        if (
            entry.startswith(".")
            and entry != INCOMING
            and _is_ours(path)
            and os.stat(path).st_mtime < time.time() - 3600
        ):
            shutil.rmtree(path)


def _replace_programs(target: str, staging: str) -> None:
    """Puts the programs of another archive under the same version, file by file.

    The directory itself stays: a daemon that runs from it is known by its path. Without the stamp, which comes last,
    a version counts as not installed, so an interrupted run is made good by the next one.
    """
    stamp = os.path.join(target, ".sha256")
    if os.path.exists(stamp):
        _put_aside(target)
        os.unlink(stamp)
    programs, wanted = os.path.join(target, "bin"), os.path.join(staging, "bin")
    os.makedirs(programs, mode=0o755, exist_ok=True)
    names = os.listdir(wanted)
    for name in names:
        os.replace(os.path.join(wanted, name), os.path.join(programs, name))
    for name in set(os.listdir(programs)) - set(names):
        os.unlink(os.path.join(programs, name))
    os.replace(os.path.join(staging, ".sha256"), stamp)


def _put_aside(target: str) -> None:
    """Keeps an installed version under another name, <version>~<start of its checksum>, to go back to."""
    with open(os.path.join(target, ".sha256"), encoding="ascii") as stamp:
        aside = f"{target}~{stamp.read().strip()[:8]}"
    if os.path.lexists(aside):
        return
    staging = tempfile.mkdtemp(prefix=f".{os.path.basename(aside)}.", dir=os.path.dirname(target))
    try:
        for name in ("bin", ".sha256"):
            source, copy = os.path.join(target, name), os.path.join(staging, name)
            if os.path.isdir(source):
                shutil.copytree(source, copy, copy_function=os.link)
            else:
                os.link(source, copy)
        os.chmod(staging, 0o755)
        os.rename(staging, aside)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def surplus(install_dir: str, keep: int, protected: t.Sequence[str]) -> t.List[str]:
    """The versions that need not be kept, the oldest first: all but the ``keep`` that were installed last.

    Never one of ``protected``, nor one that a process runs from. With ``keep`` 0 there are none.
    """
    if keep <= 0 or not os.path.isdir(install_dir):
        return []
    found = []
    for entry in os.listdir(install_dir):
        stamp = os.path.join(install_dir, entry, ".sha256")
        if _VERSION.fullmatch(entry) and not os.path.islink(os.path.join(install_dir, entry)) and os.path.isfile(stamp):
            found.append((os.stat(stamp).st_mtime, entry))
    safe = {*protected, *_in_use(install_dir)}
    newest = [entry for _time, entry in sorted(found, reverse=True)]
    kept = [entry for entry in newest if entry in safe]
    return [entry for entry in newest if entry not in safe][max(0, keep - len(kept)) :][::-1]


def _in_use(install_dir: str) -> t.Set[str]:
    """The versions that processes run from."""
    root, found = os.path.join(os.path.realpath(install_dir), ""), set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                executable = os.readlink(f"/proc/{name}/exe")
                if executable.startswith(root):
                    found.add(executable[len(root) :].partition("/")[0])
    return found


def _write_program(archive: tarfile.TarFile, member: tarfile.TarInfo, destination: str) -> None:
    source = archive.extractfile(member)
    if source is None:
        raise HostError(f"Unpacking {member.name} failed: the archive names it, but does not hold it.")
    with source, open(destination, "wb") as program:
        shutil.copyfileobj(source, program)
    os.chmod(destination, 0o755)


def switch(install_dir: str, bin_dir: str, version: str) -> None:
    """Makes a version the one in use, in one rename, and links its programs into ``bin_dir``.

    Raises HostError, before it changes anything, where ``bin_dir`` holds a file or link that is not ours.
    """
    refuse_foreign_programs(install_dir, bin_dir)
    _replace_link(version, os.path.join(install_dir, "current"))
    os.makedirs(bin_dir, mode=0o755, exist_ok=True)
    for program in missing_links(install_dir, bin_dir, version):
        _replace_link(_link_target(install_dir, program), os.path.join(bin_dir, program))


def _replace_link(target: str, link: str) -> None:
    temporary = f"{link}.{os.getpid()}.new"
    os.symlink(target, temporary)
    os.replace(temporary, link)


def remove(install_dir: str, bin_dir: str, *, dry_run: bool) -> t.List[str]:
    """Removes every version and our links; returns the paths that were, or with ``dry_run`` would be, removed.

    What else is in ``install_dir`` stays: somebody may have named a directory that holds more than BuildKit.
    """
    gone = []
    for program in LINKED_PROGRAMS:
        link = os.path.join(bin_dir, program)
        if _is_our_link(install_dir, bin_dir, program):
            gone.append(link)
            if not dry_run:
                os.unlink(link)
        for leftover in sorted(glob.glob(f"{glob.escape(link)}.*.new")):
            if os.path.islink(leftover) and os.readlink(leftover) == _link_target(install_dir, program):
                gone.append(leftover)
                if not dry_run:
                    os.unlink(leftover)
    entries = sorted(os.listdir(install_dir)) if os.path.isdir(install_dir) else []
    ours = [entry for entry in entries if _is_ours(os.path.join(install_dir, entry))]
    for path in (os.path.join(install_dir, entry) for entry in ours):
        gone.append(path)
        if not dry_run:
            os.unlink(path) if os.path.islink(path) else shutil.rmtree(path)
    if os.path.isdir(install_dir) and ours == entries:
        gone.append(install_dir)
        if not dry_run:
            os.rmdir(install_dir)
    return gone


def _is_ours(path: str) -> bool:
    """Whether an entry of the install directory is a version, what a killed run left of one, or the link to one."""
    name = os.path.basename(path)
    if os.path.islink(path):
        return name == "current" or name.startswith("current.")
    if name.startswith("."):
        return os.path.isdir(path) and (name == INCOMING or bool(_VERSION.match(name[1:])))
    return os.path.isdir(os.path.join(path, "bin")) and bool(_VERSION.fullmatch(name))
