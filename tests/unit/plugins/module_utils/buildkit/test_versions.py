# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Order among versions."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import versions
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError

ORDERED = [
    "0.9",
    "v0.13.2-rc1",
    "0.13.2-rc2",
    "0.13.2-rc2.1",
    "v0.13.2",
    "v0.14.0-0",
    "0.14.0-beta",
    "0.14",
    "v0.30.1",
    "1.0.0",
]


def test_versions_are_in_order() -> None:
    """Numbers are numbers, and what leads to a version comes before it."""
    keys = [versions.parse(text) for text in ORDERED]
    assert None not in keys
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "text", ["0.13.2", "v0.13.2+debian", "0.13.2+b1.c", " v0.13.2 ", "v0.13.2-12-gab12cd3", "v0.13.2-1-gab12.m"]
)
def test_equal_versions(text: str) -> None:
    """What a distribution or git describe adds makes no version older."""
    assert versions.parse(text) == versions.parse("v0.13.2")


@pytest.mark.parametrize("text", ["v0.0.0+unknown", "", "master", "ab12cd3", "0", "v0.13.x", "0.13.2 x"])
def test_what_names_no_version(text: str) -> None:
    """It compares with nothing, and cannot be wished for."""
    assert versions.parse(text) is None
    with pytest.raises(InputError, match=r"min_version is .*no version"):
        versions.check(text, "min_version")
