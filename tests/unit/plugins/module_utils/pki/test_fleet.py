# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs over a PKI directory on disk: what is written and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import typing as t
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._files import LockTimeoutError, locked
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import (
    compat,
    csr,
    facts,
    keys,
    profiles,
    register,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import (
    PassphraseError,
    PkiError,
    StoreError,
    UnreadableError,
    WishError,
)
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import snapshot
from cryptography import x509

Run = t.Callable[..., t.Dict[str, t.Any]]

DAEMON = {"name": "build-1", "dns": ["build-1.example.com"], "ip": ["192.0.2.11"]}
FLEET = {"daemons": [DAEMON], "clients": ["ci"]}
WORDS = "correct horse"
DAY = timedelta(days=1)
CA = "authorities/default/ca.pem"
CA_KEY = "authorities/default/key.pem"


def certificate(path: Path) -> x509.Certificate:
    """The first certificate of a file."""
    return facts.load_certificates(path.read_bytes(), str(path))[0]


def belong_together(directory: Path, certificate_file: str = "cert.pem") -> bool:
    """Whether key and certificate of a directory have one public key."""
    key = keys.load((directory / "key.pem").read_bytes(), "key.pem")
    return keys.spki(key) == keys.spki(certificate(directory / certificate_file))


def register_of(pki: Path) -> list[dict[str, str]]:
    """The entries of issued.json."""
    return list(json.loads((pki / "issued.json").read_text())["certificates"])


def test_the_first_run_makes_everything_private(run: Run, pki: Path) -> None:
    """The layout, its modes, and a .gitignore; whatever the umask."""
    before = os.umask(0)
    try:
        result = run(**FLEET)
    finally:
        os.umask(before)
    files = {str(path.relative_to(pki)) for path in pki.rglob("*") if path.is_file()}
    assert files == {
        ".gitignore",
        ".lock",
        "issued.json",
        "authorities/default/ca.pem",
        "authorities/default/key.pem",
        *(f"daemons/build-1/{name}.pem" for name in ("ca", "cert", "key")),
        *(f"clients/ci/{name}.pem" for name in ("ca", "cert", "key")),
    }
    assert (pki / ".gitignore").read_text() == "*\n"
    for path in (pki, *pki.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert belong_together(pki / "authorities/default", "ca.pem")
    assert belong_together(pki / "daemons/build-1")
    assert belong_together(pki / "clients/ci")
    bundle = result["trust_bundle"].encode()
    assert {(pki / kind / "ca.pem").read_bytes() for kind in ("daemons/build-1", "clients/ci")} == {bundle}


def test_the_result_describes_what_was_made(run: Run, pki: Path) -> None:
    """Serial number, end, path and certificate of every item are those on disk."""
    result = run(**FLEET)
    assert result["changed"]
    for item, where, name in (
        (result["authorities"][0], "authorities/default", "ca.pem"),
        (result["daemons"][0], "daemons/build-1", "cert.pem"),
        (result["clients"][0], "clients/ci", "cert.pem"),
    ):
        shown = subprocess.run(
            ["openssl", "x509", "-noout", "-serial", "-enddate", "-dateopt", "iso_8601", "-in", pki / where / name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        more = {"phase", "next", "previous", "not_given"} if name == "ca.pem" else {"ca"}
        assert set(item) - more == {"name", "changed", "reasons", "serial", "not_after", "path", "certificate"}
        assert set(item) >= more
        assert f"serial={item['serial'].upper()}" == shown[0]
        assert "notAfter=" + item["not_after"].replace("T", " ") == shown[1]
        assert item["path"] == str(pki / where)
        assert item["certificate"] == (pki / where / name).read_text()
        assert item["changed"]
        assert item["reasons"]
    assert set(result["diff"]["after"]) == {"authorities/default", "daemons/build-1", "clients/ci"}
    assert result["diff"]["after"]["daemons/build-1"]["sans"] == ["DNS:build-1.example.com", "IP:192.0.2.11"]
    assert "BEGIN" not in json.dumps(result["diff"])


def test_the_second_run_changes_nothing(run: Run, pki: Path) -> None:
    """To the last byte, and the result has the same certificates."""
    first = run(**FLEET)
    before = snapshot(pki)
    second = run(**FLEET)
    assert snapshot(pki) == before
    assert not second["changed"]
    assert second["diff"] == {"before": {}, "after": {}}
    for kind in ("authorities", "daemons", "clients"):
        assert second[kind][0]["serial"] == first[kind][0]["serial"]
        assert second[kind][0]["certificate"] == first[kind][0]["certificate"]
        assert (second[kind][0]["changed"], second[kind][0]["reasons"]) == (False, [])


def test_a_prediction_leaves_no_trace(run: Run, pki: Path, now: datetime) -> None:
    """On a virgin path, with a change ahead, and with nothing to do: the disk stays, the keys of the result too."""
    virgin = run(predict=True, **FLEET)
    assert not pki.exists()
    assert virgin["changed"]
    assert virgin["trust_bundle"] is None
    assert virgin["daemons"][0]["certificate"] is None
    assert virgin["daemons"][0]["serial"] is None
    real = run(**FLEET)
    before = snapshot(pki)
    quiet = run(predict=True, **FLEET)
    ahead = run(predict=True, at=now + 80 * DAY, **FLEET)
    assert snapshot(pki) == before
    assert not quiet["changed"]
    assert quiet["daemons"] == [{**real["daemons"][0], "changed": False, "reasons": []}]
    assert ahead["changed"]
    assert ahead["clients"][0]["reasons"] == ["it expires in 10 days (renew_before 30d)"]
    assert ahead["diff"]["before"]["clients/ci"]["serial"] == real["clients"][0]["serial"]
    assert set(virgin) == set(real) == set(quiet) == set(ahead)


def test_a_renewal_gives_a_client_a_new_key(run: Run, pki: Path, now: datetime) -> None:
    """A key that leaked is of use no longer than its certificate; files that others put there stay."""
    run(**FLEET)
    old = (pki / "clients/ci/key.pem").read_bytes()
    (pki / "clients/ci/env.sh").write_text("export X=1\n")
    (pki / "clients/ci/more").mkdir()
    (pki / "clients/ci/more/ca.pem").write_text("theirs")
    result = run(at=now + 61 * DAY, **FLEET)
    assert result["clients"][0]["reasons"] == ["it expires in 29 days (renew_before 30d)"]
    assert (pki / "clients/ci/key.pem").read_bytes() != old
    assert belong_together(pki / "clients/ci")
    assert (pki / "clients/ci/env.sh").read_text() == "export X=1\n"
    assert (pki / "clients/ci/more/ca.pem").read_text() == "theirs"
    assert not [path for path in pki.rglob(".*") if path.name not in (".lock", ".gitignore")]


def test_a_request_keeps_the_key_on_its_host(run: Run, pki: Path, now: datetime) -> None:
    """No key is written here; the same request again changes nothing; a new key is certified."""
    key = keys.generate("ecdsa-p256")
    first = run(daemons=[{**DAEMON, "csr": csr.build_request("build-1", key)}])
    assert sorted(os.listdir(pki / "daemons/build-1")) == ["ca.pem", "cert.pem"]
    assert keys.spki(certificate(pki / "daemons/build-1/cert.pem")) == keys.spki(key)
    assert facts.facts_of(certificate(pki / "daemons/build-1/cert.pem")).sans == {
        "DNS:build-1.example.com",
        "IP:192.0.2.11",
    }
    again = run(daemons=[{**DAEMON, "csr": csr.build_request("build-1", key)}])
    assert not again["changed"]
    assert again["daemons"][0]["certificate"] == first["daemons"][0]["certificate"]
    assert not run(daemons=[DAEMON])["changed"]
    other = run(daemons=[{**DAEMON, "csr": csr.build_request("build-1", keys.generate("ecdsa-p256"))}])
    assert other["daemons"][0]["reasons"] == ["the host has a new key"]
    with pytest.raises(PkiError, match="pass a CSR from there"):
        run(at=now + 80 * DAY, daemons=[DAEMON])
    assert run(at=now + 80 * DAY, predict=True, daemons=[DAEMON])["daemons"][0]["changed"]


def test_a_request_replaces_a_key_that_was_made_here(run: Run, pki: Path) -> None:
    """The key here goes: it would belong to no certificate."""
    run(**FLEET)
    run(daemons=[{**DAEMON, "csr": csr.build_request("build-1", keys.generate("ecdsa-p256"))}])
    assert sorted(os.listdir(pki / "daemons/build-1")) == ["ca.pem", "cert.pem"]


def test_who_is_not_listed_is_left_alone(run: Run, pki: Path, now: datetime) -> None:
    """Another run's daemons and clients stay as they are, even when they are due or damaged."""
    run(**FLEET)
    before = {name: value for name, value in snapshot(pki).items() if name.startswith(("daemons/b", "clients/c"))}
    result = run(at=now + 80 * DAY, clients=["alice"])
    assert [item["name"] for item in result["clients"]] == ["alice"]
    after = snapshot(pki)
    assert {name: after[name] for name in before} == before
    (pki / "clients/ci/cert.pem").write_text("garbage")
    assert "client ci is not part of this run" in run(clients=["alice"])["warnings"][0]
    assert (pki / "clients/ci/cert.pem").read_text() == "garbage"


def test_names_of_daemons_on_disk_stay_reserved(run: Run, pki: Path) -> None:
    """Two runs cannot give one name to two daemons either; a directory that is removed frees it."""
    run(**FLEET)
    twin = {**DAEMON, "name": "build-2"}
    before = snapshot(pki)
    with pytest.raises(WishError, match="for which the daemon build-1 has a certificate"):
        run(daemons=[twin])
    assert snapshot(pki) == before
    assert run(daemons=[twin], shared_names=["build-1.example.com", "192.0.2.11"])["changed"]
    shutil.rmtree(pki / "daemons/build-1")
    shutil.rmtree(pki / "daemons/build-2")
    assert run(daemons=[{**DAEMON, "name": "build-3"}])["changed"]


def test_the_ca_is_renewed_with_its_key(run: Run, pki: Path, now: datetime) -> None:
    """It keeps its name too, and a host that knows only the old certificate is still ours."""
    run(**FLEET)
    old = certificate(pki / CA)
    later = now + 2600 * DAY
    result = run(at=later, **FLEET)
    new = certificate(pki / CA)
    assert result["authorities"][0]["reasons"] == ["it expires in 1050 days (renew_before 1216d)"]
    assert new.serial_number != old.serial_number
    assert keys.spki(new) == keys.spki(old)
    assert new.subject == old.subject
    assert compat.not_after(new) == later + 3650 * DAY
    assert belong_together(pki / "authorities/default", "ca.pem")
    assert not run(at=later, daemons=[{**DAEMON, "trusts": [compat.fingerprint(old)]}])["changed"]


def test_a_renewed_ca_reaches_leaves_that_stay(run: Run, pki: Path, now: datetime) -> None:
    """Only the CA file beside them changes."""
    at = now + 2600 * DAY
    run(ca={"renew_before": "1d"}, **FLEET)
    run(at=at, ca={"renew_before": "1d"}, **FLEET)
    leaves = {kind: (pki / kind / "cert.pem").read_bytes() for kind in ("clients/ci", "daemons/build-1")}
    result = run(at=at, **FLEET)
    assert result["clients"][0]["reasons"] == result["daemons"][0]["reasons"] == ["the CA certificate is renewed"]
    assert result["diff"]["after"]["clients/ci"]["ca_file"] == "current"
    for kind, content in leaves.items():
        assert (pki / kind / "cert.pem").read_bytes() == content
        assert (pki / kind / "ca.pem").read_text() == result["trust_bundle"]
        assert compat.is_signed_by(
            certificate(pki / kind / "cert.pem"), certificate(pki / "authorities/default/ca.pem")
        )


def test_the_register_knows_every_certificate(run: Run, pki: Path, now: datetime) -> None:
    """Those that were replaced too; a lost register comes back from the files."""
    run(**FLEET)
    run(at=now + 80 * DAY, **FLEET)
    entries = register_of(pki)
    assert [(entry["kind"], entry["name"]) for entry in entries] == [
        ("ca", "default"),
        ("daemon", "build-1"),
        ("client", "ci"),
        ("daemon", "build-1"),
        ("client", "ci"),
    ]
    assert len({entry["serial"] for entry in entries}) == 5
    assert entries[0] == {
        "serial": facts.serial_hex(certificate(pki / "authorities/default/ca.pem")),
        "kind": "ca",
        "name": "default",
        "not_before": "2026-11-21T08:30:00Z",
        "not_after": "2036-11-18T09:30:00Z",
        "fingerprint": compat.fingerprint(certificate(pki / "authorities/default/ca.pem")),
        "group": "default",
        "issuer": None,
        "revoked": None,
        "key": register.key_digest(certificate(pki / "authorities/default/ca.pem")),
    }
    assert {entry["issuer"] for entry in entries[1:]} == {entries[0]["fingerprint"]}
    (pki / "issued.json").unlink()
    assert not run(at=now + 80 * DAY)["changed"]
    assert {entry["serial"] for entry in register_of(pki)} == {entries[index]["serial"] for index in (0, 3, 4)}


def test_a_passphrase_encrypts_the_key_of_the_ca_and_no_other(run: Run, pki: Path) -> None:
    """OpenSSL can open it with the passphrase, and not without."""
    run(ca={"passphrase": WORDS}, **FLEET)
    path = pki / "authorities/default/key.pem"
    assert b"ENCRYPTED" in path.read_bytes()
    assert b"ENCRYPTED" not in (pki / "clients/ci/key.pem").read_bytes()
    for words, code in ((WORDS, 0), ("wrong battery", 1)):
        done = subprocess.run(
            ["openssl", "pkey", "-noout", "-in", path, "-passin", "stdin"],
            input=words,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == code
    assert not run(ca={"passphrase": WORDS}, **FLEET)["changed"]


# --- what is refused, with nothing changed --------------------------------------------------------------------


def foreign_ca() -> tuple[bytes, bytes]:
    """Certificate and key of another CA."""
    key = keys.generate("ecdsa-p256")
    now = datetime.now().astimezone()
    made = profiles.build_ca(profiles.subject("Other"), key, now=now, not_after=now + DAY)
    return facts.to_pem(made).encode(), keys.to_pem(key)


def spoil_with_leaf(pki: Path) -> None:
    """A certificate that is no CA's, with its own key."""
    shutil.copy(pki / "clients/ci/cert.pem", pki / CA)
    shutil.copy(pki / "clients/ci/key.pem", pki / CA_KEY)


def spoil_key(pki: Path) -> None:
    """The key of another CA."""
    (pki / CA_KEY).write_bytes(foreign_ca()[1])


SPOILED: dict[str, tuple[t.Callable[[Path], object], type[PkiError], str]] = {
    "directory open to others": (lambda pki: pki.chmod(0o750), StoreError, "chmod -R go= "),
    "key open to others": (lambda pki: (pki / CA_KEY).chmod(0o604), StoreError, "authorities/default/key.pem"),
    "client key open to others": (lambda pki: (pki / "clients/ci/key.pem").chmod(0o640), StoreError, "clients/ci/key"),
    "CA that is no CA": (spoil_with_leaf, UnreadableError, "not the certificate of a CA"),
    "CA that is no PEM": (lambda pki: (pki / CA).write_text("hello"), UnreadableError, "no complete certificate"),
    "CA cut short": (lambda pki: (pki / CA).write_bytes((pki / CA).read_bytes()[:200]), UnreadableError, "complete"),
    "CA empty": (lambda pki: (pki / CA).write_text(""), UnreadableError, "no complete certificate"),
    "CA key of another CA": (spoil_key, StoreError, "does not belong to the certificate"),
    "CA key damaged": (lambda pki: (pki / CA_KEY).write_text("hello"), UnreadableError, "no readable private key"),
    "CA key lost": (lambda pki: (pki / CA_KEY).unlink(), StoreError, "key.pem is missing"),
    "CA certificate lost": (lambda pki: (pki / CA).unlink(), StoreError, "ca.pem is missing"),
    "CA lost": (lambda pki: shutil.rmtree(pki / "authorities"), StoreError, "certificates on record and no CA"),
    "register damaged": (lambda pki: (pki / "issued.json").write_text("{"), UnreadableError, "issued.json"),
    "register of another kind": (lambda pki: (pki / "issued.json").write_text("[]"), UnreadableError, "issued.json"),
    "client certificate damaged": (
        lambda pki: (pki / "clients/ci/cert.pem").write_text("hello"),
        UnreadableError,
        "clients/ci/cert.pem",
    ),
    "client key damaged": (
        lambda pki: (pki / "clients/ci/key.pem").write_text("hello"),
        UnreadableError,
        "clients/ci/key.pem",
    ),
}


@pytest.mark.parametrize("predict", [False, True])
@pytest.mark.parametrize("case", SPOILED)
def test_a_directory_that_is_not_right_is_refused_and_left_as_it_is(
    run: Run, pki: Path, case: str, predict: bool
) -> None:
    """Never overwritten, never replaced, whether or not anything would have to be done."""
    spoil, error, message = SPOILED[case]
    run(**FLEET)
    spoil(pki)
    before = snapshot(pki)
    with pytest.raises(error) as caught:
        run(predict=predict, daemons=[DAEMON], clients=["ci", "new"])
    assert message in str(caught.value)
    assert snapshot(pki) == before


def test_a_lost_ca_with_only_a_register_left_is_not_replaced(run: Run, pki: Path) -> None:
    """The register alone says that there was one."""
    run(**FLEET)
    for name in ("authorities", "daemons", "clients"):
        shutil.rmtree(pki / name)
    with pytest.raises(StoreError, match="certificates on record and no CA"):
        run(**FLEET)


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (WORDS, None, "no passphrase was given"),
        (WORDS, "wrong battery", "passphrase is wrong"),
    ],
)
def test_a_passphrase_that_does_not_fit_never_makes_a_new_ca(
    run: Run, pki: Path, first: str | None, then: str | None, message: str
) -> None:
    """Missing and wrong."""
    run(ca={"passphrase": first}, **FLEET)
    before = snapshot(pki)
    with pytest.raises(PassphraseError, match=message):
        run(ca={"passphrase": then}, clients=["new"])
    assert snapshot(pki) == before


def test_a_directory_with_other_contents_is_refused(run: Run, pki: Path) -> None:
    """A home directory is no place for a PKI."""
    pki.mkdir(0o700)
    (pki / "letters.txt").write_text("dear")
    with pytest.raises(StoreError, match=r"letters\.txt.* Name a directory of its own"):
        run(**FLEET)
    assert os.listdir(pki) == ["letters.txt"]


def test_a_file_in_place_of_the_directory_is_refused(run: Run, pki: Path) -> None:
    """It stays a file."""
    pki.write_text("x")
    with pytest.raises(StoreError, match="is not a directory"):
        run(**FLEET)


def test_an_empty_private_directory_is_fine(run: Run, pki: Path) -> None:
    """The user may have made it."""
    pki.mkdir(0o700)
    assert run(**FLEET)["changed"]


def test_a_refusal_does_not_even_make_the_directory(run: Run, pki: Path) -> None:
    """An empty PKI directory while a host already trusts a CA."""
    with pytest.raises(PkiError, match="already trusts another CA"):
        run(daemons=[{**DAEMON, "trusts": ["ab" * 32]}])
    assert not pki.exists()


def test_a_directory_in_use_is_waited_for_and_then_named(run: Run, pki: Path) -> None:
    """The message has the lock file; check mode waits as well, since it would read half a change."""
    run(**FLEET)
    with locked(str(pki / ".lock"), timeout=1):
        for predict in (False, True):
            with pytest.raises(LockTimeoutError, match=r"pki/\.lock"):
                run(predict=predict, lock_timeout=0.1, **FLEET)
    assert not run(**FLEET)["changed"]
