# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The builders of this scenario, the people who were given files for them, and one of them who keeps on connecting."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tarfile
import threading
import time
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

SCRATCH = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
HOSTS = {"rotate-old": ("172.29.215.31", "OLD"), "rotate-new": ("172.29.215.32", "NEW")}
# As certificates were in the scenario's first run, they are due with these.
LIVES = {"buildkit_pki_valid_for": "90d", "buildkit_pki_renew_before": "40d"}
BUILDX = "/usr/libexec/docker/cli-plugins/docker-buildx"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
# What a client sees of a daemon that ends in the very moment in which it is served. Nothing here is a refusal. Each has
# its own capitals: Python says "Broken pipe" where Go says "broken pipe".
CUT_OFF = ("canceled", "eof", "reset by peer", "broken pipe", "transport is closing", "closed network connection")


@dataclass(frozen=True)
class Run:
    """How a run of Ansible ended."""

    code: int
    output: str

    @property
    def text(self) -> str:
        """The output on one line, without the quotes and commas of printed lists."""
        return " ".join(self.output.replace('\\"', '"').split())

    @property
    def changed(self) -> int:
        """How many tasks changed something; a run that failed is none to count in."""
        assert self.code == 0, self.output
        recap = re.findall(r"\bchanged=(\d+)", self.output.partition("PLAY RECAP")[2])
        assert len(recap) == len(HOSTS), self.output
        return sum(map(int, recap))


@dataclass
class Fleet:
    """The builders, the PKI directory, and where the people have the files that they were given."""

    directory: Path
    pki: Path = SCRATCH / "pki"
    wishes: dict[str, t.Any] = field(default_factory=lambda: dict(LIVES))

    def command(self, playbook: str, *arguments: str, **variables: t.Any) -> list[str]:
        """What runs a playbook, with these variables above all others."""
        inventory = f"{os.environ['MOLECULE_SCENARIO_DIRECTORY']}/inventory.yml"
        program = ["ansible-playbook", f"buildfarm.buildkit.{playbook}", "--inventory", inventory, *arguments]
        return [*program, "--extra-vars", json.dumps({**self.wishes, **variables})]

    def environment(self) -> dict[str, str]:
        """The environment of a run."""
        return {
            **os.environ,
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def play(self, playbook: str, *arguments: str, **variables: t.Any) -> Run:
        """Run a playbook to its end."""
        done = subprocess.run(
            self.command(playbook, *arguments, **variables),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1200,
            check=False,
        )
        return Run(done.returncode, done.stdout)

    def rotate(self, step: str = "", *arguments: str, **variables: t.Any) -> Run:
        """Run the playbook rotate."""
        return self.play("rotate", *arguments, **{**({"buildkit_rotate": step} if step else {}), **variables})

    def rotate_until(self, line: str, step: str, **variables: t.Any) -> str:
        """Run the playbook rotate, kill it when it prints a line with this in it, and return what it printed."""
        process = subprocess.Popen(
            self.command("rotate", **{"buildkit_rotate": step, **variables}),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        printed = ""
        with process:
            assert process.stdout is not None
            for text in process.stdout:
                printed += text
                if line in text:
                    break
            os.killpg(process.pid, signal.SIGKILL)
        return printed

    def give(self, *names: str) -> None:
        """Hand the clients' directories out, as they are now."""
        for name in names:
            directory = self.directory / f"{name}-{time.monotonic_ns()}"
            shutil.copytree(self.pki / "clients" / name, directory)
            link = self.directory / f".{name}"
            link.symlink_to(directory)
            link.rename(self.directory / name)

    def files(self, name: str) -> Path:
        """What a client was given last; the same files as long as one looks at them."""
        return (self.directory / name).resolve()

    def buildctl(self, host: str, files: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The client of the host's own release, which knows nothing of this collection."""
        address, generation = HOSTS[host]
        program = self.directory / f"buildctl-{generation}"
        if not program.exists():
            with tarfile.open(os.environ[f"BUILDKIT_{generation}_ARCHIVE"]) as archive:
                source = archive.extractfile("bin/buildctl")
                assert source is not None
                program.with_suffix(".new").write_bytes(source.read())
            program.with_suffix(".new").chmod(0o755)
            program.with_suffix(".new").rename(program)
        command = [str(program), "--addr", f"tcp://{address}:1234", "--tlsdir", str(files)]
        return subprocess.run(
            [*command, *(arguments or ("debug", "workers"))], capture_output=True, text=True, timeout=300, check=False
        )

    def accepts(self, host: str, name: str) -> bool:
        """Whether buildctl gets through with what a client was given last."""
        done = self.buildctl(host, self.files(name))
        assert (done.returncode == 0) == ("PLATFORMS" in done.stdout), done
        return done.returncode == 0

    def accepted(self, name: str) -> dict[str, bool]:
        """On each host, whether buildctl gets through with what a client was given last."""
        return {host: self.accepts(host, name) for host in HOSTS}

    def buildx_builds(self, host: str, name: str, *, limit: int = 120) -> bool:
        """Whether docker buildx builds on a host, run where it is installed, which is one of the hosts.

        :param limit: seconds for the build; a buildx that is refused goes on trying
        """
        vantage, place = "rotate-new", f"/srv/{name}"
        self.inside(vantage, "rm", "-rf", place)
        self.inside(vantage, "mkdir", "-p", f"{place}/context")
        subprocess.run(["docker", "cp", f"{self.files(name)}/.", f"{vantage}:{place}"], check=True, capture_output=True)
        options = f"cacert={place}/ca.pem,cert={place}/cert.pem,key={place}/key.pem"
        script = (
            f"export HOME={place} DOCKER_HOST=unix:///nowhere; cd {place}; echo hello >context/hello.txt; "
            "printf 'FROM scratch\\nCOPY hello.txt /\\n' >context/Dockerfile; "
            f"{BUILDX} create --name remote --driver remote --driver-opt {options} tcp://{HOSTS[host][0]}:1234 && "
            f"timeout {limit} {BUILDX} build --builder remote --no-cache --output type=local,dest=out context && "
            "cat out/hello.txt"
        )
        done = subprocess.run(
            ["docker", "exec", vantage, "sh", "-c", script], capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == (done.stdout.endswith("hello\n")), done
        return done.returncode == 0

    def inside(self, host: str, *command: str) -> str:
        """Run a command on a host."""
        done = subprocess.run(["docker", "exec", host, *command], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def pids(self) -> dict[str, str]:
        """The daemons' main processes, as systemd has them."""
        show = ("systemctl", "show", "--property", "MainPID", "--value", "buildkit.service")
        return {host: self.inside(host, *show) for host in HOSTS}

    def served(self, host: str) -> str:
        """The fingerprint of the certificate that a daemon serves, as openssl sees it."""
        where = f"{HOSTS[host][0]}:1234"
        shaken = subprocess.run(
            ["openssl", "s_client", "-connect", where],
            input="",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return self.fingerprint(shaken.stdout)

    def fingerprint(self, pem: str) -> str:
        """SHA-256 of a certificate, as openssl prints it."""
        command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256"]
        return subprocess.run(command, input=pem, capture_output=True, text=True, check=True).stdout.strip()

    def certificate(self, *path: str) -> str:
        """The fingerprint of a certificate in the PKI directory."""
        return self.fingerprint((self.pki.joinpath(*path)).read_text())

    def trusted(self, host: str) -> int:
        """How many certificates a host's CA file holds."""
        return int(self.inside(host, "grep", "-c", "BEGIN CERTIFICATE", "/etc/buildkit/tls/ca.pem"))


@dataclass
class Watch:
    """A client that connects to every builder again and again, with the files that it was given last."""

    fleet: Fleet
    name: str
    refusals: list[str] = field(default_factory=list)
    cut_off: list[str] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(HOSTS, 0))

    def run(self, host: str, stop: threading.Event) -> None:
        """Connect to one host until told to stop. Who is cut off tries again; nobody may be turned away twice."""
        while not stop.wait(0.2):
            for attempt in (self._buildctl, self._tls):
                self.attempts[host] += 1
                problem = attempt(host)
                if problem and any(text in problem.lower() for text in CUT_OFF):
                    self.cut_off.append(f"{host}: {problem}")
                    problem = attempt(host)
                if problem:
                    self.refusals.append(f"{time.strftime('%X')} {host}: {problem}")

    def _buildctl(self, host: str) -> str:
        # It gives up after 20 seconds, whatever it is told, and a host may be slower.
        for _wait in range(10):
            done = self.fleet.buildctl(host, self.fleet.files(self.name))
            if "deadline exceeded" not in done.stderr:
                break
        return "" if done.returncode == 0 and "PLATFORMS" in done.stdout else done.stdout + done.stderr

    def _tls(self, host: str) -> str:
        files = self.fleet.files(self.name)
        context = ssl.create_default_context(cafile=files / "ca.pem")
        context.load_cert_chain(files / "cert.pem", files / "key.pem")
        address = HOSTS[host][0]
        try:
            plain = socket.create_connection((address, 1234), timeout=120)
            with plain, context.wrap_socket(plain, server_hostname=address) as stream:
                stream.sendall(PREFACE)
                answer = stream.recv(9)
        except OSError as error:
            return str(error) or type(error).__name__
        return "" if answer[3:4] == b"\x04" else f"EOF: no settings frame but {answer!r}"
