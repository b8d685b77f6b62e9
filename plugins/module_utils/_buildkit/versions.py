# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Order among the versions that daemons say they are."""

from __future__ import annotations

import re

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError

_VERSION = re.compile(
    r"v?(?P<major>\d{1,9})\.(?P<minor>\d{1,9})(?:\.(?P<patch>\d{1,9}))?"
    r"(?:-(?P<pre>[0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
)
# What git describe adds: so many commits after this version.
_AFTER = re.compile(r"\d+-g[0-9a-f]+(\.m)?")


def parse(text: str) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]] | None:
    """A key to compare by, as Semantic Versioning 2.0.0 orders versions; None if the text names none.

    C(v0.13.2) and C(0.13.2+debian) are equal, C(0.14.0-rc1) comes before C(0.14.0). C(v0.0.0+unknown), as builds
    without a version say, names none.
    """
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        return None
    numbers = int(match["major"]), int(match["minor"]), int(match["patch"] or 0)
    if numbers == (0, 0, 0):
        return None
    pre = match["pre"] or ""
    if _AFTER.fullmatch(pre):
        pre = ""
    parts = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in pre.split(".") if part)
    return (*numbers, not pre, parts)


def check(text: str, option: str) -> None:
    """Make sure that a wish is a version.

    :raises InputError: it is not
    """
    if parse(text) is None:
        raise InputError(f"{option} is {text!r}, which is no version: write one such as 0.17 or v0.25.2")
