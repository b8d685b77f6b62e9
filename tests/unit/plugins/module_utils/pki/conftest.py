# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the PKI share: a fixed clock, wishes with the module's defaults, and one run."""

from __future__ import annotations

import typing as t
from datetime import datetime, timezone
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import fleet

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=timezone.utc)


@pytest.fixture
def now() -> datetime:
    """The moment at which the tests happen."""
    return NOW


@pytest.fixture
def wish() -> t.Callable[..., dict[str, t.Any]]:
    """A function that gives the options of buildkit_pki, with the module's defaults for what is left out."""

    def options(path: Path | str = "/srv/pki", **wanted: t.Any) -> dict[str, t.Any]:
        ca = {
            "common_name": "BuildKit CA",
            "valid_for": "3650d",
            "renew_before": None,
            "key_type": "ecdsa-p256",
            "max_age": None,
            "passphrase": None,
            "previous_passphrase": None,
            "import_certificate": None,
            "import_key": None,
            "import_passphrase": None,
            **wanted.pop("ca", {}),
        }
        nothing = {"dns": [], "ip": [], "csr": None, "trusts": [], "admits": None}
        daemons = [{**nothing, **daemon} for daemon in wanted.pop("daemons", [])]
        clients = [
            {"group": "default", "csr": None, **({"name": client} if isinstance(client, str) else client)}
            for client in wanted.pop("clients", [])
        ]
        rollover = wanted.pop("rollover", None)
        if rollover is not None:
            no_step: dict[str, t.Any] = {
                "phase": None,
                "authority": "default",
                "given": [],
                "given_in": None,
                "accept_missing": False,
            }
            rollover = {**no_step, **rollover}
        return {
            "path": str(path),
            "ca": ca,
            "daemons": daemons,
            "clients": clients,
            "rollover": rollover,
            "trust": "ca",
            "daemon_ca": "default",
            "revoke": [],
            "accept_missing": False,
            "shared_names": [],
            "valid_for": "90d",
            "renew_before": None,
            "key_type": "ecdsa-p256",
            "lock_timeout": 120.0,
            **wanted,
        }

    return options


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """Where the PKI directory is going to be."""
    return tmp_path / "pki"


@pytest.fixture
def run(pki: Path, wish: t.Callable[..., dict[str, t.Any]]) -> t.Callable[..., dict[str, t.Any]]:
    """A function that runs the fleet in :func:`pki` at a given time, for real or as a prediction."""

    def once(*, at: datetime = NOW, predict: bool = False, **wanted: t.Any) -> dict[str, t.Any]:
        return fleet.run(wish(pki, **wanted), now=at, predict=predict)

    return once
