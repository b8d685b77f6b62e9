# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The garbage collection that is wished, and how it differs from the one in effect."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import gc_policy
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import GCPolicy
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError

ONE = {"filters": ["type==source.local", "type==exec.cachemount"], "keep_duration": "48h", "reserved_space": "512MB"}
TWO = {"all": True, "reserved_space": "10GB", "max_used_space": "100g", "min_free_space": "2.5 GiB"}


def rule(**changes: Any) -> GCPolicy:
    """A rule as a daemon says it."""
    fields = {"all": False, "filters": [], "keep_duration": 0, "reserved_space": 0, "max_used_space": 0}
    return GCPolicy(**{**fields, "min_free_space": 0, **changes})


EFFECTIVE = (
    rule(filters=["type==exec.cachemount", "type==source.local"], keep_duration=172800, reserved_space=512 * 2**20),
    rule(all=True, reserved_space=10 * 2**30, max_used_space=100 * 2**30, min_free_space=5 * 2**29),
)


def test_sizes_are_those_of_the_configuration() -> None:
    """Units are powers of 1024, as buildkitd reads them; the order of filters does not count."""
    assert gc_policy.differences(gc_policy.read_policy([ONE, TWO]), EFFECTIVE) == []


def test_plain_numbers_are_bytes_and_seconds() -> None:
    """As the result of the module has them, so that what is in effect can be wished as it was returned."""
    returned = {"all": False, "filters": [], "keep_duration": "3600", "reserved_space": "1000", "max_used_space": "0"}
    assert gc_policy.read_policy([returned]) == (rule(keep_duration=3600, reserved_space=1000),)


def test_each_difference_is_named() -> None:
    """By the number of its rule, with what is and what was wished."""
    wished = gc_policy.read_policy([{**ONE, "keep_duration": "1h"}, {**TWO, "all": False, "max_used_space": "0"}])
    assert gc_policy.differences(wished, EFFECTIVE) == [
        "rule 1 has keep_duration 172800 instead of 3600",
        "rule 2 has all true instead of false",
        "rule 2 has max_used_space 107374182400 instead of 0",
    ]


def test_rules_that_are_missing_and_that_nobody_wished() -> None:
    """A rule too few and a rule too many are both differences."""
    wished = gc_policy.read_policy([ONE, TWO])
    assert gc_policy.differences(wished, EFFECTIVE[:1]) == [
        "rule 2 is missing (all true, reserved_space 10737418240, max_used_space 107374182400, "
        "min_free_space 2684354560)"
    ]
    assert gc_policy.differences(wished[:1], (EFFECTIVE[0], rule())) == ["rule 2 is not wished (nothing set)"]
    assert gc_policy.differences((), EFFECTIVE[:1])[0].startswith(
        "rule 1 is not wished (filters [type==exec.cachemount, type==source.local], keep_duration 172800"
    )


def test_differences_are_bounded() -> None:
    """A daemon with many rules makes no endless message."""
    found = gc_policy.differences((), (rule(),) * 1000)
    assert (len(found), found[-1]) == (9, "and 992 more")


@pytest.mark.parametrize("size", ["10%", "-1", "ten", "10i", "10 GBB", "1e9", "10ib"])
def test_sizes_that_cannot_be_read(size: str) -> None:
    """They are refused by the name of their rule and option."""
    with pytest.raises(InputError, match=r"gc_policy\[1\].max_used_space is .*no size.*powers of 1024"):
        gc_policy.read_policy([ONE, {"max_used_space": size}])


def test_age_that_cannot_be_read() -> None:
    """So is an age."""
    with pytest.raises(InputError, match=r"gc_policy\[0\].keep_duration"):
        gc_policy.read_policy([{"keep_duration": "long"}])
