# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles of the daemon do when a restart fails, and when a proof cannot even be tried."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import fingerprint, proc, snapshot
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import process as processes
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import IMPORT_ROOT


def go_back(
    directory: Path, hosts: str, failing: dict[str, Any], wishes: dict[str, Any], role: str = "buildkitd"
) -> tuple[int, str]:
    """Run a task that fails, and what the role does then; the exit code and what it printed."""
    tasks = {"buildkitd": "back", "buildkitd_container": "rollback"}[role]
    rescue = {"include_role": {"name": f"buildfarm.buildkit.{role}", "tasks_from": tasks}}
    play = {"hosts": "all", "gather_facts": False, "tasks": [{"block": [failing], "rescue": [rescue]}]}
    (directory / "play.yml").write_text(json.dumps([play]))
    run = subprocess.run(
        ["ansible-playbook", "-i", hosts, "-c", "local", "-e", json.dumps(wishes), str(directory / "play.yml")],
        capture_output=True,
        text=True,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(IMPORT_ROOT), "ANSIBLE_NOCOLOR": "1"},
        timeout=900,
        check=False,
    )
    return run.returncode, " ".join(run.stdout.split())


def test_without_a_proof_every_host_fails_and_none_goes_back(tmp_path: Path) -> None:
    """Without the client's certificate, nobody was proved: all hosts of the batch fail, and keep what they run."""
    wishes = {"buildkit_verify_hosts": ["one", "two"], "buildkit_verify_tls_dir": str(tmp_path / "none")}
    proof = {"include_role": {"name": "buildfarm.buildkit.buildkit_verify"}}
    code, said = go_back(tmp_path, "one,two,", proof, wishes)
    assert code == 2, said
    for host in ("one", "two"):
        assert f"{host}: It was not proved, because the proof could not be made: ca_path {tmp_path}/none/ca.pem" in said
    assert "The daemon stays as it is. Mend that and run again." in said
    assert "Going back failed" not in said
    assert said.count("changed=0") == 2


def test_without_a_proof_no_container_goes_back(tmp_path: Path) -> None:
    """Even one that was just exchanged, with the previous one still set aside."""
    info: dict[str, Any] = {"previous": True, "running": True, "reasons": ["image changed"], "exists": True}
    wishes: dict[str, Any] = {
        "buildkit_verify_hosts": ["one", "two"],
        "buildkit_verify_tls_dir": str(tmp_path / "none"),
    }
    wishes |= {"__buildkitd_container_info": info, "ansible_become": False}
    proof = {"include_role": {"name": "buildfarm.buildkit.buildkit_verify"}}
    code, said = go_back(tmp_path, "one,two,", proof, wishes, role="buildkitd_container")
    assert code == 2, said
    for host in ("one", "two"):
        assert f"{host}: it was not proved, because the proof could not be made: ca_path {tmp_path}/none/ca.pem" in said
    assert "The container stays as it is. Mend that and run again." in said
    assert "Put the previous" not in said
    assert said.count("changed=0") == 2


class Daemon:
    """What looks like a daemon that was proved and then changed. Any process will do for this."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.tls, self.run = directory, directory / "tls", directory / "run"
        self.releases, self.proved = directory / "lib", directory / "proved"
        for path in (self.tls, self.releases / "1.0.0", self.run):
            path.mkdir(parents=True)
        (self.releases / "1.0.0" / ".sha256").write_text("one\n")
        (self.releases / "current").symlink_to("1.0.0")
        for name in ("ca.pem", "cert.pem", "key.pem"):
            (self.tls / name).write_text(f"{name} that was proved")
        config, proxy = directory / "buildkitd.toml", directory / "proxy.env"
        config.write_text("debug = false\n")
        files = {
            "binary": str(self.releases / "current" / ".sha256"),
            "certificate": str(self.tls / "cert.pem"),
            "trust bundle": str(self.tls / "ca.pem"),
            "configuration": str(config),
            "command line": "argv",
            "proxy": str(proxy),
        }
        argv = [str(self.releases / "current" / "bin" / "buildkitd"), "--some"]
        command_line = hashlib.sha256(" ".join([*argv, "COLOUR=red"]).encode()).hexdigest()
        self.digests = fingerprint.digests(files, {"argv": command_line, str(proxy): fingerprint.stamp(str(proxy))})
        snapshot.keep(
            str(self.proved),
            self.digests,
            files=[str(config)],
            links=[str(self.releases / "current")],
            tls_dir=str(self.tls),
            argv=argv,
            environment={"COLOUR": "red"},
        )
        (self.tls / "cert.pem").write_text("a new certificate")

    def goes_back(self) -> str:
        """What the role says after a policy was refused."""
        wishes = {
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "buildkitd_service_manager": "process",
            "buildkitd_verify": False,
            "buildkitd_drain_limit": 0,
            "buildkitd_environment": {"COLOUR": "blue"},
            "buildkitd_config_dir": str(self.directory),
            "buildkitd_tls_dir": str(self.tls),
            "buildkitd_install_dir": str(self.releases),
            "buildkitd_run_dir": str(self.run),
            "buildkitd_log_dir": str(self.directory),
            "__buildkitd_attempted": "0.13.2",
        }
        code, said = go_back(self.directory, "one,", {"fail": {"msg": "The policy was refused."}}, wishes)
        assert code == 2, said
        return said.rpartition("fatal: ")[2]


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    """A daemon with a new certificate."""
    return Daemon(tmp_path)


def test_a_daemon_that_was_never_ended_is_left_to_its_builds(daemon: Daemon) -> None:
    """Its files go back; it runs with them already, and nobody may touch it."""
    process = subprocess.Popen(["sleep", "3600"], env={**os.environ, **daemon.digests})
    try:
        identity = proc.identify(process.pid)
        assert identity is not None
        processes.record(str(daemon.run / "buildkitd.pid"), identity)
        said = daemon.goes_back()
        assert process.poll() is None, said
    finally:
        process.kill()
        process.wait()
    went_back = "So this host went back to what was proved last (command line, environment, certificate and key)"
    assert f"The policy was refused. {went_back}" in said
    assert (daemon.tls / "cert.pem").read_text() == "cert.pem that was proved"


def damage(daemon: Daemon) -> None:
    """Spoil what was kept."""
    for copy in daemon.proved.glob("?" * 64):
        copy.write_text("spoiled")


def forget(daemon: Daemon) -> None:
    """Let nothing be kept."""
    shutil.rmtree(daemon.proved)


def uninstall(daemon: Daemon) -> None:
    """Exchange the version that was proved for one that does not start."""
    shutil.rmtree(daemon.releases / "1.0.0")
    (daemon.releases / "2.0.0" / "bin").mkdir(parents=True)
    (daemon.releases / "2.0.0" / ".sha256").write_text("two\n")
    program = daemon.releases / "2.0.0" / "bin" / "buildkitd"
    program.write_text("#!/bin/sh\necho address already in use\nexit 1\n")
    program.chmod(0o755)
    (daemon.releases / "current").unlink()
    (daemon.releases / "current").symlink_to("2.0.0")


@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        (damage, ["of what was proved last is missing or damaged, so nothing was put back. The daemon does not run"]),
        (forget, ["There is nothing to go back to: no earlier state of this daemon was proved and kept. The daemon"]),
        (
            uninstall,
            [
                "address already in use",
                "Put back was: command line, environment, certificate and key.",
                "1.0.0 is no longer installed",
            ],
        ),
    ],
)
def test_going_back_fails_too(daemon: Daemon, spoil: Callable[[Daemon], None], messages: list[str]) -> None:
    """Both reasons are told, what state the host is in, and what to do."""
    spoil(daemon)
    said = daemon.goes_back()
    log = daemon.directory / "buildkitd.log"
    messages = [
        "one: The policy was refused. Going back failed too: ",
        *messages,
        "The daemon does not run: this host builds nothing.",
        f"See {log} there; then mend what failed, or set what worked before, and run again.",
    ]
    assert [words for words in messages if words not in said] == [], said
    assert "So this host went back" not in said


def test_nothing_was_changed(daemon: Daemon) -> None:
    """Only the certificate of before is there, and no daemon."""
    (daemon.tls / "cert.pem").write_text("cert.pem that was proved")
    manifest = daemon.proved / "manifest.json"
    kept = json.loads(manifest.read_text())
    argv = [*kept["argv"][:1], f"--config={daemon.directory}/buildkitd.toml", "--addr=tcp://0.0.0.0:1234"]
    kept.update(argv=[*argv, f"--addr=unix://{daemon.run}/buildkitd.sock"], environment={"COLOUR": "blue"})
    manifest.write_text(json.dumps(kept))
    said = daemon.goes_back()
    assert "Nothing was changed that could be put back. The daemon does not run: this host builds nothing. See " in said
