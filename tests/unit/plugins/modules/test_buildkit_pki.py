# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkit_pki, run as Ansible runs it."""

from __future__ import annotations

import stat
import subprocess
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.buildfarm.buildkit.plugins.modules import buildkit_pki
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import (
    Outcome,
    finish,
    module_process,
    run_module,
    snapshot,
)

DAEMON = {"name": "build-1", "dns": ["build-1.example.com"], "ip": ["192.0.2.11"]}
FLEET = {"daemons": [DAEMON], "clients": [{"name": "ci"}]}
WORDS = "correct horse battery"


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """Where the PKI directory is going to be."""
    return tmp_path / "pki"


@pytest.fixture
def run(pki: Path) -> t.Callable[..., Outcome]:
    """A function that runs the module on :func:`pki`."""

    def once(options: t.Mapping[str, t.Any] | None = None, **how: t.Any) -> Outcome:
        return run_module("buildkit_pki", {"path": str(pki), **(FLEET if options is None else options)}, **how)

    return once


Run = t.Callable[..., Outcome]


def test_check_run_run_again_and_read_back(run: Run, pki: Path) -> None:
    """Check mode foretells, the run does it, the next one has nothing to do, and OpenSSL agrees."""
    checked = run(check=True, diff=True)
    assert not pki.exists()
    first = run(diff=True)
    second = run(diff=True)
    assert [outcome.result["changed"] for outcome in (checked, first, second)] == [True, True, False]
    assert [outcome.result["due"] for outcome in (checked, first, second)] == [True, True, False]
    keys = {"authorities", "daemons", "clients", "trust_bundle", "expires", "revoked", "changed", "diff", "due"}
    assert [set(outcome.result) for outcome in (checked, first, second)] == [keys] * 3
    for kind in ("authorities", "daemons", "clients"):
        assert checked.result[kind][0]["reasons"] == first.result[kind][0]["reasons"] != []
        assert second.result[kind][0]["serial"] == first.result[kind][0]["serial"]
    verified = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", pki / "clients/ci/ca.pem", pki / "daemons/build-1/cert.pem"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr


def test_what_is_written_without_a_change_is_due_all_the_same(run: Run, pki: Path) -> None:
    """What a killed run left, and a register from a backup: check mode tells, and the next run mends them."""
    run()
    register = (pki / "issued.json").read_bytes()
    run({**FLEET, "clients": [*FLEET["clients"], {"name": "bob"}]})
    assert not run(check=True).result["due"]
    (pki / "clients" / ".bob.new").mkdir()
    leftover = run(check=True), run(), run(check=True)
    (pki / "issued.json").write_bytes(register)
    outdated = run(check=True), run(), run(check=True)
    for outcomes in (leftover, outdated):
        assert [outcome.result["changed"] for outcome in outcomes] == [False, False, False]
        assert [outcome.result["due"] for outcome in outcomes] == [True, True, False]


def test_the_diff_comes_only_when_asked_for(run: Run) -> None:
    """As from every module."""
    assert "diff" not in run().result


def test_nothing_secret_is_printed(run: Run, pki: Path) -> None:
    """Neither a key nor the passphrase, in any mode, in success and in failure."""
    ca = {"passphrase": WORDS}
    outcomes = [
        run({**FLEET, "ca": ca}, diff=True),
        run({**FLEET, "ca": ca, "valid_for": "1d"}, diff=True),
        run({**FLEET, "ca": ca}, check=True),
        run({**FLEET, "ca": {"passphrase": f"not {WORDS}"}}),
    ]
    assert [outcome.failed for outcome in outcomes] == [False, False, False, True]
    printed = "".join(outcome.output for outcome in outcomes)
    assert WORDS not in printed
    assert "PRIVATE KEY" not in printed
    for path in pki.glob("*/*/key.pem"):
        for line in path.read_text().splitlines()[1:-1]:
            assert line not in printed


def test_no_passphrase_is_printed_when_it_changes_or_a_ca_is_taken_over(run: Run, pki: Path, tmp_path: Path) -> None:
    """Neither the old nor the new one, nor that of the other tool, in success and in failure."""
    other = "staple of another tool"
    run({"path": str(tmp_path / "other"), "ca": {"passphrase": other}, "clients": [{"name": "ci"}]})
    authority = tmp_path / "other/authorities/default"
    take = {"import_certificate": str(authority / "ca.pem"), "import_key": str(authority / "key.pem")}
    old, new = "an old passphrase", "a new passphrase"
    outcomes = [
        run({"ca": {**take, "import_passphrase": f"not {other}"}}, diff=True),
        run({"ca": {**take, "import_passphrase": other, "passphrase": old}}, diff=True),
        run({"ca": {"passphrase": new, "previous_passphrase": "wrong as well"}}, diff=True),
        run({"ca": {"passphrase": new, "previous_passphrase": old}}, diff=True),
    ]
    assert [outcome.failed for outcome in outcomes] == [True, False, True, False]
    assert outcomes[3].result["authorities"][0]["reasons"] == ["its key is encrypted with another passphrase"]
    printed = "".join(outcome.output for outcome in outcomes)
    assert [words for words in (old, new, other, "wrong as well", "PRIVATE KEY") if words in printed] == []


def test_the_result_has_what_is_documented(run: Run) -> None:
    """All keys of the items, in every phase of a rollover, and nothing else."""
    documented = yaml.safe_load(buildkit_pki.RETURN)
    of_items = set(documented["daemons"]["contains"])
    of_authorities = set(documented["authorities"]["contains"])
    keys = {
        "authorities": of_items - {"ca"} | of_authorities,
        "daemons": of_items,
        "clients": of_items,
        "expires": set(documented["expires"]["contains"]),
        "revoked": set(documented["revoked"]["contains"]),
    }
    run({**FLEET, "clients": [{"name": "ci"}, {"name": "bob"}]})
    steps = [{"phase": phase, "accept_missing": True} for phase in ("distribute", "issue", "retire")]
    for rollover in steps:
        result = run({**FLEET, "rollover": rollover, "revoke": ["bob"]}).result
        for name, expected in keys.items():
            assert {frozenset(item) for item in result[name]} == {frozenset(expected)}
        for side in ("next", "previous"):
            summary = result["authorities"][0][side]
            assert summary is None or set(summary) == set(documented["authorities"]["contains"][side]["contains"])


def test_files_are_private_whatever_the_mask(run: Run, pki: Path) -> None:
    """Every file 0600, every directory 0700."""
    run()
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (pki, *pki.rglob("*"))}
    assert modes == {(True, 0o700), (False, 0o600)}


def test_two_runs_at_once_make_one_ca(pki: Path) -> None:
    """The second waits for the first and finds its CA; both leaves are of it."""
    processes = [
        module_process("buildkit_pki", {"path": str(pki), "clients": [{"name": name}]}) for name in ("a", "b", "c")
    ]
    results = [finish(process).result for process in processes]
    assert len({result["trust_bundle"] for result in results}) == 1
    assert sorted(result["authorities"][0]["changed"] for result in results) == [False, False, True]
    again = run_module("buildkit_pki", {"path": str(pki), "clients": [{"name": name} for name in ("a", "b", "c")]})
    assert not again.result["changed"]


def test_a_shortened_life_is_a_warning(run: Run) -> None:
    """The certificate ends with its CA."""
    result = run({**FLEET, "ca": {"valid_for": "10d"}}).result
    assert result["clients"][0]["not_after"] == result["authorities"][0]["not_after"]
    assert "end with their CA" in str(result["warnings"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"daemons": [{"name": "build-1"}]}, "neither dns nor ip"),
        ({"daemons": [DAEMON, {**DAEMON, "name": "build-2"}]}, "both ask for"),
        ({"clients": [{"name": "../ci"}]}, "cannot be the name of a client"),
        ({"valid_for": "30d", "renew_before": "31d"}, "renew_before (31d) is not shorter than valid_for (30d)"),
        ({"valid_for": "30s"}, "m (minutes), h (hours), d (days) or w (weeks)"),
        ({"daemons": [{**DAEMON, "csr": "x"}]}, "no readable certificate signing request"),
        ({"daemons": [{**DAEMON, "trusts": ["0f" * 32]}]}, "already trusts another CA"),
        ({"ca": {"key_type": "dsa"}}, "value of key_type must be one of: ecdsa-p256, ecdsa-p384, rsa-3072"),
        ({"clients": [{}]}, "missing required arguments: name"),
        ({"trust": "web"}, "value of trust must be one of: ca, pinned"),
        ({"rollover": {"phase": "begin"}}, "value of phase must be one of: distribute, issue, retire"),
        ({"rollover": {"phase": "distribute"}}, "rollover names the CA default, and"),
        ({"revoke": ["bob"]}, "revoke names 'bob'"),
        ({"daemons": [{**DAEMON, "admits": []}]}, "admits of the daemon build-1 is empty"),
        ({"daemons": [{**DAEMON, "admits": ["release"]}]}, "there is no such group of clients"),
        ({"trust": "pinned", "daemons": [DAEMON], "clients": []}, "would admit nobody"),
        ({"ca": {"import_certificate": "/nowhere"}}, "ca.import_certificate and ca.import_key go together"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_bad_input_is_refused_before_anything_is_made(
    run: Run, pki: Path, options: dict[str, t.Any], message: str, check: bool
) -> None:
    """One clear message, no traceback, no directory; check mode refuses too."""
    outcome = run(options, check=check)
    assert outcome.failed
    assert message in outcome.message
    assert "Traceback" not in outcome.output
    assert not pki.exists()


@pytest.mark.parametrize("check", [False, True])
def test_a_directory_that_others_can_read_is_refused(run: Run, pki: Path, check: bool) -> None:
    """With the command that closes it."""
    run()
    pki.chmod(0o755)
    before = snapshot(pki)
    outcome = run({"clients": [{"name": "new"}]}, check=check)
    assert f"chmod -R go= {pki}" in outcome.message
    assert snapshot(pki) == before


def test_what_the_operating_system_refuses_is_one_clear_message(run: Run, pki: Path) -> None:
    """A path below a file cannot be made."""
    pki.write_text("x")
    outcome = run({"path": str(pki / "below"), **FLEET})
    assert f"Working on the PKI directory {pki / 'below'} failed" in outcome.message
    assert "Traceback" not in outcome.output


def test_a_missing_library_is_named_with_its_remedies(run: Run, tmp_path: Path, pki: Path) -> None:
    """A package that cannot be imported stands before the real one."""
    (tmp_path / "empty" / "cryptography").mkdir(parents=True)
    (tmp_path / "empty" / "cryptography" / "__init__.py").write_text("raise ImportError('not here')\n")
    outcome = run(python_path=tmp_path / "empty")
    assert outcome.failed
    for part in ("cryptography (3.4 or newer)", "not here", "python3-cryptography", "-m pip install"):
        assert part in outcome.message
    assert not pki.exists()
