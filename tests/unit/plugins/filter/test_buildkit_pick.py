# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same key leads to the same builder, as in BuildKit's own example, and few keys move."""

from __future__ import annotations

import random
import typing as t
from collections import Counter

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.filter.buildkit_pick import buildkit_pick

HUNDRED = [f"node-{number}" for number in range(1, 101)]
THREE = [f"buildkitd-{number}" for number in range(3)]
KEYS = [f"team/app-{number}:." for number in range(3000)]


@pytest.mark.parametrize(
    ("algorithm", "nodes", "keys", "expected"),
    [
        # The documented example of examples/kubernetes/consistenthash, which BuildKit up to 0.12 gives.
        ("ketama", HUNDRED, ["apple", "banana", "chocolate"], ["node-42", "node-48", "node-2"]),
        # What the same program gives from 0.13 on, run as a Go program.
        ("moby", HUNDRED, ["apple", "banana", "chocolate"], ["node-48", "node-62", "node-56"]),
        # The library's own test of the first algorithm.
        (
            "ketama",
            ["a", "b", "c"],
            ["test", "test1", "test2", "test3", "test4", "test5", "aaaa", "bbbb"],
            [*"abbccaba"],
        ),
    ],
)
def test_others_choose_the_same(algorithm: str, nodes: list[str], keys: list[str], expected: list[str]) -> None:
    """Whoever uses the example, or the library that it is made with, ends at the same node."""
    assert [buildkit_pick(nodes, key, algorithm) for key in keys] == expected


@pytest.mark.parametrize("algorithm", ["ketama", "moby"])
def test_the_order_and_repetition_of_nodes_do_not_matter(algorithm: str) -> None:
    """Two inventories that list the same builders choose alike."""
    shuffled = [*HUNDRED, *HUNDRED[:10]]
    random.Random(1).shuffle(shuffled)
    for key in KEYS[:200]:
        assert buildkit_pick(shuffled, key, algorithm) == buildkit_pick(HUNDRED, key, algorithm)


@pytest.mark.parametrize("algorithm", ["ketama", "moby"])
def test_only_the_keys_of_a_lost_builder_move(algorithm: str) -> None:
    """And they move to the one that was next in line."""
    for key in KEYS[:500]:
        ranked = t.cast("list[str]", buildkit_pick(HUNDRED[:7], key, algorithm, ranked=True))
        assert sorted(ranked) == sorted(HUNDRED[:7])
        assert buildkit_pick(HUNDRED[:7], key, algorithm) == ranked[0]
        left = [node for node in HUNDRED[:7] if node != ranked[0]]
        assert buildkit_pick(left, key, algorithm, ranked=True) == ranked[1:]


def test_the_load_of_ketama_is_even_and_that_of_moby_is_not() -> None:
    """Which is why ketama is the default."""
    shares = {
        algorithm: Counter(buildkit_pick(THREE, key, algorithm) for key in KEYS) for algorithm in ("ketama", "moby")
    }
    assert min(shares["ketama"].values()) > 900
    assert max(shares["moby"].values()) > 1500
    assert buildkit_pick(THREE, KEYS[0]) == buildkit_pick(THREE, KEYS[0], "ketama")


@pytest.mark.parametrize(
    ("nodes", "algorithm", "why"),
    [
        ([], "ketama", "nothing to choose from"),
        ("b1", "ketama", "chooses from a list of names"),
        ({"b1": 1}, "ketama", "chooses from a list of names"),
        (None, "ketama", "chooses from a list of names"),
        (["b1"], "random", "ketama and moby, and not random"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(nodes: t.Any, algorithm: str, why: str) -> None:
    """With the reason."""
    with pytest.raises(AnsibleFilterError, match=why):
        buildkit_pick(nodes, "team/app", algorithm)
