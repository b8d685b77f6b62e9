# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a run that exchanges containers may have been killed, and what is made of it; real engines are in molecule."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import container
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module

OURS = {container.LABEL: "buildkitd", container.RESTART_LABEL: "unless-stopped"}
# What `docker container inspect` says is in a file; what else it is asked is noted.
DOCKER = """#!/bin/sh
here=$(dirname "$0")
if [ "$2" = inspect ]; then
    cat "$here/$3.json" 2>/dev/null || { echo "Error: No such $1: $3" >&2; exit 1; }
else
    echo "$*" >>"$here/asked"
fi
"""


@pytest.fixture(name="bin_dir")
def fixture_bin_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory with a stand-in for docker, which modules find first."""
    program = tmp_path / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def _there(bin_dir: Path, name: str, *, restart: str = "unless-stopped", running: bool = True) -> None:
    found: dict[str, t.Any] = {"Id": name, "Image": "sha256:1", "Config": {"Labels": OURS}}
    found["State"] = {"Running": running, "Pid": 1 if running else 0}
    found["HostConfig"] = {"RestartPolicy": {"Name": restart}}
    (bin_dir / f"{name}.json").write_text(json.dumps([found]))


def _asked(bin_dir: Path, state: str) -> list[str]:
    outcome = run_module("buildkitd_container_swap", {"engine": "docker", "name": "b", "state": state})
    assert not outcome.failed, outcome.output
    asked = bin_dir / "asked"
    return asked.read_text().splitlines() if asked.exists() else []


def test_back_lets_go_of_one_that_was_only_held(bin_dir: Path) -> None:
    """A run that failed before anything was exchanged must not leave a builder that the next boot does not start."""
    _there(bin_dir, "b", restart="no")
    _there(bin_dir, "b-next", running=False)
    assert _asked(bin_dir, "back") == ["update --restart unless-stopped b", "rm --force --volumes b-next"]


def test_back_leaves_one_that_runs_as_it_shall(bin_dir: Path) -> None:
    """Nothing was exchanged and nothing held."""
    _there(bin_dir, "b")
    assert not _asked(bin_dir, "back")


def test_back_exchanges_what_was_set_aside(bin_dir: Path) -> None:
    """The new one goes; the old one gets its name, and is started again by the engine from then on."""
    _there(bin_dir, "b")
    _there(bin_dir, "b-previous", restart="no", running=False)
    asked = _asked(bin_dir, "back")
    assert asked[:3] == ["stop --time 600 b", "rm --force --volumes b", "rename b-previous b"]
    assert asked[3] == "update --restart unless-stopped b"


@pytest.mark.parametrize(
    ("left", "unfinished"),
    [
        ({"b": {}}, False),
        ({"b": {"restart": "no"}}, True),
        ({"b": {}, "b-next": {"running": False}}, True),
        ({"b": {}, "b-previous": {"running": False}}, True),
        ({}, False),
    ],
)
def test_what_a_killed_run_left_is_seen(bin_dir: Path, left: dict[str, dict[str, t.Any]], unfinished: bool) -> None:
    """So that the next one makes an end of it, also where nothing else is to be done."""
    (bin_dir / "docker").write_text(DOCKER.replace("else\n", 'elif [ "$1" = version ]; then echo 26.1.5\nelse\n'))
    for name, settings in left.items():
        _there(bin_dir, name, **settings)
    wish = {"engine": "docker", "name": "b", "image": "b:1", "volume": "/srv", "config_dir": str(bin_dir)}
    outcome = run_module("buildkitd_container_info", wish)
    assert not outcome.failed, outcome.output
    assert outcome.result["unfinished"] is unfinished
