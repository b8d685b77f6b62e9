# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who trusts whom: groups of clients, another CA for daemons, pinned clients, and what would cut somebody off."""

from __future__ import annotations

import json
import subprocess
import typing as t
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, csr, facts, keys
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import CsrError, CutOffError, WishError
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import snapshot

Run = t.Callable[..., t.Dict[str, t.Any]]

DAY = timedelta(days=1)
DAEMON = {"name": "build-1", "dns": ["build-1.example.com"]}
SECOND = {"name": "build-2", "dns": ["build-2.example.com"]}
ALICE = {"name": "alice", "group": "release"}


def names(bundle: str | None) -> list[str | None]:
    """The common names in a ca.pem."""
    return [facts.facts_of(one).common_name for one in facts.load_certificates((bundle or "").encode(), "ca.pem")]


def accepts(pki: Path, verifier: str, leaf: str, purpose: str) -> bool:
    """Whether OpenSSL accepts a leaf by the ca.pem of another."""
    command = ["openssl", "verify", "-x509_strict", "-no_check_time", "-purpose", purpose]
    files = ["-CAfile", str(pki / verifier / "ca.pem"), str(pki / leaf / "cert.pem")]
    return subprocess.run([*command, *files], capture_output=True, check=False).returncode == 0


@pytest.fixture
def go(run: Run) -> Run:
    """A run as check mode foretells it, and once more, which changes nothing."""

    def once(**options: t.Any) -> dict[str, t.Any]:
        foretold = run(predict=True, **options)
        result = run(**options)
        for kind in ("authorities", "daemons", "clients"):
            assert [item["reasons"] for item in foretold[kind]] == [item["reasons"] for item in result[kind]]
        again = run(**options)
        assert not again["changed"]
        assert again["daemons"] == [{**item, "changed": False, "reasons": []} for item in result["daemons"]]
        return result

    return once


@pytest.fixture
def refused(run: Run, pki: Path) -> t.Callable[..., str]:
    """The message of a run that is refused, in check mode too, and changes nothing."""

    def once(error: type[Exception], **options: t.Any) -> str:
        before = snapshot(pki)
        for predict in (True, False):
            with pytest.raises(error) as caught:
                run(predict=predict, **options)
        assert snapshot(pki) == before
        return str(caught.value)

    return once


Refused = t.Callable[..., str]


def test_a_group_has_a_ca_of_its_own(go: Run, pki: Path) -> None:
    """Its clients are known by that, and know daemons by the CA that signs these."""
    result = go(daemons=[DAEMON], clients=["ci", ALICE])
    assert [item["name"] for item in result["authorities"]] == ["default", "release"]
    assert names(result["daemons"][0]["ca"]) == ["BuildKit CA", "BuildKit CA release"]
    assert names(result["clients"][1]["ca"]) == names(result["trust_bundle"]) == ["BuildKit CA"]
    assert accepts(pki, "daemons/build-1", "clients/alice", "sslclient")
    assert accepts(pki, "clients/alice", "daemons/build-1", "sslserver")
    assert (pki / "authorities/release/key.pem").exists()


def test_a_group_is_cut_off_by_leaving_it_out(go: Run, pki: Path) -> None:
    """On that daemon alone, with its reason."""
    go(daemons=[DAEMON, SECOND], clients=["ci", ALICE])
    result = go(daemons=[DAEMON, {**SECOND, "admits": ["default"]}], clients=["ci", ALICE])
    assert [item["reasons"] for item in result["daemons"]] == [[], ["it trusts the CA 'BuildKit CA release' no longer"]]
    assert accepts(pki, "daemons/build-1", "clients/alice", "sslclient")
    assert not accepts(pki, "daemons/build-2", "clients/alice", "sslclient")
    assert accepts(pki, "daemons/build-2", "clients/ci", "sslclient")


def test_a_group_stays_admitted_when_its_clients_are_not_listed(go: Run) -> None:
    """Lists are wishes; what is there counts."""
    go(daemons=[DAEMON], clients=["ci", ALICE])
    assert not go(daemons=[DAEMON])["changed"]
    assert names(go(daemons=[{**DAEMON, "admits": ["release"]}])["daemons"][0]["ca"]) == ["BuildKit CA release"]


def test_an_unknown_group_is_refused(refused: Refused, go: Run) -> None:
    """With the groups that there are."""
    go(daemons=[DAEMON], clients=["ci", ALICE])
    message = refused(WishError, daemons=[{**DAEMON, "admits": ["relaese"]}], clients=["ci"])
    assert "names relaese, and there is no such group of clients: the groups are default, release." in message


def test_a_client_moves_to_another_group(go: Run, pki: Path) -> None:
    """It gets a certificate of that group's CA."""
    go(daemons=[DAEMON], clients=["ci", "alice"])
    result = go(daemons=[{**DAEMON, "admits": ["release"]}], clients=["ci", ALICE])
    assert result["clients"][1]["reasons"] == ["its group changes from default to release"]
    assert accepts(pki, "daemons/build-1", "clients/alice", "sslclient")


def test_daemons_can_have_a_ca_apart(go: Run, pki: Path) -> None:
    """Its certificates are of no use to a client, and clients' CAs not to a daemon."""
    result = go(daemons=[DAEMON], clients=["ci"], daemon_ca="servers")
    assert names(result["daemons"][0]["ca"]) == ["BuildKit CA"]
    assert names(result["clients"][0]["ca"]) == names(result["trust_bundle"]) == ["BuildKit CA servers"]
    assert accepts(pki, "clients/ci", "daemons/build-1", "sslserver")
    assert accepts(pki, "daemons/build-1", "clients/ci", "sslclient")


def test_another_ca_for_daemons_is_handed_out_first(go: Run, refused: Refused) -> None:
    """It is refused while clients lack it; a run with clients alone puts it beside the old one."""
    go(daemons=[DAEMON], clients=["ci"])
    message = refused(CutOffError, daemons=[DAEMON], clients=["ci"], daemon_ca="servers")
    assert "daemon_ca changes from default to servers, and these clients do not have its certificate yet: ci" in message
    assert names(go(clients=["ci"], daemon_ca="servers")["clients"][0]["ca"]) == ["BuildKit CA", "BuildKit CA servers"]
    changed = go(daemons=[DAEMON], clients=["ci"], daemon_ca="servers")
    assert changed["daemons"][0]["reasons"] == ["its CA changes from default to servers"]


def test_a_lost_ca_of_a_group_is_not_made_anew(go: Run, refused: Refused, pki: Path) -> None:
    """It is on record."""
    go(daemons=[DAEMON], clients=["ci", ALICE])
    (pki / "authorities/release").rename(pki.parent / "lost")
    assert "authorities/release is lost" in refused(Exception, daemons=[DAEMON], clients=["ci", ALICE])


def test_a_client_keeps_its_key(go: Run, refused: Refused, pki: Path) -> None:
    """With a CSR only the certificate is here; the request may ask for nothing more."""
    key = keys.generate("ecdsa-p256")
    request = csr.build_request("ci", key)
    result = go(daemons=[DAEMON], clients=[{"name": "ci", "csr": request}])
    assert not (pki / "clients/ci/key.pem").exists()
    assert keys.spki(facts.load_certificates(result["clients"][0]["certificate"].encode(), "c")[0]) == keys.spki(key)
    other = csr.build_request("ci", keys.generate("ecdsa-p256"))
    assert go(clients=[{"name": "ci", "csr": other}])["clients"][0]["reasons"] == ["the client has a new key"]
    assert "asks for other names" in refused(CsrError, clients=[{"name": "bob", "csr": request}])


# --- pinned clients ----------------------------------------------------------------------------------------------

PINNED: dict[str, t.Any] = {"trust": "pinned", "daemons": [DAEMON], "clients": ["bob", "ci", ALICE]}


def test_pinned_clients_are_listed_one_by_one(go: Run, pki: Path) -> None:
    """Self-signed, for clients alone, no CA; OpenSSL takes them at its strictest, and no others."""
    result = go(**PINNED)
    assert names(result["daemons"][0]["ca"]) == ["bob", "ci", "alice"]
    assert [item["name"] for item in result["authorities"]] == ["default"]
    for name in ("alice", "bob", "ci"):
        [certificate] = facts.load_certificates((pki / f"clients/{name}/cert.pem").read_bytes(), "cert.pem")
        assert facts.is_pinned_client(certificate)
        assert facts.facts_of(certificate).usage == {"client"}
        assert accepts(pki, "daemons/build-1", f"clients/{name}", "sslclient")
        assert accepts(pki, f"clients/{name}", "daemons/build-1", "sslserver")


def test_groups_filter_pinned_clients(go: Run, pki: Path) -> None:
    """A client that changes its group keeps its certificate."""
    go(**{**PINNED, "daemons": [{**DAEMON, "admits": ["release"]}]})
    assert not accepts(pki, "daemons/build-1", "clients/bob", "sslclient")
    moved = {**PINNED, "clients": [{"name": "bob", "group": "release"}, "ci", ALICE]}
    result = go(**{**moved, "daemons": [{**DAEMON, "admits": ["release"]}]})
    assert result["clients"][0]["reasons"] == ["its group changes from default to release"]
    assert names(result["daemons"][0]["ca"]) == ["alice", "bob"]
    (pki / "issued.json").unlink()
    assert not go(trust="pinned", daemons=[{**DAEMON, "admits": ["release"]}])["changed"]


def test_the_certificate_before_a_renewal_goes_on_until_it_ends(go: Run, pki: Path, now: datetime) -> None:
    """It was handed out; one that has expired alone is no reason to change a daemon."""
    go(**PINNED, renew_before="30d")
    renewed = go(**PINNED, at=now + 61 * DAY)
    assert names(renewed["daemons"][0]["ca"]) == ["bob", "bob", "ci", "ci", "alice", "alice"]
    assert len(list((pki / "clients/ci/superseded").iterdir())) == 1
    late = go(**PINNED, at=now + 91 * DAY)
    assert late["daemons"][0]["reasons"] == []
    new = go(**{**PINNED, "clients": [*PINNED["clients"], "carol"]}, at=now + 91 * DAY)
    assert names(new["daemons"][0]["ca"]) == ["bob", "carol", "ci", "alice"]


def test_a_bundle_is_never_empty(refused: Refused, run: Run, pki: Path) -> None:
    """A daemon without ca would accept everyone."""
    with pytest.raises(WishError, match="would admit nobody"):
        run(trust="pinned", daemons=[DAEMON])
    assert not pki.exists()


def test_another_mode_of_trust_is_refused_while_clients_hold_certificates(go: Run, refused: Refused, run: Run) -> None:
    """Both ways, naming them; with a yes everybody gets a new certificate."""
    go(**{**PINNED, "trust": "ca"})
    message = refused(CutOffError, **PINNED)
    assert "would cut off clients that hold valid certificates: alice, bob, ci (on build-1)" in message
    result = run(**PINNED, accept_missing=True)
    assert result["clients"][0]["reasons"] == ["a CA signed it, and clients are to be pinned"]
    assert not run(**PINNED)["changed"]
    assert "alice, bob, ci" in refused(CutOffError, **{**PINNED, "trust": "ca"})
    back = run(**{**PINNED, "trust": "ca"}, accept_missing=True)
    assert back["clients"][0]["reasons"] == ["it is pinned, and clients are to be known by a CA"]


def test_a_forgotten_pinned_client_is_not_cut_off_by_the_way(go: Run, refused: Refused, pki: Path) -> None:
    """Its directory was removed, its certificate is out there: revoking it is a wish of its own."""
    go(**PINNED)
    (pki / "clients/bob").rename(pki.parent / "bob")
    assert "valid certificates: bob" in refused(CutOffError, trust="pinned", daemons=[DAEMON], clients=["ci", ALICE])
    assert go(trust="pinned", daemons=[DAEMON], clients=["ci", ALICE], revoke=["bob"])["changed"]


# --- revoking ----------------------------------------------------------------------------------------------------


def test_revoking_a_pinned_client_cuts_off_that_one(go: Run, pki: Path, now: datetime) -> None:
    """Its files are put away, superseded certificates too, and a lost register keeps it out."""
    go(**PINNED)
    go(**PINNED, at=now + 61 * DAY)
    rest = {**PINNED, "clients": ["ci", ALICE], "at": now + 62 * DAY}
    result = go(**rest, revoke=["bob"])
    assert result["daemons"][0]["reasons"] == ["it trusts the client 'bob' no longer"]
    assert names(result["daemons"][0]["ca"]) == ["ci", "ci", "alice", "alice"]
    assert [item["name"] for item in result["revoked"]] == ["bob", "bob"]
    assert {item["revoked"] for item in result["revoked"]} == {"2027-01-22T09:30:00Z"}
    assert not (pki / "clients/bob").exists()
    [directory] = (pki / "revoked/clients").iterdir()
    assert directory.name.startswith("bob-")
    assert (directory / "key.pem").exists()
    assert "bob" not in [item["name"] for item in result["expires"]]
    (pki / "issued.json").unlink()
    rebuilt = go(**rest)
    assert not rebuilt["changed"]
    assert len(rebuilt["revoked"]) == 2


def test_a_serial_number_revokes_one_certificate(go: Run, pki: Path) -> None:
    """A client that stays gets a new one; OpenSSL's spelling of the number is taken."""
    first = go(**PINNED)["clients"][1]["serial"]
    spelled = ":".join(first[place : place + 2] for place in range(0, len(first), 2)).upper()
    result = go(**PINNED, revoke=[spelled])
    assert result["clients"][1]["reasons"] == ["its certificate was revoked"]
    assert [item["serial"] for item in result["revoked"]] == [first]
    assert names(result["daemons"][0]["ca"]) == ["bob", "ci", "alice"]
    assert (pki / f"revoked/clients/ci-{first[:8]}/cert.pem").exists()


def test_with_a_ca_revoking_warns_how_long_it_is_accepted(go: Run, run: Run) -> None:
    """The daemons' files stay; a revoked client can be made anew later."""
    options: dict[str, t.Any] = {"daemons": [DAEMON], "clients": ["ci"]}
    go(daemons=[DAEMON], clients=["ci", "bob"])
    result = run(**options, revoke=["bob"])
    assert result["changed"]
    assert not result["daemons"][0]["changed"]
    assert "client bob until 2027-02-19T09:30:00Z" in result["warnings"][0]
    assert not run(**options, revoke=["bob"])["changed"]
    assert run(daemons=[DAEMON], clients=["ci", "bob"])["clients"][1]["reasons"] == ["it has no certificate yet"]


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ("bob", "client bob is to be revoked and is listed in clients as well"),
        ("nobody", "revoke names 'nobody'"),
        ("0f0f", "no client's certificate with that serial number"),
        ("build-1", "That is a daemon, and only clients can be revoked."),
        ("", "revoke names ''"),
    ],
)
def test_what_cannot_be_revoked_is_refused(go: Run, refused: Refused, wanted: str, problem: str) -> None:
    """Nothing is marked, moved or issued."""
    go(**PINNED)
    assert problem in refused(WishError, **PINNED, revoke=[wanted])


# --- the register, and directories of version 1.0.0 --------------------------------------------------------------


def test_a_directory_of_version_1_0_0_goes_on_without_a_change(go: Run, run: Run, refused: Refused, pki: Path) -> None:
    """To the last byte of the register, whose entries had less; then groups and a rollover work on it."""
    go(daemons=[DAEMON], clients=["ci"])
    content = json.loads((pki / "issued.json").read_text())
    for entry in content["certificates"]:
        for key in ("group", "issuer", "revoked", "key"):
            entry.pop(key, None)
    (pki / "issued.json").write_text(json.dumps(content, indent=1) + "\n")
    before = snapshot(pki)
    assert not run(daemons=[DAEMON], clients=["ci"])["changed"]
    assert snapshot(pki) == before
    assert "valid certificates: ci" in refused(CutOffError, trust="pinned", daemons=[DAEMON], clients=["ci"])
    go(daemons=[DAEMON], clients=["ci", ALICE])
    for phase in ("distribute", "issue"):
        go(daemons=[DAEMON], clients=["ci", ALICE], rollover={"phase": phase, "accept_missing": True})
    with pytest.raises(CutOffError, match=r"still valid: ci\."):
        run(daemons=[DAEMON], clients=["ci", ALICE], rollover={"phase": "retire"})


def test_the_result_says_what_ends_when(go: Run) -> None:
    """Of everything in the directory, the soonest first."""
    go(daemons=[DAEMON], clients=["ci"], valid_for="30d")
    expires = go(clients=[ALICE], valid_for="20d")["expires"]
    assert [(item["kind"], item["name"], item["group"], item["days_left"]) for item in expires] == [
        ("client", "alice", "release", 20),
        ("client", "ci", "default", 30),
        ("daemon", "build-1", "default", 30),
        ("ca", "default", "default", 3650),
        ("ca", "release", "release", 3650),
    ]


def test_a_host_that_trusts_a_pinned_client_of_ours_is_ours(go: Run, run: Run) -> None:
    """Its ca.pem holds no CA at all."""
    bundle = go(**PINNED)["daemons"][0]["ca"]
    prints = [compat.fingerprint(one) for one in facts.load_certificates(bundle.encode(), "ca.pem")]
    assert not run(**{**PINNED, "daemons": [{**DAEMON, "trusts": prints}]})["changed"]
