# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet on this very machine: an inventory whose hosts have all their files below one directory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import cache
from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import IMPORT_ROOT, snapshot

NAME = "builder"
_RECAP = re.compile(r"^(\S+)\s*: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)

State = t.Dict[str, t.Tuple[int, bytes]]


@dataclass(frozen=True)
class Run:
    """How a run of Ansible ended."""

    code: int
    output: str

    @property
    def changed(self) -> int:
        """How many tasks changed something, on all hosts together; a run that failed is none to count in."""
        recap = _RECAP.findall(self.output)
        assert recap, self.output
        assert self.code == 0, self.output
        return sum(int(host[1]) for host in recap)


class Fleet:
    """One directory with an inventory, what stands for the hosts, and the PKI directory beside it."""

    def __init__(self, directory: Path, generation: str = "OLD") -> None:
        self.directory = directory
        self.host = directory / "host"
        self.pki = directory / "pki"
        self.host.mkdir()
        self.ansible = directory / "ansible"
        self.ansible.mkdir()
        (self.ansible / "ansible.cfg").touch()
        self.port = ports.kept()
        self.variables: dict[str, t.Any] = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "ansible_remote_tmp": str(self.ansible / "tmp"),
            "buildkit_names": ["localhost"],
            "buildkit_addresses": ["127.0.0.1"],
            "buildkit_endpoint": f"tcp://127.0.0.1:{self.port}",
            "buildkit_port": self.port,
            "buildkit_listen_address": "127.0.0.1",
            "buildkit_clients": ["alice"],
            "buildkit_tls_dir": str(self.host / "tls"),
            "buildkitd_service_manager": "process",
            "buildkitd_stop_timeout": 30,
            # However slow the machine is.
            "buildkit_verify_connect_timeout": 120,
            "buildkit_verify_build_timeout": 600,
            **self.release(generation),
            **{f"buildkitd_{name}_dir": str(self.host / name) for name in ("install", "bin", "config", "run", "log")},
            "buildkitd_root": str(self.host / "cache"),
        }
        self.hosts: dict[str, dict[str, t.Any]] = {NAME: {}}

    @staticmethod
    def release(generation: str) -> dict[str, str]:
        """The variables of a real BuildKit, OLD or NEW, that this environment provides."""
        names = {"version": "VERSION", "archive": "ARCHIVE", "archive_sha256": "SHA256"}
        return {f"buildkitd_{name}": os.environ[f"BUILDKIT_{generation}_{part}"] for name, part in names.items()}

    def command(self, playbook: str, *arguments: str, **variables: t.Any) -> list[str]:
        """What runs a playbook, with these variables above all others."""
        inventory = self.directory / "inventory.json"
        group = {"hosts": self.hosts, "vars": self.variables}
        inventory.write_text(json.dumps({"buildkit_daemons": group}, indent=2), encoding="utf-8")
        program = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory)]
        above = ["--extra-vars", json.dumps(variables)] if variables else []
        return [*program, *arguments, *above, playbook]

    def environment(self, *libraries: Path) -> dict[str, str]:
        """The environment of a run, with nothing in it from this one's Ansible; ``libraries`` are found first."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        return {
            **own,
            "ANSIBLE_CONFIG": str(self.ansible / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.ansible),
            "ANSIBLE_COLLECTIONS_PATH": str(IMPORT_ROOT),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_PIPELINING": "true",  # saves a third of the time
            "PYTHONPATH": os.pathsep.join([*map(str, libraries), str(IMPORT_ROOT)]),
            "PYTHONUNBUFFERED": "1",
        }

    def play(self, name: str, *arguments: str, libraries: t.Sequence[Path] = (), **variables: t.Any) -> Run:
        """Run a playbook of the collection, or one of the test's own by its path."""
        playbook = name if name.endswith(".yml") else f"buildfarm.buildkit.{name}"
        done = subprocess.run(
            self.command(playbook, *arguments, **variables),
            env=self.environment(*libraries),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        return Run(done.returncode, done.stdout)

    def start(
        self, name: str, *arguments: str, stdin: int = subprocess.DEVNULL, **variables: t.Any
    ) -> subprocess.Popen[bytes]:
        """Start a playbook of the collection, in a session of its own, so that it can be killed with all it started."""
        return subprocess.Popen(
            self.command(f"buildfarm.buildkit.{name}", *arguments, **variables),
            env=self.environment(),
            cwd=self.directory,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def play_until(self, text: str, name: str) -> str:
        """Run a playbook of the collection, kill it when it prints this, and return what it printed."""
        process = self.start(name)
        printed = ""
        with process:
            assert process.stdout is not None
            for data in process.stdout:
                line = data.decode()
                printed += line
                if text in line:
                    break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return printed

    def role(self, name: str) -> str:
        """A playbook that runs one role alone."""
        path = self.directory / f"{name}.yml"
        roles = [{"role": f"buildfarm.buildkit.{name}"}]
        path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": roles}]), encoding="utf-8")
        return str(path)

    def state(self) -> State:
        """All files of the host and the PKI, not those of Ansible. Build cache and log belong to the daemon.

        So the cache is left out, and the log's content, to which the daemon may add at any time.
        """
        now = {name: state for part in (self.host, self.pki) for name, state in _tree(part).items()}
        return {
            name: (mode, b"" if name.startswith("host/log/") else content)
            for name, (mode, content) in now.items()
            if not name.startswith("host/cache")
        }

    def interpreter(self, *lines: str, libraries: t.Sequence[Path] = ()) -> str:
        """A Python for the hosts that is this one, behind these lines of shell."""
        path = self.directory / "python"
        search = os.pathsep.join([*map(str, libraries), str(IMPORT_ROOT)])
        run = f'export PYTHONPATH={shlex.quote(search)}\nexec {shlex.quote(sys.executable)} "$@"'
        path.write_text("\n".join(["#!/bin/sh", *lines, run, ""]), encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    def without(self, *names: str) -> Path:
        """A directory of libraries in which these cannot be imported."""
        directory = self.directory / "-".join(["without", *names])
        for name in names:
            (directory / name).mkdir(parents=True)
            (directory / name / "__init__.py").write_text(
                f"raise ImportError('there is no {name}')\n", encoding="ascii"
            )
        return directory

    def pid(self) -> int:
        """The number of the running daemon; 0 when none runs."""
        pid_file = self.host / "run" / "buildkitd.pid"
        pid = int(json.loads(pid_file.read_text(encoding="ascii"))["pid"]) if pid_file.exists() else 0
        return pid if pid in self.processes() else 0

    def processes(self) -> list[int]:
        """All processes whose program is one of the fleet's."""
        found = []
        for path in Path("/proc").glob("[0-9]*/exe"):
            with contextlib.suppress(OSError):
                if os.readlink(path).startswith(f"{self.host}/"):
                    found.append(int(path.parent.name))
        return found

    def mounts(self) -> list[str]:
        """All mount points below the fleet's directory, the deepest first."""
        table = Path("/proc/self/mounts").read_text(encoding="utf-8")
        points = [line.split(" ")[1] for line in table.splitlines()]
        return sorted((point for point in points if point.startswith(f"{self.directory}/")), reverse=True)

    def clear(self) -> None:
        """Leave no process, container or mount behind, whatever has happened."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        # Not by `runc list`, which fails when a step of somebody else ends meanwhile.
        for record in cache.records(str(self.directory)):
            subprocess.run(["runc", "delete", "--force", os.path.basename(record)], check=False)
        for point in self.mounts():
            subprocess.run(["umount", "--lazy", point], check=False)


@dataclass(frozen=True)
class Builder:
    """A fleet of one builder that works, the two runs that led to it, and what the first of them left."""

    fleet: Fleet
    prediction: Run
    left_by_prediction: list[str]
    first: Run


def _tree(directory: Path) -> State:
    """A directory with all below it; nothing when it is not there."""
    if not directory.exists():
        return {}
    below = {f"{directory.name}/{name}": state for name, state in _readable(directory).items()}
    return {directory.name: (directory.stat().st_mode, b""), **below}


def _readable(directory: Path) -> State:
    return {name: state for name, state in snapshot(directory).items() if not stat.S_ISSOCK(state[0])}
