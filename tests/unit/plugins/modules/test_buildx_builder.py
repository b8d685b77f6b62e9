# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildx_builder, run as Ansible runs it, on files as buildx leaves them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import stat
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import buildx, buildx_store
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import (
    finish,
    module_process,
    run_module,
    snapshot,
)

_NO_TLS = dict.fromkeys(("cacert", "cert", "key"))
ONE = "tcp://b1.example.com:1234"


@pytest.fixture
def options(tmp_path: Path) -> dict[str, t.Any]:
    """One node with certificates, in a directory of buildx that is not there yet."""
    for name in ("ca", "cert", "key"):
        (tmp_path / f"{name}.pem").write_text("x")
    return {
        "name": "Pool",
        "nodes": [{"endpoint": ONE, "platforms": ["linux/amd64"]}],
        "config_dir": str(tmp_path / "docker" / "buildx"),
        **{key: f"{tmp_path}/{name}.pem" for key, name in (("cacert", "ca"), ("cert", "cert"), ("key", "key"))},
    }


def files(options: t.Mapping[str, t.Any]) -> Path:
    """The directory of buildx."""
    return Path(options["config_dir"])


def test_make_predict_and_again(options: dict[str, t.Any], tmp_path: Path) -> None:
    """Predicted without a trace, made with buildx's modes, and not again."""
    before = snapshot(tmp_path)
    predicted = run_module("buildx_builder", options, check=True, diff=True)
    assert snapshot(tmp_path) == before
    made = run_module("buildx_builder", options, diff=True)
    assert predicted.result == made.result
    assert made.result["reasons"] == ["there is no such builder yet"]
    assert made.result["diff"]["before"] == {"default": False}
    assert made.result["diff"]["after"] == {**made.result["builder"], "default": False}
    modes = {path: stat.S_IMODE(mode) for path, (mode, _content) in snapshot(files(options)).items()}
    assert modes == {".lock": 0o600, "activity": 0o700, "defaults": 0o700, "instances": 0o700, "instances/pool": 0o600}
    assert stat.S_IMODE(files(options).stat().st_mode) == 0o700
    for check in (True, False):
        assert run_module("buildx_builder", options, check=check).result["changed"] is False


def test_default_and_removal(options: dict[str, t.Any], tmp_path: Path) -> None:
    """All that is there of the builder goes with it, and nothing of others."""
    run_module("buildx_builder", {**options, "name": "other", "default": True})
    others = snapshot(files(options))
    chosen = run_module("buildx_builder", {**options, "default": True})
    assert chosen.result["reasons"] == ["there is no such builder yet", "it becomes the default"]
    assert json.loads((files(options) / "current").read_text()) == {"Key": "", "Name": "pool", "Global": True}
    for name in ("activity/Pool", "refs/pool/pool0/1", "defaults/0a"):  # as buildx leaves them
        (files(options) / name).parent.mkdir(parents=True, exist_ok=True)
        (files(options) / name).write_text("pool")
    (files(options) / "defaults/0b").write_text("other")
    gone = {"name": "pool", "state": "absent", "config_dir": options["config_dir"]}
    before = snapshot(tmp_path)
    predicted = run_module("buildx_builder", gone, check=True, diff=True)
    assert snapshot(tmp_path) == before
    removed = run_module("buildx_builder", gone, diff=True)
    assert predicted.result == removed.result
    assert removed.result["reasons"] == ["it shall be absent", "it is the default no more"]
    assert removed.result["builder"] is None
    left = snapshot(files(options))
    assert json.loads(left.pop("current")[1]) == {"Key": "", "Name": "", "Global": False}
    del others["current"]
    assert {path for path in left if path not in others} == {"defaults/0b", "refs"}
    assert run_module("buildx_builder", gone).result["changed"] is False


def test_a_dangling_choice_is_cleared(options: dict[str, t.Any]) -> None:
    """C(docker buildx rm) leaves the choice behind; absent means absent."""
    run_module("buildx_builder", {**options, "default": True})
    (files(options) / "instances" / "pool").unlink()
    gone = {"name": "pool", "state": "absent", "config_dir": options["config_dir"]}
    assert run_module("buildx_builder", gone).result["reasons"] == ["it is the default no more"]


@pytest.mark.parametrize("data", [b"\xff", b"[1]", b"[" * 100_000, b'{"Name":5}'])
def test_a_choice_that_cannot_be_read_is_none(options: dict[str, t.Any], data: bytes) -> None:
    """It is written anew where one is made, and is in nobody's way."""
    run_module("buildx_builder", options)
    (files(options) / "current").write_bytes(data)
    assert run_module("buildx_builder", options).result["changed"] is False
    assert run_module("buildx_builder", {**options, "default": True}).result["is_default"] is True


def test_builders_that_are_left_over_are_removed(options: dict[str, t.Any], tmp_path: Path) -> None:
    """Those with our certificate and that beginning, but for those to keep; nothing of anybody else."""
    for name in ("pool", "pool-1", "pool-2", "pool-3", "poolside"):
        run_module("buildx_builder", {**options, "name": name, "default": name == "pool-2"})
    run_module("buildx_builder", {**options, "name": "pool-other", "cacert": options["cert"]})
    (files(options) / "instances" / "pool-odd").write_text("{")
    gone = {"name": "pool-*", "state": "absent", "keep": ["Pool-3"], "cacert": options["cacert"]}
    gone["config_dir"] = options["config_dir"]
    before = snapshot(files(options))
    predicted = run_module("buildx_builder", gone, check=True)
    assert snapshot(files(options)) == before
    removed = run_module("buildx_builder", gone)
    assert predicted.result == removed.result
    assert removed.result["removed"] == ["pool-1", "pool-2"]
    left = ["pool", "pool-3", "pool-odd", "pool-other", "poolside"]
    assert sorted(os.listdir(files(options) / "instances")) == left
    assert json.loads((files(options) / "current").read_text())["Name"] == ""
    assert run_module("buildx_builder", gone).result["changed"] is False
    refused = run_module("buildx_builder", {**options, "name": "pool-*"})
    assert "cannot be named 'pool-*'" in refused.message


def test_absent_where_buildx_never_was(tmp_path: Path) -> None:
    """Nothing is made to find out."""
    gone = {"name": "pool", "state": "absent", "config_dir": str(tmp_path / "none" / "buildx")}
    assert run_module("buildx_builder", gone).result["changed"] is False
    assert snapshot(tmp_path) == {}


def test_another_drivers_builder_is_left_alone(options: dict[str, t.Any]) -> None:
    """Neither changed nor removed."""
    run_module("buildx_builder", options)
    path = files(options) / "instances" / "pool"
    path.write_text(json.dumps({**json.loads(path.read_text()), "Driver": "docker-container"}))
    before = snapshot(files(options))
    for state in ("present", "absent"):
        refused = run_module("buildx_builder", {**options, "state": state, **({} if state == "present" else _NO_TLS)})
        assert "of the driver docker-container" in refused.message
    assert snapshot(files(options)) == before


def test_bad_input_changes_nothing(options: dict[str, t.Any], tmp_path: Path) -> None:
    """A missing certificate, a relative directory, a user that is none."""
    before = snapshot(tmp_path)
    missing = run_module("buildx_builder", {**options, "key": f"{tmp_path}/none.pem"})
    assert f"{tmp_path}/none.pem: No such file or directory" in missing.message
    relative = run_module("buildx_builder", {**options, "config_dir": "buildx"})
    assert "The directory of buildx is buildx, which is no absolute path" in relative.message
    no_user = run_module("buildx_builder", {**options, "user": "nobody-of-that-name"})
    assert "There is no user nobody-of-that-name" in no_user.message
    assert snapshot(tmp_path) == before


def test_a_docker_context_has_the_name_already(
    options: dict[str, t.Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """buildx shows it as a builder."""
    context = tmp_path / "docker" / "contexts" / "meta" / hashlib.sha256(b"pool").hexdigest()
    context.mkdir(parents=True)
    (context / "meta.json").write_text("{}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    del options["config_dir"]
    refused = run_module("buildx_builder", options)
    assert "Docker has a context of that name" in refused.message
    assert not (tmp_path / "docker" / "buildx" / "instances" / "pool").exists()


def test_where_buildx_keeps_its_builders(
    options: dict[str, t.Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BUILDX_CONFIG, then DOCKER_CONFIG, then the home; the last alone where a user is named."""
    del options["config_dir"]
    monkeypatch.setenv("DOCKER_CONFIG", f"{tmp_path}/d")
    assert run_module("buildx_builder", options, check=True).result["file"] == f"{tmp_path}/d/buildx/instances/pool"
    monkeypatch.setenv("BUILDX_CONFIG", f"{tmp_path}/b")
    assert run_module("buildx_builder", options, check=True).result["file"] == f"{tmp_path}/b/instances/pool"
    me = pwd.getpwuid(os.geteuid())
    named = run_module("buildx_builder", {**options, "user": me.pw_name}, check=True)
    assert named.result["file"] == f"{me.pw_dir}/.docker/buildx/instances/pool"


def test_a_lock_that_buildx_holds_is_waited_for(options: dict[str, t.Any]) -> None:
    """For so long, and no longer; nothing is written meanwhile."""
    run_module("buildx_builder", options)
    changed = {**options, "nodes": [{"endpoint": "tcp://b2.example.com:1234"}]}
    before = snapshot(files(options))
    with (files(options) / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = run_module("buildx_builder", {**changed, "lock_timeout": 0.2})
        assert "Another run holds the lock" in refused.message
        waiting = module_process("buildx_builder", changed)
        time.sleep(0.5)
        assert snapshot(files(options)) == before
        fcntl.flock(lock, fcntl.LOCK_UN)
    assert finish(waiting).result["changed"] is True


def test_runs_at_once_all_count(options: dict[str, t.Any]) -> None:
    """Each makes its own builder, and one is the default."""
    runs = [
        module_process("buildx_builder", {**options, "name": f"pool-{number}", "default": True}) for number in range(4)
    ]
    assert [outcome.output for outcome in map(finish, runs) if outcome.failed] == []
    assert sorted(os.listdir(files(options) / "instances")) == [f"pool-{number}" for number in range(4)]
    assert [name for name in os.listdir(files(options)) if name.endswith(".tmp")] == []


def test_a_killed_run_leaves_no_builder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was writing is not among the builders, and the next run clears it up."""
    store = buildx_store.BuildxStore(str(tmp_path))
    wished = buildx.wish("pool", [{"endpoint": "unix:///x"}], {})

    class Killed(BaseException):
        """The end of a process."""

    def kill(*_arguments: object) -> t.NoReturn:
        raise Killed

    with store.locked(timeout=1, read_only=False):
        monkeypatch.setattr(os, "rename", kill)
        monkeypatch.setattr(os, "unlink", kill)
        with pytest.raises(Killed):
            store.write_instance("pool", buildx.merge(None, wished))
        monkeypatch.undo()
        assert os.listdir(tmp_path / "instances") == []
        assert len(list(tmp_path.glob(".pool.*.tmp"))) == 1
        store.write_instance("pool", buildx.merge(None, wished))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "activity", "defaults", "instances"]


def test_default_load_asks_for_a_version(options: dict[str, t.Any]) -> None:
    """An old one is refused, a new one taken."""
    wished = {**options, "default_load": True}
    assert "0.13.1 is used" in run_module("buildx_builder", {**wished, "buildx_version": "0.13.1"}).message
    made = run_module("buildx_builder", {**wished, "buildx_version": "0.29.1"})
    assert made.result["builder"]["nodes"][0]["driver_options"]["default-load"] == "true"


def test_removal_by_certificate_touches_no_other_builder(options: dict[str, t.Any]) -> None:
    """One of another driver or with another certificate stays; one with a node more that its user added goes."""
    run_module("buildx_builder", options)
    path = files(options) / "instances" / "pool"
    made = json.loads(path.read_text())
    gone = {"name": "pool", "state": "absent", "config_dir": options["config_dir"], "cacert": options["cacert"]}
    node = made["Nodes"][0]
    foreign = {**node, "Name": "mine", "Endpoint": "unix:///mine.sock", "DriverOpts": None}
    for other in ({**made, "Driver": "docker-container"}, {**made, "Nodes": [foreign]}):
        path.write_text(json.dumps(other))
        assert run_module("buildx_builder", gone).result["changed"] is False
        assert json.loads(path.read_text()) == other
    path.write_text(json.dumps({**made, "Nodes": [node, foreign]}))
    assert run_module("buildx_builder", gone).result["changed"] is True
    assert not path.exists()


def test_there_is_nothing_of_a_user_who_is_no_more(options: dict[str, t.Any]) -> None:
    """So that a machine can be cleaned whose users have gone."""
    for name in ("pool", "pool-*"):
        gone = {"name": name, "state": "absent", "user": "nobody-of-that-name", "cacert": options["cacert"]}
        assert run_module("buildx_builder", gone).result["changed"] is False
