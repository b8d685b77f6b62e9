# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkit_client_info, run as Ansible runs it, on notes as the role writes them."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module

PROXY = {"name": "by-tls", "via": "tls", "user": "alice", "endpoint": "tcp://b:1234", "server_name": "b"}
NOTED = {"name": "by-tls", "via": "tls", "user": "alice", "builder": "", "login": "root"}


def note(path: Path, pool: str, **what: object) -> None:
    """Notes something of a pool."""
    (path / pool).mkdir()
    (path / pool / "bundle.json").write_text(json.dumps({"pool": pool, **what}))


def test_a_host_without_notes(tmp_path: Path) -> None:
    """Nothing was set up, so nothing has to go; what is wished for is to be noted."""
    found = run_module("buildkit_client_info", {"path": f"{tmp_path}/none", "forwards": [PROXY]}).result
    assert (found["note"], found["gone_users"], found["gone_forwards"]) == ({}, [], [])
    assert found["forwards"] == [NOTED]


def test_what_the_wishes_name_no_more(tmp_path: Path) -> None:
    """Users who left, and a forward of another user; a pool beside it keeps its members and its names."""
    note(tmp_path, "buildkit", users=["alice", "bob"], group="buildkit-client", forwards=[NOTED])
    note(tmp_path, "other", users=["carol"], group="buildkit-client", forwards=[{**NOTED, "name": "mine"}])
    wishes = {"users": ["alice"], "forwards": [{**PROXY, "user": "bob"}, {**PROXY, "name": "mine"}]}
    found = run_module("buildkit_client_info", {"path": str(tmp_path), **wishes}, check=True).result
    assert found["gone_users"] == ["bob"]
    assert found["gone_forwards"] == [NOTED]
    assert found["taken"] == ["mine"]
    assert found["others"] == ["carol"]


def test_a_note_that_cannot_be_read(tmp_path: Path) -> None:
    """It is said where it is, and what to do."""
    (tmp_path / "buildkit").mkdir()
    (tmp_path / "buildkit" / "bundle.json").write_text("{")
    outcome = run_module("buildkit_client_info", {"path": str(tmp_path)})
    assert outcome.failed
    assert f"Put the file below {tmp_path} right, or remove it" in outcome.message
