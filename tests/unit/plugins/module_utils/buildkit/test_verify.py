# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused before a daemon is contacted, and how reports read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import refusal, verify
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import (
    Platform,
    Version,
    Worker,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    BuildError,
    ConnectError,
    InputError,
    Kind,
    TlsError,
)

TCP = "tcp://192.0.2.10:1234"


def refused(daemon: verify.Daemon, **settings: Any) -> str:
    """The message with which a wish is refused."""
    with pytest.raises(InputError) as caught:
        verify.verify([daemon], verify.Proof(**settings))
    return str(caught.value)


@pytest.mark.parametrize("name", ["connect_timeout", "build_timeout"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_limits_must_be_limits(name: str, value: float) -> None:
    """Zero, negative and endless times are refused by the name of their option."""
    assert name in refused(verify.Daemon(TCP), **{name: value})


def test_no_daemon_is_no_proof() -> None:
    """An empty fleet, as from a group without hosts, is refused rather than proved."""
    with pytest.raises(InputError, match="at least one address"):
        verify.verify([], verify.Proof())


def test_unknown_scheme_is_refused() -> None:
    """An address that cannot be reached is refused with those that can."""
    assert "unix://" in refused(verify.Daemon("https://builder.example.com"))


def test_certificate_without_key_and_key_without_certificate(make: Callable[..., Any]) -> None:
    """One of the two files is refused."""
    files = make("client")
    assert "go together" in refused(verify.Daemon(TCP, files.cert, client_cert=files.cert))
    assert "go together" in refused(verify.Daemon(TCP, files.cert, client_key=files.key))


def test_credentials_without_ca(make: Callable[..., Any]) -> None:
    """A client certificate is shown to nobody whose own certificate is not checked."""
    files = make("client")
    assert "ca_path is missing" in refused(verify.Daemon(TCP, client_cert=files.cert, client_key=files.key))
    assert "ca_path is missing" in refused(verify.Daemon(TCP, tls_hostname="builder.example.com"))


def test_missing_ca_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is named."""
    assert f"{tmp_path}/ca.pem cannot be read" in refused(verify.Daemon(TCP, f"{tmp_path}/ca.pem"))


def test_one_bad_wish_stops_all_before_any_is_contacted(tmp_path: Path) -> None:
    """A fleet with a wish that cannot be meant is not half proved."""
    socket = tmp_path / "nobody.sock"
    with pytest.raises(InputError):
        verify.verify([verify.Daemon(f"unix://{socket}"), verify.Daemon("tcp://")], verify.Proof())


def proved() -> verify.Report:
    """A report of a daemon that is proved."""
    return verify.Report(
        TCP,
        version=Version("github.com/moby/buildkit", "v0.25.2", "abc", ""),
        workers=[Worker("id", (Platform("linux", "arm", "v7"),), {}, ())],
        timings={"total": 0.0951, "exec": 0.0682, "connect": 0.00114},
        refusals={
            "plaintext": refusal.Refusal(True, "connection closed"),
            "no_certificate": refusal.Refusal(True, "alert certificate_required"),
        },
    )


def test_report_is_returned_in_constant_order() -> None:
    """Stages, strangers and numbers are where the documentation says, whatever ended first."""
    report = proved().as_dict()
    assert report["ok"] is True
    assert report["failure"] is None
    assert report["version"] == "v0.25.2"
    assert report["workers"][0]["platforms"] == ["linux/arm/v7"]
    assert list(report["timings_ms"].items()) == [("connect", 1.1), ("exec", 68.2), ("total", 95.1)]
    assert list(report["refusals"]) == ["no_certificate", "plaintext"]


def test_summary_says_what_was_proved() -> None:
    """One line names version, builds and strangers."""
    assert proved().summary == (
        "tcp://192.0.2.10:1234: BuildKit v0.25.2, exec build in 68 ms, "
        "stranger without a client certificate refused (alert certificate_required), "
        "stranger without TLS refused (connection closed)"
    )


def test_summary_of_a_failure_says_what_to_do() -> None:
    """One line names the kind, what happened and what to try."""
    report = verify.Report(TCP, failure=ConnectError(Kind.TIMEOUT, "It was late", remedy="Wait."))
    assert report.summary == "tcp://192.0.2.10:1234: timeout: It was late. Wait."
    assert report.as_dict()["ok"] is False


def test_what_is_not_proved_does_not_count_as_refused() -> None:
    """A stranger who saw nothing at all was not refused."""
    assert refusal.Refusal(None, "no answer").as_dict() == {"refused": False, "how": "no answer"}


def test_worst_failure_is_reported() -> None:
    """A bug of ours is not hidden by a failure, and an open daemon by no other."""
    build, opened = BuildError(Kind.BUILD_FAILED, "b"), TlsError(Kind.OPEN_TO_ANYONE, "o")
    with pytest.raises(TlsError):
        verify._raise_worst([build, opened])
    with pytest.raises(ZeroDivisionError):
        verify._raise_worst([build, opened, ZeroDivisionError()])
    with pytest.raises(BuildError):
        verify._raise_worst([build, ConnectError(Kind.TIMEOUT, "t")])
