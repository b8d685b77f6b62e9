# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the tools importable, gives each test a cache of its own, and packs small archives."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from typing import Callable

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory that does not exist yet, and no BuildKit named by the environment."""
    for name in ("BUILDKIT_ARCHIVE", "BUILDKIT_ARCHIVE_SHA256", "BUILDKIT_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "buildfarm-buildkit"


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    """Packs an archive with these files under this name, in a directory of its own or in `directory`."""

    def make(
        name: str, files: tuple[str, ...] = ("bin/buildkitd", "bin/buildctl"), *, directory: Path | None = None
    ) -> Path:
        path = (directory or tmp_path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:gz") as archive:
            for file in files:
                content = f"{name} {file}".encode()
                entry = tarfile.TarInfo(file)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return path

    return make
