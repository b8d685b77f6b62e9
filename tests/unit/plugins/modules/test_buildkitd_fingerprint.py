# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkitd_fingerprint, run as Ansible runs it, with a real process as the daemon."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module, snapshot
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import until

Run = t.Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A function that runs the module on two files."""
    (tmp_path / "ca.pem").write_text("ca")
    (tmp_path / "buildkitd.toml").write_text("debug = true")
    options = {
        "files": {"trust bundle": f"{tmp_path}/ca.pem", "configuration": f"{tmp_path}/buildkitd.toml"},
        "environment_file": f"{tmp_path}/fingerprint.env",
        "pid_file": f"{tmp_path}/pid",
    }

    def once(check: bool = False, **changed: t.Any) -> Outcome:
        given = {name: value for name, value in {**options, **changed}.items() if value is not None}
        return run_module("buildkitd_fingerprint", given, check=check, diff=True)

    return once


@pytest.fixture
def daemon(tmp_path: Path) -> t.Iterator[t.Callable[[t.Mapping[str, str]], None]]:
    """A function that starts a process with this environment and records it."""
    started = []

    def start(environment: t.Mapping[str, str]) -> None:
        process = subprocess.Popen(["/bin/sleep", "60"], env=dict(environment))
        started.append(process)
        until(Path(f"/proc/{process.pid}/environ").read_bytes, "the environment of the process")
        identity = proc.identify(process.pid)
        assert identity is not None
        (tmp_path / "pid").write_text(json.dumps(dataclasses.asdict(identity)))

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_without_a_daemon_there_is_no_reason_and_the_file_is_written(run: Run, tmp_path: Path) -> None:
    """It holds what is returned, and is not written again."""
    first = run()
    assert (first.result["changed"], first.result["running"], first.result["reasons"]) == (True, False, [])
    assert first.result["environment"]["BUILDFARM_SHA256_TRUST_BUNDLE"] == hashlib.sha256(b"ca").hexdigest()
    lines = (tmp_path / "fingerprint.env").read_text().splitlines()
    assert dict(line.split("=") for line in lines) == first.result["environment"]
    assert first.result["diff"] == {"before": "", "after": (tmp_path / "fingerprint.env").read_text()}
    assert run().result["changed"] is False


def test_reasons_come_from_the_environment_of_the_running_process(
    run: Run, daemon: t.Callable[[t.Mapping[str, str]], None], tmp_path: Path
) -> None:
    """Not from the file, which an interrupted run has already written anew."""
    daemon(run().result["environment"])
    assert (run().result["running"], run().result["reasons"]) == (True, [])
    (tmp_path / "ca.pem").write_text("other ca")
    assert run().result["reasons"] == ["trust bundle changed"]
    interrupted = run()
    assert (interrupted.result["changed"], interrupted.result["reasons"]) == (False, ["trust bundle changed"])
    daemon(interrupted.result["environment"])
    assert run().result["reasons"] == []


def test_a_daemon_of_unknown_origin_is_restarted(run: Run, daemon: t.Callable[[t.Mapping[str, str]], None]) -> None:
    """One that does not carry the digests may have been started with anything."""
    daemon({"PATH": "/bin"})
    assert run().result["reasons"] == [
        "the running daemon does not say which trust bundle it was started with",
        "the running daemon does not say which configuration it was started with",
    ]


def test_check_mode_predicts_from_what_files_are_to_hold(
    run: Run, daemon: t.Callable[[t.Mapping[str, str]], None], tmp_path: Path
) -> None:
    """The reasons are there before the files, and nothing is written."""
    daemon(run().result["environment"])
    before = snapshot(tmp_path)
    predicted = run(check=True, digests={f"{tmp_path}/buildkitd.toml": "0" * 64})
    assert (predicted.result["changed"], predicted.result["reasons"]) == (True, ["configuration changed"])
    assert snapshot(tmp_path) == before


def test_a_secret_has_no_digest(run: Run, daemon: t.Callable[[t.Mapping[str, str]], None], tmp_path: Path) -> None:
    """A digest that everyone may read would let anyone try passwords; another writing of the file is a reason."""
    secret = tmp_path / "proxy.env"
    secret.write_text("HTTPS_PROXY=http://user:s3cret@proxy.example.com")
    secrets = {"proxy": str(secret)}
    first = run(secrets=secrets)
    assert (
        hashlib.sha256(secret.read_bytes()).hexdigest() not in first.output + (tmp_path / "fingerprint.env").read_text()
    )
    daemon(first.result["environment"])
    assert run(secrets=secrets).result["reasons"] == []
    assert run(secrets=secrets, check=True, digests={str(secret): "what will be installed"}).result["reasons"] == [
        "proxy changed"
    ]
    (tmp_path / "new").write_text("HTTPS_PROXY=http://user:other@proxy.example.com")
    (tmp_path / "new").rename(secret)
    assert run(secrets=secrets).result["reasons"] == ["proxy changed"]
    secret.unlink()
    gone = run(secrets=secrets).result
    assert (gone["reasons"], gone["environment"]["BUILDFARM_SHA256_PROXY"]) == (["proxy changed"], "absent")


@pytest.mark.parametrize("check", [False, True])
def test_a_pid_file_of_somebody_else_is_an_error(run: Run, tmp_path: Path, check: bool) -> None:
    """It cannot be told which process is ours, so nothing is written."""
    (tmp_path / "pid").write_text("4711")
    before = snapshot(tmp_path)
    outcome = run(check=check)
    assert "Comparing the running buildkitd with its files failed" in outcome.message
    assert "Traceback" not in outcome.output
    assert snapshot(tmp_path) == before


def test_what_cannot_be_written_is_one_clear_message(run: Run, tmp_path: Path) -> None:
    """A directory stands where the file is to be."""
    outcome = run(environment_file=str(tmp_path))
    assert "Comparing the running buildkitd with its files failed" in outcome.message
    assert "Traceback" not in outcome.output


def test_one_way_to_find_the_daemon_is_needed(run: Run) -> None:
    """Neither none nor two."""
    assert "one of the following is required: unit, pid_file" in run(pid_file=None).message
    assert "mutually exclusive: unit|pid_file" in run(unit="buildkit.service").message
