# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How reports read, and which comes first."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import entitlements, refusal, report
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import (
    Platform,
    Version,
    Worker,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    BuildError,
    ConnectError,
    Failure,
    Kind,
    TlsError,
)

TCP = "tcp://192.0.2.10:1234"


def proved() -> report.Report:
    """A report of a daemon that is proved."""
    return report.Report(
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
    shown = proved().as_dict()
    assert shown["ok"] is True
    assert shown["failure"] is None
    assert shown["version"] == "v0.25.2"
    assert shown["workers"][0]["platforms"] == ["linux/arm/v7"]
    assert list(shown["timings_ms"].items()) == [("connect", 1.1), ("exec", 68.2), ("total", 95.1)]
    assert list(shown["refusals"]) == ["no_certificate", "plaintext"]


def test_summary_says_what_was_proved() -> None:
    """One line names version, builds and strangers."""
    assert proved().summary == (
        "tcp://192.0.2.10:1234: BuildKit v0.25.2, exec build in 68 ms, "
        "stranger without a client certificate refused (alert certificate_required), "
        "stranger without TLS refused (connection closed)"
    )


def test_summary_of_a_failure_says_what_to_do() -> None:
    """One line names the kind, what happened and what to try."""
    failed = report.Report(TCP, failure=ConnectError(Kind.TIMEOUT, "It was late", remedy="Wait."))
    assert failed.summary == "tcp://192.0.2.10:1234: timeout: It was late. Wait."
    assert failed.as_dict()["ok"] is False


def test_what_is_not_proved_does_not_count_as_refused() -> None:
    """A stranger who saw nothing at all was not refused."""
    assert refusal.Refusal(None, "no answer").as_dict() == {"refused": False, "how": "no answer"}


def test_worst_failure_is_reported() -> None:
    """A bug of ours is not hidden by a failure, and an open daemon by no other."""
    build, opened = BuildError(Kind.BUILD_FAILED, "b"), TlsError(Kind.OPEN_TO_ANYONE, "o")
    with pytest.raises(TlsError):
        report.raise_worst([build, opened])
    with pytest.raises(ZeroDivisionError):
        report.raise_worst([build, opened, ZeroDivisionError()])
    with pytest.raises(BuildError):
        report.raise_worst([build, ConnectError(Kind.TIMEOUT, "t")])


def test_platforms_and_entitlements_are_in_constant_order() -> None:
    """The daemon's own platform comes first, the others by name; the summary has all of it."""
    shown = proved()
    shown.timings = {
        "exec linux/s390x": 0.3,
        "cache": 0.01,
        "exec linux/arm64": 0.2,
        "exec": 0.1,
        "security.insecure": 1,
    }
    shown.entitlements = {
        "security.insecure": entitlements.Answer(True, "x"),
        "network.host": entitlements.Answer(True, "y"),
    }
    shown.refusals = {}
    stages = ["exec", "exec linux/arm64", "exec linux/s390x", "cache", "security.insecure"]
    assert list(shown.as_dict()["timings_ms"]) == stages
    assert list(shown.as_dict()["entitlements"]) == ["network.host", "security.insecure"]
    assert shown.summary == (
        "tcp://192.0.2.10:1234: BuildKit v0.25.2, exec build in 100 ms, exec build for linux/arm64 in 200 ms, exec "
        "build for linux/s390x in 300 ms, cache build in 10 ms, network.host refused, security.insecure refused"
    )


def test_summary_has_the_worst_first() -> None:
    """Who gives the host away comes before what does not build, that before what builds; equals keep their order."""
    kinds = [None, Kind.CERTIFICATE_EXPIRES_SOON, Kind.UNREACHABLE, Kind.ENTITLEMENT_GRANTED, None, Kind.OPEN_TO_ANYONE]
    kinds += [Kind.BUILD_FAILED, Kind.GC_POLICY_DIFFERS]
    reports = [
        report.Report(str(number), failure=Failure(kind, "m") if kind else None) for number, kind in enumerate(kinds)
    ]
    assert [line[0] for line in report.summarise(reports)] == list("53261704")


def test_soft_failure_hides_no_other() -> None:
    """A daemon that is too old and does not build is reported as one that does not build."""
    with pytest.raises(BuildError):
        report.raise_worst([Failure(Kind.VERSION_TOO_OLD, "v"), BuildError(Kind.BUILD_FAILED, "b")])
