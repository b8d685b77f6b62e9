# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive of a container image as ``docker save`` makes it (Docker image-spec v1.2), looked at without an engine."""

from __future__ import annotations

import json
import os
import tarfile
import typing as t
from dataclasses import dataclass

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.release import sha256_of

_PROGRAM = "buildkitd"


@dataclass(frozen=True)
class ImageArchive:
    """What is in it.

    :param identity: the image's ID, the digest of its configuration
    :param platform: such as linux/amd64
    :param has_program: whether one of its layers has a program buildkitd
    :param names: what the image is called in it, which an engine calls it too once it has loaded it
    """

    identity: str
    platform: str
    has_program: bool
    names: t.Tuple[str, ...] = ()


def read(path: str, sha256: str) -> ImageArchive:
    """Look into an archive.

    Raises HostError when it is not what its sha256 says, or no archive of one image.
    """
    try:
        actual = sha256_of(path)
        if actual != sha256.lower():
            raise HostError(
                f"{path} has the sha256 {actual}, and {sha256.lower()} is wanted. Fetch it again, or correct "
                f"buildkitd_container_image_archive_sha256."
            )
        with tarfile.open(path) as archive:
            return _read(archive)
    except (OSError, tarfile.TarError, ValueError, KeyError, IndexError, TypeError) as error:
        raise HostError(f"{path} is no archive of one image as `docker save` makes it: {error}") from error


def _read(archive: tarfile.TarFile) -> ImageArchive:
    manifest = json.loads(_member(archive, "manifest.json").read())
    if len(manifest) != 1:
        raise ValueError(f"it holds {len(manifest)} images")
    config_name = manifest[0]["Config"]
    config = json.loads(_member(archive, config_name).read())
    identity = os.path.basename(config_name)
    return ImageArchive(
        identity=identity[: -len(".json")] if identity.endswith(".json") else identity,
        platform=f"{config['os']}/{config['architecture']}",
        has_program=any(_has_program(archive, layer) for layer in reversed(manifest[0]["Layers"])),
        names=tuple(manifest[0].get("RepoTags") or ()),
    )


def _member(archive: tarfile.TarFile, name: str) -> t.IO[bytes]:
    member = archive.extractfile(name)
    if member is None:
        raise ValueError(f"{name} in it is no file")
    return member


def _has_program(archive: tarfile.TarFile, layer: str) -> bool:
    with tarfile.open(fileobj=_member(archive, layer)) as files:
        return any(os.path.basename(member.name) == _PROGRAM and not member.isdir() for member in files)
