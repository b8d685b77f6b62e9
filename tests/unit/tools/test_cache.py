# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache gives out only what nobody else could have put there, and only undamaged."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Callable

import pytest

NAME = "buildkit-v0.13.2+debian.linux-amd64.tar.gz"


@pytest.fixture
def module(cache: Path) -> ModuleType:
    """The cache module, on a cache of this test's own."""
    import _cache

    return _cache


@pytest.fixture
def stored(module: ModuleType, pack: Callable[..., Path]) -> Path:
    """An archive in the cache."""
    path = pack(NAME, directory=module.subdirectory("archives", "debian-x"))
    module.put(path)
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("buildkit-v0.31.0.linux-amd64.tar.gz", ("0.31.0", "linux-amd64")),
        ("buildkit-v0.13.2+debian.linux-arm64.tar.gz", ("0.13.2+debian", "linux-arm64")),
        ("buildkit-v0.26.0-rc1.linux-arm-v7.tar.gz", ("0.26.0-rc1", "linux-arm-v7")),
        ("buildkit-latest.linux-amd64.tar.gz", None),
        ("buildkit-v0.31.0.linux-amd64.zip", None),
    ],
)
def test_version_and_platform_come_from_the_name(
    module: ModuleType, name: str, expected: tuple[str, str] | None
) -> None:
    """An archive named as upstream names its releases tells its version and platform, any other nothing."""
    assert module.parse_name(name) == expected


def test_a_stored_archive_is_given_out(module: ModuleType, stored: Path) -> None:
    """What was stored comes back with its sum and version."""
    found = module.get(f"debian-*/{NAME}")
    assert (found.path, found.version, found.source) == (stored, "0.13.2+debian", "cache")
    assert found.sha256 == module.sha256_of(stored)


def test_the_cache_is_made_for_its_owner_alone(module: ModuleType, cache: Path) -> None:
    """A new cache directory can be entered by nobody else."""
    module.root()
    assert cache.stat().st_mode & 0o777 == 0o700


def test_an_archive_without_a_record_does_not_count(module: ModuleType, stored: Path) -> None:
    """A download that was killed before its sum was recorded is not used."""
    module.record_of(stored).unlink()
    assert module.get(f"debian-*/{NAME}") is None


def test_a_damaged_archive_is_removed(module: ModuleType, stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An archive that changed since it was stored is not used, removed, and said so."""
    stored.write_bytes(stored.read_bytes() + b"x")
    assert module.get(f"debian-*/{NAME}") is None
    assert not stored.exists()
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize("depth", ["archive", "record", "directory", "cache"])
def test_what_others_can_write_to_is_refused(module: ModuleType, stored: Path, cache: Path, depth: str) -> None:
    """A file or directory of the cache that others may write to is refused."""
    path = {"archive": stored, "record": module.record_of(stored), "directory": stored.parent, "cache": cache}[depth]
    path.chmod(path.stat().st_mode | 0o020)
    with pytest.raises(Exception, match="can be written to by others"):
        module.get(f"debian-*/{NAME}")


def test_what_another_user_owns_is_refused(module: ModuleType, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that belongs to neither root nor the running user is refused."""
    if os.geteuid() == 0:
        os.chown(stored, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(Exception, match="belongs to user"):
        module.get(f"debian-*/{NAME}")


def test_a_symbolic_link_is_refused(module: ModuleType, cache: Path, tmp_path: Path) -> None:
    """A cache directory that is a link to somewhere else is refused."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    cache.parent.mkdir()
    cache.symlink_to(elsewhere)
    with pytest.raises(Exception, match="symbolic link"):
        module.root()


@pytest.mark.parametrize("files", [("bin/buildctl",), ("buildkitd", "buildctl"), ()])
def test_an_archive_without_the_daemon_is_refused(
    module: ModuleType, pack: Callable[..., Path], files: tuple[str, ...]
) -> None:
    """An archive that has no bin/buildkitd is named as such."""
    with pytest.raises(Exception, match=r"does not contain.*bin/buildkitd"):
        module.check_contents(pack(NAME, files))


def test_a_file_that_is_no_archive_is_refused(module: ModuleType, tmp_path: Path) -> None:
    """An error page saved under an archive's name is refused as no archive."""
    path = tmp_path / NAME
    path.write_text("<html>404</html>")
    with pytest.raises(Exception, match=r"no readable \.tar\.gz archive"):
        module.check_contents(path)


def test_one_run_at_a_time(module: ModuleType) -> None:
    """A lock that one run holds keeps another out until it is released."""
    import fcntl

    with module.lock("x"), (module.root() / "locks" / "x.lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (module.root() / "locks" / "x.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
