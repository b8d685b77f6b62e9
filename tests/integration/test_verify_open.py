# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real daemons that let strangers in: each is found out, whatever the good client was given."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import verify
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from certificates import Authority, Pair
from daemon import Daemon


def report_of(daemon: verify.Daemon, **settings: object) -> dict[str, object]:
    """The report of one daemon in the form that modules return."""
    proof = verify.Proof(**{"connect_timeout": LONG, "build_timeout": LONG, **settings})
    [report] = verify.verify([daemon], proof)
    return report.as_dict()


@pytest.mark.parametrize("with_certificate", [True, False])
def test_daemon_without_ca_is_open(
    without_ca: Daemon, authority: Authority, client: Pair, with_certificate: bool
) -> None:
    """A daemon deployed without C(ca) builds well, and fails the proof because it takes any client."""
    credentials = (str(client.cert), str(client.key)) if with_certificate else ("", "")
    report = report_of(verify.Daemon(without_ca.tcp, str(authority.path), *credentials))
    assert report["ok"] is False
    assert report["failure"]["kind"] == "open_to_anyone"
    assert "without a client certificate" in report["failure"]["message"]
    assert "with a certificate of another CA" in report["failure"]["message"]
    assert "tlscacert" in report["failure"]["remedy"]
    assert report["timings_ms"]["exec"] > 0
    refused = {name: one["refused"] for name, one in report["refusals"].items()}
    assert refused == {"no_certificate": False, "foreign_ca": False, "plaintext": True}


@pytest.mark.parametrize("stranger", ["no_certificate", "foreign_ca"])
def test_each_stranger_alone_finds_it(without_ca: Daemon, authority: Authority, client: Pair, stranger: str) -> None:
    """One stranger who gets in is enough."""
    daemon = verify.Daemon(without_ca.tcp, str(authority.path), str(client.cert), str(client.key))
    report = report_of(daemon, builds=(), refusals=(stranger,))
    assert report["failure"]["kind"] == "open_to_anyone"


def test_plaintext_daemon_is_open(plaintext: Daemon) -> None:
    """A daemon on plaintext TCP builds well, and fails the proof."""
    report = report_of(verify.Daemon(plaintext.tcp))
    assert report["failure"]["kind"] == "open_to_anyone"
    assert "without TLS" in report["failure"]["message"]
    assert report["refusals"] == {"plaintext": {"refused": False, "how": "got an answer in HTTP/2"}}
    assert report["timings_ms"]["dockerfile"] > 0


@pytest.mark.parametrize("refusals", [("no_certificate",), ("foreign_ca",)])
def test_plaintext_daemon_is_open_whatever_is_asked(plaintext: Daemon, refusals: tuple[str, ...]) -> None:
    """Without TLS every question about strangers has the same answer."""
    assert report_of(verify.Daemon(plaintext.tcp), refusals=refusals)["failure"]["kind"] == "open_to_anyone"


def test_plaintext_daemon_is_open_to_a_client_that_expects_tls(
    plaintext: Daemon, authority: Authority, client: Pair
) -> None:
    """A client whose TLS handshake fails there says not only that, but that strangers get in."""
    report = report_of(verify.Daemon(plaintext.tcp, str(authority.path), str(client.cert), str(client.key)))
    assert report["failure"]["kind"] == "open_to_anyone"
    assert report["refusals"]["plaintext"]["refused"] is False


def test_open_daemon_passes_only_where_nobody_asks(plaintext: Daemon) -> None:
    """With no refusals wanted a plaintext daemon is proved to build, and nothing else."""
    report = report_of(verify.Daemon(plaintext.tcp), refusals=())
    assert report["ok"] is True
    assert report["refusals"] == {}
