# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that SIGKILL ends at each of their file operations, on the controller and on a host.

After each: no key beside a foreign certificate, no CA lost or replaced, nothing open to others; the next run finishes
the work, and the one after it has nothing to do.
"""

from __future__ import annotations

import os
import typing as t
from datetime import datetime
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.pki import crash, disk
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.pki.scenes import (
    HOSTS,
    OTHER_WORDS,
    SCENARIOS,
    WORDS,
    Host,
    restore,
    virgin_host,
)
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import snapshot

PASSPHRASES = (WORDS, OTHER_WORDS)

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here loses its power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def points(operations: t.Sequence[str]) -> list[int]:
    """The numbers of the operations to be killed at: each, but one of several flushes in a row.

    The last stands for the end, so that the state after the last operation is looked at too.
    """
    kept = [
        number
        for number, operation in enumerate(operations)
        if operation != "fsync" or number == 0 or operations[number - 1] != "fsync"
    ]
    return [*kept, len(operations)]


def made_from_nothing(result: t.Mapping[str, t.Any]) -> set[str]:
    """The daemons and clients that a run said it had found without a certificate."""
    return {
        f"{kind}/{item['name']}"
        for kind in ("daemons", "clients")
        for item in result[kind]
        if "it has no certificate yet" in item["reasons"]
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_killed_at_any_point_is_whole_and_is_finished_by_the_next(
    name: str, tmp_path: Path, now: datetime
) -> None:
    """The whole file system work of a run, one operation after the other."""
    scenario = SCENARIOS[name]
    pki, start = tmp_path / "pki", tmp_path / "start"
    run = scenario.prepare(pki, now)
    had = disk.read(pki, PASSPHRASES)
    if scenario.before:
        pki.rename(start)
    restore(start, pki)
    operations = crash.operations(pki, lambda: run.on(pki, now))
    whole = disk.read(pki, PASSPHRASES)
    for point in points(operations):
        restore(start, pki)
        where = f"killed before {[*operations, 'the end'][point]} ({point})"
        assert crash.killed_at(pki, point, lambda: run.on(pki, now)) or point >= len(operations) - 1, where
        left = disk.read(pki, PASSPHRASES)
        assert left.faults == (), where
        assert had.authority_keys <= left.authority_keys, where
        assert not scenario.peaceful or disk.strangers(pki) == [], where
        killed = snapshot(pki)
        run.on(pki, now, predict=True)
        assert snapshot(pki) == killed, where
        finished = run.on(pki, now)
        assert made_from_nothing(finished) & had.leaves == set(), where
        after = disk.read(pki, PASSPHRASES)
        assert after.faults == (), where
        assert left.authority_keys <= after.authority_keys, where
        assert len(after.authority_keys) == len(whole.authority_keys), where
        if whole.signing_key in had.authority_keys:
            assert after.signing_key == whole.signing_key, where
        assert disk.leftovers(pki) == [], where
        assert disk.unregistered(pki) == [], where
        settled = snapshot(pki)
        assert run.on(pki, now)["changed"] is False, where
        assert snapshot(pki) == settled, where
    assert len(operations) >= 10


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_open_to_others_at_any_moment(name: str, tmp_path: Path, now: datetime) -> None:
    """Files are private from their first byte, where there is no umask."""
    pki = tmp_path / "pki"
    run = SCENARIOS[name].prepare(pki, now)
    assert crash.exposures(pki, lambda: run.on(pki, now)) == []


# --- on a host ------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, now: datetime) -> Host:
    """A virgin host."""
    return virgin_host(tmp_path / "tls", now)


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_killed_at_any_point_shows_one_version_and_is_finished_by_the_next_run(
    host: Host, name: str, tmp_path: Path
) -> None:
    """Request and installation; where there was a certificate, there is one at every moment."""
    prepare, day = HOSTS[name]
    prepare(host)
    saved = tmp_path / "saved"
    if host.tls.exists():
        host.tls.rename(saved)
    restore(saved, host.tls)
    operations = crash.operations(host.tls, lambda: host.deploy(day))
    for point in points(operations):
        restore(saved, host.tls)
        where = f"killed before {[*operations, 'the end'][point]} ({point})"
        assert crash.killed_at(host.tls, point, lambda: host.deploy(day)) or point >= len(operations) - 1, where
        assert host.faults() == [], where
        assert not saved.exists() or (host.tls / "cert.pem").exists(), where
        killed = snapshot(host.tls)
        host.request(day, predict=True)
        assert snapshot(host.tls) == killed, where
        certificate = host.deploy(day)
        assert host.faults() == [], where
        assert (host.tls / "cert.pem").read_text() == certificate, where
        settled = snapshot(host.tls)
        assert host.request(day)["changed"] is False, where
        assert host.install(day, certificate)["changed"] is False, where
        assert snapshot(host.tls) == settled, where
        assert not (host.tls / "pending").exists(), where
        assert len(list((host.tls / "versions").iterdir())) <= 2, where
    assert len(operations) >= 15


@pytest.mark.parametrize("name", HOSTS)
def test_nothing_on_a_host_is_open_to_others_at_any_moment(host: Host, name: str) -> None:
    """Files are private from their first byte, where there is no umask."""
    prepare, day = HOSTS[name]
    prepare(host)
    assert crash.exposures(host.tls, lambda: host.deploy(day)) == []
