# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkit_client_program, run as Ansible runs it, with archives as BuildKit and buildx release them."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module, snapshot


def archive(path: Path, content: str, name: str = "bin/buildctl") -> dict[str, t.Any]:
    """Pack a program, and return the options that install it."""
    with tarfile.open(path, "w:gz") as target:
        for member in ("bin/buildkitd", name):
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            target.addfile(entry, io.BytesIO(content.encode()))
    return source(path, "bin/buildctl")


def source(path: Path, member: str = "") -> dict[str, t.Any]:
    """The options that install a file."""
    return {"src": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "member": member}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the program goes; its directory is not there yet."""
    return tmp_path / "usr" / "bin" / "buildctl"


def test_install_predict_again_and_remove(tmp_path: Path, target: Path) -> None:
    """Predicted without a trace, executable for all, not again without its source, and removed with its note."""
    wish = {"path": str(target), **archive(tmp_path / "release.tar.gz", "one")}
    before = snapshot(tmp_path)
    predicted = run_module("buildkit_client_program", wish, check=True)
    assert (predicted.result["changed"], predicted.result["needed"]) == (True, True)
    assert snapshot(tmp_path) == before
    assert run_module("buildkit_client_program", wish).result["changed"] is True
    assert target.read_text() == "one"
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    asked = run_module("buildkit_client_program", {key: wish[key] for key in ("path", "sha256")})
    assert (asked.result["changed"], asked.result["needed"]) == (False, False)
    gone = {"path": str(target), "state": "absent"}
    assert run_module("buildkit_client_program", gone, check=True).result["changed"] is True
    assert target.exists()
    assert run_module("buildkit_client_program", gone).result["changed"] is True
    assert list(target.parent.iterdir()) == []
    assert run_module("buildkit_client_program", gone).result["changed"] is False


def test_a_plain_program_and_another_version(tmp_path: Path, target: Path) -> None:
    """As docker-buildx is released; one that was changed by hand is put right."""
    for content in ("one", "two"):
        (tmp_path / "program").write_text(content)
        wish = {"path": str(target), **source(tmp_path / "program")}
        assert run_module("buildkit_client_program", wish).result["changed"] is True
        assert target.read_text() == content
    target.write_text("damaged")
    assert run_module("buildkit_client_program", wish).result["changed"] is True
    assert target.read_text() == "two"


def test_a_program_of_others_stays(tmp_path: Path, target: Path) -> None:
    """Neither overwritten nor removed."""
    target.parent.mkdir(parents=True)
    target.write_text("theirs")
    wish = {"path": str(target), **archive(tmp_path / "release.tar.gz", "one")}
    before = snapshot(tmp_path)
    for check in (True, False):
        refused = run_module("buildkit_client_program", wish, check=check)
        assert f"{target} is there already and was not installed by this collection" in refused.message
    assert run_module("buildkit_client_program", {"path": str(target), "state": "absent"}).result["changed"] is False
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"sha256": "0" * 64}, f"and {'0' * 64} was expected"),
        ({"sha256": "abc"}, "must be 64 hexadecimal digits"),
        ({"member": "bin/other"}, "has no bin/other in it"),
        ({"src": "/none"}, "No such file or directory: '/none'"),
    ],
)
def test_what_is_not_the_pinned_archive_changes_nothing(
    tmp_path: Path, target: Path, wrong: dict[str, str], why: str
) -> None:
    """The program before stays in use."""
    good = {"path": str(target), **archive(tmp_path / "release.tar.gz", "one")}
    run_module("buildkit_client_program", good)
    newer = {"path": str(target), **archive(tmp_path / "newer.tar.gz", "two")}
    before = snapshot(tmp_path)
    assert why in run_module("buildkit_client_program", {**newer, **wrong}).message
    assert snapshot(tmp_path) == before


def test_what_is_no_archive_is_refused(tmp_path: Path, target: Path) -> None:
    """With its name, though its checksum is the pinned one."""
    (tmp_path / "page.html").write_text("<html>not found</html>")
    refused = run_module(
        "buildkit_client_program", {"path": str(target), **source(tmp_path / "page.html", "bin/buildctl")}
    )
    assert "page.html cannot be read" in refused.message
    assert not target.exists()


def test_a_strict_umask_locks_nobody_out(tmp_path: Path, target: Path) -> None:
    """Everybody can run what root installed, through directories that were made on the way."""
    wish = {"path": str(target), **archive(tmp_path / "release.tar.gz", "one")}
    before = os.umask(0o077)
    try:
        run_module("buildkit_client_program", wish)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(place.stat().st_mode) for place in (target, target.parent, target.parent.parent)} == {0o755}


def test_a_relative_path_is_refused(tmp_path: Path) -> None:
    """It would be another place on each run."""
    refused = run_module("buildkit_client_program", {"path": "bin/buildctl", "sha256": "0" * 64})
    assert "bin/buildctl is no absolute path" in refused.message
