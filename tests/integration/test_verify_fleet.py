# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many daemons in one call: as many at once as is wished, and nobody waits for the dead longer than a time-out.

Real daemons all, but not as many as there are addresses: each listens on several.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import daemon as daemons
import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import verify
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module
from certificates import Authority, Pair
from daemon import Daemon

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
            ports = [daemons.free_port() for _address in range(SIZE // 2)]
            own = [f"tcp://127.0.0.1:{port}" for port in ports]
            options = tuple(part for address in own for part in ("--addr", address))
            directory = tmp_path_factory.mktemp(f"fleet-{number}")
            stack.enter_context(daemons.run(bin_dir, directory, pair=server, ca=authority.path, options=options))
            found += own
        yield found


class Turnstile:
    """Listens before a daemon, passes bytes on, and counts how many are inside at most.

    One thread does it, and lets those out who want to leave before it lets the next one in.
    """

    def __init__(self, target: str, directory: Path) -> None:
        self.most = 0
        self.address = f"unix://{directory}/turnstile.sock"
        self._target = target.removeprefix("unix://")
        self._others: dict[socket.socket, socket.socket] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{directory}/turnstile.sock")
        self._listener.listen(SIZE)
        self._open = True
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Let everybody out, and nobody in any more."""
        self._open = False
        self._thread.join()
        for one in (self._listener, *self._others):
            one.close()

    def _serve(self) -> None:
        while self._open:
            ready = select.select([self._listener, *self._others], [], [], 0.02)[0]
            for one in list(self._others):
                self._pass(one)
            if self._listener in ready:
                self._let_in()

    def _let_in(self) -> None:
        client, daemon = self._listener.accept()[0], socket.socket(socket.AF_UNIX)
        daemon.connect(self._target)
        self._others |= {client: daemon, daemon: client}
        self.most = max(self.most, len(self._others) // 2)

    def _pass(self, one: socket.socket) -> None:
        """All that one side has to say by now, up to its end."""
        while one in self._others:
            try:
                data = one.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            with contextlib.suppress(OSError):
                self._others[one].sendall(data)
            if not data:
                other = self._others.pop(one)
                del self._others[other]
                one.close()
                other.close()


@pytest.fixture
def turnstile(mtls: Daemon, tmp_path: Path) -> Iterator[Turnstile]:
    """A turnstile before a good daemon."""
    counting = Turnstile(mtls.unix, tmp_path)
    yield counting
    counting.close()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    """Somebody who accepts and never says a word, as a host does that hangs."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/silent.sock")
        listener.listen(SIZE)
        yield f"unix://{tmp_path}/silent.sock"


def prove(addresses: list[str], authority: Authority, client: Pair, **settings: Any) -> list[verify.Report]:
    """Prove all of them with the good credentials."""
    tls = (str(authority.path), str(client.cert), str(client.key))
    wishes = [verify.Daemon(one, *(tls if one.startswith("tcp:") else ())) for one in addresses]
    return verify.verify(wishes, verify.Proof(**settings))


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
def test_no_more_at_once_than_wished(turnstile: Turnstile, limit: int, authority: Authority, client: Pair) -> None:
    """The others wait for a place, and all get one."""
    reports = prove([turnstile.address] * 12, authority, client, concurrency=limit, builds=("exec",))
    assert [report.ok for report in reports] == [True] * 12
    assert turnstile.most == limit


def test_all_at_once_where_the_limit_allows(turnstile: Turnstile, authority: Authority, client: Pair) -> None:
    """Nobody waits without need."""
    reports = prove([turnstile.address] * 12, authority, client, builds=("exec",))
    assert [report.ok for report in reports] == [True] * 12
    assert turnstile.most == 12


def test_limit_without_a_wish(turnstile: Turnstile, authority: Authority, client: Pair) -> None:
    """There is one, so that this machine is not short of time for those that it has begun with."""
    reports = prove([turnstile.address] * 30, authority, client, builds=())
    assert [report.ok for report in reports] == [True] * 30
    assert turnstile.most == 20


def test_dead_hosts_cost_one_time_out(addresses: list[str], silent: str, authority: Authority, client: Pair) -> None:
    """Ten hosts that hang among twenty that are well: the whole takes no longer than one of them."""
    began = time.monotonic()
    reports = prove([silent] * 10 + addresses[:20], authority, client, connect_timeout=4)
    took = time.monotonic() - began
    assert [report.failure.kind.value for report in reports[:10]] == ["timeout"] * 10
    assert [report.summary for report in reports[10:] if not report.ok] == []
    assert 4 <= took < 6


def test_summary_of_a_fleet_has_the_worst_first(
    addresses: list[str], plaintext: Daemon, authority: Authority, client: Pair
) -> None:
    """The results stay in the order of the daemons; the summary and the message begin with what matters most."""
    items = [addresses[0], DEAD, addresses[1], plaintext.tcp]
    tls = {"ca_path": str(authority.path), "client_cert": str(client.cert), "client_key": str(client.key)}
    options = {"daemons": [{"address": one} for one in items], "builds": ["exec"], "concurrency": 2, **tls}
    outcome = run_module("buildkit_verify", options)
    assert [one["address"] for one in outcome.result["daemons"]] == items
    lines = outcome.result["summary"]
    assert [line.partition(": ")[0] for line in lines] == [plaintext.tcp, DEAD, addresses[0], addresses[1]]
    assert outcome.message.splitlines() == ["2 of 4 daemons not proved:", *lines[:2]]


def test_concurrency_must_let_somebody_in() -> None:
    """Zero would prove nobody."""
    outcome = run_module("buildkit_verify", {"address": DEAD, "concurrency": 0})
    assert "concurrency is 0: give at least 1" in outcome.message
