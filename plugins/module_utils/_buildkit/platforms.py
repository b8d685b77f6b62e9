# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Platforms as people write them, such as C(linux/arm64) and C(linux/arm/v7)."""

from __future__ import annotations

import re

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import probe
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import Platform
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError

# (architecture, variant) -> the variant as daemons write it; facts: containerd/platforms, database.go.
_VARIANTS = {("amd64", "v1"): "", ("arm64", "v8"): "", ("arm64", "8"): "", ("arm", ""): "v7", ("arm", "7"): "v7"}


def normal(platform: Platform) -> Platform:
    """The spelling of a platform by which it can be compared."""
    architecture, variant = platform.architecture, platform.variant
    return Platform(platform.os, architecture, _VARIANTS.get((architecture, variant), variant))


def parse(text: str) -> Platform:
    """Read a platform that we have a probe program for.

    :raises InputError: no platform, or one that cannot be proved
    """
    match = re.fullmatch(r"([a-z0-9]+)/([a-z0-9]+)(?:/([a-z0-9]+))?", text)
    if match is None:
        raise InputError(f"platforms: {text!r} is no platform: write it as linux/arm64 or linux/arm/v7")
    platform = normal(Platform(match[1], match[2], match[3] or ""))
    if platform.os != "linux" or platform.architecture not in probe.ARCHITECTURES:
        known = ", ".join(probe.ARCHITECTURES)
        raise InputError(f"platforms: {text} cannot be proved: there are programs for linux on {known}")
    return platform
