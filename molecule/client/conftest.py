# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A laptop that Ansible never touched, with a bundle and the tools of a developer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCENARIO = Path(__file__).resolve().parent
PROJECT = Path(__file__).resolve().parents[2]
PKI = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "pki"
BUILDERS = {"client-old": "tcp://172.29.214.11:1234", "client-new": "tcp://172.29.214.12:1234"}
# What a shell script, and what buildx writes of it, must bear.
HOME = "/home/bob/R&D <my> bündles"
DOCKERFILE = "FROM scratch\nCOPY hello.txt /\n"
BAKE = 'group "default" { targets = ["hello"] }\ntarget "hello" { output = ["type=local,dest=baked"] }\n'


class Host:
    """A container, used as a person would: one shell command after the other."""

    def __init__(self, name: str) -> None:
        self.name = name

    def put(self, source: Path, path: str, *, mode: str = "0755") -> None:
        """Copies a file of this machine there, for everyone to read."""
        subprocess.run(["docker", "cp", "-q", "-L", source, f"{self.name}:{path}"], check=True)
        self.ran(f"chown 0:0 '{path}' && chmod {mode} '{path}'", user="root")

    def run(
        self, command: str, *, user: str = "bob", shell: str = "sh", timeout: float = 600, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in a shell, in the user's home, and says how it ended."""
        home = "/root" if user == "root" else f"/home/{user}"
        variables = [f"--env={name}={value}" for name, value in {"HOME": home, **environment}.items()]
        options = ["--user", user, "--workdir", home, *variables]
        return subprocess.run(
            ["docker", "exec", *options, self.name, shell, "-c", command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def ran(self, command: str, *, user: str = "bob", shell: str = "sh", **environment: str) -> str:
        """What a command said that must not fail."""
        done = self.run(command, user=user, shell=shell, **environment)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


def _program(archive: str, scratch: Path) -> Path:
    with tarfile.open(archive) as opened:
        source = opened.extractfile("bin/buildctl")
        assert source is not None
        scratch.write_bytes(source.read())
    return scratch


def _buildx(age: str) -> Path:
    """A docker-buildx from Debian's packages: trixie's or sid's."""
    tool = [sys.executable, PROJECT / "tools" / "docker_buildx.py", age]
    return Path(json.loads(subprocess.run(tool, check=True, capture_output=True, text=True).stdout)["path"])


def run_playbook(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a playbook of the collection or, by its path, of the scenario."""
    return subprocess.run(
        ["ansible-playbook", "--inventory", SCENARIO / "inventory.yml", *arguments, name],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        check=False,
    )


@pytest.fixture(scope="session")
def workstation_role() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the role buildkit_client on the workstation, with other variables and options where given."""

    def run(*arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
        extra = ["--extra-vars", json.dumps(variables)] if variables else []
        return run_playbook(str(SCENARIO / "workstation.yml"), *arguments, *extra)

    return run


@pytest.fixture(scope="session")
def playbook() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a playbook of the collection."""
    return run_playbook


@pytest.fixture(scope="session")
def renewed() -> str:
    """What site said when it made new certificates for alice and for the workstation."""
    for name in ("alice", "client-workstation"):
        shutil.rmtree(PKI / "clients" / name)
    # Any builder will do: the certificates of clients are made in every run.
    done = run_playbook("buildfarm.buildkit.site", "--limit", "client-new")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The client programs, by what they are called on the hosts."""
    scratch = tmp_path_factory.mktemp("tools")
    return {
        "/usr/local/bin/buildctl": _program(os.environ["BUILDKIT_OLD_ARCHIVE"], scratch / "old"),
        "/opt/new/buildctl": _program(os.environ["BUILDKIT_NEW_ARCHIVE"], scratch / "new"),
        "/opt/buildx-old": _buildx("old"),
        "/opt/buildx-new": _buildx("new"),
    }


@pytest.fixture(scope="session")
def hosts() -> dict[str, Host]:
    """Every host of the scenario, by its name."""
    return {name: Host(name) for name in (*BUILDERS, "client-workstation", "client-laptop")}


@pytest.fixture(scope="session")
def workstation(hosts: dict[str, Host], tools: dict[str, Path], project: Path) -> Host:
    """The host that the role buildkit_client set up, with a plain buildctl and something to build."""
    host = hosts["client-workstation"]
    host.ran("mkdir -p /opt/old /opt/project", user="root")
    host.put(tools["/usr/local/bin/buildctl"], "/opt/old/buildctl")
    host.put(tools["/opt/buildx-new"], "/opt/buildx-new")
    for path in project.iterdir():
        host.put(path, f"/opt/project/{path.name}", mode="0644")
    return host


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something to build that needs no registry."""
    scratch = tmp_path_factory.mktemp("project")
    (scratch / "Dockerfile").write_text(DOCKERFILE)
    (scratch / "hello.txt").write_text("hello\n")
    (scratch / "docker-bake.hcl").write_text(BAKE)
    return scratch


@pytest.fixture(scope="session")
def laptop_with_tools(hosts: dict[str, Host], tools: dict[str, Path], project: Path) -> Host:
    """The laptop with its user bob, who has two versions of each tool and something to build."""
    host = hosts["client-laptop"]
    host.ran("id bob >/dev/null 2>&1 || useradd --create-home bob; mkdir -p /opt/new", user="root")
    install = "apt-get -qq update && apt-get -qq install -y zsh age"
    host.ran(f"command -v zsh age || {{ {install}; }} >/dev/null 2>&1", user="root")
    for path, source in tools.items():
        host.put(source, path)
    host.ran("rm -rf /home/bob/project && mkdir /home/bob/project", user="root")
    for path in project.iterdir():
        host.put(path, f"/home/bob/project/{path.name}", mode="0644")
    host.ran("chown -R bob: /home/bob/project", user="root")
    return host


@pytest.fixture
def laptop(laptop_with_tools: Host) -> Iterator[Host]:
    """The laptop on which bob has just unpacked alice's bundle."""
    host = laptop_with_tools
    host.put(PKI / "bundles" / "buildkit-alice.tar.gz", "/opt/bundle.tar.gz", mode="0644")
    host.ran(f"mkdir -p '{HOME}' && tar -xzf /opt/bundle.tar.gz -C '{HOME}'")
    yield host
    host.ran(f"rm -rf '{HOME}' .docker project/out project/baked")
