# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildx_builder beside real docker-buildx of two ages: what they write, read, and build with."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import platforms, users
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module, snapshot
from certificates import CLIENT, Authority, Pair
from clients import AGES, Buildx, obtain
from daemon import Daemon

# What a test shows of buildx alone needs no other daemon.
ONE_IS_ENOUGH = ["0.25"]
PROGRAMS = {age: obtain(age) for age in AGES}


@pytest.fixture(params=AGES)
def buildx(request: pytest.FixtureRequest, tmp_path: Path) -> Buildx:
    """A docker-buildx that has no builder yet; whatever uses it runs with both."""
    program = PROGRAMS[request.param]
    return Buildx(Path(program["path"]), program["version"], tmp_path / "buildx")


def options(buildx: Buildx, **wishes: Any) -> dict[str, Any]:
    """The module's options for the directory of a buildx."""
    return {"name": "pool", "config_dir": str(buildx.config), **wishes}


def tls(authority: Authority, client: Pair) -> dict[str, str]:
    """The files of a good client."""
    return {"cacert": str(authority.path), "cert": str(client.cert), "key": str(client.key)}


def apply(buildx: Buildx, **wishes: Any) -> Outcome:
    """Run the module; it must succeed, and then have nothing more to do."""
    done = run_module("buildx_builder", options(buildx, **wishes))
    assert not done.failed, done.output
    assert run_module("buildx_builder", options(buildx, **wishes)).result["changed"] is False
    return done


SHAPES: dict[str, list[dict[str, Any]]] = {
    "one": [{"endpoint": "tcp://127.0.0.1:1"}],
    "several": [
        {"endpoint": "tcp://127.0.0.1:1", "name": "Native_1", "platforms": ["linux/amd64", "linux/x86_64/v3"]},
        {"endpoint": "tcp://127.0.0.1:2", "name": "arm", "platforms": ["linux/aarch64", "linux/armhf", "linux/armel"]},
    ],
    "unix": [{"endpoint": "unix:///run/buildkit/buildkitd.sock"}],
    "ssh": [{"endpoint": "ssh://build@builder.example.com:22"}],
    "container": [{"endpoint": "docker-container://buildkitd"}],
    "pod": [{"endpoint": "kube-pod://buildkitd-0?namespace=build&container=buildkitd"}],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bytes_are_those_of_buildx(buildx: Buildx, authority: Authority, client: Pair, shape: str) -> None:
    """A builder that we make is the one that C(docker buildx create) makes."""
    secure = {**tls(authority, client), "servername": "builder.example.com"}
    for number, node in enumerate(SHAPES[shape]):
        command = ["create", "--name", "pool", *(("--append",) if number else ("--driver", "remote"))]
        command += ["--node", node["name"]] if "name" in node else []
        command += ["--platform", ",".join(node["platforms"])] if "platforms" in node else []
        if node["endpoint"].startswith("tcp:"):
            command += ["--driver-opt", ",".join(f"{key}={value}" for key, value in secure.items())]
        buildx.good(*command, node["endpoint"])
    theirs = buildx.instance("pool")
    # What it made is what we want already, and nothing is written.
    before = snapshot(buildx.config)
    assert run_module("buildx_builder", options(buildx, nodes=SHAPES[shape], **secure)).result["changed"] is False
    assert snapshot(buildx.config) == before
    shutil.rmtree(buildx.config)
    apply(buildx, nodes=SHAPES[shape], **secure)
    assert buildx.instance("pool") == theirs


def test_platforms_are_spelled_as_buildx_spells_them(buildx: Buildx) -> None:
    """Every spelling that we know, as buildx stores it."""
    spellings = [
        *("linux/x86_64", "linux/aarch64", "linux/arm64/v8", "linux/arm64/v9", "linux/arm", "linux/armhf"),
        *("linux/armel", "linux/arm/v6", "linux/arm/6", "linux/i386", "linux/amd64/v1", "linux/amd64/v3"),
        *("LINUX/riscv64", "linux/s390x", "linux/ppc64le", "windows/amd64", "macos/arm64"),
    ]
    buildx.good("create", "--name", "p", "--driver", "remote", "--platform", ",".join(spellings), "unix:///x")
    stored = buildx.stored("p")["Nodes"][0]["Platforms"]
    assert [platforms.to_stored(platforms.normalize(one)) for one in spellings] == stored


def test_a_builder_of_ours_builds(
    buildx: Buildx, mtls: Daemon, authority: Authority, client: Pair, tmp_path: Path
) -> None:
    """Named, chosen by the environment, and as the default; though buildx's own command would fail there."""
    buildx.config.mkdir()
    (buildx.config / "buildkitd.default.toml").write_text("debug = true\n", encoding="ascii")
    command = ["create", "--name", "other", "--driver", "remote", mtls.tcp]
    assert "setting config file is not supported" in buildx.run(*command).stderr  # the trap
    made = apply(buildx, nodes=[{"endpoint": mtls.tcp, "platforms": ["linux/amd64"]}], **tls(authority, client))
    assert made.result["is_default"] is False
    shown = buildx.good("inspect", "--bootstrap", "pool")
    assert "running" in shown
    assert "linux/amd64*" in shown  # the star: told, and not asked for
    assert mtls.tcp in buildx.good("ls")
    assert buildx.builds(tmp_path / "named", "--builder", "pool")
    assert buildx.fails(tmp_path / "without")
    chosen = apply(buildx, nodes=[{"endpoint": mtls.tcp}], default=True, default_load=False, **tls(authority, client))
    assert chosen.result["reasons"] == ["it becomes the default"]
    assert buildx.builds(tmp_path / "default")
    apply(buildx, nodes=[{"endpoint": mtls.tcp}], default=False, **tls(authority, client))
    assert buildx.fails(tmp_path / "without again")


@pytest.mark.parametrize("bin_dir", ONE_IS_ENOUGH, indirect=True)
def test_a_unix_socket_builds(buildx: Buildx, mtls: Daemon, tmp_path: Path) -> None:
    """Without certificates, as behind a tunnel or a side proxy."""
    apply(buildx, nodes=[{"endpoint": mtls.unix}])
    assert buildx.builds(tmp_path / "context", "--builder", "pool")


@pytest.mark.parametrize("scheme", ["ssh", "docker-container"])
@pytest.mark.parametrize("bin_dir", ONE_IS_ENOUGH, indirect=True)
def test_a_program_in_between_builds(
    buildx: Buildx, mtls: Daemon, tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoints that run ssh and docker, with programs of those names that lead to the daemon."""
    endpoints = {"ssh": "ssh://build@builder.example.com", "docker-container": "docker-container://buildkitd"}
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / scheme.partition("-")[0]
    log = tmp_path / "log"
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{log}\nexec {mtls.bin}/buildctl --addr {mtls.unix} dial-stdio\n', encoding="ascii"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    apply(buildx, nodes=[{"endpoint": endpoints[scheme]}])
    assert buildx.builds(tmp_path / "context", "--builder", "pool")
    assert "buildctl dial-stdio" in log.read_text(encoding="ascii")


@pytest.mark.parametrize("bin_dir", ONE_IS_ENOUGH, indirect=True)
def test_a_server_name_that_is_not_the_endpoints(
    buildx: Buildx, mtls: Daemon, authority: Authority, client: Pair, tmp_path: Path
) -> None:
    """It is verified: the daemon's own name passes, another does not."""
    apply(buildx, nodes=[{"endpoint": mtls.tcp}], servername="builder.example.com", **tls(authority, client))
    assert buildx.builds(tmp_path / "right", "--builder", "pool")
    apply(buildx, nodes=[{"endpoint": mtls.tcp}], servername="other.example.com", **tls(authority, client))
    assert buildx.fails(tmp_path / "wrong", "--builder", "pool")


@pytest.mark.parametrize("bin_dir", ONE_IS_ENOUGH, indirect=True)
def test_what_buildx_changes_is_put_right_and_nothing_else(
    buildx: Buildx, mtls: Daemon, authority: Authority, client: Pair, tmp_path: Path
) -> None:
    """A node that somebody added leaves; what buildx noted of its own stays."""
    wishes = {"nodes": [{"endpoint": mtls.tcp, "platforms": ["linux/amd64", "linux/386"]}], **tls(authority, client)}
    apply(buildx, **wishes)
    made = buildx.instance("pool")
    buildx.good("create", "--name", "pool", "--append", "--node", "added", "--platform", "linux/386", "unix:///x")
    changed = apply(buildx, **wishes)
    assert changed.result["reasons"] == [
        "node added is not wanted any more",
        "node pool0 has another list of platforms",
    ]
    assert buildx.stored("pool") == json.loads(made)
    # Written anew by buildx in place, which rewrites all of it.
    secure = ",".join(f"{key}={value}" for key, value in tls(authority, client).items())
    command = ["create", "--name", "pool", "--node", "pool0", "--driver", "remote", "--driver-opt", secure]
    buildx.good(*command, "--platform", "linux/amd64,linux/386", mtls.tcp)
    buildx.good("use", "pool")
    assert run_module("buildx_builder", options(buildx, **wishes)).result["changed"] is False
    assert buildx.builds(tmp_path / "context")


@pytest.mark.parametrize("bin_dir", ONE_IS_ENOUGH, indirect=True)
def test_a_builder_of_buildx_is_taken_over(
    buildx: Buildx, mtls: Daemon, authority: Authority, client: Pair, tmp_path: Path
) -> None:
    """Made without certificates, it gets them, and builds."""
    buildx.good("create", "--name", "pool", "--driver", "remote", mtls.tcp)
    assert buildx.fails(tmp_path / "before", "--builder", "pool")
    changed = apply(buildx, nodes=[{"endpoint": mtls.tcp}], **tls(authority, client))
    assert changed.result["reasons"] == ["node pool0 has another set of driver options"]
    assert buildx.builds(tmp_path / "after", "--builder", "pool")


@pytest.mark.parametrize("bin_dir", ONE_IS_ENOUGH, indirect=True)
def test_removal_leaves_what_was_there_before(
    buildx: Buildx, mtls: Daemon, authority: Authority, client: Pair, tmp_path: Path
) -> None:
    """After builds too, which leave traces; another builder keeps all of its own."""
    buildx.good("create", "--name", "other", "--driver", "remote", "--use", mtls.unix)
    assert buildx.builds(tmp_path / "other")
    before = {path for path in snapshot(buildx.config) if not path.startswith("refs/__group__")}
    apply(buildx, nodes=[{"endpoint": mtls.tcp}], default=True, **tls(authority, client))
    assert buildx.builds(tmp_path / "pool")
    removed = apply(buildx, state="absent")
    assert removed.result["reasons"] == ["it shall be absent", "it is the default no more"]
    assert {path for path in snapshot(buildx.config) if not path.startswith("refs/__group__")} == before
    shown = buildx.good("ls")
    assert "pool" not in shown
    assert "other" in shown
    assert buildx.builds(tmp_path / "other again", "--builder", "other")


@pytest.mark.parametrize("bin_dir", ONE_IS_ENOUGH, indirect=True)
def test_removed_by_buildx_is_removed(buildx: Buildx, mtls: Daemon) -> None:
    """What it leaves behind goes too."""
    apply(buildx, nodes=[{"endpoint": mtls.unix}], default=True)
    buildx.good("rm", "pool")
    assert apply(buildx, state="absent").result["reasons"] == ["it is the default no more"]


def test_a_builder_of_another_driver_is_refused(buildx: Buildx) -> None:
    """As buildx stores one, which would have a container and a volume."""
    kube = buildx.config.parent / ".kube" / "config"
    kube.parent.mkdir()
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "namespace": "build"}}
    kube.write_text(
        json.dumps({"clusters": [cluster], "contexts": [context], "current-context": "c"}), encoding="ascii"
    )
    buildx.good("create", "--name", "pool", "--driver", "kubernetes")
    before = snapshot(buildx.config)
    for state in ("present", "absent"):
        refused = run_module("buildx_builder", options(buildx, state=state, nodes=[{"endpoint": "unix:///x"}]))
        assert "of the driver kubernetes" in refused.message
    assert snapshot(buildx.config) == before


@pytest.mark.parametrize("bin_dir", ONE_IS_ENOUGH, indirect=True)
def test_default_load_breaks_an_old_buildx_and_no_new_one(buildx: Buildx, mtls: Daemon) -> None:
    """Which is why the module asks for the version."""
    wishes = {"nodes": [{"endpoint": mtls.unix}], "default_load": True}
    refused = run_module("buildx_builder", options(buildx, **wishes, buildx_version=buildx.version))
    apply(buildx, **wishes, buildx_version="0.29.1")
    inspected = buildx.run("inspect", "--bootstrap", "pool")
    old = buildx.version.startswith("0.13.")
    assert refused.failed is old
    assert ("invalid driver option default-load" in inspected.stdout + inspected.stderr) is old


@pytest.mark.parametrize("bin_dir", ONE_IS_ENOUGH, indirect=True)
def test_certificates_are_read_at_each_connection(
    buildx: Buildx, mtls: Daemon, authority: Authority, other_authority: Authority, tmp_path: Path
) -> None:
    """A renewed certificate counts at once, and so does a wrong one; the builder is not touched."""
    place = tmp_path / "client"
    owner = pwd.getpwuid(os.geteuid()).pw_name

    def install(issuer: Authority, name: str) -> None:
        pair = issuer.issue(name, CLIENT)
        done = run_module(
            "buildkit_client_tls",
            {
                "path": str(place),
                "ca": authority.path.read_text(encoding="ascii"),
                "certificate": pair.cert.read_text(encoding="ascii"),
                "key": pair.key.read_text(encoding="ascii"),
                "owner": owner,
            },
        )
        assert done.result["changed"] is True, done.output

    install(authority, f"{tmp_path.name}-first")
    files = {key: str(place / f"{name}.pem") for key, name in (("cacert", "ca"), ("cert", "cert"), ("key", "key"))}
    apply(buildx, nodes=[{"endpoint": mtls.tcp}], **files)
    made = buildx.instance("pool")
    assert buildx.builds(tmp_path / "first", "--builder", "pool")
    install(other_authority, f"{tmp_path.name}-foreign")
    assert buildx.fails(tmp_path / "foreign", "--builder", "pool")
    install(authority, f"{tmp_path.name}-renewed")
    assert buildx.builds(tmp_path / "renewed", "--builder", "pool")
    assert buildx.instance("pool") == made
    assert (
        run_module("buildx_builder", options(buildx, nodes=[{"endpoint": mtls.tcp}], **files)).result["changed"]
        is False
    )


def test_the_lock_is_the_one_of_buildx(buildx: Buildx) -> None:
    """While we hold it buildx waits."""
    apply(buildx, nodes=[{"endpoint": "unix:///x"}])
    with (buildx.config / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen([str(buildx.program), "use", "pool"], env=buildx.environment())
        time.sleep(1)
        assert waiting.poll() is None
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert waiting.wait(timeout=120) == 0


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user can enter; pytest's own are closed to all others."""
    with tempfile.TemporaryDirectory(prefix="buildx-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.mark.parametrize("bin_dir", ONE_IS_ENOUGH, indirect=True)
def test_as_another_user(buildx: Buildx, mtls: Daemon, authority: Authority, client: Pair, open_path: Path) -> None:
    """Everything is that user's, and that user builds; so are the limits: a key, a home that is not the user's."""
    someone = pwd.getpwnam("nobody")
    home = open_path / "home"
    home.mkdir(mode=0o755)
    files = {}
    for name, source in tls(authority, client).items():
        files[name] = str(shutil.copyfile(source, open_path / f"{name}.pem"))
        Path(files[name]).chmod(0o600)
    used = Buildx(buildx.program, buildx.version, home / "buildx")
    wishes = options(used, nodes=[{"endpoint": mtls.tcp}], user="nobody", **files)
    not_theirs = {"home": f"{home} cannot be written to", "key": f"{files['key']}: Permission denied"}
    assert not_theirs["home"] in run_module("buildx_builder", {**wishes, **tls(authority, client)}, check=True).message
    os.chown(home, someone.pw_uid, someone.pw_gid)
    assert not_theirs["key"] in run_module("buildx_builder", wishes).message
    assert snapshot(home) == {}
    for path in files.values():
        os.chown(path, someone.pw_uid, someone.pw_gid)
    assert run_module("buildx_builder", wishes).result["changed"] is True
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in home.rglob("*")} == {
        (someone.pw_uid, someone.pw_gid)
    }
    assert run_module("buildx_builder", wishes).result["changed"] is False
    program = shutil.copy(buildx.program, open_path / "docker-buildx")
    shown = subprocess.run(
        ["setpriv", "--reuid", "nobody", "--regid", str(someone.pw_gid), "--clear-groups", program, "inspect", "pool"],
        capture_output=True,
        text=True,
        check=False,
        env=used.environment(),
    )
    assert "running" in shown.stdout, shown.stdout + shown.stderr
    stored = used.config / "instances" / "pool"
    os.chown(stored, 0, 0)  # as a run of buildx by root leaves it, in this home
    refused = run_module("buildx_builder", wishes)
    assert f"Permission denied: '{stored}'. Give it back to its user (chown -R)" in refused.message


def test_rights_come_back(tmp_path: Path) -> None:
    """And are those of the user in between, groups too."""
    someone = pwd.getpwnam("nobody")
    tmp_path.chmod(0o700)
    before = (os.geteuid(), os.getegid(), os.getgroups())
    with users.acting_as(someone):
        assert (os.geteuid(), os.getegid(), 0 in os.getgroups()) == (someone.pw_uid, someone.pw_gid, False)
        with pytest.raises(PermissionError):
            list(tmp_path.iterdir())
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before


def test_nobody_but_root_acts_for_others() -> None:
    """The refusal says what helps."""
    script = (
        "import os, pwd\n"
        "from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import users\n"
        "os.setgroups([]); os.setegid(65534); os.seteuid(65534)\n"
        "users.acting_as(pwd.getpwnam('root')).__enter__()"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ClientError.__name__ in shown.stderr
    assert "Use become: true." in shown.stderr
