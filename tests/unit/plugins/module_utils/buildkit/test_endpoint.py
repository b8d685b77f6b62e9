# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses: spelled as buildctl spells them, or refused with what to write instead."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import endpoint
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("tcp://builder.example.com:1234", "builder.example.com", 1234),
        ("tcp://builder.example.com", "builder.example.com", 1234),
        ("tcp://192.0.2.10:8372", "192.0.2.10", 8372),
        ("tcp://[2001:db8::1]:1234", "2001:db8::1", 1234),
        ("tcp://[::1]", "::1", 1234),
        ("tcp://builder:1/", "builder", 1),
    ],
)
def test_tcp_addresses_are_read(address: str, host: str, port: int) -> None:
    """Host and port are found, in IPv6 without the brackets, and the port is 1234 if none is named."""
    found = endpoint.parse(address)
    assert (found.host, found.port, found.path) == (host, port, "")
    assert not found.is_local
    assert str(found) == address


def test_unix_addresses_are_read() -> None:
    """A unix socket has a path and nothing else."""
    found = endpoint.parse("unix:///run/buildkit/buildkitd.sock")
    assert (found.host, found.port, found.path) == ("", 0, "/run/buildkit/buildkitd.sock")
    assert found.is_local


@pytest.mark.parametrize("address", ["http://builder:1234", "builder:1234", "/run/buildkitd.sock", "", "docker://x"])
def test_unknown_schemes_are_refused(address: str) -> None:
    """An address with another scheme, or none, is refused with the schemes that are known."""
    with pytest.raises(InputError, match=r"tcp://, unix://") as caught:
        endpoint.parse(address)
    assert repr(address) in str(caught.value)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tcp://", "names no host"),
        ("tcp://:1234", "names no host"),
        ("tcp://a b:1234", "names no host"),
        ("tcp://builder:0", "port 0"),
        ("tcp://builder:65536", "cannot be read"),
        ("tcp://builder:port", "cannot be read"),
        ("tcp://2001:db8::1:1234", "cannot be read"),
        ("tcp://[2001:db8::1", "cannot be read"),
        ("tcp://user@builder:1234", "more than a host and a port"),
        ("tcp://builder:1234/path", "more than a host and a port"),
        ("tcp://builder:1234?x=1", "more than a host and a port"),
        ("unix://run/buildkitd.sock", "no absolute path"),
        ("unix://", "no absolute path"),
        ("unix:///" + "x" * 107, "too long"),
    ],
)
def test_malformed_addresses_are_refused(address: str, reason: str) -> None:
    """An address that cannot be meant is refused with the reason, and not guessed at."""
    with pytest.raises(InputError, match=reason):
        endpoint.parse(address)
