# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an archive gets its name from engines that count images differently; real engines are in molecule."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module

# It knows the names and identities that are files beside it, and notes what else it is asked.
DOCKER = """#!/bin/sh
here=$(dirname "$0")/images
case "$1 $2" in
    "image inspect") cat "$here/$(echo "$3" | tr / _)" 2>/dev/null || { echo "No such image: $3" >&2; exit 1; } ;;
    "version "*) echo 29.0.0 ;;
    "load "*) echo "Loaded image: localhost/saved:1" ;;
    "tag "*) echo '[{"Id": "sha256:2"}]' >"$here/$(echo "$3" | tr / _)"; echo "$*" >>"$here/../asked" ;;
esac
"""


def _archive(path: Path) -> str:
    """An archive of an image with one layer, with the identity 1; returns its sha256."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        files.addfile(tarfile.TarInfo("usr/bin/buildkitd"))
    parts = {
        "1.json": json.dumps({"os": "linux", "architecture": "amd64"}).encode(),
        "layer.tar": layer.getvalue(),
        "manifest.json": json.dumps([{"Config": "1.json", "Layers": ["layer.tar"]}]).encode(),
    }
    with tarfile.open(path, "w") as archive:
        for name, content in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("known", "source"), [("1", "1"), ("2", "localhost/saved:1")])
def test_an_archive_gets_its_name(known: str, source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the identity in the archive, or by what the engine named it where that has another."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / known).write_text(json.dumps([{"Id": f"sha256:{known}"}]))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    archive = tmp_path / "image.tar"
    wish = {"engine": "docker", "image": "localhost/b:1", "archive": str(archive), "sha256": _archive(archive)}
    outcome = run_module("buildkitd_image", wish)
    assert not outcome.failed, outcome.output
    assert outcome.result["identity"] == "2"
    assert (tmp_path / "asked").read_text() == f"tag {source} localhost/b:1\n"
