# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles of the daemon do when a restart fails, and when a proof cannot even be tried."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import fingerprint, proc, process, snapshot
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


def test_a_daemon_that_was_never_ended_is_left_to_its_builds(tmp_path: Path) -> None:
    """Its files go back; it runs with them already. Any process will do for this: nobody may touch it."""
    tls, programs, run = tmp_path / "tls", tmp_path / "lib" / "1.0.0", tmp_path / "run"
    for directory in (tls, programs, run):
        directory.mkdir(parents=True)
    (programs / ".sha256").write_text("one\n")
    (tmp_path / "lib" / "current").symlink_to("1.0.0")
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tls / name).write_text(f"{name} that was proved")
    config, proxy = tmp_path / "buildkitd.toml", tmp_path / "proxy.env"
    config.write_text("debug = false\n")
    files = {
        "binary": str(tmp_path / "lib" / "current" / ".sha256"),
        "certificate": str(tls / "cert.pem"),
        "trust bundle": str(tls / "ca.pem"),
        "configuration": str(config),
        "command line": "argv",
        "proxy": str(proxy),
    }
    argv = ["/bin/buildkitd", "--some"]
    command_line = hashlib.sha256(" ".join([*argv, "COLOUR=red"]).encode()).hexdigest()
    digests = fingerprint.digests(files, {"argv": command_line, str(proxy): fingerprint.stamp(str(proxy))})
    links = [str(tmp_path / "lib" / "current")]
    snapshot.keep(str(tmp_path / "proved"), digests, files=[str(config)], links=links, tls_dir=str(tls), argv=argv)
    (tls / "cert.pem").write_text("a new certificate")

    daemon = subprocess.Popen(["sleep", "3600"], env={**os.environ, **digests})
    try:
        identity = proc.identify(daemon.pid)
        assert identity is not None
        process.record(str(run / "buildkitd.pid"), identity)
        wishes = {
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "buildkitd_service_manager": "process",
            "buildkitd_verify": False,
            "buildkitd_drain_limit": 0,
            "buildkitd_environment": {"COLOUR": "red"},
            "buildkitd_config_dir": str(tmp_path),
            "buildkitd_tls_dir": str(tls),
            "buildkitd_install_dir": str(tmp_path / "lib"),
            "buildkitd_run_dir": str(run),
            "__buildkitd_attempted": "0.13.2",
        }
        code, said = go_back(tmp_path, "one,", {"fail": {"msg": "The policy was refused."}}, wishes)
        assert daemon.poll() is None, said
    finally:
        daemon.kill()
        daemon.wait()
    assert code == 2, said
    assert "The policy was refused. So this host went back to what was proved last (certificate and key)" in said
    assert (tls / "cert.pem").read_text() == "cert.pem that was proved"
