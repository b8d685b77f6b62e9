# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of images are looked into before they are sent anywhere."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import image_archive
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError


def _tar(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def write(tmp_path):
    """A function that writes an archive with a layer of these files, and returns path and sha256."""

    def once(*names, images=1, layer=None):
        files = {
            "manifest.json": json.dumps([{"Config": "c0ffee.json", "Layers": ["0.tar"]}] * images).encode(),
            "c0ffee.json": b'{"os": "linux", "architecture": "amd64"}',
            "0.tar": _tar(dict.fromkeys(names, b"x")) if layer is None else layer,
        }
        path = tmp_path / "image.tar"
        path.write_bytes(_tar(files))
        return str(path), hashlib.sha256(path.read_bytes()).hexdigest()

    return once


def test_an_image_of_buildkit_is_known(write):
    """Its identity, its platform, and that it has the program."""
    read = image_archive.read(*write("usr/bin/buildctl", "usr/bin/buildkitd"))
    assert read == image_archive.ImageArchive("c0ffee", "linux/amd64", True)


def test_another_image_has_no_buildkitd(write):
    """A name that only begins like it is another program."""
    assert image_archive.read(*write("usr/bin/buildkitd-helper")).has_program is False


def test_a_wrong_checksum_is_refused(write):
    """With both, so that one can tell which is wrong."""
    path, sha256 = write("usr/bin/buildkitd")
    with pytest.raises(HostError, match=f"has the sha256 {sha256}, and {'0' * 64} is wanted"):
        image_archive.read(path, "0" * 64)


@pytest.mark.parametrize("wrong", [{"images": 2}, {"images": 0}, {"layer": b"no tar"}])
def test_what_is_no_archive_of_one_image_is_refused(write, wrong):
    """In words, whatever is wrong with it."""
    with pytest.raises(HostError, match="is no archive of one image"):
        image_archive.read(*write("usr/bin/buildkitd", **wrong))


def test_any_other_file_is_refused(tmp_path):
    """A release archive of BuildKit for instance, or none at all."""
    path = tmp_path / "text"
    path.write_text("text")
    with pytest.raises(HostError, match="is no archive of one image"):
        image_archive.read(str(path), hashlib.sha256(b"text").hexdigest())
    with pytest.raises(HostError, match="is no archive of one image"):
        image_archive.read(str(tmp_path / "none"), "0" * 64)
