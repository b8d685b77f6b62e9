# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module earthly_config, run as Ansible runs it. The home is that of a user in a directory of the test."""

from __future__ import annotations

import os
import stat
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module, snapshot

WISH = {
    "host": "tcp://builder.example.com:8372",
    "ca": "/c/ca.pem",
    "certificate": "/c/cert.pem",
    "key": "/c/key.pem",
}
OURS = {
    "buildkit_host": "tcp://builder.example.com:8372",
    "tlsca": "/c/ca.pem",
    "tlscert": "/c/cert.pem",
    "tlskey": "/c/key.pem",
    "tls_enabled": True,
}


@pytest.fixture
def options(tmp_path: Path) -> dict[str, t.Any]:
    """Both directories, by absolute paths, which stand for those of a home."""
    return {**WISH, "directories": [f"{tmp_path}/.earthly", f"{tmp_path}/.earth"]}


def test_both_names_in_both_homes(options: dict[str, t.Any], tmp_path: Path) -> None:
    """Predicted without a trace, written for its user alone, not again, and taken away."""
    expected = [f"{tmp_path}/.earthly/config.yml", f"{tmp_path}/.earth/config.yml"]
    assert run_module("earthly_config", options, check=True).result["files"] == expected
    assert snapshot(tmp_path) == {}
    assert run_module("earthly_config", options).result["files"] == expected
    for path in expected:
        assert yaml.safe_load(Path(path).read_text()) == {"global": OURS}
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert run_module("earthly_config", options).result["changed"] is False
    gone = {**options, "state": "absent"}
    assert run_module("earthly_config", gone).result["files"] == expected
    assert snapshot(tmp_path) == {}
    assert run_module("earthly_config", gone).result["changed"] is False


def test_a_file_of_the_user_is_kept(options: dict[str, t.Any], tmp_path: Path) -> None:
    """Its other keys, its comments, its mode, its link; config.yaml where it is alone."""
    (tmp_path / "dotfiles").mkdir()
    mine = "# mine\ngit: {example.com: {user: me, password: hush}}\n"
    (tmp_path / "dotfiles" / "earthly.yml").write_text(mine)
    (tmp_path / "dotfiles" / "earthly.yml").chmod(0o640)
    (tmp_path / ".earthly").mkdir()
    (tmp_path / ".earthly" / "config.yml").symlink_to("../dotfiles/earthly.yml")
    (tmp_path / ".earth").mkdir()
    (tmp_path / ".earth" / "config.yaml").write_text("global:\n  cache_size_mb: 1\n")
    before = snapshot(tmp_path)
    done = run_module("earthly_config", options, diff=True)
    assert done.result["files"] == [f"{tmp_path}/.earthly/config.yml", f"{tmp_path}/.earth/config.yaml"]
    # What else is in there is nobody's business, passwords for git included.
    shown = done.result["diff"][0]
    assert (shown["before"], shown["after"]) == ("", (tmp_path / "dotfiles" / "earthly.yml").read_text()[len(mine) :])
    assert "hush" not in done.output
    assert (tmp_path / ".earthly" / "config.yml").is_symlink()
    found = (tmp_path / "dotfiles" / "earthly.yml").read_text()
    assert found.startswith("# mine\n")
    assert yaml.safe_load(found) == {**yaml.safe_load(mine), "global": OURS}
    assert stat.S_IMODE((tmp_path / "dotfiles" / "earthly.yml").stat().st_mode) == 0o640
    assert yaml.safe_load((tmp_path / ".earth" / "config.yaml").read_text()) == {"global": {"cache_size_mb": 1, **OURS}}
    run_module("earthly_config", {**options, "state": "absent"})
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"global: {a: b}\n", ".earth/config.yml cannot be edited"),
        (b"\xff\xfe", ".earth/config.yml is no text"),
        ("\ufeffglobal:\n  tlsca: /x\n".encode(), "It begins with a byte order mark"),
    ],
)
def test_one_that_cannot_be_edited_keeps_all_as_they_are(
    options: dict[str, t.Any], tmp_path: Path, text: bytes, why: str
) -> None:
    """The first file is not written when the second is refused."""
    (tmp_path / ".earth").mkdir()
    (tmp_path / ".earth" / "config.yml").write_bytes(text)
    before = snapshot(tmp_path)
    assert why in run_module("earthly_config", options).message
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"host": "tcp://127.0.0.1:8372"}, "its own container on this machine"),
        ({"ca": "ca.pem"}, "no absolute path"),
        ({"user": "nobody-of-that-name"}, "There is no user nobody-of-that-name"),
    ],
)
def test_bad_input_is_refused(options: dict[str, t.Any], tmp_path: Path, wrong: dict[str, str], why: str) -> None:
    """Before anything is written."""
    assert why in run_module("earthly_config", {**options, **wrong}).message
    assert snapshot(tmp_path) == {}


def test_a_link_to_a_file_of_ours_alone_is_emptied_and_not_cut(options: dict[str, t.Any], tmp_path: Path) -> None:
    """What it leads to would keep the paths otherwise."""
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "dotfiles" / "earthly.yml").touch()
    (tmp_path / ".earthly").mkdir()
    (tmp_path / ".earthly" / "config.yml").symlink_to("../dotfiles/earthly.yml")
    before = snapshot(tmp_path)
    run_module("earthly_config", options)
    run_module("earthly_config", {**options, "state": "absent"})
    assert {path: what for path, what in snapshot(tmp_path).items() if "earthly" in path} == {
        path: what for path, what in before.items() if "earthly" in path
    }


def test_there_is_nothing_of_a_user_who_is_no_more(options: dict[str, t.Any]) -> None:
    """So that a machine can be cleaned whose users have gone."""
    gone = run_module("earthly_config", {**options, "state": "absent", "user": "nobody-of-that-name"})
    assert gone.result["changed"] is False


@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_what_is_no_file_is_neither_waited_for_nor_read_without_end(
    options: dict[str, t.Any], tmp_path: Path, target: str
) -> None:
    """A user could hold the run up with it."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".earth").mkdir()
    (tmp_path / ".earth" / "config.yml").symlink_to(tmp_path / target)
    assert "This is no file" in run_module("earthly_config", options).message
