# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The garbage collection that is wished, and how it differs from the one in effect.

buildkitd ignores keys that its version does not know, without a word. So what counts is what ListWorkers says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import units
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import GCPolicy

# What a message can hold.
_MOST_DIFFERENCES = 8

_SIZES = ("reserved_space", "max_used_space", "min_free_space")


def read_policy(rules: Sequence[Mapping[str, Any]]) -> tuple[GCPolicy, ...]:
    """Read the rules that a user wishes. What a rule leaves out is not set.

    :raises InputError: a size or an age that cannot be read
    """
    return tuple(_read_rule(rule, f"gc_policy[{position}]") for position, rule in enumerate(rules))


def _read_rule(rule: Mapping[str, Any], option: str) -> GCPolicy:
    return GCPolicy(
        all=bool(rule.get("all")),
        filters=list(rule.get("filters") or []),
        keep_duration=units.parse_seconds(str(rule.get("keep_duration") or "0"), f"{option}.keep_duration"),
        **{name: units.parse_ram_size(str(rule.get(name) or "0"), f"{option}.{name}") for name in _SIZES},
    )


def differences(wished: Sequence[GCPolicy], effective: Sequence[GCPolicy]) -> list[str]:
    """Say the differences; none if both are the same. The order of rules counts, that of filters does not."""
    found = []
    for number in range(1, max(len(wished), len(effective)) + 1):
        if number > len(effective):
            found.append(f"rule {number} is missing ({_describe(wished[number - 1])})")
        elif number > len(wished):
            found.append(f"rule {number} is not wished ({_describe(effective[number - 1])})")
        else:
            found += _differences_of_rules(number, _fields(wished[number - 1]), _fields(effective[number - 1]))
    more = len(found) - _MOST_DIFFERENCES
    return found if more <= 0 else [*found[:_MOST_DIFFERENCES], f"and {more} more"]


def _differences_of_rules(number: int, wished: Mapping[str, Any], effective: Mapping[str, Any]) -> list[str]:
    return [
        f"rule {number} has {name} {_show(effective[name])} instead of {_show(value)}"
        for name, value in wished.items()
        if value != effective[name]
    ]


def _fields(rule: GCPolicy) -> dict[str, Any]:
    return {**asdict(rule), "filters": sorted(rule.filters)}


def _describe(rule: GCPolicy) -> str:
    return ", ".join(f"{name} {_show(value)}" for name, value in _fields(rule).items() if value) or "nothing set"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)
