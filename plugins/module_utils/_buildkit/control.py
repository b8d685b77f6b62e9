# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The calls of BuildKit's Control service that we use.

Each has a time limit, a limit to how much is read, and errors that name the cause: what answers need not be a daemon
that means well.
"""

from __future__ import annotations

import asyncio
import binascii
import re
import time
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import messages
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.channel import StreamChannel
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    ConnectError,
    Failure,
    Kind,
    RpcError,
)

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.message import DecodeError
    from grpclib.client import StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod
    from grpclib.const import Status
    from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
    from h2.exceptions import H2Error
else:
    try:
        from google.protobuf.descriptor_pb2 import FileDescriptorProto
        from google.protobuf.message import DecodeError
        from grpclib.client import StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod
        from grpclib.const import Status
        from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
        from h2.exceptions import H2Error
    except ImportError:  # reported by _deps before any call is made
        pass

_Answer = TypeVar("_Answer")

_CONTROL = "moby.buildkit.v1"
_REFLECTION = "grpc.reflection.v1alpha"

# What is read of one message, and of all messages of one call, in bytes. Daemons from v0.14 on send no larger message.
_MAX_MESSAGE = 16 * 2**20
_MAX_ANSWER = 256 * 2**20
# What is read of a message that says what a daemon is.
_MAX_FACTS = 2**20
# What a message costs us at least, so that many small ones are bounded too: its header and its body count as this much.
_LEAST_READ = 128
# How many builds are read of a history, of which a daemon keeps 50 by default.
_MAX_BUILDS = 10_000
# How much later than ours a daemon's own time limit ends, in seconds: it is for clients that are gone without a word.
# A daemon that hears of the same moment may be first, and its answers differ (measured): 0.13 says that the call was
# cancelled, 0.25 resets it. grpclib tells limits of more than 10 s in whole seconds, rounded down.
_DAEMON_LATER = 10.0
# What is kept of the name of a build, in characters; those of BuildKit have 25.
_LONGEST_NAME = 128

# With what a daemon's clock is told, in the answer to a question for its history: RFC 3339, with up to 9 decimals.
_CLOCK_HEADER = "buildkit-current-timestamp"
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")

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


@dataclass(frozen=True)
class UsageRecord:
    """A record of the cache.

    :param type: C(regular), C(source.local), C(source.git.checkout), C(exec.cachemount), C(frontend) or C(internal)
    :param size: bytes
    :param in_use: whether a build holds it now, or another record that a build holds
    :param shared: whether its data belongs to somebody else too, such as an image of containerd
    :param last_used: seconds since 1970 on the daemon's clock, None if it never was
    :param parents: ids of the records below it, which go only after it
    """

    id: str
    type: str
    size: int
    in_use: bool
    shared: bool
    last_used: float | None
    usage_count: int
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """What to keep of the cache when it is pruned: sizes in bytes, age in seconds; 0 means no such limit."""

    reserved_space: int = 0
    max_used_space: int = 0
    min_free_space: int = 0
    keep_duration: int = 0


@dataclass(frozen=True)
class Build:
    """A build of the history.

    :param frontend: empty for LLB, and where the client drives the frontend itself, as buildctl and buildx do
    :param started: seconds since 1970 on the daemon's clock
    :param ended: likewise, None while it runs
    :param code: gRPC status with which it ended; 0 for success
    :param pinned: whether it stays in the history whatever its age
    """

    ref: str
    frontend: str
    started: float
    ended: float | None
    code: int
    pinned: bool

    @property
    def cancelled(self) -> bool:
        """Whether its client gave it up."""
        return self.code == messages.CANCELLED


@dataclass(frozen=True)
class Clock:
    """What a daemon's clock showed, and when that was asked on ours. All in seconds since 1970.

    :param asked: when the question was sent
    :param answered: when the answer was there
    """

    shown: float
    asked: float
    answered: float

    @property
    def skew(self) -> float:
        """By how many seconds the daemon's clock is ahead, if the answer took as long as the question."""
        return self.shown - (self.asked + self.answered) / 2

    @property
    def uncertainty(self) -> float:
        """By how many seconds the skew may be wrong, at most."""
        return (self.answered - self.asked) / 2


@dataclass(frozen=True)
class History:
    """Builds, and the time on the daemon at that moment.

    :param clock: None if the daemon did not tell
    """

    running: tuple[Build, ...]
    ended: tuple[Build, ...]
    clock: Clock | None

    @property
    def now(self) -> float:
        """The time by the clock that dated the builds, as far as that is known."""
        return self.clock.shown if self.clock else time.time()


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
        reply = await self._call("Info", messages.new(f"{_CONTROL}.InfoRequest"), "InfoResponse", most=_MAX_FACTS)
        version = reply.buildkitVersion
        return Version(version.package, version.version, version.revision, version.dockerfileVersion)

    async def workers(self) -> list[Worker]:
        """Its workers; only the first is ever used.

        :raises Failure: no answer
        """
        request = messages.new(f"{_CONTROL}.ListWorkersRequest")
        reply = await self._call("ListWorkers", request, "ListWorkersResponse", most=_MAX_FACTS)
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

    async def usage(self, *, filters: Sequence[str] = (), timeout: float) -> list[UsageRecord]:
        """The records of the cache; it may take a while, since a daemon measures what it has not measured yet.

        :param filters: as containerd writes them; a record must match one of them
        :param timeout: seconds
        :raises Failure: no answer, or a filter that the daemon does not understand
        """
        request = messages.new(f"{_CONTROL}.DiskUsageRequest", filter=filters)
        reply = await self._call("DiskUsage", request, "DiskUsageResponse", timeout=timeout)
        return [_usage_record(record) for record in reply.record]

    async def prune_cache(
        self,
        on_record: Callable[[str, int], None],
        *,
        filters: Sequence[str] = (),
        all_types: bool = False,
        limits: Limits,
        timeout: float,
    ) -> None:
        """Drop from the cache what is not in use.

        :param on_record: gets id and size of each record that went
        :param filters: as for :meth:`usage`, but daemons know neither description nor parents of a record here
        :param all_types: internal, frontend and shared records too
        :param timeout: seconds; a daemon stops when the call ends
        :raises Failure: no answer, or none in time; what went until then has gone
        """
        request = messages.new(
            f"{_CONTROL}.PruneRequest",
            filter=filters,
            all=all_types,
            keepDuration=limits.keep_duration * 10**9,
            reservedSpace=limits.reserved_space,
            maxUsedSpace=limits.max_used_space,
            minFreeSpace=limits.min_free_space,
        )
        await self._stream(
            "Prune", request, "UsageRecord", lambda record: on_record(record.ID, max(0, record.Size)), timeout
        )

    async def history(self, *, active_only: bool, timeout: float) -> History:
        """The builds that run now, with those that ended unless only the active ones are wanted.

        Builds that were sent as internal are in no history. The call ends at once instead of waiting for the next
        build: on 0.13 one that waits would hold up the shutdown of the daemon.

        :param timeout: seconds
        :raises Failure: no answer
        """
        builds: dict[int, list[Build]] = {messages.BUILD_STARTED: [], messages.BUILD_COMPLETE: []}

        def add(event: Any) -> None:
            if sum(map(len, builds.values())) >= _MAX_BUILDS:
                raise _too_much("ListenBuildHistory", f"{_MAX_BUILDS} builds")
            if event.type in builds:
                builds[event.type].append(_build(event.record))

        request = messages.new(f"{_CONTROL}.BuildHistoryRequest", ActiveOnly=active_only, EarlyExit=True)
        clock = await self._stream("ListenBuildHistory", request, "BuildHistoryEvent", add, timeout)
        return History(tuple(builds[messages.BUILD_STARTED]), tuple(builds[messages.BUILD_COMPLETE]), clock)

    async def knows_field(self, message: str, field: str) -> bool | None:
        """Whether the daemon's own description of its API has this field; None if it does not describe itself.

        Daemons before v0.17 do not. They skip fields that they do not know without a word.

        :param message: such as C(PruneRequest)
        :raises Failure: no answer
        """
        name = f"{_CONTROL}.{message}"
        request = messages.new(f"{_REFLECTION}.ServerReflectionRequest", file_containing_symbol=name)
        method = StreamStreamMethod(
            self._channel,
            f"/{_REFLECTION}.ServerReflection/ServerReflectionInfo",
            type(request),
            messages.message_class(f"{_REFLECTION}.ServerReflectionResponse"),
        )

        async def ask() -> list[Any]:
            async with method.open(timeout=self._timeout + _DAEMON_LATER) as exchange:
                await exchange.send_message(request, end=True)
                _bound(exchange, "ServerReflectionInfo", _MAX_FACTS, _MAX_FACTS + 2 * _LEAST_READ)
                reply = await exchange.recv_message()
            files = reply.file_descriptor_response.file_descriptor_proto if reply is not None else []
            return [
                item
                for file in map(FileDescriptorProto.FromString, files)
                if file.package == _CONTROL
                for item in file.message_type
                if item.name == message
            ]

        try:
            found = await self._in_time("ServerReflectionInfo", ask(), self._timeout)
        except RpcError as failure:
            if failure.status is not None:
                return None
            raise
        return any(one.name == field for item in found for one in item.field) if found else None

    async def _stream(
        self, name: str, request: Any, reply: str, on_reply: Callable[[Any], None], timeout: float
    ) -> Clock | None:
        method = UnaryStreamMethod(
            self._channel,
            f"/{_CONTROL}.Control/{name}",
            type(request),
            messages.message_class(f"{_CONTROL}.{reply}"),
        )

        async def ask() -> Clock | None:
            async with method.open(timeout=timeout + _DAEMON_LATER) as exchange:
                asked = time.time()
                await exchange.send_message(request, end=True)
                _bound(exchange, name, _MAX_MESSAGE, _MAX_ANSWER)
                await exchange.recv_initial_metadata()
                answered = time.time()
                async for message in exchange:
                    on_reply(message)
            metadata = exchange.initial_metadata
            return _clock(metadata.get(_CLOCK_HEADER) if metadata else None, asked, answered)

        return await self._in_time(name, ask(), timeout)

    async def _call(
        self, name: str, request: Any, reply: str, *, timeout: float | None = None, most: int = _MAX_MESSAGE
    ) -> Any:
        limit = self._timeout if timeout is None else timeout
        method = UnaryUnaryMethod(
            self._channel,
            f"/{_CONTROL}.Control/{name}",
            type(request),
            messages.message_class(f"{_CONTROL}.{reply}"),
        )

        async def ask() -> Any:
            async with method.open(timeout=limit + _DAEMON_LATER) as exchange:
                await exchange.send_message(request, end=True)
                _bound(exchange, name, most, most + 2 * _LEAST_READ)
                return await exchange.recv_message()

        message = await self._in_time(name, ask(), limit)
        if message is None:
            raise RpcError(Kind.NOT_GRPC, f"{name} was answered without a message")
        return message

    async def _in_time(self, call: str, answer: Coroutine[Any, Any, _Answer], limit: float) -> _Answer:
        try:
            return await asyncio.wait_for(answer, limit)
        except Exception as error:
            raise self._explain(call, error, limit) from error

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
        # The last two: a header whose value is not what its name promises.
        if isinstance(
            error, (H2Error, ProtocolError, AssertionError, NotImplementedError, binascii.Error, UnicodeError)
        ):
            return RpcError(Kind.NOT_GRPC, f"{call} was not answered in proper gRPC ({error})")
        raise error


def _explain_status(call: str, error: GRPCError) -> Failure:
    message, status = error.message or "", error.status
    if message.startswith(_NO_GRPC):
        return RpcError(Kind.NOT_GRPC, f"{call} was answered in HTTP, but not in gRPC: {message}")
    if status is Status.UNIMPLEMENTED:
        return RpcError(Kind.NOT_BUILDKIT, f"{call} is unknown to the gRPC service that answers", status=status.name)
    return RpcError(Kind.RPC_FAILED, f"{call} failed: {message} ({status.name})", status=status.name)


def _bound(exchange: Any, call: str, message: int, answer: int) -> None:
    """Let a call read no message and no answer that is larger than this, in bytes, whatever the peer announces.

    grpclib has no such limit. It reads a message through this one method, header and body apart; HTTP/2 lets the
    peer send no more than that and a window.
    """
    receive, left = exchange._stream.recv_data, answer

    async def recv_data(size: int) -> bytes:
        nonlocal left
        left -= max(size, _LEAST_READ)
        if size > message or left < 0:
            raise _too_much(call, f"{message if size > message else answer} bytes")
        data: bytes = await receive(size)
        return data

    exchange._stream.recv_data = recv_data


def _too_much(call: str, limit: str) -> Failure:
    return Failure(
        Kind.RPC_FAILED,
        f"{call} was answered with more than {limit}, and the rest was not read",
        remedy="Check what answers on this address; if it is your daemon, prune its cache or its history.",
    )


def _usage_record(record: Any) -> UsageRecord:
    return UsageRecord(
        id=record.ID,
        type=record.RecordType or "regular",
        size=max(0, record.Size),
        in_use=record.InUse,
        shared=record.Shared,
        last_used=_seconds(record.LastUsedAt) if record.HasField("LastUsedAt") else None,
        usage_count=record.UsageCount,
        parents=tuple(record.Parents) or ((record.Parent,) if record.Parent else ()),
    )


def _build(record: Any) -> Build:
    return Build(
        ref=record.Ref[:_LONGEST_NAME],
        frontend=record.Frontend[:_LONGEST_NAME],
        started=_seconds(record.CreatedAt),
        ended=_seconds(record.CompletedAt) if record.HasField("CompletedAt") else None,
        code=record.error.code,
        pinned=record.pinned,
    )


def _seconds(timestamp: Any) -> float:
    return float(timestamp.seconds + timestamp.nanos / 10**9)


def _clock(shown: Any, asked: float, answered: float) -> Clock | None:
    match = _RFC3339.fullmatch(shown) if isinstance(shown, str) else None
    if match is None:
        return None
    whole, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
    except ValueError:
        return None
    return Clock(moment.astimezone(timezone.utc).timestamp() + float(fraction or 0), asked, answered)


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
