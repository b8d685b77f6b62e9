# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook rotate where no init system helps, in this order. The scenario rotate has hosts with systemd."""

from __future__ import annotations

import os
import subprocess
import typing as t
from pathlib import Path

import pytest
from fleet import Fleet
from test_life import buildctl, endless_build, sleeping

OLD_PASSPHRASE, NEW_PASSPHRASE = "the passphrase before", "the passphrase after"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Fleet]:
    """One builder that runs, with a client and short lives."""
    made = Fleet(tmp_path_factory.mktemp("rotate"), "NEW")
    made.variables.update(buildkit_clients=["alice", "bob"], buildkit_pki_valid_for="30d")
    made.variables["buildkit_pki_ca_passphrase"] = OLD_PASSPHRASE
    try:
        first = made.play("site")
        assert first.code == 0, first.output
        yield made
    finally:
        made.clear()


def tls(fleet: Fleet, name: str) -> list[str]:
    """A client's files, for buildctl."""
    return ["--tlsdir", str(fleet.pki / "clients" / name)]


def text(output: str) -> str:
    """On one line, to look for what Ansible wraps."""
    return " ".join(output.replace('\\"', '"').split())


def test_a_host_without_a_builder_is_refused(tmp_path: Path) -> None:
    """Before a CA or a key is made."""
    virgin = Fleet(tmp_path)
    before = virgin.state()
    run = virgin.play("rotate")
    assert run.code != 0
    assert "builder has no builder that runs as a plain process, so there is nothing to restart." in text(run.output)
    assert virgin.state() == before


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"buildkit_rotate": "roll"}, "buildkit_rotate is 'roll'. It is one of renew_ca, distribute, issue and retire"),
        ({"buildkit_rotate": "issue", "buildkit_revoke": ["bob"]}, "a step goes without buildkit_revoke"),
        ({"buildkit_revoke": ["nobody"]}, "nobody"),
        ({"buildkit_rotate": "issue"}, "distribute"),
        ({"buildkit_admits": ["release"]}, "builder does not admit the group default of the client buildkit-verify"),
        ({"buildkit_admits": ["default", "relaese"]}, "relaese"),
    ],
)
def test_what_cannot_be_meant_is_refused(fleet: Fleet, wish: dict[str, t.Any], message: str) -> None:
    """With a message that says so; nothing changes, and the daemon lives on."""
    before, pid = fleet.state(), fleet.pid()
    run = fleet.play("rotate", **wish)
    assert run.code != 0
    assert message in text(run.output).partition("fatal:")[2]
    assert "Traceback" not in run.output
    assert fleet.state() == before
    assert fleet.pid() == pid


def test_what_is_due_is_renewed_and_nothing_else_is_touched(fleet: Fleet) -> None:
    """A new certificate is a reason to restart; a setting that site has not written yet is left to site."""
    fleet.variables.update(
        buildkit_pki_valid_for="90d", buildkit_pki_renew_before="40d", buildkitd_config={"debug": True}
    )
    config, pid = (fleet.host / "config" / "buildkitd.toml").read_bytes(), fleet.pid()
    before = fleet.state()
    predicted = fleet.play("rotate", "--check", "--diff")
    assert predicted.changed >= 3
    assert "Service | Run buildkitd (certificate changed)" in predicted.output
    assert fleet.state() == before
    run = fleet.play("rotate")
    assert run.code == 0, run.output
    assert "Service | Run buildkitd (certificate changed)" in run.output
    assert "exec build in" in run.output
    assert fleet.pid() not in (0, pid)
    assert (fleet.host / "config" / "buildkitd.toml").read_bytes() == config
    again = fleet.play("rotate")
    assert again.changed == 0
    assert "No client needs new files." in again.output
    del fleet.variables["buildkitd_config"]


def test_the_passphrase_is_changed(fleet: Fleet) -> None:
    """The CA stays the same to the last byte of its certificate; the old passphrase opens nothing any more."""
    authority = fleet.pki / "authorities" / "default"
    certificate = (authority / "ca.pem").read_bytes()
    fleet.variables["buildkit_pki_ca_passphrase"] = NEW_PASSPHRASE
    refused = fleet.play("rotate")
    assert refused.code != 0
    assert "passphrase" in text(refused.output).partition("fatal:")[2]
    run = fleet.play("rotate", buildkit_pki_ca_previous_passphrase=OLD_PASSPHRASE)
    assert run.code == 0, run.output
    assert OLD_PASSPHRASE not in run.output
    assert NEW_PASSPHRASE not in run.output
    assert (authority / "ca.pem").read_bytes() == certificate
    opened = [_opens(authority / "key.pem", passphrase) for passphrase in (OLD_PASSPHRASE, NEW_PASSPHRASE)]
    assert opened == [False, True]


def _opens(key: Path, passphrase: str) -> bool:
    command = ["openssl", "pkey", "-in", str(key), "-noout", "-passin", "env:PASSPHRASE"]
    return (
        subprocess.run(
            command, env={**os.environ, "PASSPHRASE": passphrase}, capture_output=True, check=False
        ).returncode
        == 0
    )


def test_a_thief_is_thrown_out_at_once(fleet: Fleet, tmp_path: Path) -> None:
    """A build dies that the daemon would have waited for without end, and only Alice gets in again."""
    fleet.variables["buildkit_pki_trust"] = "pinned"
    switched = fleet.play("rotate", buildkit_rotate_accept_missing=True)
    assert switched.code == 0, switched.output
    assert "PLATFORMS" in buildctl(fleet, "debug", "workers", tls=tls(fleet, "bob")).stdout
    stolen = tmp_path / "stolen"
    stolen.mkdir()
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (stolen / name).write_bytes((fleet.pki / "clients" / "bob" / name).read_bytes())
    fleet.variables["buildkit_clients"] = ["alice"]
    fleet.variables["buildkitd_stop_timeout"] = 600
    pid = fleet.pid()
    (tmp_path / "context").mkdir()
    with endless_build(fleet, tmp_path / "context"):
        run = fleet.play("rotate", buildkit_revoke=["bob"], buildkit_revoke_now=True)
        assert run.code == 0, run.output
        assert sleeping() == []
    assert "Restart | Kill the daemon with all its builds (trust bundle changed)" in run.output
    assert "Revoked: bob." in text(run.output)
    assert fleet.pid() not in (0, pid)
    assert "PLATFORMS" in buildctl(fleet, "debug", "workers", tls=tls(fleet, "alice")).stdout
    assert buildctl(fleet, "debug", "workers", tls=["--tlsdir", str(stolen)]).returncode != 0
    again = fleet.play("rotate", buildkit_revoke=["bob"], buildkit_revoke_now=True)
    assert again.changed == 0
