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
    "load "*) echo "Loaded image: localhost/saved:1"; cp "$here/1" "$here/saved:1" 2>/dev/null || true ;;
    "image rm") rm "$here/$(echo "$3" | tr / _)"; echo "$*" >>"$here/../asked" ;;
    "tag "*) echo '[{"Id": "sha256:2"}]' >"$here/$(echo "$3" | tr / _)"; echo "$*" >>"$here/../asked" ;;
esac
"""


def _archive(path: Path, *names: str) -> str:
    """An archive of an image with one layer, with the identity 1 and these names; returns its sha256."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        files.addfile(tarfile.TarInfo("usr/bin/buildkitd"))
    parts = {
        "1.json": json.dumps({"os": "linux", "architecture": "amd64"}).encode(),
        "layer.tar": layer.getvalue(),
        "manifest.json": json.dumps([{"Config": "1.json", "Layers": ["layer.tar"], "RepoTags": names}]).encode(),
    }
    with tarfile.open(path, "w") as archive:
        for name, content in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def fixture_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for docker, which modules find first."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "images").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def _knows(tmp_path: Path, name: str, identity: str, *names: str) -> None:
    (tmp_path / "images" / name).write_text(json.dumps([{"Id": f"sha256:{identity}", "RepoTags": names}]))


@pytest.mark.parametrize(("known", "source"), [("1", "1"), ("2", "localhost/saved:1")])
def test_an_archive_gets_its_name(known: str, source: str, tmp_path: Path) -> None:
    """By the identity in the archive, or by what the engine named it where that has another."""
    _knows(tmp_path, known, known)
    archive = tmp_path / "image.tar"
    wish = {"engine": "docker", "image": "localhost/b:1", "archive": str(archive), "sha256": _archive(archive)}
    outcome = run_module("buildkitd_image", wish)
    assert not outcome.failed, outcome.output
    assert outcome.result["identity"] == "2"
    assert (tmp_path / "asked").read_text() == f"tag {source} localhost/b:1\n"


def _loaded(tmp_path: Path, *names: str) -> tuple[list[str], str]:
    """What docker was asked to load an archive with these names, and which image lost its name by it."""
    archive = tmp_path / "image.tar"
    wish = {"engine": "docker", "image": "docker.io/b:1", "archive": str(archive), "sha256": _archive(archive, *names)}
    outcome = run_module("buildkitd_image", wish)
    assert not outcome.failed, outcome.output
    return (tmp_path / "asked").read_text().splitlines(), outcome.result["replaced"]


def test_names_of_the_archive_are_taken_away_again(tmp_path: Path) -> None:
    """They would hold the image after it was removed; but not what is only another spelling of its own."""
    _knows(tmp_path, "1", "1")
    assert _loaded(tmp_path, "library/b:1", "saved:1") == (["tag 1 docker.io/b:1", "image rm saved:1"], "")


def test_a_name_of_another_image_is_given_back(tmp_path: Path) -> None:
    """Loading takes it from that."""
    _knows(tmp_path, "1", "1")
    _knows(tmp_path, "saved:1", "7")
    assert _loaded(tmp_path, "saved:1") == (["tag 1 docker.io/b:1", "tag 7 saved:1"], "")


@pytest.mark.parametrize(("names", "lost"), [((), "9" * 64), (("theirs:1",), "")])
def test_an_image_that_loses_its_last_name_is_told(tmp_path: Path, names: tuple[str, ...], lost: str) -> None:
    """So that it can be removed with the others; one that somebody else named is theirs."""
    _knows(tmp_path, "1", "1")
    _knows(tmp_path, "docker.io_b:1", "9" * 64, *names)
    _knows(tmp_path, "9" * 64, "9" * 64, *names)
    assert _loaded(tmp_path)[1] == lost
    outcome = run_module("buildkitd_image", {"engine": "docker", "image": "9" * 64, "state": "absent"})
    assert outcome.result["changed"] is bool(lost)
