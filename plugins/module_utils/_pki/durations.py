# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lengths of time as people write them: ``90d``, ``12h``, ``2w``, ``30m``."""

from __future__ import annotations

import re
from datetime import timedelta

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import WishError

_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
}
_NAMES = (("d", "day"), ("h", "hour"), ("m", "minute"))

# 200 years. Certificates can say more (until 9999), date arithmetic on the way there cannot.
_LONGEST = timedelta(days=73_000)


def parse_duration(text: str, option: str) -> timedelta:
    """Read a positive length of time.

    :param option: where the text comes from, for the message.
    :raises WishError: when it has no known unit, is zero or is absurdly long.
    """
    match = re.fullmatch(r"([0-9]{1,9})([wdhm])", text.strip())
    if not match:
        raise WishError(
            f"{option} is {text!r}, which is no length of time: write a whole number and one of the units "
            "m (minutes), h (hours), d (days) or w (weeks), such as 90d or 12h."
        )
    count = int(match.group(1))
    if count == 0:
        raise WishError(f"{option} is {text!r}: it must be longer than nothing, such as 90d.")
    if count > _LONGEST / _UNITS[match.group(2)]:
        raise WishError(f"{option} is {text!r}: more than 200 years is not supported.")
    return count * _UNITS[match.group(2)]


def format_duration(length: timedelta) -> str:
    """Write a length of time in the largest unit that expresses it in whole minutes: ``30d``, ``90m``."""
    for unit in "dhm":
        if length % _UNITS[unit] == timedelta(0):
            return f"{length // _UNITS[unit]}{unit}"
    return f"{length // _UNITS['m']}m"


def describe(length: timedelta) -> str:
    """Say a length of time roughly, for a sentence: ``12 days``, ``1 hour``, ``less than a minute``."""
    for unit, name in _NAMES:
        count = length // _UNITS[unit]
        if count > 0:
            return f"{count} {name}" + ("s" if count > 1 else "")
    return "less than a minute"
