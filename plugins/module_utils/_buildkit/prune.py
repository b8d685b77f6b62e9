# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drops from the caches of daemons what is not in use, or says what would go."""

from __future__ import annotations

import collections
import heapq
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import target, versions
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import Control, Limits, UsageRecord
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, InputError, Kind
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.info import OTHER, RECORD_TYPES, known_type
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.options import Daemon
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.units import (
    parse_seconds,
    parse_size,
    show_size,
)

# The first version that honours max_used_space and min_free_space. Older ones skip both without a word, and so would
# drop everything that is not in use.
_LIMITS_SINCE = "v0.17"
_MODERN_LIMITS = ("max_used_space", "min_free_space")
_LIMITS = ("keep_storage", "keep_duration", *_MODERN_LIMITS)

# What a daemon looks at when it matches records to prune (client/prune.go, cache/manager.go). In a list of records it
# also knows description, parents and inuse; here these match nothing, on 0.13 and 0.25 alike.
_FILTER_FIELDS = ("id", "immutable", "mutable", "private", "shared", "type")
# A field, or a comparison of one, and what separates it from the next. Quoted values may hold anything.
_SELECTOR = re.compile(
    r"""\s*(?P<field>[A-Za-z0-9_]+)
    (?:\s*(?P<operator>==|!=|~=)\s*(?P<value>"(?:[^"\\]|\\.)*"|/[^/]*/|\|[^|]*\||[^\s,"/|]+))?
    \s*(?P<separator>,|$)""",
    re.VERBOSE,
)

# Larger than any disk: a limit that never applies.
_NO_LIMIT = 2**62

# Whether a prediction is certain. In the order of certainty.
EXACT, ESTIMATE, AT_MOST = "exact", "estimate", "at_most"


@dataclass(frozen=True)
class Wish:
    """What to drop, and how long that may take.

    :param keep_storage: bytes to leave in the cache, least recently used records going first; 0 for no such limit
    :param max_used_space: likewise, from v0.17 on; C(keep_storage) is the floor then
    :param min_free_space: bytes to be free on the daemon's disk, from v0.17 on; drops only what that takes
    :param keep_duration: seconds; records that were used since then stay
    :param filters: a record must match one of them; empty for all
    :param all_types: internal, frontend and shared records too
    :param connect_timeout: seconds for the connection, and for each question that is answered at once
    :param timeout: seconds for all of one daemon
    """

    keep_storage: int = 0
    max_used_space: int = 0
    min_free_space: int = 0
    keep_duration: int = 0
    filters: tuple[str, ...] = ()
    all_types: bool = False
    connect_timeout: float = 10.0
    timeout: float = 600.0

    @property
    def limits(self) -> Limits:
        """The limits as daemons understand them.

        With a minimum of free space alone and enough of it, a daemon drops one record with each call [0.25]; a
        maximum that is never reached keeps it from that.
        """
        most = self.max_used_space or (_NO_LIMIT if self.min_free_space else 0)
        return Limits(self.keep_storage, most, self.min_free_space, self.keep_duration)

    @property
    def modern(self) -> str:
        """The limits among these that older daemons do not know, as options; empty if there is none."""
        names = [name for name in _MODERN_LIMITS if getattr(self, name)]
        return " and ".join(names)

    def check(self) -> None:
        """Make sure that it can be meant.

        :raises InputError: it cannot
        """
        target.check_seconds(connect_timeout=self.connect_timeout, timeout=self.timeout)
        for text in self.filters:
            _check_filter(text)
        if 0 < self.max_used_space < self.keep_storage:
            raise InputError(
                f"max_used_space is {self.max_used_space} and keep_storage is {self.keep_storage}: more would be kept "
                "than may be used"
            )


def read_wish(options: Any) -> Wish:
    """The wish that the options of the module express.

    :raises InputError: one of them cannot be read
    """
    # What is given must be read: an empty text is a mistake, after which everything would go.
    given = {name: options[name] for name in _LIMITS if options[name] is not None}
    limits = {name: (parse_seconds if name == "keep_duration" else parse_size)(given[name], name) for name in given}
    for name in _MODERN_LIMITS:
        if limits.get(name) == 0:
            raise InputError(f"{name} is {given[name]!r}, which daemons take for no limit: give more, or leave it out")
    wish = Wish(
        filters=tuple(options["filters"]),
        all_types=options["all"],
        connect_timeout=options["connect_timeout"],
        timeout=options["timeout"],
        **limits,
    )
    wish.check()
    return wish


def _check_filter(text: str) -> None:
    position = 0
    wanted: dict[str, str] = {}
    while True:
        match = _SELECTOR.match(text, position)
        if match is None:
            raise InputError(
                f"Filter {text!r} cannot be read: write FIELD==VALUE, FIELD!=VALUE or FIELD~=EXPRESSION, with commas "
                "for 'and', such as type==exec.cachemount"
            )
        name, value = match["field"], match["value"]
        if name not in _FILTER_FIELDS:
            raise InputError(
                f"Filter {text!r} has the field {name!r}, which daemons do not look at when they prune, so that "
                f"nothing would match: use {', '.join(_FILTER_FIELDS)}"
            )
        if name == "type" and match["operator"] == "==" and value.strip('"') not in RECORD_TYPES:
            raise InputError(
                f"Filter {text!r} has the type {value}, which no record has, so that nothing would match: use "
                f"{', '.join(RECORD_TYPES)}"
            )
        if match["operator"] == "==" and wanted.setdefault(name, value) != value:
            raise InputError(
                f"Filter {text!r} wants {name} to be {wanted[name]} and {value}, so that nothing would match: write "
                "two filters, of which a record must match one"
            )
        if not match["separator"]:
            return
        position = match.end()


@dataclass
class Freed:
    """Records that went, or would go."""

    records: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one."""
        self.records += 1
        self.bytes += size


@dataclass
class Report:
    """What became of the cache of one daemon.

    :param freed: by type of record
    :param before: bytes in the cache before
    :param prediction: how certain it is, if nothing was dropped yet
    """

    address: str
    freed: dict[str, Freed] = field(default_factory=lambda: {name: Freed() for name in (*RECORD_TYPES, OTHER)})
    before: int | None = None
    prediction: str | None = None
    failure: Failure | None = None

    @property
    def total(self) -> Freed:
        """All types together."""
        return Freed(sum(one.records for one in self.freed.values()), sum(one.bytes for one in self.freed.values()))

    @property
    def summary(self) -> str:
        """What became of it, in one line."""
        total = self.total
        parts = [f"{show_size(one.bytes)} {name}" for name, one in self.freed.items() if one.records]
        doing = {
            None: "freed",
            EXACT: "would free",
            ESTIMATE: "would free about",
            AT_MOST: "would free at most",
        }[self.prediction]
        text = f"{doing} {show_size(total.bytes)} in {total.records} records"
        text += f" ({', '.join(parts)})" if parts else ""
        if self.before is not None:
            left = max(0, self.before - total.bytes)
            text += f", {'at least ' if self.prediction == AT_MOST else ''}{show_size(left)} left"
        if self.failure is not None:
            done = f" ({text})" if total.records else ""
            return f"{self.address}: {self.failure.kind.value}: {self.failure.message}{done}. {self.failure.remedy}"
        return f"{self.address}: {text}"

    def as_dict(self) -> dict[str, Any]:
        """The form that modules return."""
        total = self.total
        return {
            "address": self.address,
            "changed": total.records > 0,
            "records": total.records,
            "bytes": total.bytes,
            "by_type": {
                name: {"records": one.records, "bytes": one.bytes} for name, one in self.freed.items() if one.records
            },
            "cache_bytes_before": self.before,
            "cache_bytes_after": None if self.before is None else max(0, self.before - total.bytes),
            "prediction": self.prediction,
            "failure": self.failure.as_dict() if self.failure else None,
        }


def prune(daemons: Sequence[Daemon], wish: Wish, *, check_mode: bool) -> list[Report]:
    """Prune all daemons at once.

    :param check_mode: only say what would go
    :returns: a report for each, in the same order
    :raises InputError: options that cannot be meant; nothing was contacted then
    """
    return target.for_each(target.targets(daemons), lambda one: _prune(one, wish, check_mode))


async def _prune(daemon: target.Target, wish: Wish, check_mode: bool) -> Report:
    report = Report(daemon.address)
    end = time.monotonic() + wish.timeout

    def left() -> float:
        return max(0.001, end - time.monotonic())

    try:
        async with daemon.connection(timeout=wish.connect_timeout) as connection:
            control = Control(connection.channel, timeout=wish.connect_timeout)
            if wish.modern:
                await _require_limits(control, wish)
            # Daemons do not say what type a record had that they dropped, so that is asked before.
            records = await control.usage(timeout=left())
            report.before = sum(record.size for record in records)
            if check_mode:
                await _predict(report, records, control, wish, left())
                return report
            types = {record.id: known_type(record.type) for record in records}
            await control.prune_cache(
                lambda record, size: report.freed[types.get(record, OTHER)].add(size),
                filters=wish.filters,
                all_types=wish.all_types,
                limits=wish.limits,
                timeout=left(),
            )
    except Failure as error:
        report.failure = error
    return report


async def _require_limits(control: Control, wish: Wish) -> None:
    """Make sure that the daemon honours the limits.

    :raises Failure: it is too old, or does not tell
    """
    version = (await control.info()).version
    known = await control.knows_field("PruneRequest", "maxUsedSpace")
    if known is None:
        found, since = versions.parse(version), versions.parse(_LIMITS_SINCE)
        known = found is not None and since is not None and found >= since
    if not known:
        raise Failure(
            Kind.VERSION_TOO_OLD,
            f"The daemon is BuildKit {version}, and {wish.modern} came with {_LIMITS_SINCE}: it would skip that, and"
            " drop everything",
            remedy="Give keep_storage instead, which it knows, or upgrade the daemon.",
        )


async def _predict(
    report: Report, records: Sequence[UsageRecord], control: Control, wish: Wish, timeout: float
) -> None:
    matching = None
    if wish.filters:
        found = await control.usage(filters=wish.filters, timeout=timeout)
        matching = {record.id for record in found}
    clock = (await control.history(active_only=True, timeout=wish.connect_timeout)).now
    going = removable(records, wish, matching, clock)
    report.prediction = EXACT
    if wish.min_free_space:
        report.prediction = AT_MOST  # how much is free on its disk, a daemon does not tell
    elif wish.keep_storage or wish.max_used_space:
        report.prediction = ESTIMATE
    # Of a disk that is full everything goes but what keep_storage holds back.
    keep = wish.keep_storage if wish.min_free_space else max(wish.keep_storage, wish.max_used_space)
    if keep:
        going = until(going, keep, sum(record.size for record in records if not record.shared))
    for record in going:
        report.freed[known_type(record.type)].add(record.size)


def removable(records: Sequence[UsageRecord], wish: Wish, matching: set[str] | None, now: float) -> list[UsageRecord]:
    """The records that may go, each after those that stand on it, the least recently used first.

    :param matching: ids of those that match a filter; None for all
    :param now: the time on the daemon, in seconds since 1970
    """
    by_id = {record.id: record for record in records}
    children = collections.Counter(parent for record in records for parent in record.parents)
    free = [(_last_used(record), record.id) for record in records if not children[record.id]]
    heapq.heapify(free)
    going: list[UsageRecord] = []
    while free:
        record = by_id[heapq.heappop(free)[1]]
        if not _may_go(record, wish, matching, now):
            continue
        going.append(record)
        for parent in record.parents:
            children[parent] -= 1
            if not children[parent] and parent in by_id:
                heapq.heappush(free, (_last_used(by_id[parent]), parent))
    return going


def _last_used(record: UsageRecord) -> tuple[float, int]:
    return record.last_used or 0.0, record.usage_count


def _may_go(record: UsageRecord, wish: Wish, matching: set[str] | None, now: float) -> bool:
    if record.in_use or (matching is not None and record.id not in matching):
        return False
    if not wish.all_types and (record.shared or record.type in ("internal", "frontend")):
        return False
    return not (wish.keep_duration and record.last_used and record.last_used > now - wish.keep_duration)


def until(going: Iterable[UsageRecord], keep: int, total: int) -> list[UsageRecord]:
    """As many of these records as it takes until no more than so many bytes are left.

    :param keep: bytes
    :param total: bytes that there are
    """
    taken: list[UsageRecord] = []
    for record in going:
        if total < keep:
            break
        taken.append(record)
        total -= record.size
    return taken
