# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkit_client_info, run as Ansible runs it, on notes as the role writes them."""

from __future__ import annotations

import json
import os
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


def test_what_other_pools_have(tmp_path: Path) -> None:
    """Their directories, profiles and programs are theirs, and a builder of one user has one pool."""
    place, profile, program = (str(tmp_path / name) for name in ("certificate", "profile.sh", "buildctl"))
    theirs = {"dir": place, "profile": profile, "programs": [program], "builders": ["x-a"], "users": ["alice", "bob"]}
    note(tmp_path, "x", **theirs)
    note(tmp_path, "x-a", dir="/elsewhere", profile="", users=["alice"])
    wishes = {"pool": "x-a", "dir": f"{place}/", "profile": profile, "users": ["bob"], "builders": ["x-a"]}
    found = run_module("buildkit_client_info", {"path": str(tmp_path), **wishes}).result
    assert found["problems"] == [
        f"the pool x has its certificate in {place}/ already: choose another place",
        f"the pool x has its profile in {profile} already: choose another place",
        "the pool x has a builder x-a for bob already: choose another name for one of them",
    ]
    assert found["theirs"] == sorted([place, profile, program])
    for other in ({"users": ["zoe"]}, {"builders": ["y"]}):
        free = {**wishes, "dir": "", "profile": "", **other}
        assert run_module("buildkit_client_info", {"path": str(tmp_path), **free}).result["problems"] == []
    own = run_module("buildkit_client_info", {"path": str(tmp_path), **wishes, "pool": "x"}).result
    assert (own["problems"], own["theirs"]) == ([], ["/elsewhere"])


def test_what_others_put_there(tmp_path: Path) -> None:
    """A profile and a link of other means are in the way; those of the role are its own, noted or not."""
    profile, link = tmp_path / "profile.sh", tmp_path / "docker-buildx"
    wishes = {"path": str(tmp_path / "notes"), "profile": str(profile), "link": str(link), "link_target": "/plugin"}
    (tmp_path / "notes").mkdir()
    assert run_module("buildkit_client_info", wishes).result["ours"] == []
    profile.write_text("# mine\n")
    link.symlink_to("/mine")
    found = run_module("buildkit_client_info", wishes).result
    assert found["ours"] == []
    assert found["problems"] == [
        f"{path} was put there by other means: remove it, or choose another place" for path in (profile, link)
    ]
    profile.write_text("# managed\n# The remote BuildKit builders of the pool x, for whom\n")
    link.unlink()
    link.symlink_to("/plugin")
    note(tmp_path / "notes", "buildkit", programs=[str(link)], profile=str(profile))
    for wish in (wishes, {**wishes, "pool": "y"}, {**wishes, "link_target": "/other"}):
        found = run_module("buildkit_client_info", wish).result
        assert (found["ours"], [text for text in found["problems"] if "other means" in text]) == (
            [str(profile), str(link)],
            [],
        )
    profile.unlink()
    profile.symlink_to("/etc/passwd")
    assert run_module("buildkit_client_info", wishes).result["ours"] == [str(link)]


def test_who_and_what_cannot_be(tmp_path: Path) -> None:
    """A user of a forward who is not there, and a file in a directory in which others could lead root elsewhere."""
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    forwards = [{**PROXY, "user": "buildfarm-nobody"}, {"name": "root"}]
    wishes = {"path": str(tmp_path / "none"), "profile": f"{place}/x.sh", "forwards": forwards}
    found = run_module("buildkit_client_info", wishes).result
    assert found["unknown"] == ["buildfarm-nobody"]
    exposed = [] if os.geteuid() else [f"{place}/x.sh cannot be written by root: {place} belongs to root"]
    assert [text.partition(",")[0] for text in found["problems"]] == exposed


def test_a_note_that_cannot_be_read(tmp_path: Path) -> None:
    """It is said where it is, and what to do."""
    (tmp_path / "buildkit").mkdir()
    (tmp_path / "buildkit" / "bundle.json").write_text("{")
    outcome = run_module("buildkit_client_info", {"path": str(tmp_path)})
    assert outcome.failed
    assert f"Put the file below {tmp_path} right, or remove it" in outcome.message
