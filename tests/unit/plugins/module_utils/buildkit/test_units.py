# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes and lengths of time, as people write and read them."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import units
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("10000000000", 10**10),
        ("10GB", 10**10),
        ("10gb", 10**10),
        ("10 GB", 10**10),
        (" 10GiB ", 10 * 2**30),
        ("512MiB", 512 * 2**20),
        ("1.5kB", 1500),
        ("1.5KiB", 1536),
        ("7B", 7),
        ("2TB", 2 * 10**12),
        ("1PiB", 2**50),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Units are powers of 1000 or, with an i, of 1024; without a unit it is bytes."""
    assert units.parse_size(text, "keep_storage") == size


@pytest.mark.parametrize(
    "text", ["", "GB", "10G", "10g", "-1", "10%", "ten", "1e9", "10GB 5MB", "0x10", "10GBs", "\u06610GB"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    """The message has the option, what was given, and an example."""
    with pytest.raises(InputError, match=r"^keep_storage is '.*', which is no size: .* 10GiB"):
        units.parse_size(text, "keep_storage")


@pytest.mark.parametrize("text", ["0.5", "1.0001KB", "9223372036854775808", "9223373TB", "9999999PB"])
def test_sizes_that_no_daemon_can_be_told_are_refused(text: str) -> None:
    """Parts of a byte, and what does not fit into 63 bits."""
    with pytest.raises(InputError, match=r"whole number of bytes of at most 9223372036854775807"):
        units.parse_size(text, "keep_storage")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("5m", 300), ("48h", 172800), ("7d", 604800), ("2w", 1209600), ("1h30m", 5400)],
)
def test_seconds(text: str, seconds: int) -> None:
    """With and without units."""
    assert units.parse_seconds(text, "keep_duration") == seconds


@pytest.mark.parametrize("text", ["", "h", "48 h", "48H", "-1h", "1.5h", "two days", "1h30", "5min"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    """The message has the option, what was given, and an example."""
    with pytest.raises(InputError, match=r"^keep_duration is '.*', which is no length of time: .* 48h"):
        units.parse_seconds(text, "keep_duration")


@pytest.mark.parametrize("text", ["9223372037", "106752d", "9999999999999999999w"])
def test_times_that_no_daemon_can_be_told_are_refused(text: str) -> None:
    """The API counts nanoseconds in 63 bits."""
    with pytest.raises(InputError, match="more than 106751 days"):
        units.parse_seconds(text, "keep_duration")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (999_949, "999.9 KB"),
        (999_950, "1.0 MB"),
        (3_149_824, "3.1 MB"),
        (10**10, "10.0 GB"),
        (2 * 10**18, "2000.0 PB"),
    ],
)
def test_sizes_are_shown(size: int, text: str) -> None:
    """In the unit that leaves at most three digits before the point."""
    assert units.show_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_times_are_shown(seconds: float, text: str) -> None:
    """In their two largest units."""
    assert units.show_seconds(seconds) == text
