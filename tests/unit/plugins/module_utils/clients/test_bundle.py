# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written into a bundle for several pools: sound shell scripts, and snippets that are what they claim."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import typing as t
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import bundle, scripts

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=timezone.utc)
IDENTITY = bundle.Identity(
    name="alice",
    ca=b"CA\n",
    certificate=b"CERTIFICATE\n",
    key=b"KEY\n",
    serial="0a",
    fingerprint="00",
    not_before=NOW,
    not_after=NOW + timedelta(days=90),
)
# Top-level keys of GitLab that no job may have as its name (GitLab docs, "CI/CD jobs", "Job names").
GITLAB_KEYWORDS = ("image", "services", "stages", "before_script", "after_script", "variables", "cache", "include")
NAMED = {"name": "build-1", "address": "tcp://build-1.example.com:1234"}
POOLS: dict[str, list[dict[str, t.Any]]] = {
    "one": [NAMED],
    "equal": [NAMED, {"name": "build-2", "address": "tcp://192.0.2.12:1234", "version": "0.13.2"}],
    "platforms": [
        {**NAMED, "platforms": ["linux/amd64", "linux/386"]},
        {
            "name": "192.0.2.12",
            "address": "tcp://[2001:db8::12]:1234",
            "platforms": ["linux/aarch64"],
            "server_name": "build-2.example.com",
            "version": "0.16.0",
        },
    ],
}


def _members(pool: str) -> dict[str, str]:
    daemons = [bundle.daemon_of(item) for item in POOLS[pool]]
    return {path: one.data.decode() for path, one in bundle.members_of("pool", IDENTITY, daemons).items()}


@pytest.mark.parametrize("pool", POOLS)
def test_scripts_are_sound(pool: str, tmp_path: Path) -> None:
    """shellcheck finds nothing in any script, and no place for a value is left."""
    paths = []
    for name, text in _members(pool).items():
        assert re.findall(r"@[A-Z_]+@", text) == []
        if text.startswith("#!/bin/sh") or name == "env.sh":
            paths.append(tmp_path / name.replace("/", "-"))
            paths[-1].write_text(text)
    assert len(paths) == 7
    checked = subprocess.run(["shellcheck", *paths], capture_output=True, text=True, check=False)
    assert checked.stdout == ""
    assert checked.returncode == 0


@pytest.mark.parametrize(
    ("pool", "builders"),
    [
        ("one", {"pool": ["build-1"]}),
        ("equal", {"pool": ["build-1"], "pool-build-1": ["build-1"], "pool-build-2": ["build-2"]}),
        ("platforms", {"pool": ["build-1", "n-192.0.2.12"]}),
    ],
)
def test_equal_platforms_make_builders_of_their_own(pool: str, builders: dict[str, list[str]]) -> None:
    """A builder has one node for each platform; where that leaves one out, each is a builder too."""
    members = _members(pool)
    made = json.loads(members["bundle.json"])["builders"]
    assert {name: [node["node"] for node in nodes] for name, nodes in made.items()} == builders
    for name, nodes in builders.items():
        (line,) = re.findall(rf"^builder {name} (.*)$", members["setup-buildx.sh"], re.MULTILINE)
        assert [text.split()[0] for text in shlex.split(line)] == nodes


def test_old_builders_are_dialled_without_alpn() -> None:
    """A release before 0.17 is marked in the wrapper; one that is new or not known is not."""
    cases = [line.strip() for line in _members("equal")["bin/buildctl"].splitlines() if "tcp://" in line]
    assert cases == [
        "tcp://build-1.example.com:1234) : ;;",
        "tcp://192.0.2.12:1234) export GRPC_ENFORCE_ALPN_ENABLED=false ;;",
    ]


def test_another_name_in_the_certificate_is_asked_for() -> None:
    """server_name reaches buildctl, docker buildx, GitHub Actions and the check with openssl."""
    members = _members("platforms")
    assert "server_name=build-2.example.com" in members["bin/buildctl"]
    wanted = "node pool n-192.0.2.12 linux/arm64 'tcp://[2001:db8::12]:1234' build-2.example.com"
    assert wanted in members["setup-buildx.sh"]
    assert "check 'tcp://[2001:db8::12]:1234' '[2001:db8::12]:1234' dns build-2.example.com" in members["verify.sh"]
    (job,) = yaml.safe_load(members["snippets/github-actions.yml"])["jobs"].values()
    (appended,) = yaml.safe_load(job["steps"][1]["with"]["append"])
    assert appended == {
        "name": "n-192.0.2.12",
        "endpoint": "tcp://[2001:db8::12]:1234",
        "platforms": "linux/arm64",
        "driver-opts": ["servername=build-2.example.com"],
    }


@pytest.mark.parametrize("pool", POOLS)
def test_snippets_are_yaml_with_the_builder_in_it(pool: str) -> None:
    """GitHub's and GitLab's files parse, and name the first builder."""
    members = _members(pool)
    (job,) = yaml.safe_load(members["snippets/github-actions.yml"])["jobs"].values()
    setup = job["steps"][1]["with"]
    assert (setup["driver"], setup["endpoint"], setup["name"]) == ("remote", NAMED["address"], "pool")
    ((name, gitlab),) = yaml.safe_load(members["snippets/gitlab-ci.yml"]).items()
    assert name not in GITLAB_KEYWORDS
    assert gitlab["variables"] == {"BUILDKIT_HOST": NAMED["address"]}


def test_a_place_without_a_value_is_an_error() -> None:
    """A template cannot ask for what nobody gives."""
    with pytest.raises(KeyError):
        scripts.render("@NOBODY@", {})


def test_a_damaged_archive_states_nothing() -> None:
    """Facts are read from whole archives alone."""
    daemons = [bundle.daemon_of(NAMED)]
    archive = bundle.pack(bundle.members_of("pool", IDENTITY, daemons), root="pool-alice", moment=NOW)
    packed = bundle.compress(archive)
    assert bundle.facts_in(bundle.decompress(packed))["client"] == "alice"
    assert bundle.decompress(packed[:-9]) is None
    assert bundle.facts_in(archive[:700]) == bundle.facts_in(None) == {}
