# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What daemons say of themselves: for inventories, for documentation and for monitoring. Changes nothing."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import target
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import (
    Build,
    Control,
    History,
    UsageRecord,
    Version,
    Worker,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.options import Daemon
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.units import show_seconds, show_size

if TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.certificate import Certificate

# What can be asked for beside the version.
FACTS = ("workers", "disk_usage", "builds", "history")

# As BuildKit names them (client/diskusage.go).
RECORD_TYPES = ("regular", "source.local", "source.git.checkout", "exec.cachemount", "frontend", "internal")
OTHER = "other"


@dataclass(frozen=True)
class Wish:
    """What to ask, and how long that may take.

    :param connect_timeout: seconds for the connection, and for each question that is answered at once
    :param timeout: seconds for the disk usage and for the history
    :param facts: of :data:`FACTS`
    """

    connect_timeout: float = 10.0
    timeout: float = 60.0
    facts: tuple[str, ...] = FACTS


@dataclass
class Usage:
    """Records of the cache and their bytes. What is not in use can be pruned."""

    count: int = 0
    bytes: int = 0
    in_use_count: int = 0
    in_use_bytes: int = 0
    reclaimable_count: int = 0
    reclaimable_bytes: int = 0

    def add(self, record: UsageRecord) -> None:
        """Count a record."""
        self.count += 1
        self.bytes += record.size
        if record.in_use:
            self.in_use_count += 1
            self.in_use_bytes += record.size
        else:
            self.reclaimable_count += 1
            self.reclaimable_bytes += record.size


def known_type(record_type: str) -> str:
    """The type of a record, or one for all that are unknown here: how many there are must not be up to the daemon."""
    return record_type if record_type in RECORD_TYPES else OTHER


def summarize_usage(records: Iterable[UsageRecord]) -> dict[str, Any]:
    """The form that modules return: the total, and each type that there is."""
    total, by_type = Usage(), {name: Usage() for name in (*RECORD_TYPES, OTHER)}
    for record in records:
        total.add(record)
        by_type[known_type(record.type)].add(record)
    return {
        **asdict(total),
        "by_type": {name: asdict(usage) for name, usage in by_type.items() if usage.count},
    }


def describe_builds(history: History) -> list[dict[str, Any]]:
    """The builds that run, the oldest first, in the form that modules return."""
    return [
        {
            "ref": build.ref,
            "frontend": build.frontend or None,
            "started": timestamp(build.started),
            "age_seconds": age(build, history),
        }
        for build in sorted(history.running, key=lambda build: build.started)
    ]


def age(build: Build, history: History) -> float:
    """How long a build has been running, in seconds. By the daemon's clock on both ends, so its skew does not count."""
    return round(max(0.0, history.now - build.started), 1)


def summarize_builds(history: History) -> dict[str, Any]:
    """The form that modules return."""
    builds = describe_builds(history)
    return {
        "count": len(builds),
        "oldest_seconds": builds[0]["age_seconds"] if builds else None,
        "builds": builds,
    }


def summarize_history(ended: Sequence[Build]) -> dict[str, Any]:
    """The form that modules return."""
    failed = [build for build in ended if build.code]
    lengths = [max(0.0, build.ended - build.started) for build in ended if build.ended is not None and not build.code]
    ends = [build.ended for build in ended if build.ended is not None]
    return {
        "count": len(ended),
        "succeeded": len(ended) - len(failed),
        "failed": sum(not build.cancelled for build in failed),
        "cancelled": sum(build.cancelled for build in failed),
        "pinned": sum(build.pinned for build in ended),
        "median_seconds": round(statistics.median(lengths), 1) if lengths else None,
        "longest_seconds": round(max(lengths), 1) if lengths else None,
        "first": timestamp(min(build.started for build in ended)) if ended else None,
        "last": timestamp(max(ends)) if ends else None,
    }


def timestamp(seconds: float) -> str | None:
    """A moment as in RFC 3339, UTC; None if it is in no calendar."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return None


@dataclass
class Report:
    """What is known of one daemon."""

    address: str
    reachable: bool = False
    version: Version | None = None
    workers: list[Worker] | None = None
    usage: list[UsageRecord] | None = None
    history: History | None = None
    with_builds: bool = True
    with_history: bool = True
    certificate: Certificate | None = None
    failures: list[Failure] = field(default_factory=list)

    @property
    def failure(self) -> Failure | None:
        """Why something is missing; the first cause."""
        return self.failures[0] if self.failures else None

    @property
    def summary(self) -> str:
        """What is known, in one line."""
        facts = [f"BuildKit {self.version.version}"] if self.version else []
        if self.usage is not None:
            usage = summarize_usage(self.usage)
            facts.append(
                f"{show_size(usage['bytes'])} of cache in {usage['count']} records, "
                f"{show_size(usage['reclaimable_bytes'])} reclaimable"
            )
        if self.history is not None:
            facts.append(describe_running([age(build, self.history) for build in self.history.running]))
        if self.certificate is not None:
            facts.append(f"certificate for {self.certificate.days_left(datetime.now(timezone.utc))} more days")
        known = ", ".join(facts)
        failed = " ".join(f"{error.kind.value}: {error.message}. {error.remedy}" for error in self.failures)
        return f"{self.address}: {'. '.join(text for text in (known, failed) if text)}"

    def as_dict(self) -> dict[str, Any]:
        """The form that modules return."""
        history, clock = self.history, self.history.clock if self.history else None
        return {
            "address": self.address,
            "reachable": self.reachable,
            "version": self.version.version if self.version else None,
            "package": self.version.package if self.version else None,
            "revision": self.version.revision if self.version else None,
            "workers": None if self.workers is None else [worker.as_dict() for worker in self.workers],
            "disk_usage": None if self.usage is None else summarize_usage(self.usage),
            "active_builds": summarize_builds(history) if history and self.with_builds else None,
            "history": summarize_history(history.ended) if history and self.with_history else None,
            "certificate": self.certificate.as_dict(datetime.now(timezone.utc)) if self.certificate else None,
            "clock": None
            if clock is None
            else {
                "time": timestamp(clock.shown),
                "skew_seconds": round(clock.skew, 3),
                "uncertainty_seconds": round(clock.uncertainty, 3),
            },
            "failure": self.failure.as_dict() if self.failure else None,
        }


def describe_running(ages: Sequence[float]) -> str:
    """How many builds run, and for how long, in words.

    :param ages: seconds for which each of them has been running
    """
    if not ages:
        return "no build runs"
    oldest = show_seconds(max(ages))
    return f"1 build runs, for {oldest}" if len(ages) == 1 else f"{len(ages)} builds run, the oldest for {oldest}"


def collect(daemons: Sequence[Daemon], wish: Wish) -> list[Report]:
    """Ask all daemons at once.

    :returns: a report for each, in the same order
    :raises InputError: a wish that cannot be meant; nothing was contacted then
    """
    target.check_seconds(connect_timeout=wish.connect_timeout, timeout=wish.timeout)
    return target.for_each(target.targets(daemons), lambda one: _ask(one, wish))


async def _ask(daemon: target.Target, wish: Wish) -> Report:
    report = Report(daemon.address, with_builds="builds" in wish.facts, with_history="history" in wish.facts)
    try:
        async with daemon.connection(timeout=wish.connect_timeout) as connection:
            control = Control(connection.channel, timeout=wish.connect_timeout)
            report.version = await control.info()
            report.reachable = True
            report.certificate = target.read_certificate(connection.certificate)
            await asyncio.gather(
                *(_note(report, work) for name, work in _questions(report, control, wish).items() if name in wish.facts)
            )
    except Failure as error:
        report.failures.append(error)
    return report


def _questions(report: Report, control: Control, wish: Wish) -> dict[str, Callable[[], Awaitable[None]]]:
    async def workers() -> None:
        report.workers = await control.workers()

    async def usage() -> None:
        report.usage = await control.usage(timeout=wish.timeout)

    async def history() -> None:
        report.history = await control.history(active_only=not report.with_history, timeout=wish.timeout)

    # One question answers both.
    builds = {"history": history} if report.with_history else {"builds": history}
    return {"workers": workers, "disk_usage": usage, **builds}


async def _note(report: Report, question: Callable[[], Awaitable[None]]) -> None:
    """Ask one question; that one is not answered hides no other's answer."""
    try:
        await question()
    except Failure as error:
        report.failures.append(error)
