# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkitd_cache, run as Ansible runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import cache
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError
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


def test_a_cache_is_emptied_and_its_directory_stays(root: Path) -> None:
    """Predicted without a trace, done, and not again; what a link points to is left alone."""
    before = snapshot(root)
    predicted = run_module("buildkitd_cache", {"path": str(root)}, check=True)
    assert snapshot(root) == before
    done = run_module("buildkitd_cache", {"path": str(root)})
    for outcome in (predicted, done):
        names = [".hidden", "buildkitd.lock", "cache.db", "link", "runc-overlayfs"]
        assert outcome.result == {"changed": True, "removed": [str(root / name) for name in names]}
    assert snapshot(root) == {}
    assert (root.parent / "beside" / "file").exists()
    for path in (root, root / "none"):
        assert run_module("buildkitd_cache", {"path": str(path)}).result == {"changed": False, "removed": []}


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


def test_an_interrupted_run_can_be_repeated(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks by which the directory is known go last."""

    def fail(path: str) -> None:
        raise OSError(f"{path} is busy")

    monkeypatch.setattr(cache.shutil, "rmtree", fail)
    with pytest.raises(OSError, match="busy"):
        cache.empty(str(root))
    cache.check(str(root))
    monkeypatch.undo()
    cache.empty(str(root))
    assert snapshot(root) == {}


def test_mounts_are_found_the_last_one_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the directory alone, with the escapes of the kernel."""
    root = tmp_path / "my root"
    points = [root, root / "a", root / "a" / "b", Path(f"{root}beside"), tmp_path]
    table = tmp_path / "mountinfo"
    escaped = [str(point).replace(" ", "\\040") for point in points]
    table.write_text("".join(f"36 35 98:0 / {point} rw,noatime - ext4 /dev/root rw\n" for point in escaped))
    real = open
    monkeypatch.setattr(
        "builtins.open", lambda path, *a, **k: real(table, *a, **k) if "mountinfo" in path else real(path)
    )
    assert cache.mounts_below(str(root)) == [f"{root}/a/b", f"{root}/a"]


def test_what_cannot_be_unmounted_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is removed below a file system that is still in use."""
    before = snapshot(root)
    monkeypatch.setattr(cache, "mounts_below", lambda directory: [f"{directory}/runc-overlayfs"])
    with pytest.raises(HostError, match=r"left .*/runc-overlayfs mounted, and umount says: .*not mounted"):
        cache.empty(str(root))
    assert snapshot(root) == before
