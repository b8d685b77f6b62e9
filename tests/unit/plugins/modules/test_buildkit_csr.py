# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkit_csr, run as Ansible runs it, together with the controller's side."""

from __future__ import annotations

import ssl
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module, snapshot

DAEMON = {"name": "build-1", "dns": ["build-1.example.com"]}


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    """Where the TLS directory is going to be."""
    return tmp_path / "etc" / "tls"


@pytest.fixture
def run(tls: Path) -> t.Callable[..., Outcome]:
    """A function that runs the module on :func:`tls`."""

    def once(how: t.Mapping[str, t.Any] | None = None, **options: t.Any) -> Outcome:
        return run_module("buildkit_csr", {"path": str(tls), "name": "build-1", **options}, **(how or {}))

    return once


@pytest.fixture
def controller(tmp_path: Path) -> t.Callable[..., Outcome]:
    """A function that runs buildkit_pki with what the host sent."""

    def once(request: Outcome, **options: t.Any) -> Outcome:
        sent = {name: request.result[name] for name in ("csr", "trusts")}
        daemons = [{**DAEMON, **sent}]
        return run_module("buildkit_pki", {"path": str(tmp_path / "pki"), "daemons": daemons}, **options)

    return once


Run = t.Callable[..., Outcome]


def delivery(issued: Outcome) -> dict[str, str]:
    """The options of the second form."""
    return {"certificate": issued.result["daemons"][0]["certificate"], "ca": issued.result["trust_bundle"]}


def test_key_request_certificate_installation(run: Run, controller: Run, tls: Path) -> None:
    """The whole way, then the whole way again without a change; Python's ssl accepts the files."""
    request = run()
    issued = controller(request)
    installed = run(**delivery(issued))
    assert [one.result["changed"] for one in (request, issued, installed)] == [True, True, True]
    before = snapshot(tls)
    request = run()
    issued = controller(request)
    installed = run(**delivery(issued))
    assert [one.result["changed"] for one in (request, issued, installed)] == [False, False, False]
    assert snapshot(tls) == before
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "cert.pem", tls / "key.pem")
    context.load_verify_locations(tls / "ca.pem")
    assert stat.S_IMODE((tls / "key.pem").stat().st_mode) == 0o600


def test_it_says_when_there_is_nothing_to_install(run: Run, controller: Run, tls: Path) -> None:
    """What it returns is what the controller has; anything that is not as it must be tells that it has work."""
    request = run()
    assert request.result["settled"] is None
    issued = controller(request)
    assert run().result["settled"] is None
    run(**delivery(issued))
    assert run().result["settled"] == run({"check": True}).result["settled"] == delivery(issued)
    for left in (tls / "versions/left", tls / "pending"):
        left.mkdir()
        assert run({"check": True}).result["settled"] is None
        assert not run(**delivery(issued)).result["changed"]
        assert run({"check": True}).result["settled"] == delivery(issued)
    (tls / "ca.pem").unlink()
    assert run({"check": True}).result["settled"] is None


def test_check_mode_on_a_virgin_host_goes_all_the_way(run: Run, controller: Run, tls: Path, tmp_path: Path) -> None:
    """The host predicts without a request, and the controller predicts from that."""
    request = run({"check": True})
    assert (request.result["changed"], request.result["csr"]) == (True, None)
    issued = controller(request, check=True)
    assert issued.result["daemons"][0]["changed"]
    assert issued.result["daemons"][0]["certificate"] is None
    assert not tls.exists()
    assert not (tmp_path / "pki").exists()


def test_a_lost_pki_directory_is_noticed_by_what_the_host_trusts(run: Run, controller: Run, tmp_path: Path) -> None:
    """No new CA is made, and the message says what to do."""
    run(**delivery(controller(run())))
    (tmp_path / "pki").rename(tmp_path / "lost")
    outcome = controller(run())
    assert "already trusts another CA" in outcome.message
    assert "Restore the PKI directory from a backup" in outcome.message
    assert not (tmp_path / "pki").exists()


def test_the_key_is_never_printed(run: Run, controller: Run, tls: Path) -> None:
    """In neither form, with a diff or in a failure."""
    request = run({"diff": True})
    pending = (tls / "pending/key.pem").read_text().splitlines()[1:-1]
    issued = controller(request)
    outcomes = [request, run({"diff": True}, **delivery(issued)), run({"diff": True}), run(certificate="x", ca="y")]
    assert [outcome.failed for outcome in outcomes] == [False, False, False, True]
    printed = "".join(outcome.output for outcome in outcomes)
    assert pending
    assert "PRIVATE KEY" not in printed
    assert not [line for line in pending if line in printed]


@pytest.mark.parametrize("ca", [{}, {"ca": ""}, {"ca": "no certificate at all"}])
@pytest.mark.parametrize("check", [False, True])
def test_tls_without_a_ca_is_refused(run: Run, controller: Run, tls: Path, ca: dict[str, str], check: bool) -> None:
    """buildkitd would be open to anyone; nothing changes on the host."""
    certificate = controller(run()).result["daemons"][0]["certificate"]
    before = snapshot(tls)
    outcome = run({"check": check}, certificate=certificate, **ca)
    assert outcome.failed
    assert ("accept every client" if not ca.get("ca") else "no complete certificate") in outcome.message
    assert "Traceback" not in outcome.output
    assert snapshot(tls) == before


def test_the_diff_comes_only_when_asked_for_and_has_facts(run: Run, controller: Run) -> None:
    """Before and after, without PEM."""
    request = run()
    assert "diff" not in request.result
    diff = run({"diff": True}, **delivery(controller(request))).result["diff"]
    assert diff["before"]["serial"] is None
    assert diff["after"]["sans"] == ["DNS:build-1.example.com"]
    assert "BEGIN" not in str(diff)


def test_what_the_operating_system_refuses_is_one_clear_message(run: Run, tmp_path: Path) -> None:
    """A path below a file cannot be made."""
    (tmp_path / "etc").write_text("x")
    outcome = run()
    assert "Working on the TLS directory" in outcome.message
    assert "Traceback" not in outcome.output


def test_a_missing_library_is_named_with_its_remedies(run: Run, tmp_path: Path, tls: Path) -> None:
    """The host, the interpreter and both ways to install it."""
    (tmp_path / "empty" / "cryptography").mkdir(parents=True)
    (tmp_path / "empty" / "cryptography" / "__init__.py").write_text("raise ImportError('not here')\n")
    outcome = run({"python_path": tmp_path / "empty"})
    for part in ("cryptography (3.4 or newer)", "apt-get install python3-cryptography", "-m pip install"):
        assert part in outcome.message
    assert not tls.exists()
