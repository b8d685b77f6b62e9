# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a host is refused, and what labels tell of proxies, with stand-ins for engines; real ones are in molecule."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import container, fingerprint
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module

# It knows what is in files beside it, tells the version in one, and runs containers as another one says.
ENGINE = """#!/bin/sh
here=$(dirname "$0")
case "$1 $2" in
    "container inspect" | "image inspect" | "volume inspect")
        cat "$here/$1-$3.json" 2>/dev/null || { echo "Error: No such $1: $3" >&2; exit 1; } ;;
    "version "*) cat "$here/version" ;;
    "run "*) . "$here/run" ;;
esac
"""


@pytest.fixture(name="host")
def fixture_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory with both engines, which modules find first, and an image in them."""
    for name in ("docker", "podman"):
        (tmp_path / name).write_text(ENGINE)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "version").write_text("26.1.5\n")
    (tmp_path / "run").write_text("exit 0\n")
    (tmp_path / "image-b:1.json").write_text(json.dumps([{"Id": "sha256:1"}]))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def _found(host: Path, engine: str = "docker", **options: t.Any) -> dict[str, t.Any]:
    wish = {"engine": engine, "name": "b", "image": "b:1", "volume": "/srv", "config_dir": str(host), **options}
    outcome = run_module("buildkitd_container_info", wish)
    assert not outcome.failed, outcome.output
    return outcome.result


def _there(host: Path, name: str, labels: dict[str, str]) -> None:
    found = {"Id": name, "Image": "sha256:1", "Config": {"Labels": labels}, "State": {"Running": True, "Pid": 1}}
    (host / f"container-{name}.json").write_text(json.dumps([found]))


def _problem(found: dict[str, t.Any]) -> str:
    # Where the tests run inside a container, /srv may lie on its overlay.
    (problem,) = (one for one in found["problems"] if "overlay" not in one)
    return str(problem)


@pytest.mark.parametrize(("engine", "version", "oldest"), [("docker", "19.03.15", "20.10"), ("podman", "4.3.1", "4.4")])
def test_an_engine_that_is_too_old_is_refused(host: Path, engine: str, version: str, oldest: str) -> None:
    """With the oldest that will do."""
    (host / "version").write_text(f"{version}\n")
    assert f"is {version}, and {oldest} or newer is needed" in _problem(_found(host, engine))


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_an_engine_that_cannot_give_what_is_needed_is_refused(host: Path, engine: str) -> None:
    """Found out by starting a container."""
    (host / "run").write_text('echo "unable to apply caps: operation not permitted" >&2; exit 126\n')
    problem = _problem(_found(host, engine))
    assert "cannot start a container with what buildkitd needs (unable to apply caps" in problem


def test_limits_that_an_engine_refuses_are_not_taken_for_missing_rights(host: Path) -> None:
    """It is asked once more without them."""
    (host / "run").write_text('case "$*" in *--log-driver=x*) echo "no log driver x" >&2; exit 125;; esac\n')
    problem = _problem(_found(host, wish_options=["--memory=1g", "--log-driver=x"]))
    assert "Docker runs no container with these limits or this log (no log driver x)" in problem
    assert "buildkitd_container_log_driver" in problem


def test_a_limit_that_the_engine_drops_is_no_limit(host: Path) -> None:
    """Docker runs the container without it where the kernel has no such limit, and only warns."""
    dropped = "WARNING: Your kernel does not support PIDs limit capabilities. PIDs limit discarded."
    (host / "run").write_text(f'case "$*" in *--pids*) echo "{dropped}" >&2;; *) echo "WARNING: other" >&2;; esac\n')
    assert "PIDs limit discarded." in _problem(_found(host, wish_options=["--pids-limit=9"]))
    assert [one for one in _found(host)["problems"] if "overlay" not in one] == []


def test_new_limits_are_tried_beside_the_container_that_runs(host: Path) -> None:
    """The engine would refuse them when it has ended."""
    (host / "run").write_text("echo refused >&2; exit 125\n")
    settings = {container.LABEL: "buildkitd", fingerprint.variable("settings"): "old"}
    _there(host, "b", settings)
    options = {"parts": {"settings": "settings"}, "probe_options": []}
    assert [one for one in _found(host, digests={"settings": "old"}, **options)["problems"] if "refused" in one] == []
    assert "refused" in _problem(_found(host, digests={"settings": "new"}, **options))


@pytest.mark.parametrize("name", ["b", "b-next", "b-previous"])
def test_containers_of_others_are_refused(host: Path, name: str) -> None:
    """Under each name that is in use while one is replaced."""
    _there(host, name, {})
    assert f"a container named {name} is here already" in _problem(_found(host))


def test_an_address_of_another_host_is_refused(host: Path) -> None:
    """The engine would find out when the old container has ended."""
    assert "does not have the listen address 192.0.2.77" in _problem(_found(host, listen_address="192.0.2.77"))


def test_labels_say_nothing_of_proxies(host: Path) -> None:
    """Everyone may read them. The same content keeps its name, another one gets another."""
    part = {"parts": {"proxy": "proxy"}}
    variable = fingerprint.variable("proxy")
    assert _found(host, **part)["labels"] == {variable: "none"}
    one, other = (_found(host, proxy="HTTP_PROXY=http://u:p@proxy\n", **part) for _time in range(2))
    assert one["proxy_file"] != other["proxy_file"]
    (host / "container-proxy").mkdir()
    Path(one["proxy_file"]).write_text("HTTP_PROXY=http://u:p@proxy\n")
    again = _found(host, proxy="HTTP_PROXY=http://u:p@proxy\n", **part)
    assert again["proxy_file"] == one["proxy_file"]
    assert again["labels"] == one["labels"] == {variable: Path(one["proxy_file"]).name}
    assert _found(host, proxy="HTTP_PROXY=http://u:q@proxy\n", **part)["labels"] != again["labels"]
