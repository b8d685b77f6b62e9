# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proves one daemon or a fleet, all at once: it answers, it builds, and it turns strangers away."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ssl
import time
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import (
    channel,
    endpoint,
    options,
    smoke,
    tls,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import (
    Control,
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

if TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.certificate import Certificate
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.refusal import Refusal

_T = TypeVar("_T")

BUILDS = smoke.BUILDS
REFUSALS = ("no_certificate", "foreign_ca", "plaintext")

# The order in which timings are shown.
_STAGES = ("connect", "tls", "info", "workers", *BUILDS, *REFUSALS, "total")

_STRANGERS = {
    "no_certificate": "without a client certificate",
    "foreign_ca": "with a certificate of another CA",
    "plaintext": "without TLS",
}


@dataclass(frozen=True)
class Proof:
    """What to prove, and how long it may take.

    :param connect_timeout: seconds for each connection, and for each call that is answered at once
    :param build_timeout: seconds for each build
    :param builds: of :data:`BUILDS`
    :param refusals: of :data:`REFUSALS`; they concern tcp:// alone
    """

    connect_timeout: float = 10.0
    build_timeout: float = 60.0
    builds: tuple[str, ...] = BUILDS
    refusals: tuple[str, ...] = REFUSALS

    def check(self) -> None:
        """Make sure that the limits are limits.

        :raises InputError: one is not
        """
        for name, value in (("connect_timeout", self.connect_timeout), ("build_timeout", self.build_timeout)):
            if not 0 < value < float("inf"):
                raise InputError(f"{name} is {value:g}: give a number of seconds above 0")


@dataclass
class Report:
    """What was proved of one daemon. It fills up while the proof goes on."""

    address: str
    version: Version | None = None
    workers: list[Worker] = field(default_factory=list)
    certificate: Certificate | None = None
    timings: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        """Whether all is proved."""
        return self.failure is None

    @property
    def summary(self) -> str:
        """What was proved, or why not and what to try, in one line."""
        if self.failure is not None:
            return f"{self.address}: {self.failure.kind.value}: {self.failure.message}. {self.failure.remedy}"
        facts = [f"BuildKit {self.version.version}"] if self.version else []
        facts += [f"{build} build in {self.timings[build] * 1000:.0f} ms" for build in BUILDS if build in self.timings]
        facts += [f"stranger {_STRANGERS[name]} refused ({self.refusals[name].how})" for name in self._met]
        return f"{self.address}: {', '.join(facts)}"

    @property
    def _met(self) -> list[str]:
        return [name for name in REFUSALS if name in self.refusals]

    def as_dict(self, now: datetime | None = None) -> dict[str, Any]:
        """The form that modules return."""
        return {
            "address": self.address,
            "ok": self.ok,
            "version": self.version.version if self.version else None,
            "workers": [worker.as_dict() for worker in self.workers],
            "certificate": self.certificate.as_dict(now or datetime.now(timezone.utc)) if self.certificate else None,
            "timings_ms": {stage: round(self.timings[stage] * 1000, 1) for stage in _STAGES if stage in self.timings},
            "refusals": {name: self.refusals[name].as_dict() for name in self._met},
            "failure": self.failure.as_dict() if self.failure else None,
        }


def verify(daemons: Sequence[Daemon], proof: Proof) -> list[Report]:
    """Prove all daemons at once.

    :returns: a report for each, in the same order
    :raises InputError: a wish that cannot be meant; nothing was contacted then
    """
    proof.check()
    if not daemons:
        raise InputError("There is no daemon to verify: give at least one address")
    subjects = [_Subject(daemon, proof) for daemon in daemons]
    return asyncio.run(_gather([subject.prove() for subject in subjects]))


async def _gather(proofs: Sequence[Coroutine[Any, Any, Report]]) -> list[Report]:
    return list(await asyncio.gather(*proofs))


class _Subject:
    """A daemon under proof.

    :raises InputError: a wish that cannot be meant
    """

    def __init__(self, daemon: Daemon, proof: Proof) -> None:
        self._endpoint = endpoint.parse(daemon.address)
        self._proof = proof
        self._daemon = daemon
        self._report = Report(daemon.address)
        self._context: ssl.SSLContext | None = None
        # Set once the builds are on their way: everything else is done in the time that they take.
        self._building = asyncio.Event()
        options.check_transport(daemon, self._endpoint)
        if self._endpoint.is_tcp:
            self._load_credentials()

    def _load_credentials(self) -> None:
        daemon = self._daemon
        if bool(daemon.client_cert) != bool(daemon.client_key):
            raise InputError(f"{daemon.address}: client_cert and client_key go together, and one is missing")
        if not daemon.ca_path:
            if daemon.client_cert or daemon.tls_hostname:
                raise InputError(
                    f"{daemon.address}: ca_path is missing, without which nobody would know who gets the "
                    "client certificate"
                )
            return
        try:
            self._context = tls.client_context(tls.Credentials(daemon.ca_path, daemon.client_cert, daemon.client_key))
        except TlsError as error:
            self._report.failure = error
        else:
            tls.check_hostname(self._context, self._hostname)

    @property
    def _hostname(self) -> str:
        return self._daemon.tls_hostname or self._endpoint.host

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
        limit = self._proof.connect_timeout
        peer = channel.Peer(self._endpoint, self._context, self._hostname, bool(self._daemon.client_cert))
        try:
            connection = await channel.open_connection(peer, timeout=limit)
        except Failure as error:
            raise await self._explain(error) from error
        try:
            self._report.timings.update(connection.timings)
            control = Control(connection.channel, timeout=limit)
            self._report.version = await self._timed("info", control.info())
            # The good client got through, so from here on a closed connection is a refusal.
            results = await asyncio.gather(
                self._build(control),
                self._meet_strangers(),
                self._describe(connection.certificate),
                return_exceptions=True,
            )
        finally:
            await connection.close()
        _raise_worst([result for result in results if result is not None])

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
            native = workers[0].platforms[0]
            builds = [
                asyncio.ensure_future(
                    self._timed(build, smoke.run(build, control, native, timeout=self._proof.build_timeout))
                )
                for build in self._proof.builds
            ]
        finally:
            self._building.set()
        try:
            await _all(builds)
        finally:
            if "dockerfile" in self._proof.builds:
                await smoke.tidy(control)

    async def _meet_strangers(self) -> None:
        if not self._endpoint.is_tcp or not self._proof.refusals:
            return
        await self._building.wait()
        # Of a daemon that let us in without TLS, everything else that is asked is answered by that.
        names = self._proof.refusals if self._context else ("plaintext",)
        await _all(self._meet_stranger(name) for name in names)
        met = {name: self._report.refusals[name] for name in REFUSALS if name in self._report.refusals}
        let_in = [_STRANGERS[name] for name, one in met.items() if one.refused is False]
        if let_in:
            raise TlsError(Kind.OPEN_TO_ANYONE, f"The daemon let in a stranger {' and a stranger '.join(let_in)}")
        for name, one in met.items():
            if one.failure is not None:
                raise ConnectError(
                    one.failure.kind,
                    f"A stranger {_STRANGERS[name]} was neither let in nor refused: {one.how}",
                )

    async def _meet_stranger(self, name: str) -> None:
        refusal = _import("refusal")
        context = None
        if name == "no_certificate":
            context = tls.stranger_context()
        elif name == "foreign_ca":
            context = refusal.foreign_context(self._daemon.client_cert, self._daemon.ca_path)
        attempt = refusal.attempt(self._endpoint, context, timeout=self._proof.connect_timeout)
        self._report.refusals[name] = await self._timed(name, attempt)

    async def _describe(self, der: bytes | None) -> None:
        await self._building.wait()
        self._read_certificate(der)

    def _read_certificate(self, der: bytes | None) -> None:
        if der is not None:
            with contextlib.suppress(ValueError):  # something that OpenSSL reads and cryptography does not
                self._report.certificate = _import("certificate").from_der(der)

    async def _explain(self, error: Failure) -> Failure:
        """Say more about a connection that did not come about than the connection itself could."""
        if isinstance(error, TlsError):
            self._read_certificate(error.certificate)
        if error.kind is Kind.NOT_TLS and "plaintext" in self._proof.refusals:
            await self._meet_stranger("plaintext")
            if self._report.refusals["plaintext"].refused is not False:
                # We did not get through ourselves, so it proves nothing that a stranger did not.
                del self._report.refusals["plaintext"], self._report.timings["plaintext"]
            else:
                return TlsError(Kind.OPEN_TO_ANYONE, "The daemon speaks no TLS, and let in a stranger without TLS")
        detail = self._detail(error.kind)
        return Failure(error.kind, f"{error.message}{detail}", remedy=error.remedy) if detail else error

    def _detail(self, kind: Kind) -> str:
        served = self._report.certificate
        if kind is Kind.CLIENT_CERTIFICATE_REFUSED:
            own = _import("certificate").from_file(self._daemon.client_cert)
            return f"; it is {own.subject}, issued by {own.issuer}, {own.validity}" if own else ""
        if served is None:
            return ""
        if kind is Kind.SERVER_NAME_MISMATCH:
            if not served.sans:
                return "; it has no subject alternative name, and its common name does not count"
            return f"; it names {', '.join(served.sans)}"
        if kind in (Kind.SERVER_CERTIFICATE_EXPIRED, Kind.SERVER_CERTIFICATE_NOT_YET_VALID):
            return f"; it is {served.validity}"
        if kind is Kind.SERVER_UNKNOWN_CA:
            return f"; it was issued by {served.issuer}"
        return ""


def _import(name: str) -> Any:
    """A module of this package that needs cryptography.

    That takes 35 ms to load: time in which the builds are running already.
    """
    return importlib.import_module(f"{__package__}.{name}")


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Do all of it, to the end, and then raise the first failure."""
    _raise_worst([one for one in await asyncio.gather(*work, return_exceptions=True) if one is not None])


def _raise_worst(errors: Sequence[BaseException]) -> None:
    """Raise the failure to report: a bug of ours before anything else, then an open daemon, then the first."""
    for error in sorted(errors, key=_severity):
        raise error


def _severity(error: BaseException) -> int:
    if not isinstance(error, Failure):
        return 0
    return 1 if error.kind is Kind.OPEN_TO_ANYONE else 2
