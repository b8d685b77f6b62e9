# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkit_client_bundles, run as Ansible runs it, on a PKI that buildkit_pki made."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import typing as t
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyrage
import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module, snapshot
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAEMONS = [
    {"name": "build-1", "address": "tcp://198.51.100.11:1234", "platforms": ["linux/amd64"]},
    {"name": "build-2", "address": "tcp://198.51.100.12:1234", "platforms": ["linux/arm64"], "version": "0.13.2"},
]
WORDS = "correct horse battery"
FILES = {
    "README.md": 0o644,
    "bin/buildctl": 0o755,
    "bundle.json": 0o644,
    "ca.pem": 0o644,
    "cert.pem": 0o644,
    "env.sh": 0o644,
    "key.pem": 0o600,
    "remove-buildx.sh": 0o755,
    "setup-buildx.sh": 0o755,
    "snippets/Jenkinsfile": 0o644,
    "snippets/compose.sh": 0o755,
    "snippets/earthly.sh": 0o755,
    "snippets/github-actions.yml": 0o644,
    "snippets/gitlab-ci.yml": 0o644,
    "verify.sh": 0o755,
}


@pytest.fixture(scope="module")
def made_pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PKI with the clients alice and ci."""
    path = tmp_path_factory.mktemp("made") / "pki"
    options = {
        "daemons": [{"name": "build-1", "ip": ["198.51.100.11"]}],
        "clients": [{"name": "alice"}, {"name": "ci"}],
    }
    assert not run_module("buildkit_pki", {"path": str(path), **options}).failed
    return path


@pytest.fixture
def pki(made_pki: Path, tmp_path: Path) -> Path:
    """A copy of that PKI to spoil."""
    return Path(shutil.copytree(made_pki, tmp_path / "pki"))


@pytest.fixture
def bundles(pki: Path) -> Path:
    """Where the bundles are going to be."""
    return pki / "bundles"


@pytest.fixture
def run(pki: Path, bundles: Path) -> t.Callable[..., Outcome]:
    """A function that runs the module for alice, unless other options are given."""

    def once(options: t.Mapping[str, t.Any] | None = None, **how: t.Any) -> Outcome:
        wished = {
            "path": str(bundles),
            "pki_path": str(pki),
            "clients": [{"name": "alice"}],
            "daemons": DAEMONS,
            **(options or {}),
        }
        return run_module("buildkit_client_bundles", wished, **how)

    return once


Run = t.Callable[..., Outcome]


def _unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}


def _opened(path: Path) -> bytes:
    """What a passphrase opens.

    The library refuses what would take too long, and judges by how long some thousandths of a second of work take at
    that moment: in a busy one it refuses what it has made itself in a quiet one.
    """

    def opened() -> bytes:
        try:
            return pyrage.passphrase.decrypt(path.read_bytes(), WORDS)
        except pyrage.DecryptError as error:
            if "Excessive work" not in str(error):
                raise
            return b""

    return until(opened, "a quiet moment")


def _only(outcome: Outcome) -> dict[str, t.Any]:
    assert not outcome.failed, outcome.output
    (bundle,) = outcome.result["bundles"]
    return bundle


def test_check_run_and_run_again(run: Run, pki: Path, bundles: Path) -> None:
    """Check mode foretells and writes nothing, the run does it, the next one has nothing to do."""
    before = snapshot(pki)
    checked = run(check=True)
    assert snapshot(pki) == before
    first = run()
    path = bundles / "buildkit-alice.tar.gz"
    made = path.stat()
    second = run()
    assert [outcome.result["changed"] for outcome in (checked, first, second)] == [True, True, False]
    assert _only(checked) == _only(first)
    assert _only(first)["reasons"] == ["there is none yet"]
    assert _only(second)["reasons"] == []
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    assert {key: value[0] & 0o777 for key, value in snapshot(pki).items() if key.startswith("bundles")} == {
        "bundles": 0o700,
        "bundles/.lock": 0o600,
        "bundles/buildkit-alice.tar.gz": 0o600,
    }


def test_what_is_in_it(run: Run, pki: Path, bundles: Path) -> None:
    """GNU tar unpacks it into one private directory, with the files of the PKI and a key for its owner alone."""
    bundle = _only(run())
    target = bundles.parent / "unpacked"
    target.mkdir()
    subprocess.run(["tar", "-xzf", bundle["path"], "-C", target], check=True)
    found = {str(path.relative_to(target)): path.stat().st_mode & 0o777 for path in target.rglob("*")}
    folders = {f"buildkit-alice{tail}": 0o700 for tail in ("", "/bin", "/snippets")}
    assert found == {**folders, **{f"buildkit-alice/{name}": mode for name, mode in FILES.items()}}
    for name in ("ca.pem", "cert.pem", "key.pem"):
        assert (target / "buildkit-alice" / name).read_bytes() == (pki / "clients" / "alice" / name).read_bytes()
    facts = json.loads((target / "buildkit-alice" / "bundle.json").read_text())
    shown = subprocess.run(
        ["openssl", "x509", "-in", pki / "clients/alice/cert.pem", "-noout", "-serial", "-enddate"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert f"serial={facts['serial'].upper()}\n" in shown
    end = datetime.strptime(facts["not_after"], "%Y-%m-%dT%H:%M:%SZ")
    assert end.strftime("%b %e %H:%M:%S %Y GMT") in shown
    assert bundle["not_after"] == facts["not_after"]
    readme = (target / "buildkit-alice" / "README.md").read_text()
    assert facts["not_after"] in readme
    assert "tcp://198.51.100.11:1234" in readme


def test_equal_input_gives_equal_bytes(run: Run, bundles: Path) -> None:
    """Made again somewhere else, and after the clock went on, a bundle is the same to the last byte."""
    first = Path(_only(run())["path"]).read_bytes()
    again = Path(_only(run({"path": str(bundles) + ".again"}))["path"]).read_bytes()
    assert first == again
    assert first[3:8] == bytes(5)  # no name in the header, and no time (RFC 1952, 2.3)
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        entries = archive.getmembers()
    assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries} == {(0, 0, "", "")}
    assert len({entry.mtime for entry in entries}) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"daemons": DAEMONS[:1]}, "the builders changed"),
        ({"clients": [{"name": "alice", "own_key": True}]}, "it has no key any more"),
        ({"clients": [{"name": "alice", "passphrase": WORDS}]}, "it is encrypted otherwise"),
    ],
)
def test_each_change_has_its_reason(run: Run, change: dict[str, t.Any], reason: str) -> None:
    """A wish that differs makes the bundle again and says why; the same wish then changes nothing."""
    run()
    assert _only(run(change))["reasons"] == [reason]
    assert not run(change).result["changed"]


def test_a_renewed_certificate_makes_it_again(run: Run, pki: Path) -> None:
    """The reason names the new serial number, and the diff shows facts of both, and nothing of keys."""
    run()
    options = {"clients": [{"name": "alice"}], "valid_for": "30d", "renew_before": "29d"}
    shutil.rmtree(pki / "clients" / "alice")
    assert not run_module("buildkit_pki", {"path": str(pki), **options}).failed
    outcome = run(diff=True)
    bundle = _only(outcome)
    assert bundle["reasons"] == [
        f"the certificate is another one (serial {bundle['serial']}, until {bundle['not_after']})"
    ]
    (diff,) = outcome.result["diff"]
    assert json.loads(diff["after"])["serial"] == bundle["serial"] != json.loads(diff["before"])["serial"]
    assert "PRIVATE" not in outcome.output
    secret = (pki / "clients/alice/key.pem").read_text().splitlines()[1]
    assert secret not in outcome.output


def test_a_bundle_that_others_could_read_is_closed(run: Run) -> None:
    """A wider mode is put back."""
    path = Path(_only(run())["path"])
    path.chmod(0o644)
    assert _only(run())["reasons"] == ["others had access to it"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_bundle_is_made_again(run: Run) -> None:
    """What cannot be read is replaced."""
    path = Path(_only(run())["path"])
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    assert _only(run())["reasons"] == ["there was none that can be read"]
    assert path.read_bytes() == whole


def test_encryption_for_recipients(run: Run, bundles: Path, tmp_path: Path) -> None:
    """Age keys and SSH keys open it, nobody else; it is made again for other recipients alone."""
    mine, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id"], check=True)
    ssh = (tmp_path / "id.pub").read_text()
    run()
    wish = {"clients": [{"name": "alice", "recipients": [str(mine.to_public()), ssh]}]}
    bundle = _only(run(wish))
    path = Path(bundle["path"])
    assert (bundle["encrypted"], path.name) == (True, "buildkit-alice.tar.gz.age")
    assert not (bundles / "buildkit-alice.tar.gz").exists()
    keys = [mine, pyrage.ssh.Identity.from_buffer((tmp_path / "id").read_bytes())]
    opened = [_unpacked(pyrage.decrypt(path.read_bytes(), [key])) for key in keys]
    assert set(opened[0]) == {f"buildkit-alice/{name}" for name in FILES}
    assert opened[0] == opened[1]
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(path.read_bytes(), [other])
    assert not run(wish).result["changed"]
    changed = {"clients": [{"name": "alice", "recipients": [str(other.to_public())]}]}
    assert _only(run(changed))["reasons"] == ["it is encrypted for somebody else"]
    assert _unpacked(pyrage.decrypt(path.read_bytes(), [other])) == opened[0]


def test_encryption_with_a_passphrase(run: Run, bundles: Path) -> None:
    """The passphrase opens it, another one makes it again, and it is nowhere in clear."""
    wish = {"clients": [{"name": "alice", "passphrase": WORDS}]}
    outcome = run(wish)
    path = Path(_only(outcome)["path"])
    assert len(_unpacked(_opened(path))) == len(FILES)
    assert not run(wish).result["changed"]
    assert _only(run({"clients": [{"name": "alice", "passphrase": f"{WORDS}!"}]}))["reasons"] == [
        "it is encrypted for somebody else"
    ]
    assert WORDS not in outcome.output
    assert [name for name, state in snapshot(bundles).items() if WORDS.encode() in state[1]] == []


def test_an_encrypted_bundle_follows_its_content(run: Run, bundles: Path) -> None:
    """Although it cannot be read back, a change of what is in it is noticed, and nothing else is."""
    wish = {"clients": [{"name": "alice", "recipients": [str(pyrage.x25519.Identity.generate().to_public())]}]}
    run(wish)
    before = snapshot(bundles)
    for how in ({"check": True}, {}):
        assert snapshot(bundles) == before
        assert _only(run({**wish, "daemons": DAEMONS[:1]}, **how))["reasons"] == ["the builders changed"]


def test_absent_removes_the_bundles_of_the_named_alone(run: Run, bundles: Path) -> None:
    """Plain and encrypted ones go, those of others stay; a second run changes nothing."""
    run({"clients": [{"name": "alice"}, {"name": "ci", "passphrase": WORDS}]})
    options = {"clients": [{"name": "ci"}], "state": "absent"}
    predicted = run(options, check=True)
    assert (bundles / "buildkit-ci.tar.gz.age").exists()
    removed = run(options)
    assert predicted.result["removed"] == removed.result["removed"] == [str(bundles / "buildkit-ci.tar.gz.age")]
    assert sorted(path.name for path in bundles.glob("buildkit*")) == ["buildkit-alice.tar.gz"]
    assert not run(options).result["changed"]
    assert not run({**options, "path": str(bundles / "none")}).result["changed"]


@pytest.mark.parametrize("sealed", [False, True])
def test_the_bundle_of_another_pool_is_left_alone(run: Run, pki: Path, bundles: Path, sealed: bool) -> None:
    """The client a-ci of the pool x and the client ci of the pool x-a have one name: refused, and not removed."""
    for name in ("a-ci", "z"):
        shutil.copytree(pki / "clients/ci", pki / "clients" / name)
    how = {"passphrase": WORDS} if sealed else {}
    assert not run({"pool": "x-a", "clients": [{"name": "ci", **how}]}).failed
    before = snapshot(bundles)
    for wish in ({}, {"passphrase": WORDS}):
        refused = run({"pool": "x", "clients": [{"name": "z"}, {"name": "a-ci", **wish}]})
        assert refused.failed
        assert "is the bundle of the client ci of the pool x-a" in refused.message
        assert snapshot(bundles) == before
    gone = {"pool": "x", "clients": [{"name": "a-ci"}], "state": "absent"}
    assert [run(gone, check=check).result["removed"] for check in (True, False)] == [[], []]
    assert snapshot(bundles) == before
    assert not run({"pool": "x-a", "clients": [{"name": "ci", **how}]}).result["changed"]


def test_a_client_that_keeps_its_key(run: Run, pki: Path) -> None:
    """Its bundle has no key and says so; without own_key it is refused."""
    (pki / "clients/alice/key.pem").unlink()
    refused = run()
    assert refused.failed
    assert "has no key.pem in" in refused.message
    bundle = _only(run({"clients": [{"name": "alice", "own_key": True}]}))
    assert bundle["key"] is False
    members = _unpacked(Path(bundle["path"]).read_bytes())
    assert {name.partition("/")[2] for name in members} == set(FILES) - {"key.pem"}
    assert b"Your private key is not in here" in members["buildkit-alice/README.md"]


def _make_expired(directory: Path) -> None:
    """Give the client's key a certificate that ended yesterday, which OpenSSL 3.5 does not make."""
    key = serialization.load_pem_private_key((directory / "key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice")])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=2)).not_valid_after(now - timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    (directory / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _spoil(pki: Path, what: str) -> None:
    if what == "expired":
        _make_expired(pki / "clients/alice")
    elif what == "swapped":
        shutil.copy(pki / "clients/ci/key.pem", pki / "clients/alice/key.pem")
    elif what == "damaged":
        (pki / "clients/alice/cert.pem").write_text("hello")
    elif what == "no ca":
        (pki / "clients/alice/ca.pem").unlink()
    elif what == "open":
        (pki / "bundles").mkdir(mode=0o755)
    elif what == "file":
        (pki / "bundles").touch(mode=0o600)


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("expired", {}, "The certificate of the client alice ended on"),
        ("swapped", {}, "does not belong to the certificate beside it"),
        ("damaged", {}, "holds no complete certificate"),
        ("no ca", {}, "ca.pem is missing"),
        ("open", {}, "Others than its owner have access to"),
        ("file", {}, "is not a directory"),
        ("", {"clients": [{"name": "mallory"}]}, "The client mallory has no certificate in"),
        ("", {"clients": [{"name": "alice"}, {"name": "mallory"}]}, "these have: alice, ci"),
        ("", {"clients": [{"name": "../alice"}]}, "cannot be the name of a client"),
        ("", {"clients": [{"name": "alice"}, {"name": "alice"}]}, "The client alice is listed twice"),
        ("", {"clients": [{"name": "alice", "passphrase": "short"}]}, "has fewer than 12 characters"),
        ("", {"clients": [{"name": "alice", "recipients": ["nobody"]}]}, "is none that age knows"),
        ("", {"clients": [{"name": "alice", "recipients": ["x"], "passphrase": WORDS}]}, "takes one of the two"),
        ("", {"pool": "default"}, "The pool cannot be named 'default'"),
        ("", {"pool": "Pool 1"}, "The pool cannot be named"),
        ("", {"daemons": []}, "There is no builder to tell clients of"),
        ("", {"daemons": [{"name": "a", "address": "unix:///run/x.sock"}]}, "a bundle is for builders at tcp://"),
        ("", {"daemons": [{"name": "a", "address": "tcp://$(id):1234"}]}, "is none: write tcp://HOST:PORT"),
        ("", {"daemons": [{"name": "a", "address": "tcp://a:1", "server_name": "b;id"}]}, "is no host name or address"),
        (
            "",
            {"daemons": [{"name": "a", "address": "tcp://a:1", "platforms": ["amd64"]}]},
            "The platform 'amd64' is none",
        ),
        ("", {"daemons": [{"name": "a", "address": "tcp://a:1"}] * 2}, "Two builders are both a to buildx"),
        ("", {"daemons": [{"name": n, "address": "tcp://a:1"} for n in "ab"]}, "Two builders are both at tcp://a:1"),
        ("", {"pki_path": None}, "There is no pki_path"),
    ],
)
def test_bad_input_is_refused_before_anything_changes(
    run: Run, pki: Path, what: str, options: dict[str, t.Any], message: str
) -> None:
    """Each is refused with its reason, and nothing is written, for no client."""
    _spoil(pki, what)
    before = snapshot(pki)
    outcome = run(options)
    assert outcome.failed
    assert message in outcome.message
    assert {path: state for path, state in snapshot(pki).items() if path not in ("bundles", "bundles/.lock")} == {
        path: state for path, state in before.items() if path != "bundles"
    }
    assert list((pki / "bundles").glob("buildkit*")) == []


def test_clients_are_told_of_the_builders_that_admit_them(run: Run) -> None:
    """A client's group decides which builders its bundle names."""
    daemons = [{**DAEMONS[0], "admits": ["release"]}, DAEMONS[1]]
    clients = [{"name": "alice"}, {"name": "ci", "group": "release"}]
    outcome = run({"clients": clients, "daemons": daemons})
    told = {}
    for bundle in outcome.result["bundles"]:
        members = _unpacked(Path(bundle["path"]).read_bytes())
        facts = json.loads(members[f"buildkit-{bundle['client']}/bundle.json"])
        told[bundle["client"]] = [daemon["address"] for daemon in facts["daemons"]]
    assert told == {"alice": [DAEMONS[1]["address"]], "ci": [daemon["address"] for daemon in DAEMONS]}
    none = run({"clients": clients, "daemons": daemons[:1]})
    assert [bundle["client"] for bundle in none.result["bundles"]] == ["ci"]
    assert "The client alice gets no bundle: no builder admits its group default." in none.output


def test_a_secret_key_as_recipient_is_not_shown(run: Run) -> None:
    """Whoever mistakes the secret key for the public one is told so, and does not find it in the output."""
    secret = str(pyrage.x25519.Identity.generate())
    outcome = run({"clients": [{"name": "alice", "recipients": [secret]}]})
    assert "is a secret key" in outcome.message
    assert secret not in outcome.output


def test_encryption_without_the_library_says_what_to_install(run: Run, tmp_path: Path) -> None:
    """Only encrypted bundles need pyrage."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "pyrage.py").write_text("raise ImportError('hidden')\n")
    assert not run(python_path=hidden).failed
    outcome = run({"clients": [{"name": "alice", "passphrase": WORDS}]}, python_path=hidden)
    assert "the Python library pyrage (1.2 or newer) cannot be imported" in outcome.message
    assert "-m pip install 'pyrage>=1.2'" in outcome.message
    assert "apt-get" not in outcome.message
