# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios' tests share: the builders, and clients that know nothing of this collection."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PKI = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "pki"
EXAMPLE = {"Dockerfile": "FROM scratch\nCOPY hello.txt /\n", "hello.txt": "hello\n"}


@dataclass(frozen=True)
class Builder:
    """One builder under test, and the tools to reach it from outside."""

    name: str
    address: str
    archive: Path
    scratch: Path

    @property
    def endpoint(self) -> str:
        """What clients dial."""
        return f"tcp://{self.address}:1234"

    def buildctl(
        self, *arguments: str, tls_dir: Path | None = None, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Runs the buildctl of the builder's own release on the controller, as client alice by default."""
        program = self.scratch / "buildctl"
        if not program.exists():
            with tarfile.open(self.archive) as archive:
                source = archive.extractfile("bin/buildctl")
                assert source is not None
                program.write_bytes(source.read())
            program.chmod(0o755)
        directory = tls_dir or PKI / "clients" / "alice"
        command = [str(program), "--addr", self.endpoint, "--tlsdir", str(directory), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    def build(self) -> str:
        """Builds the example through buildctl and returns what its image holds."""
        for name, content in EXAMPLE.items():
            (self.scratch / name).write_text(content)
        output = self.scratch / "output"
        built = self.buildctl(
            *("build", "--no-cache", "--frontend", "dockerfile.v0", "--output", f"type=local,dest={output}"),
            *("--local", f"context={self.scratch}", "--local", f"dockerfile={self.scratch}"),
        )
        assert built.returncode == 0, built.stderr
        return (output / "hello.txt").read_text()

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a docker command on the machine that holds the builder hosts."""
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)


@pytest.fixture
def builder(host, tmp_path: Path) -> Builder:
    """The builder that runs on the host under test."""
    variables = host.ansible.get_variables()
    generation = "OLD" if variables["generation"] == 0 else "NEW"
    return Builder(
        name=variables["inventory_hostname"],
        address=variables["host_address"],
        archive=Path(os.environ[f"BUILDKIT_{generation}_ARCHIVE"]),
        scratch=tmp_path,
    )


@pytest.fixture
def pki() -> Path:
    """The PKI directory on the controller."""
    return PKI


@pytest.fixture
def mode_of(host) -> Callable[[str], str]:
    """Owner and mode of a file on the host, links followed."""
    return lambda path: host.check_output(f"stat -L -c '%U %a' {path}")


@pytest.fixture
def stranger(tmp_path: Path) -> Callable[..., Path]:
    """Makes the directory of somebody who has the CA's certificate, and at most a certificate signed by nobody."""

    def make(*, certificate: bool) -> Path:
        directory = tmp_path / "stranger"
        directory.mkdir()
        shutil.copy(PKI / "clients" / "alice" / "ca.pem", directory)
        if certificate:
            subprocess.run(
                [
                    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                    *("-subj", "/CN=alice", "-addext", "extendedKeyUsage=clientAuth", "-days", "1"),
                    *("-keyout", directory / "key.pem", "-out", directory / "cert.pem"),
                ],
                check=True,
                capture_output=True,
            )
        return directory

    return make


@pytest.fixture
def playbook() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs one of the collection's playbooks on the scenario's hosts."""

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        inventory = f"{os.environ['MOLECULE_SCENARIO_DIRECTORY']}/inventory.yml"
        return subprocess.run(
            ["ansible-playbook", f"buildfarm.buildkit.{name}", "--inventory", inventory, *arguments],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            check=False,
        )

    return run
