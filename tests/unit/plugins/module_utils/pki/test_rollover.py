# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A CA gets a new key in three phases: what each changes, refuses and leaves whole, and who is verified by what."""

from __future__ import annotations

import json
import shutil
import subprocess
import typing as t
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts, keys
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import (
    CutOffError,
    PkiError,
    StoreError,
    UnreadableError,
    WishError,
)
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import snapshot
from cryptography import x509

Run = t.Callable[..., t.Dict[str, t.Any]]

DAY = timedelta(days=1)
DAEMON = {"name": "build-1", "dns": ["build-1.example.com"]}
CLIENTS: list[t.Any] = ["ci", {"name": "alice", "group": "release"}]
LEAVES = ("daemons/build-1", "clients/ci", "clients/alice")


def certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a file."""
    return facts.load_certificates(path.read_bytes(), str(path))


def trusting(bundle: str) -> dict[str, t.Any]:
    """The daemon, on whose host this ca.pem is installed."""
    found = facts.load_certificates(bundle.encode(), "ca")
    return {**DAEMON, "trusts": [compat.fingerprint(one) for one in found]}


def verified(pki: Path, verifier: str, leaf: str, purpose: str) -> bool:
    """Whether OpenSSL, at its strictest, accepts a leaf by the ca.pem of another."""
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-no_check_time",
        "-purpose",
        purpose,
        "-CAfile",
        str(pki / verifier / "ca.pem"),
    ]
    done = subprocess.run([*command, str(pki / leaf / "cert.pem")], capture_output=True, text=True, check=False)
    return done.returncode == 0


def assert_mutual(pki: Path) -> None:
    """Every client and the daemon verify each other."""
    for client in ("clients/ci", "clients/alice"):
        assert verified(pki, client, "daemons/build-1", "sslserver")
        assert verified(pki, "daemons/build-1", client, "sslclient")


def phase_of(result: dict[str, t.Any]) -> tuple[str, list[str]]:
    """Phase and missing clients of the CA default."""
    return result["authorities"][0]["phase"], result["authorities"][0]["not_given"]


@pytest.fixture
def go(run: Run) -> Run:
    """Run the fleet of this file as check mode foretells, and once more, which changes nothing."""

    def once(daemon: dict[str, t.Any] | None = None, **wanted: t.Any) -> dict[str, t.Any]:
        options = {"daemons": [daemon or DAEMON], "clients": CLIENTS, **wanted}
        foretold = run(predict=True, **options)
        result = run(**options)
        for kind in ("authorities", "daemons", "clients"):
            assert [item["reasons"] for item in foretold[kind]] == [item["reasons"] for item in result[kind]]
            for item, real in zip(foretold[kind], result[kind]):
                assert item.get("ca") in (None, real.get("ca"))
        assert foretold["changed"] == result["changed"]
        assert not run(**options)["changed"]
        return result

    return once


def test_the_three_phases(go: Run, pki: Path) -> None:
    """Whoever has the files of a phase verifies whoever has those of the one before or after."""
    go()
    old = (pki / "authorities/default/key.pem").read_bytes()
    before = {leaf: (pki / leaf / "cert.pem").read_bytes() for leaf in LEAVES}

    distributed = go(rollover={"phase": "distribute"})
    assert phase_of(distributed) == ("distribute", ["alice", "ci"])
    assert distributed["authorities"][0]["next"]["serial"] != distributed["authorities"][0]["serial"]
    assert (pki / "authorities/default/key.pem").read_bytes() == old
    assert {leaf: (pki / leaf / "cert.pem").read_bytes() for leaf in LEAVES} == before
    assert len(certificates(pki / "clients/ci/ca.pem")) == 2
    assert len(certificates(pki / "daemons/build-1/ca.pem")) == 3
    assert_mutual(pki)

    host = trusting(distributed["daemons"][0]["ca"])
    issued = go(host, rollover={"phase": "issue", "given": ["ci", "alice"]})
    assert phase_of(issued) == ("issue", ["ci"])
    assert issued["clients"][0]["reasons"] == issued["daemons"][0]["reasons"] == ["its CA is rolled over"]
    assert issued["clients"][1]["reasons"] == []
    assert issued["authorities"][0]["previous"]["serial"] == distributed["authorities"][0]["serial"]
    assert issued["authorities"][0]["serial"] == distributed["authorities"][0]["next"]["serial"]
    assert (pki / "authorities/default/previous/key.pem").read_bytes() != b""
    assert issued["daemons"][0]["ca"] == distributed["daemons"][0]["ca"]
    assert_mutual(pki)
    assert verified(pki, "clients/ci", "daemons/build-1", "sslserver")

    retired = go(host, rollover={"phase": "retire", "given": ["ci"]})
    assert phase_of(retired) == ("none", [])
    assert len(certificates(pki / "clients/ci/ca.pem")) == 1
    assert_mutual(pki)
    [kept] = (pki / "authorities/default/retired").glob("*/key.pem")
    assert keys.spki(keys.load(kept.read_bytes(), "key.pem")) == keys.spki(keys.load(old, "key.pem"))
    assert not (pki / "authorities/default/rollover.json").exists()
    assert not go(host)["changed"]


def test_a_run_without_the_option_stays_in_the_phase(go: Run, now: datetime) -> None:
    """Its bundles too, and renewals go on with the CA that signs."""
    go()
    distributed = go(rollover={"phase": "distribute"})
    quiet = go()
    assert not quiet["changed"]
    assert phase_of(quiet)[0] == "distribute"
    assert quiet["daemons"][0]["ca"] == distributed["daemons"][0]["ca"]
    renewed = go(at=now + 80 * DAY)
    assert renewed["clients"][0]["reasons"] == ["it expires in 10 days (renew_before 30d)"]
    assert renewed["daemons"][0]["ca"] == distributed["daemons"][0]["ca"]


def test_issue_names_who_is_not_ready(run: Run, go: Run, pki: Path) -> None:
    """Clients without the new bundle and daemons that do not trust the new CA; nothing changes; a yes overrides."""
    outdated = trusting(go()["daemons"][0]["ca"])
    distributed = go(rollover={"phase": "distribute"})
    host = trusting(distributed["daemons"][0]["ca"])
    both_given = {"phase": "issue", "given": ["ci", "alice"]}
    for options, named in (
        ({"rollover": {"phase": "issue"}}, ("clients were not yet given", "alice, ci", "do not trust", "build-1")),
        ({"daemon": host, "rollover": {"phase": "issue", "given": ["ci"]}}, (": alice.",)),
        ({"rollover": both_given}, ("do not trust the new CA yet: build-1.",)),
        ({"daemon": outdated, "rollover": both_given}, ("do not trust the new CA yet: build-1.",)),
    ):
        before = snapshot(pki)
        with pytest.raises(CutOffError) as caught:
            go(**options)
        assert [part for part in named if part not in str(caught.value)] == []
        assert snapshot(pki) == before
    assert go(rollover={"phase": "issue", "accept_missing": True})["changed"]


def test_who_was_given_is_remembered(go: Run, pki: Path) -> None:
    """Step by step in distribute; it starts afresh with issue; daemons are remembered by what they trust."""
    go()
    distributed = go(rollover={"phase": "distribute"})
    assert phase_of(go(rollover={"given": ["ci"]})) == ("distribute", ["alice"])
    assert phase_of(go(trusting(distributed["daemons"][0]["ca"]), rollover={"given": ["alice"]}))[1] == []
    assert json.loads((pki / "authorities/default/rollover.json").read_text()) == {
        "format": 1,
        "phase": "distribute",
        "given": ["alice", "ci"],
        "daemons": ["build-1"],
    }
    assert phase_of(go(rollover={"phase": "issue"})) == ("issue", ["ci"])
    assert phase_of(go(rollover={"given": ["ci"]})) == ("issue", [])
    assert go(rollover={"phase": "retire"})["changed"]


def test_repeating_issue_does_not_count_as_given_the_new_certificates(run: Run, go: Run) -> None:
    """The names were about the bundle; a run that was interrupted is repeated with them."""
    go()
    go(rollover={"phase": "distribute"})
    wish = {"phase": "issue", "given": ["ci", "alice"], "accept_missing": True}
    go(rollover=wish)
    assert phase_of(go(rollover=wish)) == ("issue", ["ci"])
    assert phase_of(go(rollover={"given": ["ci"], "given_in": "distribute"})) == ("issue", ["ci"])
    with pytest.raises(CutOffError, match=r"not yet given their new certificates, .* ci"):
        go(rollover={"phase": "retire"})
    assert phase_of(go(rollover={"phase": "issue", "given": ["ci"], "given_in": "issue"})) == ("issue", [])


def test_retire_refuses_while_a_leaf_is_of_the_old_ca(run: Run, go: Run, pki: Path, now: datetime) -> None:
    """Also one that is not part of the run, and whatever is accepted; revoked and expired ones do not count."""
    go(daemons=[DAEMON], clients=[*CLIENTS, "bob"])
    go(rollover={"phase": "distribute"})
    go(rollover={"phase": "issue", "accept_missing": True})
    before = snapshot(pki)
    with pytest.raises(CutOffError, match=r"client bob \(until 2027-02-19T09:30:00Z\)"):
        go(rollover={"phase": "retire", "accept_missing": True})
    assert snapshot(pki) == before
    assert run(daemons=[DAEMON], clients=CLIENTS, revoke=["bob"], rollover={"phase": "retire", "given": ["ci"]})[
        "changed"
    ]


def test_retire_wants_a_yes_for_clients_with_old_certificates(go: Run) -> None:
    """They are in the register only: the new certificate has taken the place of the file."""
    go()
    go(rollover={"phase": "distribute"})
    go(rollover={"phase": "issue", "accept_missing": True})
    with pytest.raises(CutOffError, match="were not yet given their new certificates"):
        go(rollover={"phase": "retire"})
    assert go(rollover={"phase": "retire", "accept_missing": True})["changed"]


@pytest.mark.parametrize(
    ("reached", "asked", "problem"),
    [
        ((), {"phase": "issue"}, "is not being rolled over: .* The next one is distribute"),
        ((), {"phase": "retire"}, "The next one is distribute"),
        ((), {"phase": "distribute", "authority": "other"}, "rollover names the CA other, and .* has no such CA yet"),
        ((), {"phase": "distribute", "given": ["ci"]}, "nobody can have been given anything yet"),
        ((), {"given": ["ci"]}, "is not being rolled over"),
        (("distribute",), {"phase": "retire"}, "phase distribute of its rollover.* The next one is issue"),
        (("distribute",), {"phase": "issue", "given": ["carol"]}, "names carol, and no client"),
        (("distribute", "issue"), {"phase": "distribute"}, "never back. The next one is retire"),
        (("distribute", "issue", "retire"), {"phase": "issue"}, "The next one is distribute"),
    ],
)
def test_phases_come_one_after_the_other(
    run: Run, go: Run, pki: Path, reached: tuple[str, ...], asked: dict[str, t.Any], problem: str
) -> None:
    """Whatever cannot follow is refused, with what can, in check mode too, and changes nothing."""
    go()
    for phase in reached:
        go(rollover={"phase": phase, "accept_missing": True})
    before = snapshot(pki)
    for predict in (True, False):
        with pytest.raises(WishError, match=problem):
            run(predict=predict, daemons=[DAEMON], clients=CLIENTS, rollover=asked, daemon_ca="default")
    assert snapshot(pki) == before


def test_a_second_rollover_follows_the_first(go: Run, pki: Path) -> None:
    """Both retired keys stay."""
    go()
    for _time in range(2):
        for phase in ("distribute", "issue", "retire"):
            go(rollover={"phase": phase, "accept_missing": True})
    assert len(list((pki / "authorities/default/retired").iterdir())) == 2
    assert_mutual(pki)


def test_the_ca_of_a_group_is_rolled_over_alone(go: Run, pki: Path) -> None:
    """Clients need nothing before it issues; daemons that admit the group do."""
    go()
    rolled = {"authority": "release"}
    distributed = go(rollover={"phase": "distribute", **rolled})
    assert distributed["authorities"][1]["not_given"] == []
    with pytest.raises(CutOffError, match="do not trust the new CA yet: build-1"):
        go(rollover={"phase": "issue", **rolled})
    host = trusting(distributed["daemons"][0]["ca"])
    issued = go(host, rollover={"phase": "issue", **rolled})
    assert [item["changed"] for item in issued["clients"]] == [False, True]
    assert not issued["daemons"][0]["changed"]
    assert issued["authorities"][1]["not_given"] == ["alice"]
    assert_mutual(pki)
    go(host, rollover={"phase": "retire", "given": ["alice"], **rolled})
    assert_mutual(pki)


def test_a_ca_is_renewed_during_its_rollover(go: Run, pki: Path, now: datetime) -> None:
    """With its key, and all three certificates keep working."""
    go()
    go(rollover={"phase": "distribute"})
    key = keys.spki(certificates(pki / "authorities/default/ca.pem")[0])
    renewed = go(ca={"max_age": "1d"}, at=now + 2 * DAY)
    assert renewed["authorities"][0]["reasons"] == ["it is older than 1d (max_age)"]
    assert keys.spki(certificates(pki / "authorities/default/ca.pem")[0]) == key
    assert phase_of(renewed)[0] == "distribute"
    assert_mutual(pki)


# --- what is damaged ------------------------------------------------------------------------------------------


def both(pki: Path) -> None:
    """A CA before beside the CA to come."""
    shutil.copytree(pki / "authorities/default/next", pki / "authorities/default/previous")


DAMAGE: dict[str, tuple[t.Callable[[Path], object], type[PkiError], str]] = {
    "record": (lambda pki: (pki / "authorities/default/rollover.json").write_text("{"), UnreadableError, "rollover"),
    "record of another kind": (
        lambda pki: (pki / "authorities/default/rollover.json").write_text('{"format": 1, "given": "ci"}'),
        UnreadableError,
        "KeyError",
    ),
    "next key lost": (lambda pki: (pki / "authorities/default/next/key.pem").unlink(), StoreError, "is incomplete"),
    "next certificate": (
        lambda pki: (pki / "authorities/default/next/ca.pem").write_text("x"),
        UnreadableError,
        "next/ca.pem",
    ),
    "next open": (lambda pki: (pki / "authorities/default/next/key.pem").chmod(0o644), StoreError, "chmod -R go="),
    "both": (both, StoreError, "a rollover has one of them"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_rollover_is_refused_and_left_as_it_is(run: Run, go: Run, pki: Path, case: str) -> None:
    """Nothing is guessed and no CA is made anew."""
    spoil, error, message = DAMAGE[case]
    go()
    go(rollover={"phase": "distribute"})
    spoil(pki)
    before = snapshot(pki)
    for predict in (True, False):
        with pytest.raises(error, match=message):
            run(predict=predict, daemons=[DAEMON], clients=CLIENTS)
    assert snapshot(pki) == before
