# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real sshd on a free loopback port, with keys of its own, and an ssh that knows nothing but it."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import until

# sshd wants to be called by its full path, and Debian keeps it out of users' PATH.
_SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or "/usr/sbin/sshd"
# OpenSSH's; exists where its service has run once.
_PRIVILEGE_SEPARATION = Path("/run/sshd")


@dataclass(frozen=True)
class Sshd:
    """A running sshd.

    :param address: user, host and port as a URL has them
    :param path: a directory for PATH whose C(ssh) has the key that this sshd accepts, and knows its host key
    :param known_hosts: the file with that host key
    :param authorized_keys: the file with the accepted key
    :param log: what was asked of that C(ssh), an argument a line and an empty line after each call
    """

    address: str
    path: Path
    known_hosts: Path
    authorized_keys: Path
    log: Path

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of each call of C(ssh)."""
        return [call.splitlines() for call in self.log.read_text(encoding="utf-8").split("\n\n") if call]


@contextmanager
def run(directory: Path, *, environment: dict[str, str]) -> Iterator[Sshd]:
    """Run sshd until the block ends.

    :param environment: what every session finds, PATH for instance
    """
    directory.mkdir(parents=True)
    port = ports.kept()
    for name in ("host", "client"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
        subprocess.run(command, check=True)
    public = (directory / "host.pub").read_text(encoding="ascii").split()
    known_hosts, authorized_keys = directory / "known_hosts", directory / "authorized_keys"
    known_hosts.write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n", encoding="ascii")
    shutil.copy(directory / "client.pub", authorized_keys)
    found = _write_client(directory, known_hosts)
    config = directory / "sshd_config"
    config.write_text(
        f"""Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host
AuthorizedKeysFile {authorized_keys}
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
MaxStartups 100
PidFile none
SetEnv {" ".join(f'"{name}={value}"' for name, value in environment.items())}
""",
        encoding="utf-8",
    )
    # Left there, as its service leaves it: other runs of the tests may need it at the same time.
    _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    with (directory / "sshd.log").open("wb") as log:
        process = subprocess.Popen([_SSHD, "-D", "-e", "-f", str(config)], stdout=log, stderr=log)
    try:
        _wait_until_ready(process, port, directory / "sshd.log")
        yield Sshd(f"{getpass.getuser()}@127.0.0.1:{port}", found, known_hosts, authorized_keys, directory / "calls")
    finally:
        process.terminate()
        process.wait()


def _write_client(directory: Path, known_hosts: Path) -> Path:
    """An ssh in a directory of its own that reads a configuration of ours: there is no variable that names one."""
    config = directory / "ssh_config"
    config.write_text(
        f"""IdentityFile {directory}/client
IdentitiesOnly yes
StrictHostKeyChecking yes
UserKnownHostsFile {known_hosts}
GlobalKnownHostsFile /dev/null
""",
        encoding="utf-8",
    )
    found = directory / "path"
    found.mkdir()
    (directory / "calls").touch()
    script = found / "ssh"
    real = shutil.which("ssh") or "/usr/bin/ssh"
    script.write_text(
        f"""#!/bin/sh
printf '%s\\n' "$@" '' >> {shlex.quote(str(directory / "calls"))}
exec {real} -F {shlex.quote(str(config))} "$@"
""",
        encoding="utf-8",
    )
    script.chmod(0o755)
    return found


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    def answers() -> bool:
        with socket.socket() as probe:
            return process.poll() is not None or probe.connect_ex(("127.0.0.1", port)) == 0

    until(answers, "an answer of sshd")
    if process.poll() is not None:
        raise RuntimeError(f"sshd did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")


def path_with(*directories: Path) -> str:
    """The value of PATH with these directories first."""
    return os.pathsep.join([*map(str, directories), os.environ["PATH"]])
