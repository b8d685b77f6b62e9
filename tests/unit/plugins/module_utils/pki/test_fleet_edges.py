# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Corners of a directory: partly listed fleets, lost or old files, clients that move. None of it cuts anybody off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import typing as t
from datetime import timedelta
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import CutOffError, StoreError

if t.TYPE_CHECKING:
    from datetime import datetime

Run = t.Callable[..., t.Dict[str, t.Any]]

DAY = timedelta(days=1)
ONE = {"name": "build-1", "dns": ["build-1.example.com"]}
TWO = {"name": "build-2", "dns": ["build-2.example.com"]}
ALICE = {"name": "alice", "group": "release"}


def fingerprints(bundle: str | bytes) -> list[str]:
    """Those of all certificates in a ca.pem."""
    pem = bundle if isinstance(bundle, bytes) else bundle.encode()
    return [compat.fingerprint(one) for one in facts.load_certificates(pem, "ca.pem")]


def test_issue_counts_a_daemon_that_missed_the_renewal_of_its_ca(run: Run, now: datetime) -> None:
    """Its ca.pem holds the old CA in an earlier certificate, and it does not trust the new CA."""
    first = run(daemons=[ONE, TWO], clients=["ci"])["daemons"][0]["ca"]
    second = run(daemons=[{**ONE, "trusts": fingerprints(first)}], clients=["ci"], rollover={"phase": "distribute"})[
        "daemons"
    ][0]["ca"]
    options: dict[str, t.Any] = {"clients": ["ci"], "at": now + 2 * DAY}
    third = run(daemons=[{**ONE, "trusts": fingerprints(second)}], ca={"max_age": "1d"}, **options)["daemons"][0]["ca"]
    with pytest.raises(CutOffError, match="do not trust the new CA yet: build-2"):
        run(
            daemons=[{**ONE, "trusts": fingerprints(third)}],
            rollover={"phase": "issue", "given": ["ci"]},
            **options,
        )


def test_issue_counts_a_daemon_whose_ca_file_is_lost(run: Run, pki: Path) -> None:
    """What it trusts is not known then."""
    run(daemons=[ONE, TWO], clients=["ci"], rollover=None)
    given = run(daemons=[ONE], clients=["ci"], rollover={"phase": "distribute"})["daemons"][0]["ca"]
    (pki / "daemons/build-2/ca.pem").unlink()
    with pytest.raises(CutOffError, match="do not trust the new CA yet: build-2"):
        run(
            daemons=[{**ONE, "trusts": fingerprints(given)}],
            clients=["ci"],
            rollover={"phase": "issue", "given": ["ci"]},
        )


def test_a_renewed_ca_remembers_who_trusts_the_one_to_come(run: Run, pki: Path, now: datetime) -> None:
    """Once, so that the run after it writes nothing."""
    run(daemons=[ONE], clients=["ci"])
    bundle = run(daemons=[ONE], clients=["ci"], rollover={"phase": "distribute"})["daemons"][0]["ca"]
    options: dict[str, t.Any] = {"clients": ["ci"], "at": now + 2 * DAY, "ca": {"max_age": "1d"}}
    run(daemons=[{**ONE, "trusts": fingerprints(bundle)}], **options)
    assert json.loads((pki / "authorities/default/rollover.json").read_text())["daemons"] == ["build-1"]


def test_a_serial_number_of_an_unlisted_client_takes_its_superseded_certificates_along(
    run: Run, pki: Path, now: datetime
) -> None:
    """Its directory goes away as a whole."""
    options: dict[str, t.Any] = {"trust": "pinned", "daemons": [ONE]}
    run(clients=["ci", "bob"], **options)
    later = now + 70 * DAY
    serial = run(clients=["ci", "bob"], at=later, **options)["clients"][1]["serial"]
    result = run(clients=["ci"], revoke=[serial], at=later, **options)
    assert [one["name"] for one in result["revoked"]] == ["bob", "bob"]
    assert {
        facts.common_name(one.subject) for one in facts.load_certificates(result["daemons"][0]["ca"].encode(), "")
    } == {"ci"}
    assert not run(clients=["ci"], revoke=[serial], at=later, **options)["changed"]


def test_daemons_that_are_not_listed_and_accept_the_revoked_are_named(run: Run) -> None:
    """Until a run with them takes the certificate out of their ca.pem."""
    run(trust="pinned", daemons=[ONE, TWO], clients=["ci", "bob"])
    options: dict[str, t.Any] = {"trust": "pinned", "clients": ["ci"]}
    for wanted in ({"revoke": ["bob"]}, {}):
        (warning,) = run(daemons=[ONE], **wanted, **options)["warnings"]
        assert "go on accepting revoked clients or a retired CA: build-2." in warning
    assert run(daemons=[TWO], **options)["warnings"] == []
    assert run(daemons=[ONE], **options)["warnings"] == []


def test_daemons_that_are_not_listed_and_trust_a_retired_ca_are_named(run: Run) -> None:
    """The run that retires it takes it out of the bundles of those that it lists."""
    ca, daemons = run(daemons=[ONE, TWO], clients=["ci"])["daemons"][0]["ca"], [ONE, TWO]
    for phase in ("distribute", "issue"):
        daemons = [{**one, "trusts": fingerprints(ca)} for one in (ONE, TWO)]
        given = [] if phase == "distribute" else ["ci"]
        ca = run(daemons=daemons, clients=["ci"], rollover={"phase": phase, "given": given})["daemons"][0]["ca"]
    (warning,) = run(daemons=daemons[:1], clients=["ci"], rollover={"phase": "retire", "given": ["ci"]})["warnings"]
    assert "a retired CA: build-2." in warning
    assert run(daemons=daemons, clients=["ci"])["warnings"] == []


def test_daemons_that_are_not_listed_and_miss_a_renewed_pinned_client_are_named(run: Run, now: datetime) -> None:
    """It would be refused there with its new files."""
    options: dict[str, t.Any] = {"trust": "pinned", "clients": ["ci"], "at": now + 70 * DAY}
    run(trust="pinned", daemons=[ONE, TWO], clients=["ci"])
    run(trust="pinned", daemons=[ONE, TWO], clients=["ci"], at=now + 40 * DAY)
    for _again in range(2):
        (warning,) = run(daemons=[ONE], **options)["warnings"]
        assert "the new certificate of the client ci: build-2." in warning
    assert run(daemons=[ONE, TWO], **options)["warnings"] == []


def test_a_pinned_client_moves_to_a_group_that_is_not_admitted(run: Run) -> None:
    """That is the wish itself, and the result knows the new group."""
    options: dict[str, t.Any] = {"trust": "pinned", "daemons": [{**ONE, "admits": ["default"]}]}
    before = run(clients=["ci", "alice"], **options)
    after = run(clients=["ci", ALICE], **options)
    assert len(fingerprints(before["daemons"][0]["ca"])) == 2
    assert len(fingerprints(after["daemons"][0]["ca"])) == 1
    assert [one["group"] for one in after["expires"] if one["name"] == "alice"] == ["release"]
    again = run(clients=["ci"], **options)
    assert not again["changed"]
    assert [one["group"] for one in again["expires"] if one["name"] == "alice"] == ["release"]


@pytest.mark.parametrize(
    "where",
    [
        "clients/ci.tar.gz",
        "daemons/README",
        "authorities/README",
        "authorities/default/retired/README",
        "clients/ci/superseded/README",
        "revoked/clients/README",
    ],
)
def test_a_file_of_the_user_between_ours_is_passed_over(run: Run, pki: Path, where: str) -> None:
    """Such as an archive of a client beside its directory."""
    run(daemons=[ONE], clients=["ci"])
    path = pki / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    assert not run(daemons=[ONE], clients=["ci"])["changed"]
    assert path.read_text() == "mine"


def test_a_client_called_like_its_ca_is_not_pinned(run: Run, pki: Path) -> None:
    """Its certificate names itself as issuer, and goes out of use when clients are to be pinned."""
    options: dict[str, t.Any] = {"ca": {"common_name": "farm"}, "daemons": [ONE], "clients": ["farm"]}
    run(**options)
    verify = ["openssl", "verify", "-x509_strict", "-no_check_time", "-CAfile", str(pki / "daemons/build-1/ca.pem")]
    command = [*verify, str(pki / "clients/farm/cert.pem")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    result = run(trust="pinned", accept_missing=True, **options)
    assert result["clients"][0]["reasons"] == ["a CA signed it, and clients are to be pinned"]
    assert len(fingerprints(result["daemons"][0]["ca"])) == 1


def test_a_register_from_before_a_revocation_does_not_undo_it(run: Run, pki: Path) -> None:
    """It came from a backup; what was put away as revoked is revoked."""
    options: dict[str, t.Any] = {"trust": "pinned", "daemons": [ONE]}
    run(clients=["ci", "bob"], **options)
    earlier = (pki / "issued.json").read_bytes()
    revoked = run(clients=["ci"], revoke=["bob"], **options)["revoked"]
    (pki / "issued.json").write_bytes(earlier)
    assert [one["serial"] for one in run(clients=["ci"], **options)["revoked"]] == [revoked[0]["serial"]]


def test_a_new_register_does_not_cut_a_group_off(run: Run, pki: Path) -> None:
    """No client of the group has files here any more, and daemons go on admitting it."""
    run(daemons=[ONE], clients=["ci", ALICE])
    shutil.rmtree(pki / "clients/alice")
    (pki / "issued.json").unlink()
    assert not run(daemons=[ONE], clients=["ci"])["daemons"][0]["changed"]


def test_a_lost_ca_of_a_group_is_missed_while_its_clients_are_out_there(run: Run, pki: Path) -> None:
    """Also when none of them is listed, and also without a register."""
    run(daemons=[ONE], clients=["ci", ALICE])
    shutil.rmtree(pki / "authorities/release")
    with pytest.raises(StoreError, match="release is lost"):
        run(daemons=[ONE], clients=["ci"])
    assert run(daemons=[ONE], clients=["ci"], accept_missing=True, predict=True)["daemons"][0]["changed"]
    (pki / "issued.json").unlink()
    with pytest.raises(StoreError, match="release is lost"):
        run(daemons=[ONE], clients=["ci", ALICE])


def test_the_key_of_a_retired_ca_is_private_while_it_is_copied(
    run: Run, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each later change of the authority copies it, whatever the umask says."""
    ca = run(daemons=[ONE], clients=["ci"])["daemons"][0]["ca"]
    for phase in ("distribute", "issue", "retire"):
        step = {"phase": phase, "given": [] if phase == "distribute" else ["ci"]}
        ca = run(daemons=[{**ONE, "trusts": fingerprints(ca)}], clients=["ci"], rollover=step)["daemons"][0]["ca"]
    seen, original = [], shutil.copystat

    def copystat(source: str, target: str, **options: t.Any) -> None:
        if Path(target).is_file():
            seen.append(Path(target).stat().st_mode & 0o777)
        original(source, target, **options)

    monkeypatch.setattr(shutil, "copystat", copystat)
    before = os.umask(0)
    try:
        run(daemons=[ONE], clients=["ci"], rollover={"phase": "distribute"})
    finally:
        os.umask(before)
    assert seen == [0o600, 0o600]
    assert len(list(pki.glob("authorities/default/retired/*/key.pem"))) == 1
