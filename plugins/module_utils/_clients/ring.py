# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Consistent hashing: the same key leads to the same node, and few keys move when a node comes or goes.

Both ways place nodes on a ring by the MD5 of their names and take the first node after the place of the key:

- ``ketama``: 120 places for each node, so that all get about the same number of keys. The keys of the example of
  BuildKit up to 0.12 (examples/kubernetes/consistenthash, with serialx/hashring of 2019) lead to the same nodes.
- ``moby``: one place for each node, as the example and the ``sticky`` driver option of buildx do it from 0.13 on
  (serialx/hashring of 2020). It is uneven: of three nodes one can get half of the keys.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import struct
import typing as t

_REPLICAS = 40  # of each name, with three places each


def _digest(text: str) -> bytes:
    return hashlib.md5(text.encode("utf-8"), usedforsecurity=False).digest()


def _ketama_key(text: str) -> t.Tuple[int, ...]:
    return (int.from_bytes(_digest(text)[:4], "little"),)


def _ketama_places(node: str) -> t.List[t.Tuple[int, ...]]:
    return [(word,) for replica in range(_REPLICAS) for word in struct.unpack_from("<3I", _digest(f"{node}-{replica}"))]


def _moby_key(text: str) -> t.Tuple[int, ...]:
    return struct.unpack("<2q", _digest(text))


def _moby_places(node: str) -> t.List[t.Tuple[int, ...]]:
    return [_moby_key(f"{node}-0")]


ALGORITHMS: t.Dict[str, t.Tuple[t.Callable[[str], t.Tuple[int, ...]], t.Callable[[str], t.List[t.Tuple[int, ...]]]]] = {
    "ketama": (_ketama_key, _ketama_places),
    "moby": (_moby_key, _moby_places),
}


@functools.lru_cache(maxsize=16)
def _ring(nodes: t.Tuple[str, ...], algorithm: str) -> t.Tuple[t.List[t.Tuple[int, ...]], t.List[str]]:
    """The places of all nodes in their order, and whose each is."""
    places_of = ALGORITHMS[algorithm][1]
    ring = sorted({place: node for node in nodes for place in places_of(node)}.items())
    return [place for place, _node in ring], [node for _place, node in ring]


def order(nodes: t.Iterable[str], key: str, algorithm: str) -> t.List[str]:
    """All nodes, each once: the one for the key first, then those that take over when the ones before are away."""
    places, owners = _ring(tuple(sorted(set(nodes))), algorithm)
    start = bisect.bisect_right(places, ALGORITHMS[algorithm][0](key))
    return list(dict.fromkeys(owners[start:] + owners[:start]))
