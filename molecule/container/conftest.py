# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builders as containers, seen by their engines and by clients that know nothing of this collection."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCENARIO = Path(__file__).resolve().parent
# Seconds for what takes a moment on an idle machine: it ends what hangs, and fails nothing that is slow.
LIMIT = 900
PROJECT = SCENARIO.parents[1]
STATE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
PKI = STATE / "pki"
PROOF = re.compile(r"([a-z-]+://\S+): BuildKit v\S+, exec build in \d+ ms, dockerfile build in \d+ ms")


@dataclass(frozen=True)
class Host:
    """A host with an engine in which a builder runs."""

    name: str
    address: str
    engine: str

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in a shell as root, and says how it ended."""
        return subprocess.run(
            ["docker", "exec", self.name, "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def ran(self, command: str) -> str:
        """What a command said that must not fail."""
        done = self.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def put(self, source: Path, path: str) -> None:
        """Copies a program there."""
        subprocess.run(["docker", "cp", "-q", "-L", source, f"{self.name}:{path}"], check=True)
        self.ran(f"chown -R 0:0 {path} && chmod -R a+rX {path}")

    def reboot(self) -> None:
        """Shuts it down, and returns when it has booted again."""
        # What systemctl asks for through a bus that may be slow, systemd does for this signal (systemd(1)).
        subprocess.run(["docker", "kill", "--signal", "RTMIN+4", self.name], capture_output=True, check=True)
        subprocess.run(["docker", "wait", self.name], capture_output=True, check=True)
        subprocess.run(["docker", "start", self.name], capture_output=True, check=True)
        self.settle()
        self.ran("ip route flush default")

    def settle(self) -> None:
        """Returns when no unit has failed. Podman's first check of a container fails where the daemon is not yet up."""
        deadline = time.monotonic() + LIMIT
        while (state := self.run("systemctl is-system-running").stdout) != "running\n":
            assert time.monotonic() < deadline, state + self.run("systemctl --failed --no-pager").stdout
            time.sleep(0.2)

    def answered(self) -> None:
        """Returns when the daemon in the container answers."""
        self.ran(f"until {self.engine} exec buildkitd buildctl debug workers; do sleep 0.2; done")

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """What the engine says of a container, image or volume."""
        (found,) = json.loads(self.ran(f"{self.engine} {kind} inspect {name}"))
        return found

    def containers(self) -> list[str]:
        """The names of all containers, running or not."""
        return self.ran(f"{self.engine} ps --all --format '{{{{.Names}}}}'").split()

    def created(self, since: float, name: str = "buildkitd") -> int:
        """How often the engine created a container of a name since a time (seconds since the epoch)."""
        events = f"events --since {since:.3f} --until {time.time():.3f} --filter type=container --filter event=create"
        name_of = "{{.Actor.Attributes.name}}" if self.engine == "docker" else "{{.Name}}"
        # Podman keeps them in the journal. Beside the one that still runs it has another name at first.
        names = self.ran(f"journalctl --sync; {self.engine} {events} --format '{name_of}'").split()
        return sum(1 for created in names if created in (name, f"{name}-next"))

    def served(self, port: int = 1234) -> str:
        """The fingerprint of the certificate that the builder serves."""
        shaken = subprocess.run(
            ["openssl", "s_client", "-connect", f"{self.address}:{port}"], input="", capture_output=True, text=True,
            timeout=LIMIT, check=False,
        )  # fmt: skip
        return subprocess.run(
            ["openssl", "x509", "-noout", "-fingerprint", "-sha256"],
            input=shaken.stdout, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    def installed(self) -> str:
        """The fingerprint of the certificate that is installed."""
        return self.ran("openssl x509 -noout -fingerprint -sha256 -in /etc/buildkit/tls/cert.pem")


@pytest.fixture(scope="session")
def hosts() -> dict[str, Host]:
    """Both hosts, by their engine."""
    return {
        "docker": Host("container-docker", "172.29.217.11", "docker"),
        "podman": Host("container-podman", "172.29.217.12", "podman"),
    }


@pytest.fixture(params=["docker", "podman"], scope="session")
def machine(request: pytest.FixtureRequest, hosts: dict[str, Host]) -> Host:
    """Each host in turn."""
    return hosts[request.param]


@pytest.fixture(scope="session")
def buildctl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The older buildctl, which both generations serve."""
    scratch = tmp_path_factory.mktemp("buildctl")
    with tarfile.open(os.environ["BUILDKIT_OLD_ARCHIVE"]) as archive:
        source = archive.extractfile("bin/buildctl")
        assert source is not None
        (scratch / "buildctl").write_bytes(source.read())
    (scratch / "buildctl").chmod(0o755)
    return scratch / "buildctl"


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something to build that needs no registry."""
    scratch = tmp_path_factory.mktemp("project")
    (scratch / "Dockerfile").write_text("FROM scratch\nCOPY hello.txt /\n")
    (scratch / "hello.txt").write_text("hello\n")
    return scratch


@pytest.fixture(scope="session")
def tools(hosts: dict[str, Host], buildctl: Path, project: Path) -> None:
    """Puts what a user has on a machine onto both hosts: buildctl, something to build, and alice's certificate."""
    for host in hosts.values():
        # Not where the host service has its own.
        host.put(buildctl, "/usr/bin/buildctl")
        host.ran("rm -rf /srv/project /srv/alice")
        host.put(project, "/srv/project")
        host.put(PKI / "clients" / "alice", "/srv/alice")


@pytest.fixture(scope="session")
def build(buildctl: Path, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Builds on an endpoint with buildctl on the controller and returns what came of it."""

    def run(endpoint: str, *, tls: bool = True, **environment: str) -> str:
        output = tmp_path_factory.mktemp("output")
        certificate = ["--tlsdir", str(PKI / "clients" / "alice")] if tls else []
        local = [f"--local={name}={project}" for name in ("context", "dockerfile")]
        done = subprocess.run(
            [
                *(str(buildctl), "--addr", endpoint, *certificate, "build", "--no-cache"),
                *("--frontend", "dockerfile.v0", *local, "--output", f"type=local,dest={output}"),
            ],
            env={**os.environ, **environment}, capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        return (output / "hello.txt").read_text() if done.returncode == 0 else done.stderr

    return run


@pytest.fixture(scope="session")
def ssh(hosts: dict[str, Host], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Lets the controller in as root by SSH, and returns the environment in which `ssh` does so without a question.

    The Docker command line has a context for the host with Docker there, under its name.
    """
    scratch = tmp_path_factory.mktemp("ssh")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", scratch / "id"], check=True)
    for host in hosts.values():
        host.ran("ssh-keygen -A && install -d -m 0700 /root/.ssh && systemctl restart ssh")
        host.put(scratch / "id.pub", "/root/.ssh/authorized_keys")
        key = host.ran("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub")
        with (scratch / "known_hosts").open("a") as known:
            known.write(f"{host.address} {key}")
    program = shutil.which("ssh")
    (scratch / "bin").mkdir()
    (scratch / "bin" / "ssh").write_text(
        f'#!/bin/sh\nexec {program} -F none -i {scratch}/id -o UserKnownHostsFile={scratch}/known_hosts "$@"\n'
    )
    (scratch / "bin" / "ssh").chmod(0o755)
    environment = {"PATH": f"{scratch}/bin:{os.environ['PATH']}", "DOCKER_CONFIG": str(scratch / "docker")}
    host = hosts["docker"]
    subprocess.run(
        ["docker", "context", "create", host.name, "--docker", f"host=ssh://root@{host.address}"],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    return environment


@dataclass(frozen=True)
class Run:
    """A run of a playbook."""

    code: int
    output: str

    @property
    def text(self) -> str:
        """The output with its lines joined, as Ansible wraps them."""
        return " ".join(self.output.split())

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, by host; the recap's."""
        return {
            name: int(number) for name, number in re.findall(r"^(\S+) +: .*?changed=(\d+)", self.output, re.MULTILINE)
        }

    @property
    def proved(self) -> list[str]:
        """The endpoints that were proved."""
        return sorted(PROOF.findall(self.output))


@pytest.fixture(scope="session")
def play() -> Callable[..., Run]:
    """Runs a playbook, by its name in the collection or its path, on both hosts at once, each with its wishes."""

    def run(name: str | Path, *arguments: str, environment: dict[str, str] | None = None, **variables: Any) -> Run:
        done = subprocess.run(
            [
                *(
                    "ansible-playbook",
                    name if isinstance(name, Path) else f"buildfarm.buildkit.{name}",
                    "--inventory",
                    SCENARIO / "inventory.yml",
                ),
                *("--extra-vars", json.dumps({"buildkit_serial": "100%", **variables}), *arguments),
            ],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", **(environment or {})},
            check=False,
        )
        return Run(done.returncode, done.stdout + done.stderr)

    return run
