# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The calls of BuildKit's Control service that we use, each within a time limit and with errors that name the cause."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Callable

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import messages
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.channel import StreamChannel
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    ConnectError,
    Failure,
    Kind,
    RpcError,
)

if TYPE_CHECKING:
    from google.protobuf.message import DecodeError
    from grpclib.client import UnaryStreamMethod, UnaryUnaryMethod
    from grpclib.const import Status
    from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
    from h2.exceptions import H2Error
else:
    try:
        from google.protobuf.message import DecodeError
        from grpclib.client import UnaryStreamMethod, UnaryUnaryMethod
        from grpclib.const import Status
        from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
        from h2.exceptions import H2Error
    except ImportError:  # reported by _deps before any call is made
        pass

_CONTROL = "moby.buildkit.v1"

# What grpclib writes when the answer is HTTP, but not gRPC.
_NO_GRPC = (
    "Received :status",
    "Missing content-type",
    "Invalid content-type",
    "Missing grpc-status",
    "Invalid grpc-status",
)


@dataclass(frozen=True)
class Version:
    """What a daemon says that it is. Builds of distributions may say C(v0.0.0+unknown)."""

    package: str
    version: str
    revision: str
    dockerfile: str


@dataclass(frozen=True)
class Platform:
    """A platform as OCI names it."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True)
class GCPolicy:
    """One rule of the garbage collection that is in effect: sizes in bytes, age in seconds."""

    all: bool
    filters: list[str]
    keep_duration: int
    reserved_space: int
    max_used_space: int
    min_free_space: int


@dataclass(frozen=True)
class Worker:
    """What runs the builds. Its first platform is the native one."""

    id: str
    platforms: tuple[Platform, ...]
    labels: dict[str, str]
    gc_policy: tuple[GCPolicy, ...]

    def as_dict(self) -> dict[str, Any]:
        """The form that modules return."""
        return {
            "id": self.id,
            "platforms": [str(platform) for platform in self.platforms],
            "labels": self.labels,
            "gc_policy": [asdict(rule) for rule in self.gc_policy],
        }


class Control:
    """The Control service of one daemon.

    :param timeout: seconds for every call that a daemon answers at once
    """

    def __init__(self, channel: StreamChannel, *, timeout: float) -> None:
        self._channel = channel
        self._timeout = timeout

    async def info(self) -> Version:
        """Which version it is.

        :raises Failure: no answer, or none of buildkitd
        """
        reply = await self._call("Info", messages.new(f"{_CONTROL}.InfoRequest"), "InfoResponse")
        version = reply.buildkitVersion
        return Version(version.package, version.version, version.revision, version.dockerfileVersion)

    async def workers(self) -> list[Worker]:
        """Its workers; only the first is ever used.

        :raises Failure: no answer
        """
        reply = await self._call("ListWorkers", messages.new(f"{_CONTROL}.ListWorkersRequest"), "ListWorkersResponse")
        return [_worker(record) for record in reply.record]

    async def solve(self, request: Any, *, timeout: float) -> None:
        """Run a build until its end.

        :param request: a C(moby.buildkit.v1.SolveRequest)
        :raises Failure: it failed, or did not end in time; it is cancelled then
        """
        await self._call("Solve", request, "SolveResponse", timeout=timeout)

    async def status(self, ref: str, on_response: Callable[[Any], None], *, timeout: float) -> None:
        """Follow a build until its end.

        It may be asked for before the build is sent: the daemon waits up to 6 s for it.

        :param ref: the C(Ref) of the build
        :param on_response: gets each C(moby.buildkit.v1.StatusResponse)
        :raises Failure: no answer
        """
        request = messages.new(f"{_CONTROL}.StatusRequest", Ref=ref)
        await self._stream("Status", request, "StatusResponse", on_response, timeout)

    async def cache_records(self, description: str) -> list[str]:
        """The ids of all records in the cache with exactly this description.

        :raises Failure: no answer
        """
        request = messages.new(f"{_CONTROL}.DiskUsageRequest", filter=[f'description=="{description}"'])
        reply = await self._call("DiskUsage", request, "DiskUsageResponse")
        return [record.ID for record in reply.record]

    async def prune(self, ids: Sequence[str]) -> list[str]:
        """Drop these records from the cache, unless they are in use, and return the ids of those that went.

        :raises Failure: no answer
        """
        if not ids:  # no filter would mean all records
            return []
        # Not by their description, which 0.13 does not look at here.
        request = messages.new(f"{_CONTROL}.PruneRequest", filter=[f"id=={one}" for one in ids])
        dropped: list[str] = []
        await self._stream("Prune", request, "UsageRecord", lambda record: dropped.append(record.ID), self._timeout)
        return dropped

    async def _stream(
        self, name: str, request: Any, reply: str, on_reply: Callable[[Any], None], timeout: float
    ) -> None:
        method = UnaryStreamMethod(
            self._channel,
            f"/{_CONTROL}.Control/{name}",
            type(request),
            messages.message_class(f"{_CONTROL}.{reply}"),
        )
        try:
            async with method.open(timeout=timeout) as exchange:
                await exchange.send_message(request, end=True)
                async for message in exchange:
                    on_reply(message)
        except Exception as error:
            raise self._explain(name, error, timeout) from error

    async def _call(self, name: str, request: Any, reply: str, *, timeout: float | None = None) -> Any:
        limit = self._timeout if timeout is None else timeout
        method = UnaryUnaryMethod(
            self._channel,
            f"/{_CONTROL}.Control/{name}",
            type(request),
            messages.message_class(f"{_CONTROL}.{reply}"),
        )
        try:
            return await method(request, timeout=limit)
        except Exception as error:
            raise self._explain(name, error, limit) from error

    def _explain(self, call: str, error: Exception, limit: float) -> Failure:
        """The cause of a call that failed; what is no fault of the peer's is raised as it is."""
        if isinstance(error, Failure):
            return error
        if isinstance(error, asyncio.TimeoutError):
            return ConnectError(Kind.TIMEOUT, f"{call} was not answered within {limit:g} s")
        if isinstance(error, GRPCError):
            return _explain_status(call, error)
        if isinstance(error, DecodeError):
            return RpcError(Kind.NOT_BUILDKIT, f"{call} was answered with a message that is not BuildKit's")
        if isinstance(error, (StreamTerminatedError, OSError)):
            return self._channel.lost
        if isinstance(error, (H2Error, ProtocolError, AssertionError, NotImplementedError)):
            return RpcError(Kind.NOT_GRPC, f"{call} was not answered in proper gRPC ({error})")
        raise error


def _explain_status(call: str, error: GRPCError) -> Failure:
    message, status = error.message or "", error.status
    if message.startswith(_NO_GRPC):
        return RpcError(Kind.NOT_GRPC, f"{call} was answered in HTTP, but not in gRPC: {message}")
    if status is Status.UNIMPLEMENTED:
        return RpcError(Kind.NOT_BUILDKIT, f"{call} is unknown to the gRPC service that answers", status=status.name)
    return RpcError(Kind.RPC_FAILED, f"{call} failed: {message} ({status.name})", status=status.name)


def _worker(record: Any) -> Worker:
    return Worker(
        id=record.ID,
        platforms=tuple(Platform(one.OS, one.Architecture, one.Variant) for one in record.platforms),
        labels=dict(record.Labels),
        gc_policy=tuple(
            GCPolicy(
                all=rule.all,
                filters=list(rule.filters),
                keep_duration=rule.keepDuration // 10**9,
                reserved_space=rule.reservedSpace,
                max_used_space=rule.maxUsedSpace,
                min_free_space=rule.minFreeSpace,
            )
            for rule in record.GCPolicy
        ),
    )
