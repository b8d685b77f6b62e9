# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a daemon in one line."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import info
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import History, Version
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, Kind

KNOWN = Version("github.com/moby/buildkit", "v0.25.2", "", "")
LATE = "timeout: DiskUsage was not answered within 1 s. Look again."
DEAD = "unreachable: Cannot connect. Start it."


@pytest.mark.parametrize(
    ("version", "failures", "text"),
    [
        (KNOWN, [], "BuildKit v0.25.2, no build runs"),
        (None, [Failure(Kind.UNREACHABLE, "Cannot connect", remedy="Start it.")], f"no build runs. {DEAD}"),
        (
            KNOWN,
            [
                Failure(Kind.TIMEOUT, "DiskUsage was not answered within 1 s", remedy="Look again."),
                Failure(Kind.UNREACHABLE, "Cannot connect", remedy="Start it."),
            ],
            f"BuildKit v0.25.2, no build runs. {LATE} {DEAD}",
        ),
    ],
)
def test_summary(version: Version | None, failures: list[Failure], text: str) -> None:
    """Facts first, then each failure as sentences of its own."""
    report = info.Report("unix:///x", version=version, history=History((), (), None), failures=failures)
    assert report.summary == f"unix:///x: {text}"


def test_summary_of_a_dead_daemon() -> None:
    """Nothing is known but why."""
    report = info.Report("unix:///x", failures=[Failure(Kind.UNREACHABLE, "Cannot connect", remedy="Start it.")])
    assert report.summary == f"unix:///x: {DEAD}"
