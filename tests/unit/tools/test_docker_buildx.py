# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of docker-buildx is used again only while it is whole and ours."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def module(cache: Path) -> ModuleType:
    """The tool, on a cache of this test's own."""
    import docker_buildx

    return docker_buildx


@pytest.fixture
def kept(module: ModuleType) -> Path:
    """The directory of one that an earlier run obtained."""
    directory = module._cache.subdirectory("buildx", "old")
    for name in ("docker-buildx", "docker-buildx_1_amd64.deb"):
        (directory / name).write_text(name)
        (directory / name).chmod(0o755)
    record = {
        "path": str(directory / "docker-buildx"),
        "version": "0.13.1",
        "suite": "trixie",
        "package": str(directory / "docker-buildx_1_amd64.deb"),
        "sha256": module._cache.sha256_of(directory / "docker-buildx_1_amd64.deb"),
    }
    (directory / "buildx.json").write_text(json.dumps(record))
    (directory / "buildx.json").chmod(0o600)
    return directory


def test_what_is_whole_is_used_again(module: ModuleType, kept: Path) -> None:
    """With no look at the network."""
    found = module.obtain("old")
    assert (found["path"], found["version"]) == (str(kept / "docker-buildx"), "0.13.1")


def test_what_is_not_whole_is_fetched_anew(module: ModuleType, kept: Path) -> None:
    """A missing program, another package, no record."""
    (kept / "docker-buildx_1_amd64.deb").write_text("another")
    assert module.cached("old") is None
    (kept / "docker-buildx").unlink()
    assert module.cached("old") is None
    assert module.cached("new") is None


def test_what_others_may_write_to_is_refused(module: ModuleType, kept: Path) -> None:
    """It would be run as root."""
    (kept / "docker-buildx").chmod(0o777)
    with pytest.raises(module._progress.ToolError, match="can be written to by others"):
        module.cached("old")


def test_a_machine_without_a_mirror_says_so(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that names one."""
    monkeypatch.setattr(module._apt, "debian_mirror", lambda: None)
    with pytest.raises(module._progress.ToolError, match="BUILDFARM_DEBIAN_MIRROR=") as refusal:
        module.obtain("new")
    assert refusal.value.code == module.UNAVAILABLE
