# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lengths of time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.durations import (
    describe,
    format_duration,
    parse_duration,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import WishError


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("2w", timedelta(days=14)),
        ("30m", timedelta(minutes=30)),
        (" 7d ", timedelta(days=7)),
    ],
)
def test_a_number_with_a_unit_is_a_length_of_time(text: str, length: timedelta) -> None:
    """All four units are read, with blanks around them."""
    assert parse_duration(text, "valid_for") == length


@pytest.mark.parametrize("text", ["", "90", "d", "90s", "90 d", "-1d", "1.5d", "90days", "\u0663d", "1y", "90d12h"])
def test_anything_else_is_refused_with_the_units(text: str) -> None:
    """The message names the option and what may be written."""
    with pytest.raises(WishError, match=r"valid_for .* m \(minutes\), h \(hours\), d \(days\) or w \(weeks\)"):
        parse_duration(text, "valid_for")


@pytest.mark.parametrize(("text", "problem"), [("0d", "longer than nothing"), ("99999999w", "200 years")])
def test_nothing_and_eternity_are_refused(text: str, problem: str) -> None:
    """A life of zero makes no sense, and one beyond the calendar cannot be computed."""
    with pytest.raises(WishError, match=problem):
        parse_duration(text, "ca.valid_for")


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(days=30), "30d"),
        (timedelta(hours=36), "36h"),
        (timedelta(minutes=90), "90m"),
        (timedelta(minutes=90) / 4, "22m"),
    ],
)
def test_lengths_are_written_in_the_largest_whole_unit(length: timedelta, text: str) -> None:
    """What the user wrote comes back in messages."""
    assert format_duration(length) == text


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(days=12, hours=3), "12 days"),
        (timedelta(days=1), "1 day"),
        (timedelta(hours=5), "5 hours"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(seconds=9), "less than a minute"),
    ],
)
def test_sentences_get_the_rough_length(length: timedelta, text: str) -> None:
    """One unit is enough, in singular or plural."""
    assert describe(length) == text
