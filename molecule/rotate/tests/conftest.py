# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of this scenario: its builders, and clients that keep on connecting."""

from __future__ import annotations

import contextlib
import sys
import threading
import typing as t
from pathlib import Path

import pytest

# Under pytest's importlib mode the directory of a test is not searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from rotation import HOSTS, Fleet, Watch


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """The scenario's builders; everybody was given files after its first run."""
    made = Fleet(tmp_path_factory.mktemp("people"))
    made.give("alice", "bob", "ci")
    return made


@pytest.fixture(scope="session")
def watching(fleet: Fleet) -> t.Callable[[str], t.ContextManager[Watch]]:
    """Has a client connect to all builders as long as a test's block lasts."""

    @contextlib.contextmanager
    def watch(name: str) -> t.Iterator[Watch]:
        client, stop = Watch(fleet, name), threading.Event()
        threads = [threading.Thread(target=client.run, args=(host, stop)) for host in HOSTS]
        for thread in threads:
            thread.start()
        try:
            yield client
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert client.refusals == []
        assert all(number >= 5 for number in client.attempts.values()), client.attempts

    return watch
