# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls to a real gRPC server that does not mean well, or answers what no daemon answers."""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import (
    channel,
    control,
    drain,
    endpoint,
    info,
    messages,
    prune,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, Kind
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.options import Daemon
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

CONTROL = "moby.buildkit.v1"
REPLIES = {
    "Info": "InfoResponse",
    "ListWorkers": "ListWorkersResponse",
    "DiskUsage": "DiskUsageResponse",
    "Prune": "UsageRecord",
    "ListenBuildHistory": "BuildHistoryEvent",
}
REQUESTS = {
    "Info": "InfoRequest",
    "ListWorkers": "ListWorkersRequest",
    "DiskUsage": "DiskUsageRequest",
    "Prune": "PruneRequest",
    "ListenBuildHistory": "BuildHistoryRequest",
}
Answer = Callable[[Any], Awaitable[None]]


def reply(name: str, **fields: Any) -> Any:
    """A message of the Control service."""
    return messages.new(f"{CONTROL}.{name}", **fields)


async def undescribed(stream: Any) -> None:
    """Answers a question for the description of the API as servers do that have none."""
    await stream.recv_message()
    raise GRPCError(Status.UNIMPLEMENTED, "unknown service grpc.reflection.v1alpha.ServerReflection")


class Peer:
    """A server whose calls do what a test says."""

    def __init__(self, **calls: Answer) -> None:
        self._calls = calls

    def __mapping__(self) -> dict[str, Handler]:
        calls = {
            f"/{CONTROL}.Control/{name}": Handler(
                call,
                Cardinality.UNARY_STREAM,
                messages.message_class(f"{CONTROL}.{REQUESTS[name]}"),
                messages.message_class(f"{CONTROL}.{REPLIES[name]}"),
            )
            for name, call in self._calls.items()
        }
        reflection = "grpc.reflection.v1alpha.ServerReflection"
        request, response = f"{reflection}Request", f"{reflection}Response"
        calls[f"/{reflection}/ServerReflectionInfo"] = Handler(
            undescribed,
            Cardinality.STREAM_STREAM,
            messages.message_class(request),
            messages.message_class(response),
        )
        return calls


def with_peer(path: Path, peer: Peer, work: Callable[[control.Control], Awaitable[Any]]) -> Any:
    """Do some calls to it."""

    async def run() -> Any:
        server = Server([peer])
        await server.start(path=str(path))
        opened = await channel.open_connection(channel.Peer(endpoint.parse(f"unix://{path}")), timeout=LONG)
        try:
            return await work(control.Control(opened.channel, timeout=LONG))
        finally:
            await opened.close()
            server.close()

    return asyncio.run(run())


def answer(*replies: Any, status: Status | None = None, metadata: dict[str, str] | None = None) -> Answer:
    """Answers a call with these messages, and then with an error if there is one."""

    async def call(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_initial_metadata(metadata=metadata or {})
        for one in replies:
            await stream.send_message(one)
        if status is not None:
            raise GRPCError(status, "for this test")

    return call


def for_ever(message: Any) -> Answer:
    """Answers a call with the same message until nobody listens any more."""

    async def call(stream: Any) -> None:
        await stream.recv_message()
        while True:
            await stream.send_message(message)

    return call


def announce(size: int) -> Answer:
    """Announces a message of a size and sends none."""

    async def call(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_initial_metadata()
        await stream._stream.send_data(b"\0" + struct.pack(">I", size))
        await asyncio.sleep(3600)

    return call


@pytest.mark.parametrize("size", [16 * 2**20 + 1, 2**32 - 1])
def test_message_that_is_too_large_is_not_waited_for(tmp_path: Path, size: int) -> None:
    """Its announcement is enough; whoever waits for it has a time-out."""
    with pytest.raises(Failure, match="DiskUsage was answered with more than 16777216 bytes") as caught:
        with_peer(tmp_path / "socket", Peer(DiskUsage=announce(size)), lambda calls: calls.usage(timeout=LONG))
    assert caught.value.kind is Kind.RPC_FAILED


@pytest.mark.parametrize("name", ["Info", "ListWorkers"])
def test_facts_may_not_be_large(tmp_path: Path, name: str) -> None:
    """What a daemon says that it is fits into a mebibyte."""
    peer = Peer(**{name: announce(2**20 + 1)})
    with pytest.raises(Failure, match=f"{name} was answered with more than 1048576 bytes"):
        with_peer(tmp_path / "socket", peer, lambda calls: calls.info() if name == "Info" else calls.workers())


def test_endless_history_is_not_collected(tmp_path: Path) -> None:
    """Builds are read up to a number, however small they are."""
    event = reply("BuildHistoryEvent", record=reply("BuildHistoryRecord", Ref="x" * 100))
    with pytest.raises(Failure, match="answered with more than 10000 builds"):
        with_peer(
            tmp_path / "socket",
            Peer(ListenBuildHistory=for_ever(event)),
            lambda calls: calls.history(active_only=True, timeout=LONG),
        )


@pytest.mark.parametrize("size", [100, 60_000])
def test_endless_pruning_ends_without_growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Records that went are counted, not kept, and only so many bytes are read."""
    monkeypatch.setattr(control, "_MAX_ANSWER", 2**21)
    count = 0

    def add(_name: str, _size: int) -> None:
        nonlocal count
        count += 1

    tracemalloc.start()
    try:
        with pytest.raises(Failure, match="Prune was answered with more than 2097152 bytes"):
            with_peer(
                tmp_path / "socket",
                Peer(Prune=for_ever(reply("UsageRecord", ID="x" * size))),
                lambda calls: calls.prune_cache(add, limits=control.Limits(), timeout=LONG),
            )
        _now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 2**21 // (max(size + 10, 128) + 128) - 1 <= count <= 2**21 // size
    assert most < 40 * 2**20


def test_answer_that_never_ends_ends_in_time(tmp_path: Path) -> None:
    """A stream that sends something now and then is cut off at the limit, not after each pause anew."""

    async def drip(stream: Any) -> None:
        await stream.recv_message()
        for _number in range(1200):  # a minute in all, and then a good end
            await stream.send_message(reply("UsageRecord", ID="x"))
            await asyncio.sleep(0.05)

    with pytest.raises(Failure) as caught:
        with_peer(
            tmp_path / "socket",
            Peer(Prune=drip),
            lambda calls: calls.prune_cache(lambda _id, _size: None, limits=control.Limits(), timeout=1),
        )
    assert caught.value.kind is Kind.TIMEOUT


def test_daemon_is_given_more_time_than_we_wait(tmp_path: Path) -> None:
    """A call ends by our limit, not with what a daemon says whose limit is over first."""
    told: list[float] = []

    async def wait(stream: Any) -> None:
        told.append(stream.deadline.time_remaining())
        loop = asyncio.get_running_loop()
        now = loop.time
        loop.time = lambda: now() + LONG + 1  # our limit is over, and that of the daemon is not
        await asyncio.sleep(3600)

    for name, ask in {
        "DiskUsage": lambda calls: calls.usage(timeout=LONG),
        "Prune": lambda calls: calls.prune_cache(lambda _id, _size: None, limits=control.Limits(), timeout=LONG),
    }.items():
        with pytest.raises(Failure, match=f"{name} was not answered within {LONG:g} s") as caught:
            with_peer(tmp_path / name, Peer(**{name: wait}), ask)
        assert caught.value.kind is Kind.TIMEOUT
    assert [remaining > LONG + 5 for remaining in told] == [True, True]


def test_answer_without_a_message_is_an_error(tmp_path: Path) -> None:
    """A good end without an answer is none."""
    with pytest.raises(Failure, match="DiskUsage was answered without a message"):
        with_peer(tmp_path / "socket", Peer(DiskUsage=answer()), lambda calls: calls.usage(timeout=LONG))


@pytest.mark.parametrize(
    ("shown", "skew"),
    [
        ("2026-11-21T09:26:19.540264031Z", 0.540264031),
        ("2026-11-21T09:26:19Z", 0),
        ("2026-11-21T10:26:20+01:00", 1),
        ("2026-13-21T09:26:19Z", None),
        ("2026-11-21 09:26:19", None),
        ("yesterday", None),
    ],
)
def test_clock_of_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, skew: float | None) -> None:
    """What it tells is compared with our time, and what cannot be read is no clock."""
    monkeypatch.setattr(control.time, "time", lambda: 1795253179.0)  # 2026-11-21T09:26:19Z
    peer = Peer(ListenBuildHistory=answer(metadata={"buildkit-current-timestamp": shown}))
    history = with_peer(tmp_path / "socket", peer, lambda calls: calls.history(active_only=True, timeout=LONG))
    if skew is None:
        assert history.clock is None
        assert history.now == 1795253179.0
    else:
        assert history.clock.skew == pytest.approx(skew, abs=1e-6)
        assert history.clock.uncertainty == 0


def test_what_a_daemon_cannot_answer_hides_nothing_else(tmp_path: Path) -> None:
    """Version and builds are there, the disk usage is not, and the failure says why."""
    version = messages.new("moby.buildkit.v1.types.BuildkitVersion", version="v9", package="p", revision="r")
    peer = Peer(
        Info=answer(reply("InfoResponse", buildkitVersion=version)),
        ListWorkers=answer(status=Status.INTERNAL),
        DiskUsage=answer(status=Status.INTERNAL),
        ListenBuildHistory=answer(),
    )
    found = ask(tmp_path / "socket", peer)
    assert found["reachable"] is True
    assert found["version"] == "v9"
    assert found["active_builds"]["count"] == 0
    assert found["disk_usage"] is None
    assert found["failure"]["kind"] == "rpc_failed"
    assert "for this test (INTERNAL)" in found["failure"]["message"]


def test_strange_facts_are_shown_in_bounds(tmp_path: Path) -> None:
    """Negative sizes, unknown types, builds from the future and from before all calendars."""
    records = [reply("UsageRecord", ID=str(number), Size=-5, RecordType=f"type-{number}") for number in range(50)]
    stamp = {"seconds": 2**62}
    builds = [
        reply("BuildHistoryEvent", record=reply("BuildHistoryRecord", Ref="r" * 1000, CreatedAt=stamp)),
        reply("BuildHistoryEvent", type=1, record=reply("BuildHistoryRecord", CompletedAt=stamp)),
        reply("BuildHistoryEvent", type=7),
    ]
    peer = Peer(
        Info=answer(reply("InfoResponse")),
        ListWorkers=answer(reply("ListWorkersResponse")),
        DiskUsage=answer(reply("DiskUsageResponse", record=records)),
        ListenBuildHistory=answer(*builds),
    )
    found = ask(tmp_path / "socket", peer)
    assert found["failure"] is None
    assert found["disk_usage"]["bytes"] == 0
    assert set(found["disk_usage"]["by_type"]) == {"other"}
    [build] = found["active_builds"]["builds"]
    assert (len(build["ref"]), build["started"], build["age_seconds"]) == (128, None, 0)
    assert found["history"]["count"] == 1
    assert found["clock"] is None


def ask(path: Path, peer: Peer) -> dict[str, Any]:
    """What buildkit_info would tell of it; the server runs in a thread, since the module has a loop of its own."""
    wish = info.Wish(connect_timeout=LONG, timeout=LONG)
    [report] = served(path, peer, lambda: info.collect([Daemon(f"unix://{path}")], wish))
    return report.as_dict()


def served(path: Path, peer: Peer, work: Callable[[], Any]) -> Any:
    """Do something while the server runs."""

    async def run() -> Any:
        server = Server([peer])
        await server.start(path=str(path))
        try:
            return await asyncio.to_thread(work)
        finally:
            server.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "ok"),
    [("v0.17.0", True), ("v0.25.2", True), ("v0.16.0", False), ("v0.0.0+unknown", False), ("", False)],
)
def test_daemon_that_does_not_describe_itself_is_judged_by_its_version(tmp_path: Path, text: str, ok: bool) -> None:
    """One that says no version is not trusted with limits that it may not know."""
    asked = []

    async def pruned(stream: Any) -> None:
        asked.append(await stream.recv_message())
        await stream.send_message(reply("UsageRecord", ID="a", Size=7))

    version = messages.new("moby.buildkit.v1.types.BuildkitVersion", version=text)
    peer = Peer(
        Info=answer(reply("InfoResponse", buildkitVersion=version)),
        DiskUsage=answer(reply("DiskUsageResponse", record=[reply("UsageRecord", ID="a", Size=7)])),
        Prune=pruned,
    )
    daemon, wish = Daemon(f"unix://{tmp_path}/socket"), prune.Wish(max_used_space=5, connect_timeout=LONG)
    report = served(tmp_path / "socket", peer, lambda: prune.prune([daemon], wish, check_mode=False)[0])
    assert (report.failure is None) is ok
    assert len(asked) == ok
    assert report.total.bytes == (7 if ok else 0)
    if not ok:
        assert report.failure.kind is Kind.VERSION_TOO_OLD


def test_daemon_that_dies_while_it_is_waited_for_is_a_failure(tmp_path: Path) -> None:
    """Not a success: nobody knows whether it built."""
    looks = []

    async def look(stream: Any) -> None:
        looks.append(await stream.recv_message())
        await stream.send_initial_metadata()
        if len(looks) > 2:
            raise GRPCError(Status.UNAVAILABLE, "going down")
        await stream.send_message(reply("BuildHistoryEvent", record=reply("BuildHistoryRecord", Ref="a")))

    wish = drain.Wish(poll=0.05, timeout=LONG, connect_timeout=LONG)
    daemon = Daemon(f"unix://{tmp_path}/socket")
    [report] = served(tmp_path / "socket", Peer(ListenBuildHistory=look), lambda: drain.wait([daemon], wish))
    assert report.drained is False
    assert report.failure.kind is Kind.RPC_FAILED
    assert list(report.seen) == ["a"]
    assert all(one.ActiveOnly and one.EarlyExit for one in looks)
