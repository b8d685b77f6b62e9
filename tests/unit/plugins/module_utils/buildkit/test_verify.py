# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused before a daemon is contacted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import verify
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import Platform
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError

TCP = "tcp://192.0.2.10:1234"


def refused(daemon: verify.Daemon, **settings: Any) -> str:
    """The message with which a wish is refused."""
    with pytest.raises(InputError) as caught:
        verify.verify([daemon], verify.Proof(**settings))
    return str(caught.value)


@pytest.mark.parametrize("name", ["connect_timeout", "build_timeout"])
@pytest.mark.parametrize("value", [0.0, -1.0, 1e8, float("inf"), float("nan")])
def test_limits_must_be_limits(name: str, value: float) -> None:
    """Zero, negative and endless times, and those that gRPC cannot say, are refused by the name of their option."""
    assert name in refused(verify.Daemon(TCP), **{name: value})


def test_no_daemon_is_no_proof() -> None:
    """An empty fleet, as from a group without hosts, is refused rather than proved."""
    with pytest.raises(InputError, match="at least one address"):
        verify.verify([], verify.Proof())


def test_unknown_scheme_is_refused() -> None:
    """An address that cannot be reached is refused with those that can."""
    assert "unix://" in refused(verify.Daemon("https://builder.example.com"))


def test_certificate_without_key_and_key_without_certificate(make: Callable[..., Any]) -> None:
    """One of the two files is refused."""
    files = make("client")
    assert "go together" in refused(verify.Daemon(TCP, files.cert, client_cert=files.cert))
    assert "go together" in refused(verify.Daemon(TCP, files.cert, client_key=files.key))


def test_credentials_without_ca(make: Callable[..., Any]) -> None:
    """A client certificate is shown to nobody whose own certificate is not checked."""
    files = make("client")
    assert "ca_path is missing" in refused(verify.Daemon(TCP, client_cert=files.cert, client_key=files.key))
    assert "ca_path is missing" in refused(verify.Daemon(TCP, tls_hostname="builder.example.com"))


def test_missing_ca_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is named."""
    assert f"{tmp_path}/ca.pem cannot be read" in refused(verify.Daemon(TCP, f"{tmp_path}/ca.pem"))


def test_one_bad_wish_stops_all_before_any_is_contacted(tmp_path: Path) -> None:
    """A fleet with a wish that cannot be meant is not half proved."""
    socket = tmp_path / "nobody.sock"
    with pytest.raises(InputError):
        verify.verify([verify.Daemon(f"unix://{socket}"), verify.Daemon("tcp://")], verify.Proof())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concurrency": 0}, "concurrency is 0"),
        ({"certificate_days": -1}, "certificate_days is -1"),
        ({"min_version": "newest"}, "min_version is 'newest'"),
        ({"min_version": "0.0.0+unknown"}, "min_version is '0.0.0+unknown'"),
        ({"platforms": (Platform("linux", "arm64"),), "builds": ("dockerfile",)}, "add it to builds"),
    ],
)
def test_wishes_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    """Each is refused by the name of its option, with what to give."""
    assert message in refused(verify.Daemon(TCP), **settings)
