# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One program, out of a file or an archive whose checksum is pinned.

Beside the program ``.<name>.source`` says what it was made of, so that a second run needs neither the source nor
trust in the program's own word about its version.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import typing as t
import zlib

from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

_BLOCK = 1 << 20


def _sha256(stream: t.BinaryIO) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: stream.read(_BLOCK), b""):
        digest.update(block)
    return digest.hexdigest()


def stamp_of(path: str) -> str:
    """Where it is noted what a program was made of."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.source")


def installed_from(path: str) -> str:
    """The checksum of what a program was made of; empty where it is not there, not ours, or was changed since."""
    try:
        noted = json.loads(_files.read_optional(stamp_of(path)) or b"{}")
        with open(path, "rb") as program:
            return str(noted["source"]) if noted["program"] == _sha256(program) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def refuse_foreign(path: str) -> None:
    """Refuse to write over a program that others installed.

    :raises ClientError: naming it.
    """
    if os.path.lexists(path) and not os.path.lexists(stamp_of(path)):
        raise ClientError(
            f"{path} is there already and was not installed by this collection. Remove it (or the package it belongs "
            "to), or choose another directory."
        )


def install(source: str, sha256: str, member: str, path: str) -> None:
    """Verify a file, take the program out of it and put it in place in one rename.

    :param member: the program's path inside a tar archive; empty where the file is the program itself.
    :raises ClientError: where it is not the file that was pinned, or has no such program.
    """
    directory, name = os.path.split(path)
    _files.make_public_directories(directory)
    staged = os.path.join(directory, f".{name}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(staged)
    try:
        with open(source, "rb") as stream:
            found = _sha256(stream)
            if found != sha256.lower():
                raise ClientError(
                    f"{source} has the sha256 {found}, and {sha256.lower()} was expected. It is damaged or another "
                    "one; nothing was installed. Fetch it again, or correct the checksum if you are sure of it."
                )
            stream.seek(0)
            with open(staged, "xb") as program:
                _copy(stream, member, source, program)
        os.chmod(staged, 0o755)
        with open(staged, "rb") as program:
            noted = {"source": found, "program": _sha256(program)}
        # The note first: killed in between, the program counts as not installed and is put in place by the next run.
        _files.write_atomically(stamp_of(path), json.dumps(noted).encode("ascii"), mode=0o644)
        _files.flush([staged])
        os.rename(staged, path)
        _files.flush([directory])
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged)


def _copy(stream: t.BinaryIO, member: str, source: str, program: t.BinaryIO) -> None:
    if not member:
        shutil.copyfileobj(stream, program, _BLOCK)
        return
    try:
        with tarfile.open(fileobj=stream) as archive:
            for entry in archive:
                if entry.isfile() and os.path.normpath(entry.name).lstrip("/") == member:
                    content = archive.extractfile(entry)
                    if content is not None:
                        shutil.copyfileobj(content, program, _BLOCK)
                        return
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ClientError(f"{source} cannot be read: {error}. It must be a tar archive.") from error
    raise ClientError(f"{source} has no {member} in it, so it is another archive. Nothing was installed.")


def remove(path: str) -> None:
    """Remove a program that we installed, and the note about it."""
    for each in (path, stamp_of(path)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(each)
