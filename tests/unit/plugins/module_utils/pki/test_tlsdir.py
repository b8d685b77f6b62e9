# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TLS directory of a host: keys that never leave it, and installations in one rename."""

from __future__ import annotations

import json
import os
import stat
import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, csr, facts, keys, profiles, tlsdir
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import PkiError, StoreError, WishError
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import snapshot
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

DAY = timedelta(days=1)
FILES = ("ca.pem", "cert.pem", "key.pem")
PURPOSES = {facts.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH, facts.SERVER: ExtendedKeyUsageOID.SERVER_AUTH}


@dataclass
class Host:
    """One host and the CA that serves it, at a moment that a test may move."""

    tls: Path
    now: datetime
    ca: x509.Certificate
    ca_key: t.Any

    def request(self, *, predict: bool = False, **options: t.Any) -> dict[str, t.Any]:
        """The first form of buildkit_csr."""
        return tlsdir.request(self._options(**options), now=self.now, predict=predict)

    def install(self, certificate: str | None, ca: str | None = None, *, predict: bool = False) -> dict[str, t.Any]:
        """The second form of buildkit_csr."""
        options = self._options(certificate=certificate, ca=self.bundle if ca is None else ca)
        return tlsdir.install(options, now=self.now, predict=predict)

    def issue(self, request: str, **different: t.Any) -> str:
        """What the controller answers to a request."""
        values = {
            "usage": facts.SERVER,
            "sans": {"DNS:build-1.example.com"},
            "issuer": self.ca,
            "issuer_key": self.ca_key,
            "now": self.now,
            "not_after": self.now + 90 * DAY,
            **different,
        }
        public_key = csr.load_request(request, "build-1").public_key
        return facts.to_pem(profiles.build_leaf("build-1", public_key, **values))

    def deploy(self) -> str:
        """Request, issue, install; returns the certificate."""
        certificate = self.issue(self.request()["csr"])
        self.install(certificate)
        return certificate

    @property
    def bundle(self) -> str:
        """The CA file."""
        return facts.to_pem(self.ca)

    def shown(self, name: str) -> bytes:
        """What buildkitd reads at a fixed path."""
        return (self.tls / name).read_bytes()

    def key(self) -> bytes:
        """The public half of the installed key."""
        return keys.spki(keys.load(self.shown("key.pem"), "key.pem"))

    def paired(self) -> bool:
        """Whether the fixed paths show a key beside its own certificate, and a CA file."""
        certificate = facts.load_certificates(self.shown("cert.pem"), "cert.pem")[0]
        return self.key() == keys.spki(certificate) and bool(self.shown("ca.pem"))

    def _options(self, **options: t.Any) -> dict[str, t.Any]:
        return {
            "path": str(self.tls),
            "name": "build-1",
            "key_type": "ecdsa-p256",
            "renew_before": "30d",
            "lock_timeout": 120.0,
            **options,
        }


def make_ca(now: datetime, name: str = "CA") -> tuple[x509.Certificate, t.Any]:
    """A CA for ten years."""
    key = keys.generate("ecdsa-p256")
    return profiles.build_ca(profiles.subject(name), key, now=now, not_after=now + 3650 * DAY), key


@pytest.fixture
def host(tmp_path: Path, now: datetime) -> Host:
    """A virgin host."""
    return Host(tmp_path / "tls", now, *make_ca(now))


def public(request: dict[str, t.Any]) -> bytes:
    """The public key a request is for."""
    return keys.spki(csr.load_request(request["csr"], "build-1").public_key)


# --- the first form -------------------------------------------------------------------------------------------


def test_a_virgin_host_gets_a_pending_key(host: Host) -> None:
    """It is private, apart from the installed files, and the same request comes again without a change."""
    first = host.request()
    assert first["changed"]
    assert first["reasons"] == ["there is no key yet"]
    assert (first["trusts"], first["not_after"]) == ([], None)
    pending = host.tls / "pending/key.pem"
    assert stat.S_IMODE(pending.stat().st_mode) == 0o600
    assert stat.S_IMODE(pending.parent.stat().st_mode) == stat.S_IMODE(host.tls.stat().st_mode) == 0o700
    assert not (host.tls / "key.pem").exists()
    again = host.request()
    assert (again["changed"], again["reasons"]) == (False, [])
    assert public(again) == public(first) == keys.spki(keys.load(pending.read_bytes(), "key.pem"))


def test_check_mode_on_a_virgin_host_predicts_without_a_request(host: Host) -> None:
    """There is no key to make it with, and none is made."""
    predicted = host.request(predict=True)
    assert predicted["changed"]
    assert predicted["csr"] is None
    assert predicted["reasons"] == ["there is no key yet"]
    assert not host.tls.exists()
    assert set(predicted) == set(host.request())


def test_a_request_names_the_daemon_and_nothing_else(host: Host) -> None:
    """Names in a certificate are the controller's to decide."""
    request = csr.load_request(host.request()["csr"], "build-1")
    assert request.common_name == "build-1"
    assert request.sans == frozenset()


def test_an_installed_pair_is_used_again_until_it_is_due(host: Host) -> None:
    """Before the window the request is for the installed key; inside it for a new one."""
    host.deploy()
    installed = host.key()
    quiet = host.request()
    assert not quiet["changed"]
    assert public(quiet) == installed
    assert quiet["trusts"] == [compat.fingerprint(host.ca)]
    assert quiet["not_after"] == "2027-02-19T09:30:00Z"
    host.now += 70 * DAY
    before = snapshot(host.tls)
    predicted = host.request(predict=True)
    assert snapshot(host.tls) == before
    assert (predicted["changed"], predicted["csr"]) == (True, None)
    due = host.request()
    assert due["reasons"] == ["the certificate expires in 20 days (renew_before 30d)"]
    assert public(due) != installed
    assert host.key() == installed


def test_without_a_window_a_key_is_used_until_its_certificate_ends(host: Host) -> None:
    """Then it is time for a new one."""
    host.deploy()
    host.now += 89 * DAY
    assert not host.request(renew_before=None)["changed"]
    host.now += 2 * DAY
    assert host.request(renew_before=None)["reasons"] == ["the certificate expired 1 day ago"]


def test_another_key_type_makes_a_new_key(host: Host) -> None:
    """Installed or pending."""
    host.request()
    assert host.request(key_type="ecdsa-p384")["reasons"] == ["key type changes from ecdsa-p256 to ecdsa-p384"]
    assert not host.request(key_type="ecdsa-p384")["changed"]
    host.install(host.issue(host.request(key_type="ecdsa-p384")["csr"]))
    assert host.request()["reasons"] == ["key type changes from ecdsa-p384 to ecdsa-p256"]


def test_a_pair_that_does_not_match_is_replaced(host: Host) -> None:
    """Somebody overwrote the certificate through the link; buildkitd would not start again."""
    host.deploy()
    stranger = csr.build_request("build-1", keys.generate("ecdsa-p256"))
    (host.tls / "cert.pem").write_text(host.issue(stranger))
    assert host.request()["reasons"] == ["the installed certificate does not match its key"]


@pytest.mark.parametrize("name", ["key.pem", "cert.pem", "ca.pem", "pending/key.pem"])
def test_an_unreadable_file_is_never_overwritten(host: Host, name: str) -> None:
    """The message names it, in both forms, and nothing changes."""
    certificate = host.deploy()
    host.request(key_type="ecdsa-p384")
    (host.tls / name).write_text("garbage")
    before = snapshot(host.tls)
    for action in (host.request, lambda: host.install(certificate)):
        with pytest.raises(StoreError, match=name):
            action()
    assert snapshot(host.tls) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [({"name": "../x"}, "cannot be the name"), ({"renew_before": "soon"}, "renew_before is 'soon'")],
)
def test_options_that_make_no_sense_are_refused(host: Host, options: dict[str, str], message: str) -> None:
    """Before anything is made."""
    with pytest.raises(WishError, match=message):
        host.request(**options)
    assert not host.tls.exists()


# --- the second form ------------------------------------------------------------------------------------------


def test_an_installation_shows_key_certificate_and_ca_together(host: Host) -> None:
    """Links at the fixed paths, private files behind them, relative so that a container can mount the directory."""
    certificate = host.issue(host.request()["csr"])
    result = host.install(certificate)
    assert result["changed"]
    assert result["csr"] is None
    assert result["reasons"] == ["no certificate is installed yet", "no trust bundle is installed yet"]
    assert result["trusts"] == [compat.fingerprint(host.ca)]
    assert host.paired()
    assert host.shown("cert.pem").decode() == certificate
    assert host.shown("ca.pem").decode() == host.bundle
    for name in FILES:
        assert os.readlink(host.tls / name) == f"current/{name}"
        assert stat.S_IMODE((host.tls / name).stat().st_mode) == 0o600
    assert not os.path.isabs(os.readlink(host.tls / "current"))
    assert stat.S_IMODE((host.tls / "current").stat().st_mode) == 0o700
    assert not (host.tls / "pending").exists()
    moved = host.tls.rename(host.tls.with_name("elsewhere"))
    assert (moved / "key.pem").read_bytes()


def test_the_same_installation_again_changes_nothing(host: Host) -> None:
    """Nor does checking it first."""
    certificate = host.issue(host.request()["csr"])
    before = snapshot(host.tls)
    predicted = host.install(certificate, predict=True)
    assert snapshot(host.tls) == before
    real = host.install(certificate)
    assert (predicted["changed"], predicted["reasons"]) == (real["changed"], real["reasons"])
    before = snapshot(host.tls)
    again = host.install(certificate)
    assert snapshot(host.tls) == before
    assert (again["changed"], again["reasons"]) == (False, [])
    assert set(again) == set(real) == set(predicted)


def test_every_part_that_changes_is_a_reason(host: Host, now: datetime) -> None:
    """A renewed certificate, another trust bundle, another key."""
    host.deploy()
    same_key = host.issue(host.request()["csr"])
    assert host.install(same_key)["reasons"] == ["certificate changed"]
    both = host.bundle + facts.to_pem(make_ca(now, "Old")[0])
    rolled = host.install(same_key, both)
    assert rolled["reasons"] == ["trust bundle changed"]
    assert len(rolled["trusts"]) == 2
    new_key = host.issue(host.request(key_type="ecdsa-p384")["csr"])
    result = host.install(new_key, both)
    assert result["reasons"] == ["certificate changed", "key changed"]
    assert "PRIVATE" not in json.dumps(result)
    assert "BEGIN" not in json.dumps(result["diff"])
    assert result["diff"]["before"]["key_type"] == "ecdsa-p256"
    assert result["diff"]["after"]["key_type"] == "ecdsa-p384"


def test_one_version_before_is_kept_for_going_back(host: Host) -> None:
    """The link previous leads to it, complete; older ones go."""
    first = host.deploy()
    host.install(host.issue(host.request()["csr"]))
    assert len(os.listdir(host.tls / "versions")) == 2
    assert (host.tls / "previous/cert.pem").read_text() == first
    assert sorted(os.listdir(host.tls / "previous")) == sorted(FILES)
    host.install(host.issue(host.request()["csr"]))
    assert len(os.listdir(host.tls / "versions")) == 2


def test_a_version_that_was_edited_is_replaced_beside_it(host: Host) -> None:
    """The version in use is never written to."""
    certificate = host.deploy()
    used = os.readlink(host.tls / "current")
    (host.tls / "ca.pem").write_text(facts.to_pem(make_ca(host.now, "Edited")[0]))
    assert host.install(certificate)["reasons"] == ["trust bundle changed"]
    assert host.shown("ca.pem").decode() == host.bundle
    assert os.readlink(host.tls / "current") != used


REFUSED = (
    "no CA",
    "blank CA",
    "CA that is none",
    "CA that is no PEM",
    "no certificate",
    "blank certificate",
    "certificate that is no PEM",
    "another key",
    "a client of a CA pinned",
    "a server pinned",
    "a client's",
    "a CA's",
    "ended",
    "not begun",
)


def refusals(host: Host) -> dict[str, tuple[str | None, str | None, str]]:
    """Deliveries that are wrong: certificate, CA file, part of the message."""
    request = host.request()["csr"]
    good = host.issue(request)
    other = csr.build_request("build-1", keys.generate("ecdsa-p256"))
    return {
        "no CA": (good, "", "buildkitd would then accept every client"),
        "blank CA": (good, " \n", "buildkitd would then accept every client"),
        "CA that is none": (good, good, "neither a CA's nor a self-signed one of a client"),
        "CA that is no PEM": (good, "garbage", "The option ca holds no complete certificate"),
        "no certificate": (None, None, "without a certificate"),
        "blank certificate": ("", None, "without a certificate"),
        "certificate that is no PEM": ("garbage", None, "The option certificate holds no complete certificate"),
        "another key": (host.issue(other), None, "neither the pending key nor the installed key"),
        "a client of a CA pinned": (
            good,
            host.bundle + host.issue(request, usage=facts.CLIENT, sans=()),
            "holds the certificate of 'build-1', which is neither",
        ),
        "a server pinned": (good, host.bundle + pinned(host, "build-1", usage=facts.SERVER), "which is neither"),
        "a client's": (host.issue(request, usage=facts.CLIENT, sans=()), None, "not for a server"),
        "a CA's": (host.bundle, None, "not for a server"),
        "ended": (host.issue(request, not_after=host.now - DAY, now=host.now - 2 * DAY), None, "ended on 2026-11-20"),
        "not begun": (host.issue(request, now=host.now + DAY), None, "set the clock right"),
    }


@pytest.mark.parametrize("predict", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_delivery_is_refused_before_anything_changes(host: Host, case: str, predict: bool) -> None:
    """TLS without a CA above all: buildkitd would be open to anyone."""
    certificate, ca, message = refusals(host)[case]
    before = snapshot(host.tls)
    with pytest.raises(PkiError) as caught:
        host.install(certificate, ca, predict=predict)
    assert message in str(caught.value)
    assert snapshot(host.tls) == before


def test_a_pending_key_survives_the_certificate_of_the_installed_one(host: Host) -> None:
    """The controller may answer late; the new key still waits for its certificate."""
    certificate = host.deploy()
    pending = public(host.request(key_type="ecdsa-p384"))
    assert not host.install(certificate)["changed"]
    assert public(host.request(key_type="ecdsa-p384")) == pending


def pinned(host: Host, name: str, *, usage: str = facts.CLIENT) -> str:
    """The self-signed certificate of a client, which is no CA's."""
    key = keys.generate("ecdsa-p256")
    subject = profiles.subject(name)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(host.now - DAY)
        .not_valid_after(host.now + DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([PURPOSES[usage]]), critical=False)
    )
    return facts.to_pem(made.sign(key, keys.signature_hash(key)))


@pytest.mark.parametrize("with_a_ca", [False, True])
def test_pinned_clients_may_be_the_ca_file(host: Host, with_a_ca: bool) -> None:
    """Alone or beside CAs; all of them are told, and the daemon's own CA need not be among them."""
    certificate = host.issue(host.request()["csr"])
    bundle = pinned(host, "alice") + pinned(host, "ci") + (facts.to_pem(make_ca(host.now)[0]) if with_a_ca else "")
    result = host.install(certificate, bundle)
    told = [compat.fingerprint(one) for one in facts.load_certificates(bundle.encode(), "")]
    assert len(told) == 2 + with_a_ca
    assert result["trusts"] == host.request()["trusts"] == told
    assert host.shown("ca.pem").decode() == bundle
    assert not host.install(certificate, bundle)["changed"]
    fewer = facts.to_pem(facts.load_certificates(bundle.encode(), "")[1])
    assert host.install(certificate, fewer)["reasons"] == ["trust bundle changed"]
    assert len(host.request()["trusts"]) == 1


# --- files that were there before -----------------------------------------------------------------------------


def put_by_hand(host: Host, *, matching: bool = True) -> dict[str, bytes]:
    """A hand-made setup: plain files, readable by all."""
    key = keys.generate("ecdsa-p256")
    certified = key if matching else keys.generate("ecdsa-p256")
    contents = {
        "ca.pem": b"# ours\n" + host.bundle.encode(),
        "cert.pem": host.issue(csr.build_request("build-1", certified)).encode(),
        "key.pem": keys.to_pem(key),
    }
    host.tls.mkdir()
    for name, content in contents.items():
        (host.tls / name).write_bytes(content)
    return contents


def test_files_made_by_hand_are_taken_over_and_kept(host: Host) -> None:
    """Their key is certified; the old files are the version before."""
    contents = put_by_hand(host)
    request = host.request()
    assert not request["changed"]
    assert request["trusts"] == [compat.fingerprint(host.ca)]
    result = host.install(host.issue(request["csr"]))
    assert result["reasons"] == ["files that were put there by other means are taken over", "certificate changed"]
    assert host.paired()
    assert keys.spki(keys.load(contents["key.pem"], "key.pem")) == host.key()
    assert {name: (host.tls / "previous" / name).read_bytes() for name in FILES} == contents
    assert {stat.S_IMODE(path.stat().st_mode) for path in host.tls.glob("versions/*/*")} == {0o600}
    assert not host.request()["changed"]


def test_files_made_by_hand_that_are_right_only_become_links(host: Host) -> None:
    """Once, with that as the only reason."""
    contents = put_by_hand(host)
    certificate = contents["cert.pem"].decode()
    assert host.install(certificate)["reasons"] == ["files that were put there by other means are taken over"]
    assert {name: host.shown(name) for name in FILES} == contents
    assert not host.install(certificate)["changed"]


@pytest.mark.parametrize("missing", [None, "cert.pem", "key.pem"])
def test_files_made_by_hand_that_do_not_match_are_refused(host: Host, missing: str | None) -> None:
    """They cannot become a version, and they are not thrown away."""
    put_by_hand(host, matching=missing is not None)
    if missing:
        (host.tls / missing).unlink()
    before = snapshot(host.tls)
    with pytest.raises(StoreError, match="Move them away"):
        host.request(predict=True)
    assert snapshot(host.tls) == before
