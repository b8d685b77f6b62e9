# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""CAs of other tools are taken over, and passphrases change; no key is lost and none is made anew."""

from __future__ import annotations

import subprocess
import typing as t
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts, keys
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import PassphraseError, PkiError
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import snapshot

Run = t.Callable[..., t.Dict[str, t.Any]]

DAEMON = {"name": "build-1", "dns": ["build-1.example.com"]}
FLEET: dict[str, t.Any] = {"daemons": [DAEMON], "clients": ["ci"]}
WORDS, NEW_WORDS = "correct horse", "battery staple"
USES = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]

# How mkcert, openssl and cfssl make and write their keys.
KEYS: dict[str, list[list[str]]] = {
    "mkcert: RSA 3072 in PKCS 8": [["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]],
    "openssl: RSA 2048 in PKCS 1": [["genrsa", "-traditional", "2048"]],
    "cfssl: P-256 in SEC 1": [["ecparam", "-name", "prime256v1", "-genkey", "-noout"]],
    "P-384 in PKCS 8": [["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]],
    "P-521 in SEC 1": [["ecparam", "-name", "secp521r1", "-genkey", "-noout"]],
}


def openssl(*arguments: str) -> None:
    """Run OpenSSL."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Foreign:
    """A CA that OpenSSL made."""

    def __init__(self, directory: Path, key: list[str], *request: str, days: int = 3650) -> None:
        self.certificate, self.key = directory / "foreign.pem", directory / "foreign-key.pem"
        openssl(key[0], "-out", str(self.key), *key[1:])
        subject = ["-subj", "/O=Example/CN=Example CA", "-days", str(days)]
        files = ["-key", str(self.key), "-out", str(self.certificate)]
        openssl("req", "-x509", "-new", *subject, *files, *request)

    @property
    def options(self) -> dict[str, t.Any]:
        """The options that take it over."""
        return {"import_certificate": str(self.certificate), "import_key": str(self.key), "common_name": "Example CA"}


def verified(pki: Path, verifier: str, leaf: str) -> bool:
    """Whether OpenSSL, at its strictest, accepts a leaf."""
    command = ["openssl", "verify", "-x509_strict", "-no_check_time", "-CAfile", str(pki / verifier / "ca.pem")]
    return subprocess.run([*command, str(pki / leaf / "cert.pem")], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("kind", KEYS)
def test_a_ca_of_another_tool_is_taken_over(run: Run, pki: Path, tmp_path: Path, kind: str) -> None:
    """As it is, once; it signs, it is renewed with its key, and its old leaves stay good."""
    ca = Foreign(tmp_path, KEYS[kind][0], *USES)
    now = datetime.now().astimezone()
    foretold = run(predict=True, at=now, ca=ca.options, **FLEET)
    result = run(at=now, ca={**ca.options, "passphrase": WORDS}, **FLEET)
    assert foretold["authorities"][0]["reasons"] == [f"it is taken over from {ca.certificate}"]
    assert foretold["authorities"][0]["certificate"] == result["authorities"][0]["certificate"]
    assert (pki / "authorities/default/ca.pem").read_text() == ca.certificate.read_text()
    assert b"ENCRYPTED" in (pki / "authorities/default/key.pem").read_bytes()
    assert verified(pki, "clients/ci", "daemons/build-1")
    options = {**ca.options, "passphrase": WORDS}
    assert not run(at=now, ca=options, **FLEET)["changed"]
    ca.key.unlink()
    assert not run(at=now, ca=options, **FLEET)["changed"]
    ca.certificate.unlink()
    assert not run(at=now, ca=options, **FLEET)["changed"]
    later = now + timedelta(days=2)
    leaf = (pki / "daemons/build-1/cert.pem").read_bytes()
    assert run(at=later, ca={"passphrase": WORDS, "max_age": "1d"}, **FLEET)["authorities"][0]["changed"]
    assert (pki / "daemons/build-1/cert.pem").read_bytes() == leaf
    assert verified(pki, "clients/ci", "daemons/build-1")


def test_a_key_identifier_of_another_kind_survives_a_renewal(run: Run, pki: Path, tmp_path: Path) -> None:
    """Leaves refer to it: a renewed CA with another one would void them."""
    ca = Foreign(tmp_path, KEYS["cfssl: P-256 in SEC 1"][0], *USES, "-addext", "subjectKeyIdentifier=0102030405060708")
    now = datetime.now().astimezone()
    run(at=now, ca=ca.options, **FLEET)
    run(at=now + timedelta(days=2), ca={"max_age": "1d"}, **FLEET)
    assert verified(pki, "clients/ci", "daemons/build-1")


def test_an_encrypted_key_is_taken_over(run: Run, pki: Path, tmp_path: Path) -> None:
    """With its own passphrase; in the directory it has ours, or none."""
    ca = Foreign(tmp_path, KEYS["cfssl: P-256 in SEC 1"][0])
    ca.key.write_bytes(keys.to_pem(keys.load(ca.key.read_bytes(), "key"), passphrase=WORDS))
    now = datetime.now().astimezone()
    with pytest.raises(PassphraseError, match=r"ca\.import_passphrase"):
        run(at=now, ca=ca.options, **FLEET)
    assert not pki.exists()
    run(at=now, ca={**ca.options, "import_passphrase": WORDS}, **FLEET)
    assert b"ENCRYPTED" not in (pki / "authorities/default/key.pem").read_bytes()


def test_a_ca_with_little_life_left_is_renewed_at_once(run: Run, pki: Path, tmp_path: Path) -> None:
    """With its key, so that the next run has nothing to do; a host that trusts the old certificate is ours."""
    ca = Foreign(tmp_path, KEYS["cfssl: P-256 in SEC 1"][0], days=30)
    [old] = facts.load_certificates(ca.certificate.read_bytes(), "ca.pem")
    now = datetime.now().astimezone()
    foretold = run(predict=True, at=now, ca=ca.options, **FLEET)
    result = run(at=now, ca=ca.options, **FLEET)
    assert foretold["authorities"][0]["reasons"] == result["authorities"][0]["reasons"]
    assert "(renew_before 1216d)" in result["authorities"][0]["reasons"][1]
    host = {**DAEMON, "trusts": [compat.fingerprint(old)]}
    assert not run(at=now, ca={"common_name": "Example CA"}, daemons=[host], clients=["ci"])["changed"]
    assert keys.spki(facts.load_certificates((pki / "authorities/default/ca.pem").read_bytes(), "")[0]) == keys.spki(
        old
    )


def intermediate(ca: Foreign, directory: Path) -> None:
    """The CA's certificate, signed by another."""
    other = Foreign(directory, KEYS["cfssl: P-256 in SEC 1"][0])
    ca.certificate, ca.key = directory / "below.pem", directory / "below-key.pem"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(ca.key))
    files = ["-key", str(ca.key), "-out", str(ca.certificate), "-subj", "/CN=Below"]
    openssl("req", "-x509", "-new", "-CA", str(other.certificate), "-CAkey", str(other.key), *files)


def another_key(ca: Foreign, directory: Path) -> None:
    """A key that does not belong to it."""
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(ca.key))


def expired(ca: Foreign, directory: Path) -> None:
    """Its clock is not ours."""
    ca.certificate.write_bytes(Foreign(directory, KEYS["cfssl: P-256 in SEC 1"][0], days=1).certificate.read_bytes())


def no_ca(ca: Foreign, directory: Path) -> None:
    """A server's certificate."""
    files = ["-key", str(ca.key), "-out", str(ca.certificate), "-subj", "/CN=server"]
    openssl("req", "-x509", "-new", *files, "-addext", "basicConstraints=critical,CA:FALSE")


REFUSED: dict[str, tuple[t.Callable[[Foreign, Path], object], str]] = {
    "expired": (expired, "expired on"),
    "another key": (another_key, "does not belong to the certificate"),
    "no CA": (no_ca, "it may not sign certificates"),
    "intermediate": (intermediate, "is the certificate of an intermediate CA"),
    "no certificate": (lambda ca, directory: ca.certificate.write_text("x"), "no complete certificate"),
    "no key": (lambda ca, directory: ca.key.write_text("x"), "no readable private key"),
    "certificate missing": (lambda ca, directory: ca.certificate.unlink(), "The CA to take over is not there"),
    "key missing": (lambda ca, directory: ca.key.unlink(), "The CA to take over is not there"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_over_is_refused(run: Run, pki: Path, tmp_path: Path, case: str) -> None:
    """Before anything is made, in check mode too."""
    spoil, message = REFUSED[case]
    ca = Foreign(tmp_path, KEYS["cfssl: P-256 in SEC 1"][0])
    spoil(ca, tmp_path)
    for predict in (True, False):
        with pytest.raises(PkiError, match=message):
            run(predict=predict, at=datetime.now().astimezone() + timedelta(days=2), ca=ca.options, **FLEET)
    assert not pki.exists()


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (["genpkey", "-algorithm", "ED25519"], "Ed25519"),
        (["genrsa", "1024"], "rsa-1024"),
        (["ecparam", "-name", "secp256k1", "-genkey", "-noout"], "ecdsa-secp256k1"),
    ],
)
def test_a_key_that_clients_cannot_verify_is_refused(
    run: Run, pki: Path, tmp_path: Path, key: list[str], kind: str
) -> None:
    """By its name, with what is accepted."""
    ca = Foreign(tmp_path, key)
    with pytest.raises(PkiError, match=f"of type {kind}, which cannot be taken over: only RSA of 2048 bits or more"):
        run(at=datetime.now().astimezone(), ca=ca.options, **FLEET)
    assert not pki.exists()


def test_a_ca_that_is_there_is_never_replaced(run: Run, pki: Path, tmp_path: Path) -> None:
    """By no import."""
    run(**FLEET)
    before = snapshot(pki)
    ca = Foreign(tmp_path, KEYS["cfssl: P-256 in SEC 1"][0])
    with pytest.raises(PkiError, match="has another CA of that name already, which is never replaced"):
        run(ca=ca.options, **FLEET)
    assert snapshot(pki) == before


def test_a_lost_ca_comes_back_by_an_import(run: Run, pki: Path, tmp_path: Path) -> None:
    """Its own, from a copy that somebody kept; another one is refused, as none of its certificates would be good."""
    run(**FLEET)
    (pki / "authorities/default").rename(tmp_path / "copy")
    before = snapshot(pki)
    foreign = Foreign(tmp_path, KEYS["cfssl: P-256 in SEC 1"][0])
    with pytest.raises(PkiError, match="authorities/default is lost"):
        run(ca=foreign.options, **FLEET)
    assert snapshot(pki) == before
    own = {"import_certificate": str(tmp_path / "copy/ca.pem"), "import_key": str(tmp_path / "copy/key.pem")}
    result = run(ca=own, **FLEET)
    assert not any(item["changed"] for item in (*result["daemons"], *result["clients"]))
    assert not run(**FLEET)["changed"]


# --- passphrases -------------------------------------------------------------------------------------------------


def opens(path: Path, words: str | None) -> bool:
    """Whether a passphrase opens a key."""
    try:
        keys.load(path.read_bytes(), str(path), passphrase=words)
    except PassphraseError:
        return False
    return True


@pytest.mark.parametrize(("first", "reason"), [(WORDS, "encrypted with another passphrase"), (None, "not encrypted")])
def test_a_passphrase_changes_and_no_key_does(run: Run, pki: Path, first: str | None, reason: str) -> None:
    """Of every CA: those to come, before and retired too; the keys stay, and so do all certificates."""
    fleet: dict[str, t.Any] = {"daemons": [DAEMON], "clients": ["ci", {"name": "alice", "group": "release"}]}
    for phase in (None, "distribute", "issue", "retire", "distribute"):
        rollover = None if phase is None else {"phase": phase, "accept_missing": True}
        run(ca={"passphrase": first}, rollover=rollover, **fleet)
    found = sorted(pki.glob("authorities/**/key.pem"))
    assert len(found) == 4
    before = {path: keys.spki(keys.load(path.read_bytes(), "key.pem", passphrase=first)) for path in found}
    others = {name: data for name, data in snapshot(pki).items() if not name.endswith("key.pem")}
    new = {"passphrase": NEW_WORDS, "previous_passphrase": first}
    foretold = run(predict=True, ca=new, **fleet)
    result = run(ca=new, **fleet)
    assert {item["reasons"][0] for item in result["authorities"]} == {f"its key is {reason}"}
    assert [item["reasons"] for item in foretold["authorities"]] == [item["reasons"] for item in result["authorities"]]
    assert not any(item["changed"] for item in (*result["daemons"], *result["clients"]))
    assert {path: keys.spki(keys.load(path.read_bytes(), "", passphrase=NEW_WORDS)) for path in found} == before
    assert not any(opens(path, first) for path in found)
    assert {name: data for name, data in snapshot(pki).items() if not name.endswith("key.pem")} == others
    assert not run(ca=new, **fleet)["changed"]
    assert not run(ca={"passphrase": NEW_WORDS}, **fleet)["changed"]


def test_two_wrong_passphrases_are_refused(run: Run, pki: Path) -> None:
    """Neither is repeated, and the key is left as it is."""
    run(ca={"passphrase": WORDS}, **FLEET)
    before = snapshot(pki)
    with pytest.raises(PassphraseError, match=r"neither ca\.passphrase nor ca\.previous_passphrase fits") as caught:
        run(ca={"passphrase": NEW_WORDS, "previous_passphrase": "wrong as well"}, **FLEET)
    assert NEW_WORDS not in str(caught.value)
    assert "wrong as well" not in str(caught.value)
    assert snapshot(pki) == before
