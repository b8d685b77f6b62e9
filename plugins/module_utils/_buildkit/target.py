# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A daemon as the modules call it: with the options that lead to it read, and one or many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import channel, endpoint, options, tls
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    Failure,
    InputError,
    Kind,
    TlsError,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._deps import CRYPTOGRAPHY, require

if TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.certificate import Certificate

_Subject = TypeVar("_Subject")
_Result = TypeVar("_Result")

# How many daemons are called at the same time: what a process may have open is limited, often to 1024 files.
_AT_ONCE = 64

# What gRPC can tell a server (eight digits); about three years.
_MAX_SECONDS = 99_999_999


class Identities:
    """Who we are to the daemons of one run: TLS settings, each made once."""

    def __init__(self) -> None:
        self._clients: dict[tls.Credentials, ssl.SSLContext] = {}

    def client(self, credentials: tls.Credentials) -> ssl.SSLContext:
        """A client of the daemon.

        :raises Failure: as :func:`tls.client_context`
        """
        if credentials not in self._clients:
            self._clients[credentials] = tls.client_context(credentials)
        return self._clients[credentials]


class Target:
    """A daemon to call.

    :param identities: shared by the daemons of one run
    :raises InputError: options that cannot be meant; nothing was contacted then

    C(problem) is why it cannot be called as this client, which is found out without calling it.
    """

    def __init__(self, daemon: options.Daemon, identities: Identities) -> None:
        self.address = daemon.address
        self.endpoint = endpoint.parse(daemon.address)
        self.context: ssl.SSLContext | None = None
        self.problem: Failure | None = None
        self._daemon = daemon
        options.check_transport(daemon, self.endpoint)
        if bool(daemon.client_cert) != bool(daemon.client_key):
            raise InputError(f"{daemon.address}: client_cert and client_key go together, and one is missing")
        if daemon.ca_path:
            self._load(identities)
        elif daemon.client_cert or daemon.tls_hostname:
            raise InputError(
                f"{daemon.address}: ca_path is missing, without which nobody would know who gets the client certificate"
            )

    def _load(self, identities: Identities) -> None:
        daemon = self._daemon
        try:
            self.context = identities.client(tls.Credentials(daemon.ca_path, daemon.client_cert, daemon.client_key))
        except TlsError as error:
            self.problem = error
        else:
            tls.check_hostname(self.context, self._hostname)

    @property
    def _hostname(self) -> str:
        return self._daemon.tls_hostname or self.endpoint.host

    @property
    def peer(self) -> channel.Peer:
        """Who to be, to whom."""
        return channel.Peer(self.endpoint, self.context, self._hostname, bool(self._daemon.client_cert))

    @contextlib.asynccontextmanager
    async def connection(self, *, timeout: float) -> AsyncIterator[channel.Connection]:
        """An open connection, which is closed at the end of the block.

        :param timeout: seconds until it is there
        :raises Failure: with the cause
        """
        if self.problem is not None:
            raise self.problem
        try:
            connection = await channel.open_connection(self.peer, timeout=timeout)
        except TlsError as error:
            raise self.explain(error, read_certificate(error.certificate)) from error
        try:
            yield connection
        finally:
            await connection.close()

    def explain(self, error: Failure, served: Certificate | None) -> Failure:
        """Say what the certificate in question is, where that explains why it was not accepted.

        :param served: the one of the daemon, if it was seen
        """
        if error.kind is Kind.CLIENT_CERTIFICATE_REFUSED:
            own = load("certificate").from_file(self._daemon.client_cert)
            detail = f"; it is {own.subject}, issued by {own.issuer}, {own.validity}" if own else ""
        else:
            detail = _describe(served, error.kind) if served else ""
        return Failure(error.kind, f"{error.message}{detail}", remedy=error.remedy) if detail else error


def load(name: str) -> Any:
    """A module of this package that needs cryptography.

    That takes 35 ms to load: time in which there are other things to wait for.

    :raises MissingLibraryError: cryptography cannot be loaded
    """
    require(CRYPTOGRAPHY)
    return importlib.import_module(f"{__package__}.{name}")


def read_certificate(der: bytes | None) -> Certificate | None:
    """The certificate that a daemon sent; None if there is none, or one that cannot be read."""
    if der is not None:
        with contextlib.suppress(ValueError):  # something that OpenSSL reads and cryptography does not
            certificate: Certificate = load("certificate").from_der(der)
            return certificate
    return None


def _describe(served: Certificate, kind: Kind) -> str:
    if kind is Kind.SERVER_NAME_MISMATCH:
        if not served.sans:
            return "; it has no subject alternative name, and its common name does not count"
        return f"; it names {', '.join(served.sans)}"
    if kind in (Kind.SERVER_CERTIFICATE_EXPIRED, Kind.SERVER_CERTIFICATE_NOT_YET_VALID):
        return f"; it is {served.validity}"
    return f"; it was issued by {served.issuer}" if kind is Kind.SERVER_UNKNOWN_CA else ""


def targets(daemons: Sequence[options.Daemon]) -> list[Target]:
    """All daemons, in their order.

    :raises InputError: there is none, or options that cannot be meant; nothing was contacted then
    """
    if not daemons:
        raise InputError("There is no daemon to call: give at least one address")
    identities = Identities()
    return [Target(daemon, identities) for daemon in daemons]


def for_each(
    subjects: Sequence[_Subject], work: Callable[[_Subject], Awaitable[_Result]], *, at_once: int = _AT_ONCE
) -> list[_Result]:
    """Do the work for all of them at the same time, so many at once, and return the results in their order."""

    async def run() -> list[_Result]:
        free = asyncio.Semaphore(at_once)

        async def one(subject: _Subject) -> _Result:
            async with free:
                return await work(subject)

        return list(await asyncio.gather(*map(one, subjects)))

    return asyncio.run(run())


def check_seconds(*, or_zero: bool = False, **limits: float) -> None:
    """Make sure that time limits are limits.

    :param or_zero: whether 0 is one
    :raises InputError: one is not
    """
    for name, value in limits.items():
        if not (0 < value <= _MAX_SECONDS or (or_zero and value == 0)):
            least = "of at least 0" if or_zero else "above 0"
            raise InputError(f"{name} is {value:g}: give a number of seconds {least} and of at most {_MAX_SECONDS}")
