# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sizes and lengths of time as people write and read them: C(10GB), C(512MiB), C(48h)."""

from __future__ import annotations

import re
from decimal import Decimal

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError

_PREFIXES = "KMGTP"
_SIZES = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(_PREFIXES, 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate(_PREFIXES, 1)},
}
_BY_NAME = {name.lower(): factor for name, factor in _SIZES.items()}
# buildkitd reads the sizes of its configuration with RAMInBytes of docker/go-units: powers of 1024, whatever the unit.
_RAM_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

# What the API can say: an int64 of bytes, and one of nanoseconds.
_MAX_BYTES = 2**63 - 1
_MAX_SECONDS = (2**63 - 1) // 10**9


def parse_size(text: str, option: str) -> int:
    """Read a size in bytes: a number, or a number with a unit, C(10GB) for 10^10 and C(10GiB) for 10 times 2^30.

    :param option: where the text comes from, for the message
    :raises InputError: no size, or one that no daemon can be told
    """
    match = re.fullmatch(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", text.strip())
    factor = _BY_NAME.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise InputError(
            f"{option} is {text!r}, which is no size: write a number of bytes, or a number with a unit such as 500MB"
            " or 10GB (powers of 1000) or 10GiB (powers of 1024)"
        )
    size = Decimal(match.group(1)) * factor
    if size != int(size) or size > _MAX_BYTES:
        raise InputError(f"{option} is {text!r}: give a whole number of bytes of at most {_MAX_BYTES}")
    return int(size)


def parse_ram_size(text: str, option: str) -> int:
    """Read a size as buildkitd reads those of its configuration, without a percentage.

    :param option: where the text comes from, for the message
    :raises InputError: no size
    """
    match = re.fullmatch(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([kmgtp]?)(?:(?<=[kmgtp])i)?b?", text.strip().lower())
    if match is None:
        raise InputError(
            f"{option} is {text!r}, which is no size: write a number of bytes or one with a unit, such as 500MB or "
            "10GB, as buildkitd reads it (powers of 1024). A percentage is of a disk that only the daemon knows"
        )
    return int(Decimal(match.group(1)) * 1024 ** _RAM_POWERS[match.group(2)])


def parse_seconds(text: str, option: str) -> int:
    """Read a length of time in seconds: a whole number, or parts with units such as C(48h), C(7d) or C(1h30m).

    :param option: where the text comes from, for the message
    :raises InputError: no length of time, or one that no daemon can be told
    """
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,19}", text):
        seconds = int(text)
    elif re.fullmatch(r"(?:[0-9]{1,19}[smhdw])+", text):
        seconds = sum(int(count) * _SECONDS[unit] for count, unit in re.findall(r"([0-9]+)([smhdw])", text))
    else:
        raise InputError(
            f"{option} is {text!r}, which is no length of time: write a whole number and one of the units s, m, h, d"
            " or w, such as 48h, 7d or 1h30m"
        )
    if seconds > _MAX_SECONDS:
        raise InputError(f"{option} is {text!r}: more than {_MAX_SECONDS // _SECONDS['d']} days is not supported")
    return seconds


def show_size(size: int) -> str:
    """Write a size for people, in powers of 1000: C(3.1 GB)."""
    value, unit = float(size), "B"
    for prefix in _PREFIXES:
        if value < 999.95:
            break
        value, unit = value / 1000, f"{prefix}B"
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def show_seconds(seconds: float) -> str:
    """Write a length of time for people, in its two largest units: C(2 h 5 min)."""
    whole = int(seconds)
    for size, name, below, below_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {name}" + (f" {rest} {below_name}" if rest else "")
    return f"{whole} s"
