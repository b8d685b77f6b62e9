# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a daemon listens, spelled as buildctl spells it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError

DEFAULT_PORT = 1234

# What a unix socket address can hold on Linux, without the final NUL (unix(7), sun_path).
_MAX_SOCKET_PATH = 107

SCHEMES = ("tcp://", "unix://")


@dataclass(frozen=True)
class Endpoint:
    """A place to connect to: either C(path), or C(host) and C(port).

    :param address: the address as it was given
    :param host: name, IPv4 or IPv6 address without brackets; empty for a unix socket
    :param path: absolute path of a unix socket; empty for TCP
    """

    address: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it is a unix socket, on which buildkitd never speaks TLS."""
        return bool(self.path)

    def __str__(self) -> str:
        return self.address


def parse(address: str) -> Endpoint:
    """Read an address.

    :raises InputError: not an address, or one that we cannot reach
    """
    scheme, separator, rest = address.partition("://")
    if not separator or scheme not in ("tcp", "unix"):
        raise InputError(
            f"Address {address!r} has no scheme that is known here: use one of {', '.join(SCHEMES)},"
            " such as tcp://builder.example.com:1234 or unix:///run/buildkit/buildkitd.sock"
        )
    return _parse_unix(address, rest) if scheme == "unix" else _parse_tcp(address)


def _parse_unix(address: str, path: str) -> Endpoint:
    if not path.startswith("/"):
        raise InputError(f"Address {address!r} has no absolute path: write unix:///run/buildkit/buildkitd.sock")
    if len(path.encode()) > _MAX_SOCKET_PATH:
        raise InputError(f"Address {address!r} is too long for a unix socket: {_MAX_SOCKET_PATH} bytes are the limit")
    return Endpoint(address, path=path)


def _parse_tcp(address: str) -> Endpoint:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError(
            f"Address {address!r} cannot be read ({error}): write tcp://HOST:PORT or tcp://[IPV6]:PORT"
        ) from None
    if not host or any(character.isspace() for character in address):
        raise InputError(f"Address {address!r} names no host: write tcp://HOST:PORT or tcp://[IPV6]:PORT")
    if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise InputError(f"Address {address!r} has more than a host and a port: write tcp://HOST:PORT")
    if port == 0:
        raise InputError(f"Address {address!r} has port 0: use a port from 1 to 65535")
    return Endpoint(address, host=host, port=DEFAULT_PORT if port is None else port)
