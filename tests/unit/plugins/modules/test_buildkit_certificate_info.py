# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkit_certificate_info on files that OpenSSL made, against what OpenSSL says of them."""

from __future__ import annotations

import base64
import contextlib
import re
import subprocess
import time
import typing as t
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import inspection
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import PkiError
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module, snapshot

WORDS = "correct horse battery"
SANS = "DNS:Build-1.example.com,IP:192.0.2.11,IP:2001:db8::1"


def openssl(*arguments: object, stdin: str = "") -> str:
    """Run OpenSSL and return what it prints."""
    command = ["openssl", *(str(argument) for argument in arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Maker:
    """Makes keys and certificates with OpenSSL, each as ``<name>.key`` and ``<name>.pem``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(
        self,
        name: str,
        *extensions: str,
        by: str | None = None,
        key: t.Sequence[str] = ("EC", "ec_paramgen_curve:P-256"),
        days: int = 90,
        subject: str | None = None,
    ) -> Path:
        kind, *parameters = key
        options = [item for parameter in parameters for item in ("-pkeyopt", parameter)]
        private = self.directory / f"{name}.key"
        if not private.exists():
            openssl("genpkey", "-algorithm", kind, *options, "-out", private)
        signer = ("-CA", self.directory / f"{by}.pem", "-CAkey", self.directory / f"{by}.key") if by else ()
        wanted = [item for extension in extensions for item in ("-addext", extension)]
        path = self.directory / f"{name}.pem"
        named = f"/CN={name}" if subject is None else subject
        openssl("req", "-x509", "-new", "-key", private, "-subj", named, "-days", days, *signer, *wanted, "-out", path)
        return path


CA = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign")
LEAF = ("basicConstraints=critical,CA:FALSE",)
DAEMON = (*LEAF, f"subjectAltName={SANS}", "extendedKeyUsage=serverAuth")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two CAs, one below another, and leaves of all of them."""
    directory = tmp_path_factory.mktemp("openssl")
    make = Maker(directory)
    make("root", *CA)
    make("other", *CA, key=("RSA", "rsa_keygen_bits:2048"), subject="/O=Example/CN=other")
    make("edward", *CA, key=("ED25519",))
    make("middle", *CA, by="root")
    make("daemon", *DAEMON, by="root", days=10)
    make("client", *LEAF, "extendedKeyUsage=clientAuth", by="middle", key=("RSA", "rsa_keygen_bits:3072"))
    make("any", *LEAF, by="other", key=("EC", "ec_paramgen_curve:P-384"))
    make("mail", *LEAF, "extendedKeyUsage=emailProtection", by="edward", key=("ED25519",))
    make("child", *LEAF, by="any")
    make("pinned", *LEAF, "extendedKeyUsage=clientAuth")
    make("nameless", *LEAF, "subjectAltName=critical,DNS:x.example.com", by="root", subject="/")
    time.sleep(1.01 - time.time() % 1)  # in the second of its making a certificate of 90 days has 90 whole days left
    return directory


NAMES = ("root", "other", "edward", "middle", "daemon", "client", "any", "mail", "child", "pinned", "nameless")


def inspect(*, now: datetime | None = None, **options: t.Any) -> dict[str, t.Any]:
    """What the module returns for these options."""
    defaults: dict[str, t.Any] = dict.fromkeys(
        ("path", "content", "address", "host", "server_name", "key_path", "key_passphrase", "ca_path", "fail_below")
    )
    wanted = {**defaults, "port": 1234, "connect_timeout": 10.0, **options}
    return inspection.inspect(wanted, now=now or datetime.now(timezone.utc))


def only(**options: t.Any) -> dict[str, t.Any]:
    """The one certificate that there is."""
    [certificate] = inspect(**options)["certificates"]
    return certificate


def refusal(**options: t.Any) -> str:
    """The message of an error."""
    with pytest.raises(PkiError) as caught:
        inspect(**options)
    return str(caught.value)


def bundle(directory: Path, *parts: Path) -> str:
    """A file with the contents of others."""
    path = directory / "bundle.pem"
    path.write_text("".join(part.read_text() for part in parts))
    return str(path)


# --- facts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_those_that_openssl_prints(made: Path, name: str) -> None:
    """Subject, issuer, serial, dates, fingerprint, SANs and CA or not."""
    path = made / f"{name}.pem"
    found = only(path=str(path))
    names = ("-nameopt", "RFC2253", "-dateopt", "iso_8601")
    wanted = ("-subject", "-issuer", "-serial", "-startdate", "-enddate", "-fingerprint", "-sha256")
    said = dict(
        line.split("=", 1)
        for line in openssl("x509", "-in", path, "-noout", *names, *wanted).splitlines()
        if "=" in line
    )
    assert found["subject"] == said["subject"]
    assert found["issuer"] == said["issuer"]
    assert found["serial"] == said["serial"].lower()
    assert found["not_before"] == said["notBefore"].replace(" ", "T")
    assert found["not_after"] == said["notAfter"].replace(" ", "T")
    assert found["fingerprint"] == said["sha256 Fingerprint"].replace(":", "").lower()
    assert found["is_ca"] == ("CA:TRUE" in openssl("x509", "-in", path, "-noout", "-text"))
    assert found["self_signed"] == (said["subject"] == said["issuer"])


def test_names_usage_and_key_types(made: Path) -> None:
    """As the module spells them."""
    daemon = only(path=str(made / "daemon.pem"))
    assert daemon["sans"] == ["DNS:build-1.example.com", "IP:192.0.2.11", "IP:2001:db8::1"]
    assert daemon["common_name"] == "daemon"
    assert only(path=str(made / "other.pem"))["common_name"] == "other"
    nameless = only(path=str(made / "nameless.pem"))
    assert (nameless["subject"], nameless["common_name"]) == ("", None)
    usages = {name: only(path=str(made / f"{name}.pem"))["usage"] for name in ("daemon", "client", "any", "mail")}
    assert usages == {"daemon": ["server"], "client": ["client"], "any": ["client", "server"], "mail": []}
    types = {name: only(path=str(made / f"{name}.pem"))["key_type"] for name in ("daemon", "client", "any", "mail")}
    assert types == {"daemon": "ecdsa-p256", "client": "rsa-3072", "any": "ecdsa-p384", "mail": "Ed25519"}


def test_a_bundle_gives_all_of_its_certificates_in_order(made: Path, tmp_path: Path) -> None:
    """Also between a key and text; the days are those of the first to end."""
    parts = [made / "client.pem", made / "client.key", made / "middle.pem", made / "daemon.pem"]
    path = bundle(tmp_path, *parts)
    Path(path).write_text("Some text before.\n" + Path(path).read_text().replace("\n", "\r\n"))
    result = inspect(path=path)
    assert [one["common_name"] for one in result["certificates"]] == ["client", "middle", "daemon"]
    assert [one["days_left"] for one in result["certificates"]] == [89, 89, 9]
    assert result["days_left"] == 9
    assert result["source"] == path
    assert result["failure"] is None


def test_text_is_read_as_a_file_is(made: Path) -> None:
    """The same facts, and where they come from."""
    result = inspect(content=(made / "daemon.pem").read_text())
    assert result["certificates"] == inspect(path=str(made / "daemon.pem"))["certificates"]
    assert result["source"] == "content"


def test_what_was_not_asked_for_is_null(made: Path) -> None:
    """Without a key and a CA nothing is said about them."""
    found = only(path=str(made / "daemon.pem"))
    assert {found[name] for name in ("key_matches", "signed_by", "verified", "problem")} == {None}


# --- keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["daemon", "client", "any", "mail"])
def test_a_key_matches_its_own_certificate_alone(made: Path, name: str) -> None:
    """Every type of key."""
    key_path = str(made / f"{name}.key")
    matches = {one: only(path=str(made / f"{one}.pem"), key_path=key_path)["key_matches"] for one in NAMES}
    assert matches == {one: one == name for one in NAMES}


@pytest.mark.parametrize("form", [("pkcs8", "-topk8"), ("rsa", "-traditional", "-aes128")], ids=["pkcs8", "pkcs1"])
def test_an_encrypted_key_needs_its_passphrase(made: Path, tmp_path: Path, form: tuple[str, ...]) -> None:
    """Right, wrong and missing; messages do not repeat it. One that is not needed does no harm."""
    path = str(made / "client.pem")
    key = tmp_path / "key.pem"
    openssl(*form, "-in", made / "client.key", "-passout", "stdin", "-out", key, stdin=WORDS)
    assert only(path=path, key_path=str(key), key_passphrase=WORDS)["key_matches"] is True
    assert only(path=path, key_path=str(made / "client.key"), key_passphrase=WORDS)["key_matches"] is True
    assert "give its passphrase in key_passphrase" in refusal(path=path, key_path=str(key))
    wrong = refusal(path=path, key_path=str(key), key_passphrase=f"not {WORDS}")
    assert "the passphrase is wrong, or the file is damaged" in wrong
    assert WORDS not in wrong


def test_what_is_no_key_is_refused(made: Path, tmp_path: Path) -> None:
    """Missing, a certificate, and damaged."""
    path = str(made / "daemon.pem")
    assert "none.key cannot be read: No such file" in refusal(path=path, key_path=str(made / "none.key"))
    assert "holds no private key" in refusal(path=path, key_path=path)
    damaged = tmp_path / "key.pem"
    lines = (made / "daemon.key").read_text().splitlines()
    damaged.write_text("\n".join([lines[0], lines[1][:20], lines[-1]]))
    message = refusal(path=path, key_path=str(damaged))
    assert "the file is damaged" in message
    assert lines[1][:20] not in message


# --- CAs ------------------------------------------------------------------------------------------------------

VERDICTS = [
    ("daemon", ["root"], "root", None),
    ("daemon", ["other", "root"], "root", None),
    ("daemon", ["other"], None, "No CA in .* signed it"),
    ("mail", ["edward"], "edward", None),
    ("any", ["root", "other"], "other", None),
    ("client", ["middle"], "middle", None),
    ("client", ["root"], None, "No CA in .* signed it"),
    ("root", ["root"], "root", None),
    ("root", ["other"], None, "No CA in .* signed it"),
    ("pinned", ["root", "pinned"], "pinned", None),
    ("pinned", ["root"], None, "No CA in .* signed it"),
    ("child", ["any"], "any", "signed by CN=any, which is no CA"),
]


@pytest.mark.parametrize(("name", "cas", "signer", "problem"), VERDICTS)
def test_the_signer_is_named_and_the_verdict_is_that_of_openssl(
    made: Path, tmp_path: Path, name: str, cas: list[str], signer: str | None, problem: str | None
) -> None:
    """Which CA of a bundle, by subject and fingerprint; ``openssl verify`` says the same."""
    path, ca_path = made / f"{name}.pem", bundle(tmp_path, *(made / f"{ca}.pem" for ca in cas))
    found = only(path=str(path), ca_path=ca_path)
    facts_of_signer = None
    if signer is not None:
        facts_of_signer = {key: only(path=str(made / f"{signer}.pem"))[key] for key in ("subject", "fingerprint")}
    assert found["signed_by"] == facts_of_signer
    assert found["verified"] is (problem is None)
    assert re.search(problem, found["problem"]) if problem else found["problem"] is None
    verdict = subprocess.run(
        ["openssl", "verify", "-partial_chain", "-CAfile", ca_path, path], capture_output=True, text=True, check=False
    )
    assert found["verified"] is (verdict.returncode == 0), verdict.stderr


def test_a_chain_is_completed_by_the_other_certificates(made: Path, tmp_path: Path) -> None:
    """Only the CA in ca_path is trusted; the one between is named as the signer."""
    chain = bundle(tmp_path, made / "client.pem", made / "middle.pem")
    leaf, middle = inspect(path=chain, ca_path=str(made / "root.pem"))["certificates"]
    assert (leaf["signed_by"]["subject"], leaf["verified"]) == ("CN=middle", True)
    assert (middle["signed_by"]["subject"], middle["verified"]) == ("CN=root", True)
    leaf, middle = inspect(path=chain, ca_path=str(made / "other.pem"))["certificates"]
    assert leaf["problem"] == f"It is signed by CN=middle: No CA in {made / 'other.pem'} signed it."
    assert (leaf["verified"], middle["verified"]) == (False, False)


def test_a_path_too_long_is_a_problem(tmp_path: Path) -> None:
    """A CA with path length 0 vouches for no CA below it."""
    make = Maker(tmp_path)
    root = make("root", "basicConstraints=critical,CA:TRUE,pathlen:0")
    chain = bundle(tmp_path, make("leafs-ca", *CA, by="root"))
    leaf = make("leaf", *LEAF, by="leafs-ca")
    found = inspect(path=bundle(tmp_path, leaf, Path(chain)), ca_path=str(root))["certificates"][0]
    assert found["verified"] is False
    assert "no more than 0 CAs between" in found["problem"]


@pytest.mark.parametrize(
    ("days", "problem"),
    [(0, None), (11, r"^It ended on 20"), (91, r"^It ended on 20"), (-1, r"^It is valid only from 20")],
)
def test_the_clock_counts(made: Path, days: int, problem: str | None) -> None:
    """Ended, not yet begun, and good."""
    now = datetime.now(timezone.utc) + timedelta(days=days)
    found = only(path=str(made / "daemon.pem"), ca_path=str(made / "root.pem"), now=now)
    assert found["verified"] is (problem is None)
    assert re.search(problem, found["problem"]) if problem else found["problem"] is None


def test_a_ca_that_ended_vouches_for_nothing(tmp_path: Path) -> None:
    """The leaf outlived it."""
    make = Maker(tmp_path)
    root, leaf = make("root", *CA, days=5), make("leaf", *LEAF, by="root", days=30)
    now = datetime.now(timezone.utc) + timedelta(days=7)
    found = only(path=str(leaf), ca_path=str(root), now=now)
    assert found["problem"].startswith("It is signed by CN=root: It ended on 20")
    assert only(path=str(leaf), ca_path=str(root))["verified"] is True


# --- the gate -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "fail_below", "failure"),
    [
        (0, "9d", None),
        (0, "1w", None),
        (0, "11d", r"below the 11d of fail_below: CN=daemon ends in 9 days, on 20.*Z\. Renew what is due\.$"),
        (9, "1d", r"CN=daemon ends in 2[0-9] hours"),
        (12, "1m", r"CN=daemon ended 2 days ago, on 20"),
    ],
)
def test_the_gate_counts_what_is_left(made: Path, days: int, fail_below: str, failure: str | None) -> None:
    """Passed and failed, with the facts in both cases."""
    now = datetime.now(timezone.utc) + timedelta(days=days)
    result = inspect(path=str(made / "daemon.pem"), fail_below=fail_below, now=now)
    assert result["certificates"][0]["days_left"] == 9 - days
    assert re.search(failure, result["failure"]) if failure else result["failure"] is None


def test_the_gate_names_every_certificate_that_is_due(made: Path, tmp_path: Path) -> None:
    """The first to end comes first."""
    path = bundle(tmp_path, made / "client.pem", made / "daemon.pem")
    failure = inspect(path=path, fail_below="20w")["failure"]
    assert failure.index("CN=daemon") < failure.index("CN=client")


def test_a_failed_gate_returns_the_facts(made: Path) -> None:
    """As Ansible sees it."""
    path = str(made / "daemon.pem")
    passed, failed = (run_module("buildkit_certificate_info", {"path": path, "fail_below": f"{n}d"}) for n in (5, 14))
    assert not passed.failed
    assert passed.result["changed"] is False
    assert failed.failed
    assert "below the 14d of fail_below" in failed.message
    assert set(passed.result) == {"changed", "source", "certificates", "days_left"}
    assert failed.result["certificates"] == passed.result["certificates"]
    assert failed.result["days_left"] == 9


# --- what is no certificate -----------------------------------------------------------------------------------


def truncated(pem: str) -> str:
    """Cut in the middle of the text."""
    return pem[: len(pem) // 2]


def shortened(pem: str) -> str:
    """Some lines lost, with the end marker still there."""
    lines = pem.splitlines()
    return "\n".join([*lines[:4], lines[-1]])


def scribbled(pem: str) -> str:
    """A character that is no base64."""
    lines = pem.splitlines()
    return "\n".join([lines[0], "!" + lines[1], *lines[2:]])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda pem: "", "holds nothing in PEM format (it is empty)"),
        (lambda pem: "hello", "holds nothing in PEM format"),
        (truncated, "is cut off or damaged"),
        (shortened, "is damaged, or of a kind that is not known here"),
        (scribbled, "is damaged: its text is no base64"),
        (lambda pem: pem + truncated(pem), "is cut off or damaged"),
        (lambda pem: pem + shortened(pem), "Certificate 2 of"),
    ],
)
def test_what_is_no_whole_certificate_is_named(
    made: Path, tmp_path: Path, spoil: t.Callable[[str], str], message: str
) -> None:
    """From a file and as text."""
    path = tmp_path / "cert.pem"
    path.write_text(spoil((made / "daemon.pem").read_text()))
    assert message in refusal(path=str(path))
    assert message in refusal(content=path.read_text())
    assert message in refusal(path=str(made / "daemon.pem"), ca_path=str(path))


def test_other_kinds_of_files_are_named(made: Path, tmp_path: Path) -> None:
    """A key, a request, DER, a directory, no file."""
    message = refusal(path=str(made / "daemon.key"))
    assert "holds no certificate, but a private key: name the certificate that belongs to it" in message
    request = tmp_path / "request.pem"
    openssl("req", "-new", "-key", made / "daemon.key", "-subj", "/CN=x", "-out", request)
    assert "holds no certificate, but a certificate signing request" in refusal(path=str(request))
    openssl("pkey", "-in", made / "daemon.key", "-pubout", "-out", tmp_path / "public.pem")
    assert "holds no certificate, but what PEM calls public key" in refusal(path=str(tmp_path / "public.pem"))
    der = tmp_path / "cert.der"
    openssl("x509", "-in", made / "daemon.pem", "-outform", "der", "-out", der)
    assert "openssl x509 -inform der" in refusal(path=str(der))
    assert f"{tmp_path} cannot be read: Is a directory." in refusal(path=str(tmp_path))
    assert "none.pem cannot be read: No such file or directory." in refusal(path=str(tmp_path / "none.pem"))


def test_odd_certificates_are_one_message(made: Path) -> None:
    """Bytes that are changed one at a time: facts or an error of ours, never another exception."""
    body = "".join((made / "daemon.pem").read_text().splitlines()[1:-1])
    der = base64.b64decode(body)
    messages = []
    for index in range(len(der)):
        spoiled = der[:index] + bytes([der[index] ^ 0x24]) + der[index + 1 :]
        pem = "-----BEGIN CERTIFICATE-----\n" + base64.b64encode(spoiled).decode() + "\n-----END CERTIFICATE-----\n"
        with contextlib.suppress(PkiError):
            inspect(content=pem, ca_path=str(made / "root.pem"), key_path=str(made / "daemon.key"))
            continue
        messages.append(refusal(content=pem))
    assert 0 < len(messages) < len(der)
    assert {message.split(" (")[0] for message in messages} == {
        "The certificate in The option content is damaged, or of a kind that is not known here"
    }


# --- options, secrets, libraries ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of the following is required: path, content, address, host"),
        ({"path": "/x", "host": "localhost"}, "mutually exclusive"),
        ({"address": "build-1:1234"}, "tcp://HOST:PORT"),
        ({"address": "unix:///run/buildkit/buildkitd.sock"}, "A unix socket has no TLS"),
        ({"address": "tcp://build-1:x"}, "tcp://HOST:PORT"),
        ({"address": "tcp://build-1/x"}, "tcp://HOST:PORT"),
        ({"address": "tcp://build-1:0"}, "use one from 1 to 65535"),
        ({"host": "localhost", "port": 70000}, "use one from 1 to 65535"),
        ({"host": "local host"}, "neither a host name nor an IP address"),
        ({"host": "localhost", "connect_timeout": 0}, "must be more than 0 seconds"),
        ({"host": "localhost", "server_name": ""}, "which is no host name"),
        ({"path": "/x", "fail_below": "14"}, "fail_below is '14', which is no length of time"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_bad_input_is_refused(options: dict[str, t.Any], message: str, check: bool) -> None:
    """One clear message, no traceback."""
    outcome = run_module("buildkit_certificate_info", options, check=check)
    assert outcome.failed
    assert message in outcome.message
    assert "Traceback" not in outcome.output


def test_nothing_secret_is_printed(made: Path, tmp_path: Path) -> None:
    """Neither a key nor its passphrase, nor a key that was given in place of a certificate."""
    key = tmp_path / "key.pem"
    openssl("pkcs8", "-topk8", "-in", made / "client.key", "-passout", "stdin", "-out", key, stdin=WORDS)
    path, secret = str(made / "client.pem"), (made / "client.key").read_text()
    outcomes = [
        run_module("buildkit_certificate_info", {"path": path, "key_path": str(key), "key_passphrase": WORDS}),
        run_module("buildkit_certificate_info", {"path": path, "key_path": str(key), "key_passphrase": f"x{WORDS}"}),
        run_module("buildkit_certificate_info", {"path": path, "key_path": str(made / "client.key")}),
        run_module("buildkit_certificate_info", {"content": secret}),
    ]
    assert [outcome.failed for outcome in outcomes] == [False, True, False, True]
    printed = "".join(outcome.output for outcome in outcomes)
    assert WORDS not in printed
    lines = [line for text in (secret, key.read_text()) for line in text.splitlines()[1:-1]]
    assert lines
    assert not [line for line in lines if line in printed]


def test_nothing_is_changed(made: Path) -> None:
    """To the last byte."""
    before = snapshot(made)
    for name in NAMES:
        inspect(path=str(made / f"{name}.pem"), key_path=str(made / "daemon.key"), ca_path=str(made / "root.pem"))
    assert snapshot(made) == before


def test_a_missing_library_is_named_with_its_remedies(tmp_path: Path) -> None:
    """A package that cannot be imported stands before the real one."""
    (tmp_path / "cryptography").mkdir()
    (tmp_path / "cryptography" / "__init__.py").write_text("raise ImportError('not here')\n")
    outcome = run_module("buildkit_certificate_info", {"path": "/x"}, python_path=tmp_path)
    assert outcome.failed
    for part in ("cryptography (3.4 or newer)", "not here", "python3-cryptography", "-m pip install"):
        assert part in outcome.message
