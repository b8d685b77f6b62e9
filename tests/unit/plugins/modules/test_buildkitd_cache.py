# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkitd_cache, run as Ansible runs it."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import cache
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module, snapshot


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache, and something beside it to which it has a link."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "file").write_text("x")
    directory = tmp_path / "root"
    (directory / "runc-overlayfs" / "snapshots").mkdir(parents=True)
    (directory / "runc-overlayfs" / "snapshots" / "file").write_text("x")
    (directory / "cache.db").write_text("x")
    (directory / "buildkitd.lock").write_text("")
    (directory / ".hidden").write_text("x")
    (directory / "link").symlink_to(tmp_path / "beside")
    return directory


def test_a_cache_is_emptied_and_goes_with_its_directory(root: Path) -> None:
    """Predicted without a trace, done, and not again; what a link points to is left alone."""
    before = snapshot(root)
    predicted = run_module("buildkitd_cache", {"path": str(root)}, check=True)
    kept = run_module("buildkitd_cache", {"path": str(root), "purge": False})
    assert snapshot(root) == before
    assert kept.result == {"changed": False, "removed": [], "ended": [], "unmounted": []}
    done = run_module("buildkitd_cache", {"path": str(root)})
    for outcome in (predicted, done):
        names = [".hidden", "buildkitd.lock", "cache.db", "link", "runc-overlayfs", ""]
        assert outcome.result["changed"]
        assert outcome.result["removed"] == [str(root / name) for name in names]
    assert not root.exists()
    assert (root.parent / "beside" / "file").exists()
    assert run_module("buildkitd_cache", {"path": str(root)}).result == kept.result


def test_a_link_to_the_cache_stays(root: Path) -> None:
    """Somebody put the cache on another disk, and the next daemon shall find it there."""
    link = root.parent / "var"
    link.symlink_to(root)
    assert run_module("buildkitd_cache", {"path": str(link)}).result["changed"]
    assert list(link.iterdir()) == []


@pytest.mark.parametrize("check", [False, True])
def test_a_directory_that_never_was_a_cache_is_refused(root: Path, check: bool) -> None:
    """Whatever is in it stays."""
    for mark in ("buildkitd.lock", "cache.db"):
        cache.check(str(root))  # the other one is enough: a daemon that ended in peace leaves no lock
        (root / mark).unlink()
    before = snapshot(root)
    outcome = run_module("buildkitd_cache", {"path": str(root)}, check=check)
    assert "it is not buildkitd's, and nothing was removed. Correct the path" in outcome.message
    assert snapshot(root) == before


@pytest.mark.parametrize("path", ["/", "/var/lib", "/var/lib/docker/../", "/var/lib/docker/buildkit", "link"])
@pytest.mark.parametrize("purge", [False, True])
def test_a_directory_of_others_is_refused(tmp_path: Path, path: str, purge: bool) -> None:
    """By its name, before anybody looks what is mounted there; through a link too. Only predicted here."""
    (tmp_path / "link").symlink_to("/usr")
    named = str(tmp_path / path)
    outcome = run_module("buildkitd_cache", {"path": named, "purge": purge}, check=True)
    assert f"{named} cannot be the directory of a build cache, because it belongs to the system" in outcome.message


def test_what_is_mounted_below_no_cache_is_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other engines mount layers, too, and a wrong path shall not end their containers."""
    monkeypatch.setattr(cache, "end_steps", lambda _path: pytest.fail("looked for steps"))
    for mark in ("buildkitd.lock", "cache.db"):
        (root / mark).unlink()
    outcome = run_module("buildkitd_cache", {"path": str(root), "purge": False})
    assert outcome.result == {"changed": False, "removed": [], "ended": [], "unmounted": []}


def test_an_interrupted_run_can_be_repeated(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks by which the directory is known go last."""

    def fail(path: str) -> None:
        raise OSError(f"{path} is busy")

    monkeypatch.setattr(cache.shutil, "rmtree", fail)
    with pytest.raises(OSError, match="busy"):
        cache.purge(str(root))
    cache.check(str(root))
    monkeypatch.undo()
    cache.purge(str(root))
    assert not root.exists()


def test_a_daemon_that_runs_is_left_alone(root: Path) -> None:
    """It holds the lock; in check mode it is not in the way, because it would have been stopped."""
    before = snapshot(root)
    with open(root / "buildkitd.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for purge in (True, False):
            outcome = run_module("buildkitd_cache", {"path": str(root), "purge": purge})
            assert "A daemon still runs with the build cache" in outcome.message
        assert run_module("buildkitd_cache", {"path": str(root)}, check=True).result["changed"]
    assert snapshot(root) == before
