# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proves one daemon or a fleet, all at once: it answers, it builds, and it turns strangers away."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, TypeVar

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import (
    channel,
    entitlements,
    gc_policy,
    platforms,
    report,
    smoke,
    target,
    tls,
    versions,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import (
    Control,
    GCPolicy,
    Platform,
    Version,
    Worker,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    BuildError,
    ConnectError,
    Failure,
    InputError,
    Kind,
    TlsError,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.options import Daemon

_T = TypeVar("_T")

BUILDS = smoke.BUILDS
REFUSALS = report.REFUSALS
Report = report.Report
DEFAULT_BUILDS = ("exec", "dockerfile")
ENTITLEMENTS = entitlements.ENTITLEMENTS


@dataclass(frozen=True)
class Proof:
    """What to prove, and how long it may take.

    :param connect_timeout: seconds for each connection, and for each call that is answered at once
    :param build_timeout: seconds for each build
    :param builds: of :data:`BUILDS`
    :param refusals: of :data:`REFUSALS`; they concern tcp:// alone
    :param platforms: what C(exec) must build for; none for the daemon's own platform
    :param entitlements_refused: of :data:`ENTITLEMENTS`
    :param min_version: the oldest version that will do; empty for any
    :param gc_policy: the rules that must be in effect; None for any
    :param certificate_days: days that the daemon's certificate must have left
    :param concurrency: how many daemons are proved at the same time
    """

    connect_timeout: float = 10.0
    build_timeout: float = 60.0
    builds: tuple[str, ...] = DEFAULT_BUILDS
    refusals: tuple[str, ...] = REFUSALS
    platforms: tuple[Platform, ...] = ()
    entitlements_refused: tuple[str, ...] = ()
    min_version: str = ""
    gc_policy: tuple[GCPolicy, ...] | None = None
    certificate_days: int = 0
    concurrency: int = 20

    def check(self) -> None:
        """Make sure that it can be meant.

        :raises InputError: it cannot
        """
        target.check_seconds(connect_timeout=self.connect_timeout, build_timeout=self.build_timeout)
        if self.concurrency < 1:
            raise InputError(f"concurrency is {self.concurrency}: give at least 1")
        if self.certificate_days < 0:
            raise InputError(f"certificate_days is {self.certificate_days}: give a number of days, 0 for no limit")
        if self.platforms and "exec" not in self.builds:
            raise InputError("platforms are proved with the build exec: add it to builds, or leave platforms out")
        if self.min_version:
            versions.check(self.min_version, "min_version")


def verify(
    daemons: Sequence[Daemon],
    proof: Proof,
    platforms_of_each: Sequence[tuple[Platform, ...] | None] = (),
    gc_policy_of_each: Sequence[tuple[GCPolicy, ...] | None] = (),
) -> list[Report]:
    """Prove all daemons at once.

    :param platforms_of_each: what C(exec) must build for, by daemon, in the same order; None for that of the proof
    :param gc_policy_of_each: the rules that must be in effect, by daemon, in the same way
    :returns: a report for each, in the same order
    :raises InputError: a wish that cannot be meant; nothing was contacted then
    """
    if not daemons:
        raise InputError("There is no daemon to verify: give at least one address")
    identities = _Identities()
    subjects = []
    for daemon, own, rules in itertools.zip_longest(daemons, platforms_of_each, gc_policy_of_each):
        wish = proof if own is None else replace(proof, platforms=own)
        wish = wish if rules is None else replace(wish, gc_policy=rules)
        wish.check()
        subjects.append(_Subject(daemon, wish, identities))
    return target.for_each(subjects, _Subject.prove, at_once=proof.concurrency)


class _Identities(target.Identities):
    """Who we are to the daemons of one run, those whom they must not let in among them."""

    def __init__(self) -> None:
        super().__init__()
        self._strangers: dict[tuple[str, ...], ssl.SSLContext] = {}

    def stranger(self, name: str, daemon: Daemon) -> ssl.SSLContext | None:
        """One of :data:`REFUSALS`; None speaks no TLS."""
        if name == "plaintext":
            return None
        key = (name, daemon.client_cert, daemon.ca_path) if name == "foreign_ca" else (name,)
        if key not in self._strangers:
            self._strangers[key] = (
                target.load("refusal").foreign_context(daemon.client_cert, daemon.ca_path)
                if name == "foreign_ca"
                else tls.stranger_context()
            )
        return self._strangers[key]


class _Subject:
    """A daemon under proof.

    :raises InputError: a wish that cannot be meant
    """

    def __init__(self, daemon: Daemon, proof: Proof, identities: _Identities) -> None:
        self._target = target.Target(daemon, identities)
        self._endpoint = self._target.endpoint
        self._proof = proof
        self._daemon = daemon
        self._identities = identities
        self._report = Report(daemon.address, failure=self._target.problem)
        # What was found to be wrong while the rest of the proof goes on.
        self._found: list[Failure] = []
        # Set once the builds are on their way: everything else is done in the time that they take.
        self._building = asyncio.Event()

    async def prove(self) -> Report:
        """Prove it; whatever fails is in the report."""
        began = time.monotonic()
        if self._report.failure is None:
            try:
                await self._prove()
            except Failure as error:
                self._report.failure = error
        self._report.timings["total"] = time.monotonic() - began
        return self._report

    async def _prove(self) -> None:
        limit, began = self._proof.connect_timeout, time.monotonic()
        try:
            connection = await channel.open_connection(self._target.peer, timeout=limit)
        except Failure as error:
            raise await self._explain(error, limit - (time.monotonic() - began)) from error
        try:
            self._report.timings.update(connection.timings)
            control = Control(connection.channel, timeout=limit)
            self._report.version = await self._timed("info", control.info())
            self._judge_version(self._report.version)
            # The good client got through, so from here on a closed connection is a refusal.
            results = await asyncio.gather(
                self._build(control),
                self._meet_strangers(),
                self._describe(connection.certificate),
                return_exceptions=True,
            )
        finally:
            await connection.close()
        report.raise_worst([*(result for result in results if result is not None), *self._found])

    def _judge_version(self, found: Version) -> None:
        wished = self._proof.min_version
        if not wished:
            return
        has, least = versions.parse(found.version), versions.parse(wished)
        if has is None or least is None:
            self._found.append(
                Failure(
                    Kind.VERSION_UNKNOWN, f"The daemon says that its version is {found.version!r}, which names none"
                )
            )
        elif has < least:
            self._found.append(
                Failure(Kind.VERSION_TOO_OLD, f"The daemon is BuildKit {found.version}, older than {wished}")
            )

    def _judge_gc_policy(self, worker: Worker) -> None:
        if self._proof.gc_policy is None:
            return
        differences = gc_policy.differences(self._proof.gc_policy, worker.gc_policy)
        if differences:
            self._found.append(
                Failure(
                    Kind.GC_POLICY_DIFFERS,
                    f"The garbage collection in effect is not the one that is wished: {'; '.join(differences)}",
                )
            )

    async def _timed(self, stage: str, work: Awaitable[_T]) -> _T:
        began = time.monotonic()
        try:
            return await work
        finally:
            self._report.timings[stage] = time.monotonic() - began

    async def _build(self, control: Control) -> None:
        try:
            self._report.workers = workers = await self._timed("workers", control.workers())
            if not workers or not workers[0].platforms:
                raise BuildError(Kind.NO_WORKER, "The daemon has no worker, and so cannot build anything")
            self._judge_gc_policy(workers[0])
            jobs = [asyncio.ensure_future(job) for job in self._jobs(control, workers[0].platforms)]
        finally:
            self._building.set()
        try:
            await _all(jobs)
            self._judge_entitlements()
        finally:
            if "dockerfile" in self._proof.builds:
                await smoke.tidy(control)

    def _jobs(self, control: Control, offered: Sequence[Platform]) -> list[Coroutine[Any, Any, None]]:
        """All builds that are wished for, of a worker that can do them."""
        native, limit = platforms.normal(offered[0]), self._proof.build_timeout
        missing = [wish for wish in self._proof.platforms if wish not in map(platforms.normal, offered)]
        if missing:
            raise BuildError(
                Kind.PLATFORM_MISSING,
                f"The daemon's worker does not offer {' and '.join(map(str, missing))}, but "
                f"{', '.join(map(str, offered))}",
            )
        jobs = []
        for build in self._proof.builds:
            # A dictionary: a platform that was asked for twice is proved once.
            wishes = dict.fromkeys(self._proof.platforms) if build == "exec" else {}
            for wish in wishes or (native,):
                stage = build if wish == native else f"{build} {wish}"
                work = smoke.run(build, control, wish, native=wish == native, timeout=limit)
                jobs.append(self._timed(stage, work))
        for name in self._proof.entitlements_refused:
            jobs.append(self._timed(name, self._ask(name, control, native)))
        return jobs

    async def _ask(self, name: str, control: Control, native: Platform) -> None:
        self._report.entitlements[name] = await entitlements.ask(
            name, control, native, timeout=self._proof.build_timeout
        )

    def _judge_entitlements(self) -> None:
        answers = self._report.entitlements
        granted = [name for name in ENTITLEMENTS if name in answers and not answers[name].refused]
        if granted:
            raise BuildError(
                Kind.ENTITLEMENT_GRANTED, f"The daemon grants {' and '.join(granted)} to any build that asks for it"
            )

    async def _meet_strangers(self) -> None:
        if not self._endpoint.is_tcp or not self._proof.refusals:
            return
        await self._building.wait()
        # Of a daemon that let us in without TLS, everything else that is asked is answered by that.
        names = self._proof.refusals if self._target.context else ("plaintext",)
        await _all(self._meet_stranger(name) for name in names)
        met = {name: self._report.refusals[name] for name in REFUSALS if name in self._report.refusals}
        let_in = [report.STRANGERS[name] for name, one in met.items() if one.refused is False]
        if let_in:
            raise TlsError(Kind.OPEN_TO_ANYONE, f"The daemon let in a stranger {' and a stranger '.join(let_in)}")
        for name, one in met.items():
            if one.failure is not None:
                raise ConnectError(
                    one.failure.kind,
                    f"A stranger {report.STRANGERS[name]} was neither let in nor refused: {one.how}",
                )

    async def _meet_stranger(self, name: str, timeout: float | None = None) -> None:
        context = self._identities.stranger(name, self._daemon)
        attempt = target.load("refusal").attempt(
            self._endpoint, context, timeout=timeout or self._proof.connect_timeout
        )
        self._report.refusals[name] = await self._timed(name, attempt)

    async def _describe(self, der: bytes | None) -> None:
        await self._building.wait()
        self._read_certificate(der)
        limit, served = self._proof.certificate_days, self._report.certificate
        if der is None or not limit:
            return
        if served is None:
            raise TlsError(
                Kind.SERVER_CERTIFICATE_REFUSED,
                "The certificate of the daemon cannot be read here, so nobody knows how long it is valid",
            )
        left = served.days_left(datetime.now(timezone.utc))
        if left < limit:
            raise TlsError(
                Kind.CERTIFICATE_EXPIRES_SOON,
                f"The certificate of the daemon has {left} days left, fewer than {limit}; it is {served.validity}",
            )

    def _read_certificate(self, der: bytes | None) -> None:
        self._report.certificate = target.read_certificate(der)

    async def _explain(self, error: Failure, left: float) -> Failure:
        """Say more about a connection that did not come about than the connection itself could.

        :param left: seconds of its time limit, within which it is looked at again
        """
        if isinstance(error, TlsError):
            self._read_certificate(error.certificate)
        if error.kind is Kind.NOT_TLS and "plaintext" in self._proof.refusals:
            await self._meet_stranger("plaintext", max(left, 0.1))
            if self._report.refusals["plaintext"].refused is not False:
                # We did not get through ourselves, so it proves nothing that a stranger did not.
                del self._report.refusals["plaintext"], self._report.timings["plaintext"]
            else:
                return TlsError(Kind.OPEN_TO_ANYONE, "The daemon speaks no TLS, and let in a stranger without TLS")
        return self._target.explain(error, self._report.certificate)


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Do all of it, to the end, and then raise the first failure."""
    report.raise_worst([one for one in await asyncio.gather(*work, return_exceptions=True) if one is not None])
