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
    assert found.is_tcp
    assert str(found) == address


def test_unix_addresses_are_read() -> None:
    """A unix socket has a path and nothing else."""
    found = endpoint.parse("unix:///run/buildkit/buildkitd.sock")
    assert (found.host, found.port, found.path) == ("", 0, "/run/buildkit/buildkitd.sock")
    assert not found.is_tcp


BUILDCTL = ("buildctl", "dial-stdio")


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("ssh://builder", ("ssh", "--", "builder", *BUILDCTL)),
        ("ssh://Builder", ("ssh", "--", "Builder", *BUILDCTL)),
        ("ssh://alice@builder.example.com", ("ssh", "-l", "alice", "--", "builder.example.com", *BUILDCTL)),
        ("ssh://alice@builder:2222", ("ssh", "-l", "alice", "-p", "2222", "--", "builder", *BUILDCTL)),
        ("ssh://alice%40example.com@builder", ("ssh", "-l", "alice@example.com", "--", "builder", *BUILDCTL)),
        ("ssh://alice@[2001:db8::1]:22/", ("ssh", "-l", "alice", "-p", "22", "--", "2001:db8::1", *BUILDCTL)),
        (
            "ssh://builder/run/buildkit/buildkitd.sock",
            ("ssh", "--", "builder", "buildctl", "--addr", "unix:///run/buildkit/buildkitd.sock", "dial-stdio"),
        ),
        ("docker-container://Build_1", ("docker", "exec", "-i", "Build_1", *BUILDCTL)),
        ("docker-container://b?context=far", ("docker", "--context=far", "exec", "-i", "b", *BUILDCTL)),
        ("podman-container://builder.1", ("podman", "exec", "-i", "builder.1", *BUILDCTL)),
    ],
)
def test_addresses_behind_a_program_are_read(address: str, command: tuple[str, ...]) -> None:
    """They give the command that buildctl runs for them, the case of each name as it was given."""
    found = endpoint.parse(address)
    assert found.command == command
    assert (found.host, found.path, found.is_tcp) == ("", "", False)


@pytest.mark.parametrize("address", ["http://builder:1234", "builder:1234", "/run/buildkitd.sock", "", "docker://x"])
def test_unknown_schemes_are_refused(address: str) -> None:
    """An address with another scheme, or none, is refused with the schemes that are known."""
    known = r"tcp://, unix://, ssh://, docker-container://, podman-container://"
    with pytest.raises(InputError, match=known) as caught:
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
        ("ssh://", "names no host"),
        ("ssh://alice@", "names no host"),
        ("ssh://@builder", "the user '', which ssh would misread"),
        ("ssh://-oProxyCommand=id@builder", "the user '-oProxyCommand=id', which ssh would misread"),
        ("ssh://%2doProxyCommand@builder", "the user '-oProxyCommand', which ssh would misread"),
        ("ssh://-oProxyCommand=id", "the host '-oProxyCommand=id', which ssh would misread"),
        ("ssh://a%0ab@builder", "which ssh would misread"),
        ("ssh://$(id)", "which ssh would misread"),
        ("ssh://builder:0", "port 0"),
        ("ssh://builder:x", "cannot be read"),
        ("ssh://builder?x=1", "more than user, host, port and path"),
        ("ssh://builder#x", "more than user, host, port and path"),
        ("ssh://builder/run/a;id", "the shell over there would misread"),
        ("ssh://builder/run/a%20b", "the shell over there would misread"),
        ("ssh://builder/$HOME/x", "the shell over there would misread"),
        ("docker-container://", "cannot be the name of a container"),
        ("docker-container://-v", "cannot be the name of a container"),
        ("docker-container://--privileged", "cannot be the name of a container"),
        ("docker-container://name:1234", "cannot be the name of a container"),
        ("docker-container://name/run/x.sock", "cannot be the name of a container"),
        ("docker-container://name?context=-H", "cannot be the name of a context"),
        ("docker-container://name?namespace=x", "the parameter 'namespace', which is unknown"),
        ("docker-container://name?context", "parameters that cannot be read"),
        ("podman-container://-l", "cannot be the name of a container"),
        ("podman-container://name?context=x", "there are none with Podman"),
    ],
)
def test_malformed_addresses_are_refused(address: str, reason: str) -> None:
    """An address that cannot be meant is refused with the reason, and not guessed at."""
    with pytest.raises(InputError, match=reason):
        endpoint.parse(address)


def test_a_password_is_refused_and_not_repeated() -> None:
    """ssh takes no password from an address, and one in it must not end up in a log."""
    with pytest.raises(InputError, match="has a password") as caught:
        endpoint.parse("ssh://alice:hunter2@builder")
    assert "hunter2" not in str(caught.value)
