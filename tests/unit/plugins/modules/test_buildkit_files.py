# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkit_files, run as Ansible runs it, and how it exchanges a file."""

from __future__ import annotations

import os
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import (
    finish,
    module_process,
    run_module,
    snapshot,
)


def wish(tmp_path: Path, content: str = "text") -> dict[str, t.Any]:
    """A directory with one file."""
    return {
        "directories": {f"{tmp_path}/etc": "0750"},
        "files": {f"{tmp_path}/etc/a.toml": {"content": content, "mode": "0640"}},
    }


def test_write_predict_and_again(tmp_path: Path) -> None:
    """Predicted without a trace, written with its mode, and not again."""
    expected = [f"{tmp_path}/etc", f"{tmp_path}/etc/a.toml"]
    assert run_module("buildkit_files", wish(tmp_path), check=True).result["written"] == expected
    assert snapshot(tmp_path) == {}
    assert run_module("buildkit_files", wish(tmp_path)).result["written"] == expected
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in expected] == [0o750, 0o640]
    assert (tmp_path / "etc" / "a.toml").read_text() == "text"
    for check in (True, False):
        assert run_module("buildkit_files", wish(tmp_path), check=check).result["changed"] is False


def test_a_secret_stays_one(tmp_path: Path) -> None:
    """It is written for its owner alone, whatever the mask, and neither diff nor result tells of it."""
    path, wish_it = f"{tmp_path}/proxy.env", {"secrets": {f"{tmp_path}/proxy.env": "PROXY=http://user:s3cret@p\n"}}
    for before in (None, "PROXY=http://user:0ther@p\n"):
        if before:
            (tmp_path / "proxy.env").write_text(before)
        for check in (True, False):
            outcome = run_module("buildkit_files", wish_it, check=check, diff=True)
            assert (outcome.result["written"], outcome.result["sha256"]) == ([path], {})
            assert outcome.result["diff"][0]["before"] != outcome.result["diff"][0]["after"]
            assert "s3cret" not in outcome.output
            assert "0ther" not in outcome.output
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert (tmp_path / "proxy.env").read_text() == "PROXY=http://user:s3cret@p\n"
    assert run_module("buildkit_files", wish_it).result["changed"] is False


def test_removal(tmp_path: Path) -> None:
    """Files, trees, and a directory that is empty then; one that holds more stays."""
    for path in ("etc/tls/key.pem", "run/ours", "run/other"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    gone = {
        "absent": [f"{tmp_path}/{path}" for path in ("etc/tls", "run/ours", "none")],
        "empty_directories": [f"{tmp_path}/etc", f"{tmp_path}/run"],
    }
    before = snapshot(tmp_path)
    predicted = run_module("buildkit_files", gone, check=True)
    assert snapshot(tmp_path) == before
    removed = run_module("buildkit_files", gone)
    for outcome in (predicted, removed):
        assert outcome.result["removed"] == [f"{tmp_path}/{path}" for path in ("etc/tls", "run/ours", "etc")]
    assert sorted(snapshot(tmp_path)) == ["run", "run/other"]
    assert run_module("buildkit_files", gone).result["changed"] is False


def test_what_killed_runs_left_beside_a_file_goes_with_it(tmp_path: Path) -> None:
    """By the names that the collection gives what it is writing, and no others."""
    theirs = {"ours.tmp", ".other.0123.tmp", "ours.new.d"}
    for name in {"ours", ".ours.0123456789abcdef.tmp", ".ours.tmp", "ours.4711.new"} | theirs:
        (tmp_path / name).touch()
    gone = {"absent": [f"{tmp_path}/ours"]}
    for check in (True, False):
        assert len(run_module("buildkit_files", gone, check=check).result["removed"]) == 4
    assert set(snapshot(tmp_path)) == theirs


@pytest.mark.parametrize(
    ("path", "mode", "why"),
    [
        ("relative", "0644", "relative is not an absolute path"),
        ("/none/x", "0644", "there is no directory /none"),
        ("/etc", "0644", "/etc is a directory"),
        ("/etc/x", "4755", "the mode 4755 of /etc/x is not one such as 0644"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path, path: str, mode: str, why: str) -> None:
    """Also what was named before it is not written."""
    wanted = wish(tmp_path)
    wanted["files"][path] = {"content": "x", "mode": mode}
    assert why in run_module("buildkit_files", wanted).message
    assert snapshot(tmp_path) == {}


def test_runs_at_once_do_not_collide(tmp_path: Path) -> None:
    """All succeed, one counts, and nothing else is left."""
    texts = [str(number) * 100_000 for number in range(6)]
    outcomes = [finish(run) for run in [module_process("buildkit_files", wish(tmp_path, text)) for text in texts]]
    assert [outcome.output for outcome in outcomes if outcome.failed] == []
    assert os.listdir(tmp_path / "etc") == ["a.toml"]
    assert (tmp_path / "etc" / "a.toml").read_text() in texts


def test_another_writer_in_between_disturbs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both write beside the file before either is renamed: the last rename counts."""
    path, rename = str(tmp_path / "a"), os.rename

    def slow(source: str, target: str) -> None:
        monkeypatch.setattr(os, "rename", rename)
        _files.write_atomically(path, b"other")
        rename(source, target)

    monkeypatch.setattr(os, "rename", slow)
    _files.write_atomically(path, b"first")
    assert {name: content for name, (_mode, content) in snapshot(tmp_path).items()} == {"a": b"first"}


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the temporary file nor a changed one."""
    (tmp_path / "a").write_text("before")
    before = snapshot(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        _files.write_atomically(str(tmp_path / "a"), b"after")
    assert snapshot(tmp_path) == before


def test_whoever_holds_a_lock_removes_what_killed_runs_left(tmp_path: Path) -> None:
    """Of that file, and of no other."""
    for name in (".a.0f.tmp", ".ab.0f.tmp", ".a.new"):
        (tmp_path / name).write_text("half")
    _files.write_atomically(str(tmp_path / "a"), b"x", alone=True)
    assert sorted(os.listdir(tmp_path)) == [".a.new", ".ab.0f.tmp", "a"]
