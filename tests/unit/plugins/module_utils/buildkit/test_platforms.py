# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Platforms as people write them."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import platforms, probe
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/386", "linux/386"),
    ],
)
def test_spellings_of_one_platform(text: str, normal: str) -> None:
    """A variant that goes without saying makes no other platform."""
    assert str(platforms.parse(text)) == normal


@pytest.mark.parametrize("architecture", probe.ARCHITECTURES)
def test_every_program_can_be_asked_for(architecture: str) -> None:
    """Whatever has a program can be wished."""
    assert platforms.parse(f"linux/{architecture}").architecture == architecture


@pytest.mark.parametrize("text", ["arm64", "", "linux/", "linux/arm/v7/x", "linux arm64", "LINUX/ARM64"])
def test_no_platform(text: str) -> None:
    """What cannot be read is shown, with how to write it."""
    with pytest.raises(InputError, match="is no platform: write it as linux/arm64"):
        platforms.parse(text)


@pytest.mark.parametrize("text", ["windows/amd64", "linux/aarch64", "linux/sparc64"])
def test_platform_without_a_program(text: str) -> None:
    """What cannot be proved is refused with what can be."""
    with pytest.raises(InputError, match=f"{text} cannot be proved: .* on 386, amd64, arm, arm64"):
        platforms.parse(text)
