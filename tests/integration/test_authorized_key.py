# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkit_authorized_key on the file of a real user."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import (
    finish,
    module_process,
    run_module,
)

NAME = f"buildfarm-{secrets.token_hex(4)}"  # of this run alone: another one may go on beside it
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice@ws-1"
WISH = {"user": NAME, "key": KEY}


@pytest.fixture
def home() -> Iterator[Path]:
    """The home of a user who is there for the test alone."""
    subprocess.run(["useradd", "--create-home", NAME], check=True)
    try:
        yield Path(f"~{NAME}").expanduser()
    finally:
        subprocess.run(["userdel", "--remove", NAME], check=True, stderr=subprocess.DEVNULL)


def test_let_in_and_taken_away(home: Path) -> None:
    """Predicted without a trace, one private line that allows one command, not again, and away."""
    file = home / ".ssh" / "authorized_keys"
    assert run_module("buildkit_authorized_key", WISH, check=True).result["changed"] is True
    assert not file.parent.exists()
    assert run_module("buildkit_authorized_key", WISH).result["changed"] is True
    assert file.read_text() == f'restrict,command="/usr/local/bin/buildctl dial-stdio" {KEY}\n'
    assert (file.owner(), file.stat().st_mode & 0o777) == (NAME, 0o600)
    assert (file.parent.owner(), file.parent.stat().st_mode & 0o777) == (NAME, 0o700)
    assert run_module("buildkit_authorized_key", WISH).result["changed"] is False
    assert run_module("buildkit_authorized_key", {**WISH, "state": "absent"}).result["changed"] is True
    assert file.read_text() == ""


def test_several_machines_at_once(home: Path) -> None:
    """Of workstations that are set up in one run, each has its line in the end."""
    keys = [KEY.replace("AAAAIHsK", f"AAAAIHs{letter}") for letter in "ABCDEFGH"]
    running = [module_process("buildkit_authorized_key", {**WISH, "key": key}) for key in keys]
    assert [finish(process).result.get("changed") for process in running] == [True] * len(keys)
    lines = (home / ".ssh" / "authorized_keys").read_text().splitlines()
    assert sorted(line.partition(" ")[2].partition(" ")[2] for line in lines) == sorted(keys)


def test_refused(home: Path) -> None:
    """A directory of somebody else's, what is no key, and a user who is not there: said, and nothing changed."""
    (home / ".ssh").mkdir()
    assert "Give it back to its user" in run_module("buildkit_authorized_key", WISH).message
    assert run_module("buildkit_authorized_key", {**WISH, "key": "ssh-ed25519"}).failed
    assert run_module("buildkit_authorized_key", {**WISH, "user": f"{NAME}-not"}).failed
    assert list((home / ".ssh").iterdir()) == []
