# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the suites that run against real daemons."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Iterator

import pytest

# Under pytest's importlib mode the directory of a test is not searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import daemon as daemons
from certificates import CLIENT, SERVER, Authority, Pair
from daemon import Daemon

NAMES = ("builder.example.com", "localhost", "127.0.0.1")


@pytest.fixture(scope="session", params=daemons.GENERATIONS)
def bin_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a generation of BuildKit; whatever uses it runs with both."""
    return daemons.unpack(request.param, tmp_path_factory.mktemp(f"buildkit-{request.param}"))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of the builders and of their clients."""
    return Authority(tmp_path_factory.mktemp("authority"), "Builders CA")


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("other-authority"), "Other CA")


@pytest.fixture(scope="session")
def server(authority: Authority) -> Pair:
    """A good certificate of a daemon."""
    return authority.issue("server", SERVER, sans=NAMES)


@pytest.fixture(scope="session")
def client(authority: Authority) -> Pair:
    """A good certificate of a client."""
    return authority.issue("client", CLIENT)


@pytest.fixture(scope="session")
def mtls(
    bin_dir: Path, server: Pair, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """A daemon as it should be."""
    with daemons.run(bin_dir, tmp_path_factory.mktemp("mtls"), pair=server, ca=authority.path) as running:
        yield running


@pytest.fixture(scope="session")
def without_ca(bin_dir: Path, server: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with TLS whose C(ca) was left out: it takes any client."""
    with daemons.run(bin_dir, tmp_path_factory.mktemp("without-ca"), pair=server) as running:
        yield running


@pytest.fixture(scope="session")
def plaintext(bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon without TLS."""
    with daemons.run(bin_dir, tmp_path_factory.mktemp("plaintext")) as running:
        yield running
