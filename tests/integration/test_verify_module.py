# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkit_verify, run as Ansible runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import verify
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from certificates import CLIENT, Authority, Pair
from daemon import Daemon


def options_for(authority: Authority, client: Pair, **options: Any) -> dict[str, Any]:
    """Options with the good credentials."""
    return {
        "ca_path": str(authority.path),
        "client_cert": str(client.cert),
        "client_key": str(client.key),
        **options,
    }


def run(options: dict[str, Any], **how: Any) -> Outcome:
    """Run the module."""
    return run_module("buildkit_verify", {"connect_timeout": LONG, "build_timeout": LONG, **options}, **how)


@pytest.mark.parametrize("check", [False, True])
def test_address_is_proved(mtls: Daemon, authority: Authority, client: Pair, check: bool) -> None:
    """One address gives a list of one, nothing has changed, and check mode proves as much."""
    outcome = run(options_for(authority, client, address=mtls.tcp), check=check)
    assert not outcome.failed, outcome.message
    assert outcome.result["changed"] is False
    [daemon] = outcome.result["daemons"]
    assert daemon["ok"] is True
    assert daemon["failure"] is None
    assert {"exec", "dockerfile", *verify.REFUSALS} < set(daemon["timings_ms"])
    [line] = outcome.result["summary"]
    assert line.startswith(f"{mtls.tcp}: BuildKit v0.")


def test_item_of_a_fleet_takes_what_it_leaves_out_from_the_module(
    mtls: Daemon, authority: Authority, client: Pair, other_authority: Authority
) -> None:
    """Each item may have its own credentials; the others share those of the module."""
    stranger = other_authority.issue("module-stranger", CLIENT)
    daemons = [
        {"address": mtls.tcp},
        {"address": mtls.tcp, "tls_hostname": "localhost"},
        {"address": mtls.tcp, "client_cert": str(stranger.cert), "client_key": str(stranger.key)},
        {"address": mtls.unix},
    ]
    outcome = run(options_for(authority, client, daemons=daemons, builds=["exec"], refusals=[]))
    assert [daemon["ok"] for daemon in outcome.result["daemons"]] == [True, True, False, True]
    assert outcome.message.splitlines()[0] == "1 of 4 daemons not proved:"
    [line] = outcome.message.splitlines()[1:]
    assert line == outcome.result["summary"][0]  # the worst comes first
    assert "client_certificate_refused" in line


def test_everything_that_can_be_wished(mtls: Daemon, authority: Authority, client: Pair) -> None:
    """All options at once, and the garbage collection as the result has it: proved, and the summary says so."""
    rules = run(options_for(authority, client, address=mtls.tcp, builds=[])).result["daemons"][0]["workers"][0]
    wishes = {
        "builds": ["exec", "dockerfile", "cache"],
        "platforms": [rules["platforms"][0]],
        "entitlements_refused": ["network.host", "security.insecure"],
        "min_version": "0.13",
        "gc_policy": rules["gc_policy"],
        "certificate_days": 21,
    }
    outcome = run(options_for(authority, client, address=mtls.tcp, **wishes))
    assert not outcome.failed, outcome.message
    assert list(outcome.result["daemons"][0]["entitlements"]) == wishes["entitlements_refused"]
    [line] = outcome.result["summary"]
    assert "cache build in" in line
    assert line.endswith("network.host refused, security.insecure refused")


def test_open_daemon_fails_the_task(without_ca: Daemon, authority: Authority, client: Pair) -> None:
    """The message of the task has the address, the kind and the remedy."""
    outcome = run(options_for(authority, client, address=without_ca.tcp))
    assert outcome.failed
    assert outcome.message.startswith(f"{without_ca.tcp}: open_to_anyone: ")
    assert "tlscacert" in outcome.message
    assert outcome.result["daemons"][0]["failure"]["kind"] == "open_to_anyone"


def test_no_key_in_any_output(mtls: Daemon, without_ca: Daemon, authority: Authority, client: Pair) -> None:
    """Neither success nor failure prints a line of the key."""
    secret = [line for line in client.key.read_text(encoding="ascii").splitlines() if "KEY" not in line]
    assert secret
    for address in (mtls.tcp, without_ca.tcp, "tcp://127.0.0.1:9"):
        output = run(options_for(authority, client, address=address)).output
        assert not [line for line in secret if line in output]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of the following is required: address, daemons"),
        ({"address": "unix:///x", "daemons": [{"address": "unix:///x"}]}, "mutually exclusive"),
        ({"daemons": []}, "at least one address"),
        ({"daemons": [{"tls_hostname": "x"}]}, "address"),
        ({"address": "https://builder.example.com"}, "unix://"),
        ({"address": "unix:///x", "connect_timeout": -1}, "connect_timeout"),
        ({"address": "unix:///x", "build_timeout": 0}, "build_timeout"),
        ({"address": "unix:///x", "builds": ["all"]}, "exec, dockerfile, cache"),
        ({"address": "unix:///x", "platforms": ["arm64"]}, "write it as linux/arm64"),
        ({"address": "unix:///x", "platforms": ["linux/arm64"], "builds": []}, "add it to builds"),
        ({"address": "unix:///x", "entitlements_refused": ["device"]}, "network.host, security.insecure"),
        ({"address": "unix:///x", "min_version": "new"}, "min_version is 'new'"),
        ({"address": "unix:///x", "gc_policy": [{"reserved_space": "10%"}]}, "gc_policy[0].reserved_space is '10%'"),
        ({"address": "unix:///x", "gc_policy": [{"reservedSpace": "1GB"}]}, "reservedSpace"),
        ({"address": "unix:///x", "certificate_days": -1}, "certificate_days is -1"),
        ({"address": "unix:///x", "refusals": ["all"]}, "no_certificate, foreign_ca, plaintext"),
        ({"address": "tcp://x", "ca_path": "/nonexistent/ca.pem"}, "/nonexistent/ca.pem cannot be read"),
        ({"address": "tcp://x", "client_cert": "/x"}, "go together"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    """What cannot be meant is refused with what to give, and nothing is contacted."""
    outcome = run(options)
    assert outcome.failed
    assert message in outcome.message
    assert "daemons" not in outcome.result


@pytest.mark.parametrize("library", ["grpclib", "google", "cryptography"])
def test_missing_library_is_named(tmp_path: Path, library: str) -> None:
    """A library that cannot be imported is named, with how to install it."""
    package = tmp_path / library
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('not installed')\n", encoding="ascii")
    outcome = run({"address": "unix:///x"}, python_path=tmp_path)
    assert outcome.failed
    assert {"google": "protobuf"}.get(library, library) in outcome.message
    assert "pip install" in outcome.message


def test_old_python_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A Python that is too old for gRPC is named, with where to run instead."""
    from ansible.module_utils.testing import patch_module_args
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import options
    from ansible_collections.buildfarm.buildkit.plugins.modules import buildkit_verify

    monkeypatch.setattr(options, "OLDEST_PYTHON", (3, 99))
    with patch_module_args({"address": "unix:///x"}), pytest.raises(SystemExit):
        buildkit_verify.main()
    printed = capsys.readouterr().out
    assert "needs Python 3.10 or newer" in printed
    assert "delegate_to: localhost" in printed
