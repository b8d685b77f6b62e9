# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of failure."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, Kind
from ansible_collections.buildfarm.buildkit.plugins.modules import buildkit_verify


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_each_kind_has_a_remedy_in_one_sentence(kind: Kind) -> None:
    """Whoever meets a kind is told what to try."""
    assert kind.value.islower()
    assert kind.remedy.endswith(".")
    assert ". " not in kind.remedy


def test_kind_is_found_by_its_name() -> None:
    """Users match on the value."""
    assert Kind("open_to_anyone") is Kind.OPEN_TO_ANYONE


def test_failure_takes_the_remedy_of_its_kind_unless_it_knows_better() -> None:
    """A failure is returned as kind, message and remedy."""
    assert Failure(Kind.TIMEOUT, "late").as_dict() == {
        "kind": "timeout",
        "message": "late",
        "remedy": Kind.TIMEOUT.remedy,
    }
    assert Failure(Kind.TIMEOUT, "late", remedy="Wait.").remedy == "Wait."


def test_all_kinds_are_documented() -> None:
    """The documentation of the module lists the kinds that there are, and no others."""
    contains = yaml.safe_load(buildkit_verify.RETURN)["daemons"]["contains"]
    text = " ".join(contains["failure"]["contains"]["kind"]["description"])
    assert [part.split(")")[0] for part in text.split("V(")[1:]] == [kind.value for kind in Kind]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("caf\xe9 \u4e2d", "caf\xe9 \u4e2d"),
        ("right\u202eto left", "right\\u202eto left"),
        ("x" * 4000, "x" * 4000),
        ("a" * 3000 + "b" * 5000 + "c" * 1000, "a" * 3000 + " ... " + "c" * 1000),
    ],
)
def test_what_others_say_is_shown_safely(said: str, shown: str) -> None:
    """No control character reaches a terminal, and a long text keeps its beginning and its end."""
    assert Failure(Kind.RPC_FAILED, said).message == shown
