# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many daemons in one call: as many at once as is wished, and nobody waits for the dead longer than a time-out.

Real daemons all, but not as many as there are addresses: each listens on several.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from pathlib import Path
from typing import Any, Callable, Iterator

import daemon as daemons
import peers
import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import verify
from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from certificates import Authority, Pair
from daemon import Daemon
from turnstile import Turnstile

SIZE = 50
DEAD = "unix:///run/nobody-listens-here.sock"


@pytest.fixture(scope="module")
def addresses(
    bin_dir: Path, server: Pair, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[str]]:
    """The addresses of two daemons, half of them each."""
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(2):
            own = [f"tcp://127.0.0.1:{ports.kept()}" for _address in range(SIZE // 2)]
            options = tuple(part for address in own for part in ("--addr", address))
            directory = tmp_path_factory.mktemp(f"fleet-{number}")
            stack.enter_context(daemons.run(bin_dir, directory, pair=server, ca=authority.path, options=options))
            found += own
        yield found


@pytest.fixture
def turnstile(mtls: Daemon, tmp_path: Path) -> Iterator[Callable[[int], Turnstile]]:
    """Makes a turnstile before a good daemon, which serves nobody before so many have come."""
    with contextlib.ExitStack() as stack:
        yield lambda full: stack.enter_context(contextlib.closing(Turnstile(mtls.unix, tmp_path, full)))


def prove(addresses: list[str], authority: Authority, client: Pair, **settings: Any) -> list[verify.Report]:
    """Prove all of them with the good credentials."""
    tls = (str(authority.path), str(client.cert), str(client.key))
    wishes = [verify.Daemon(one, *(tls if one.startswith("tcp:") else ())) for one in addresses]
    return verify.verify(wishes, verify.Proof(**{"connect_timeout": LONG, "build_timeout": LONG, **settings}))


def test_fifty_daemons_are_proved_in_one_call(addresses: list[str], authority: Authority, client: Pair) -> None:
    """Each by its builds and its strangers, in the order in which they were given."""
    reports = prove(addresses, authority, client)
    assert [report.summary for report in reports if not report.ok] == []
    assert [report.address for report in reports] == addresses
    assert all(len(report.refusals) == 3 and report.timings["dockerfile"] > 0 for report in reports)


def test_every_build_of_a_fleet_may_share_its_daemons(addresses: list[str], authority: Authority, client: Pair) -> None:
    """Proofs of the cache and of entitlements do not get into each other's way on the same daemon."""
    wishes = {"builds": verify.BUILDS, "entitlements_refused": verify.ENTITLEMENTS, "refusals": ()}
    reports = prove(addresses[:6] + addresses[-6:], authority, client, **wishes)
    assert [report.summary for report in reports if not report.ok] == []


@pytest.mark.parametrize("limit", [1, 4])
def test_no_more_at_once_than_wished(
    turnstile: Callable[[int], Turnstile], limit: int, authority: Authority, client: Pair
) -> None:
    """The others wait for a place, and all get one."""
    counting = turnstile(limit)
    reports = prove([counting.address] * 12, authority, client, concurrency=limit, builds=("exec",))
    assert [report.ok for report in reports] == [True] * 12
    assert counting.most == limit


def test_all_at_once_where_the_limit_allows(
    turnstile: Callable[[int], Turnstile], authority: Authority, client: Pair
) -> None:
    """Nobody waits without need."""
    reports = prove([turnstile(12).address] * 12, authority, client, builds=("exec",))
    assert [report.ok for report in reports] == [True] * 12


def test_limit_without_a_wish(turnstile: Callable[[int], Turnstile], authority: Authority, client: Pair) -> None:
    """There is one, so that this machine is not short of time for those that it has begun with."""
    counting = turnstile(20)
    reports = prove([counting.address] * 30, authority, client, builds=())
    assert [report.ok for report in reports] == [True] * 30
    assert counting.most == 20


def test_dead_hosts_cost_one_time_out(addresses: list[str], authority: Authority, client: Pair) -> None:
    """Ten hosts that hang among twenty that are well: they are all asked before the first of them is given up."""

    def hang(seen: list[str], connection: socket.socket) -> None:
        seen.append("comes")
        peers.stay_silent(connection)
        seen.append("goes")

    for limit in (4, 20, 100):  # on a slow machine those that are well need longer
        seen: list[str] = []
        with peers.listening(functools.partial(hang, seen)) as silent:
            reports = prove([silent] * 10 + addresses[:20], authority, client, connect_timeout=limit)
        assert [report.failure.kind.value for report in reports[:10]] == ["timeout"] * 10
        if all(report.ok for report in reports[10:]) and seen.index("goes") == 10:
            break
    assert [report.summary for report in reports[10:] if not report.ok] == []
    assert seen == ["comes"] * 10 + ["goes"] * 10


def test_summary_of_a_fleet_has_the_worst_first(
    addresses: list[str], plaintext: Daemon, authority: Authority, client: Pair
) -> None:
    """The results stay in the order of the daemons; the summary and the message begin with what matters most."""
    items = [addresses[0], DEAD, addresses[1], plaintext.tcp]
    tls = {"ca_path": str(authority.path), "client_cert": str(client.cert), "client_key": str(client.key)}
    options = {
        "daemons": [{"address": one} for one in items],
        "builds": ["exec"],
        "concurrency": 2,
        "connect_timeout": LONG,
        **tls,
    }
    outcome = run_module("buildkit_verify", options)
    assert [one["address"] for one in outcome.result["daemons"]] == items
    lines = outcome.result["summary"]
    assert [line.partition(": ")[0] for line in lines] == [plaintext.tcp, DEAD, addresses[0], addresses[1]]
    assert outcome.message.splitlines() == ["2 of 4 daemons not proved:", *lines[:2]]


def test_concurrency_must_let_somebody_in() -> None:
    """Zero would prove nobody."""
    outcome = run_module("buildkit_verify", {"address": DEAD, "concurrency": 0})
    assert "concurrency is 0: give at least 1" in outcome.message
