# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection: sized from the disk, written for a release, and what a daemon will say of it.

Facts: cmd/buildkitd of 0.13.2, 0.25.2 and 0.31.0. A worker has rules; limits of the worker itself are made into four
rules, and ignored beside rules. A rule keeps the cache below what it may use, lowered when the disk has less free than
it shall have, but never below what is reserved.

Private to this collection.
"""

from __future__ import annotations

import typing as t

from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config import releases, values
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config.tables import Table, part

# The limits of a worker.
LIMITS = ("gckeepstorage", "reservedSpace", "maxUsedSpace", "minFreeSpace")

_MIB, _GIB = 1024**2, 1024**3
# What can be had again at once goes first: sources, checkouts and cache mounts that nobody used for this long.
_CHEAP = ["type==source.local", "type==exec.cachemount", "type==source.git.checkout"]
_CHEAP_AGE = "48h"


def head_room(disk: int) -> int:
    """Bytes of a disk that stay free, for the build that is running and for the rest of the host."""
    return min(disk // 5, 100 * _GIB)


def rules(disk: int, version: str, cache_size: int = 0) -> list[dict[str, t.Any]]:
    """The rules of gcpolicy for a disk of so many bytes.

    Daemons that can be told to leave space free may use all but that; older ones half of the disk, because nothing
    stops them when others fill it.

    :param disk: 0 if it is not known; a cache_size is needed then
    :param cache_size: bytes that the cache may have, instead of what the disk suggests
    """
    three = releases.has(releases.THREE_LIMITS, version)
    most = cache_size or (disk - head_room(disk) if three else disk // 2)
    if three:
        limits = {
            "reservedSpace": _written(min(most // 10, 10 * _GIB)),
            "maxUsedSpace": _written(most),
            **({"minFreeSpace": _written(head_room(disk))} if disk else {}),
        }
        early = {**limits, "maxUsedSpace": _written(most // 2)}
    else:
        limits, early = {"keepBytes": _written(most)}, {"keepBytes": _written(most // 2)}
    return [{"filters": _CHEAP, "keepDuration": _CHEAP_AGE, **early}, limits, {"all": True, **limits}]


def _written(size: int) -> str:
    """Bytes as buildkitd reads them, in powers of 1024, rounded down so that people can read them too."""
    return f"{size // _GIB}GB" if size >= 10 * _GIB else f"{max(size // _MIB, 1)}MB"


def worker_in_use(config: Table) -> str:
    """The worker that builds: oci, unless only containerd is left."""
    return "containerd" if part(config, "worker", "oci").get("enabled") is False else "oci"


def limits_of(worker: Table) -> list[str]:
    """The limits that a worker sets itself. Zero is the same as none."""
    return [name for name in LIMITS if name in worker and not _is_zero(worker[name])]


def is_set(config: Table) -> bool:
    """Whether a configuration decides its garbage collection itself."""
    worker = part(config, "worker", worker_in_use(config))
    return bool(worker.get("gcpolicy")) or worker.get("gc") is False or limits_of(worker) != []


def _is_zero(value: t.Any) -> bool:
    try:
        return values.read_size(value) == (0, 0)
    except ValueError:
        return False


def effective(config: Table, version: str, disk: int) -> list[dict[str, t.Any]] | None:
    """The rules that a daemon of this release will say it has, as the module buildkit_verify takes them.

    :param disk: bytes of the file system that holds the daemon's root, for percentages; 0 if that is not known
    :returns: None where they depend on a disk that is not known
    :raises ValueError: a size or an age that cannot be read
    """
    worker = part(config, "worker", worker_in_use(config))
    if worker.get("gc") is False:
        return []
    wished = worker.get("gcpolicy") or _default_rules(worker, version)
    if wished is None:
        return None
    found = [_told(rule, disk) for rule in wished]
    return None if None in found else t.cast("list[dict[str, t.Any]]", found)


def _default_rules(worker: Table, version: str) -> list[dict[str, t.Any]] | None:
    """What buildkitd makes of the limits of a worker; None where it would look at the disk by itself."""
    if not limits_of(worker):
        return None
    three = releases.has(releases.THREE_LIMITS, version)
    limits = {name: worker[name] for name in limits_of(worker) if name != "gckeepstorage"}
    if not limits:
        limits = {"reservedSpace": worker["gckeepstorage"]}
    filters = _CHEAP if releases.has(releases.MATCHING_DEFAULT, version) else [",".join(_CHEAP)]
    cheap = {"filters": filters, "keepDuration": _CHEAP_AGE, "maxUsedSpace" if three else "reservedSpace": 512 * 10**6}
    return [cheap, {"keepDuration": "1440h", **limits}, limits, {"all": True, **limits}]


def _told(rule: Table, disk: int) -> dict[str, t.Any] | None:
    """One rule as ListWorkers has it."""
    sizes = {}
    for name, keys in (
        ("reserved_space", ("reservedSpace", "keepBytes")),
        ("max_used_space", ("maxUsedSpace",)),
        ("min_free_space", ("minFreeSpace",)),
    ):
        given = [rule[key] for key in keys if key in rule and not _is_zero(rule[key])]
        size, percent = values.read_size(given[0]) if given else (0, 0)
        if percent and not disk:
            return None
        # To whole units of 2^30 bytes, one more, and then each counted as 10^9: as buildkitd does it.
        sizes[name] = (disk * percent // 100 // _GIB + 1) * 10**9 if percent else size
    return {
        "all": bool(rule.get("all")),
        "filters": [str(one) for one in rule.get("filters") or []],
        "keep_duration": str(int(values.read_duration(rule.get("keepDuration", 0) or 0))),
        **{name: str(size) for name, size in sizes.items()},
    }
