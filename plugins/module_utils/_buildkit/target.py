# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A daemon as the modules call it: with the options that lead to it read, and one or many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import channel, endpoint, options, tls
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    Failure,
    InputError,
    Kind,
    TlsError,
)

_Subject = TypeVar("_Subject")
_Result = TypeVar("_Result")

# How many daemons are called at the same time: what a process may have open is limited, often to 1024 files.
_AT_ONCE = 64


class Target:
    """A daemon to call.

    :raises InputError: options that cannot be meant; nothing was contacted then
    """

    def __init__(self, daemon: options.Daemon) -> None:
        self.address = daemon.address
        self._daemon = daemon
        self._endpoint = endpoint.parse(daemon.address)
        self._context: ssl.SSLContext | None = None
        self._problem: Failure | None = None
        options.check_transport(daemon, self._endpoint)
        if bool(daemon.client_cert) != bool(daemon.client_key):
            raise InputError(f"{daemon.address}: client_cert and client_key go together, and one is missing")
        if daemon.ca_path:
            self._load(daemon)
        elif daemon.client_cert or daemon.tls_hostname:
            raise InputError(
                f"{daemon.address}: ca_path is missing, without which nobody would know who gets the client certificate"
            )

    def _load(self, daemon: options.Daemon) -> None:
        try:
            self._context = tls.client_context(tls.Credentials(daemon.ca_path, daemon.client_cert, daemon.client_key))
        except TlsError as error:
            self._problem = error
        else:
            tls.check_hostname(self._context, self._hostname)

    @property
    def _hostname(self) -> str:
        return self._daemon.tls_hostname or self._endpoint.host

    @contextlib.asynccontextmanager
    async def connection(self, *, timeout: float) -> AsyncIterator[channel.Connection]:
        """An open connection, which is closed at the end of the block.

        :param timeout: seconds until it is there
        :raises Failure: with the cause
        """
        if self._problem is not None:
            raise self._problem
        peer = channel.Peer(self._endpoint, self._context, self._hostname, bool(self._daemon.client_cert))
        try:
            connection = await channel.open_connection(peer, timeout=timeout)
        except TlsError as error:
            raise self._explain(error) from error
        try:
            yield connection
        finally:
            await connection.close()

    def _explain(self, error: TlsError) -> Failure:
        """Say what the certificate in question is, where that explains why it was not accepted."""
        certificate = importlib.import_module(f"{__package__}.certificate")  # 35 ms, for failures alone
        detail = ""
        if error.kind is Kind.CLIENT_CERTIFICATE_REFUSED:
            own = certificate.from_file(self._daemon.client_cert)
            detail = f"; it is {own.subject}, issued by {own.issuer}, {own.validity}" if own else ""
        elif error.certificate is not None:
            with contextlib.suppress(ValueError):  # something that OpenSSL reads and cryptography does not
                detail = _describe(certificate.from_der(error.certificate), error.kind)
        return Failure(error.kind, f"{error.message}{detail}", remedy=error.remedy) if detail else error


def _describe(served: Any, kind: Kind) -> str:
    if kind is Kind.SERVER_NAME_MISMATCH:
        return f"; it names {', '.join(served.sans)}" if served.sans else "; it has no subject alternative name"
    if kind in (Kind.SERVER_CERTIFICATE_EXPIRED, Kind.SERVER_CERTIFICATE_NOT_YET_VALID):
        return f"; it is {served.validity}"
    return f"; it was issued by {served.issuer}" if kind is Kind.SERVER_UNKNOWN_CA else ""


def targets(daemons: Sequence[options.Daemon]) -> list[Target]:
    """All daemons, in their order.

    :raises InputError: there is none, or options that cannot be meant; nothing was contacted then
    """
    if not daemons:
        raise InputError("There is no daemon to call: give at least one address")
    return [Target(daemon) for daemon in daemons]


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


def check_seconds(**limits: float) -> None:
    """Make sure that time limits are limits.

    :raises InputError: one is not
    """
    for name, value in limits.items():
        if not 0 < value < float("inf"):
            raise InputError(f"{name} is {value:g}: give a number of seconds above 0")
