# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts of certificates."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import certificate
from cryptography import x509

from .conftest import NOW


def test_facts_are_returned(make: Callable[..., Any]) -> None:
    """Names, dates in UTC, days left and names are as people read them."""
    sans = (x509.DNSName("builder.example.com"), x509.IPAddress(ipaddress.ip_address("2001:db8::1")))
    found = certificate.from_file(make("builder", sans=sans).cert)
    assert found is not None
    facts = found.as_dict(NOW)
    assert len(facts.pop("fingerprint")) == 64
    assert facts == {
        "subject": "CN=builder",
        "issuer": "CN=builder",
        "sans": ["DNS:builder.example.com", "IP:2001:db8::1"],
        "not_before": "2026-11-11T09:30:00Z",
        "not_after": "2026-12-11T10:30:00Z",
        "days_left": 20,
    }
    assert found.validity == "valid from 2026-11-11T09:30:00Z to 2026-12-11T10:30:00Z"


def test_days_left_are_negative_once_it_expired(make: Callable[..., Any]) -> None:
    """Expiry is not rounded away."""
    found = certificate.from_file(make("builder").cert)
    assert found is not None
    assert found.sans == ()
    assert found.days_left(NOW + timedelta(days=20, hours=2)) == -1


def test_what_is_no_certificate_has_no_facts(tmp_path: Path) -> None:
    """A file that is missing or is something else gives nothing, since it is only asked for more detail."""
    (tmp_path / "text").write_text("text", encoding="ascii")
    assert certificate.from_file(str(tmp_path / "text")) is None
    assert certificate.from_file(str(tmp_path / "missing")) is None
