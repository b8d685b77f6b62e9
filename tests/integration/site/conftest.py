# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for whole runs of the collection's playbooks, with a real BuildKit as a plain process."""

from __future__ import annotations

import secrets
import sys
import typing as t
from pathlib import Path

import pytest

# Under pytest's importlib mode the directory of a test is not searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fleet import Builder, Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> t.Iterator[Fleet]:
    """One host on which nothing was done yet."""
    virgin = Fleet(tmp_path)
    yield virgin
    virgin.clear()


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Builder]:
    """The builder that tests share; those that change it put it right again, but the last one, which removes it."""
    fleet = Fleet(tmp_path_factory.mktemp("site"))
    fleet.variables["buildkit_pki_ca_passphrase"] = secrets.token_urlsafe()
    try:
        prediction = fleet.play("site", "--check", "--diff")
        left = list(fleet.state())
        first = fleet.play("site")
        assert first.code == 0, first.output
        yield Builder(fleet, prediction, left, first)
    finally:
        fleet.clear()
