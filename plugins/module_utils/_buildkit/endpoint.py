# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a daemon listens, spelled as buildctl spells it.

C(ssh://), C(docker-container://) and C(podman-container://) are reached through a program whose standard input and
output are the connection. Which one, with which arguments, is the same as in BuildKit (client/connhelper), so that the
same configuration of ssh, Docker and Podman decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable
from urllib.parse import parse_qsl, unquote, urlsplit

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError

DEFAULT_PORT = 1234

# What a unix socket address can hold on Linux, without the final NUL (unix(7), sun_path).
_MAX_SOCKET_PATH = 107

# Names of containers and of contexts as Docker and Podman allow them. None begins like an option.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
# What ssh may be given as a user and as a host: nothing that it reads as an option or passes to a shell (ProxyCommand).
_USER = re.compile(r"\w[\w.@+-]*")
_HOST = re.compile(r"[\w:][\w.:%-]*")
# ssh hands its arguments to a shell on the other side, so a path may hold nothing that a shell could act on.
_REMOTE_PATH = re.compile(r"/[A-Za-z0-9_./@%+=:,-]*")

_SSH = "write ssh://HOST, ssh://USER@HOST:PORT or ssh://USER@HOST:PORT/path/to/buildkitd.sock"
_CONTAINER = "write docker-container://NAME, docker-container://NAME?context=CONTEXT or podman-container://NAME"


@dataclass(frozen=True)
class Endpoint:
    """A place to connect to: C(host) and C(port), or C(path), or C(command).

    :param address: the address as it was given
    :param host: name, IPv4 or IPv6 address without brackets; empty if it is not TCP
    :param path: absolute path of a unix socket; else empty
    :param command: the program and its arguments whose standard input and output lead to the daemon; else empty
    """

    address: str
    host: str = ""
    port: int = 0
    path: str = ""
    command: tuple[str, ...] = ()

    @property
    def is_tcp(self) -> bool:
        """Whether it is TCP, the one transport on which buildkitd speaks TLS and strangers can come."""
        return bool(self.host)

    def __str__(self) -> str:
        return self.address


def parse(address: str) -> Endpoint:
    """Read an address.

    :raises InputError: not an address, or one that we cannot reach
    """
    scheme, separator, rest = address.partition("://")
    if not separator or scheme not in _READERS:
        raise InputError(
            f"Address {address!r} has no scheme that is known here: use one of {', '.join(SCHEMES)},"
            " such as tcp://builder.example.com:1234 or unix:///run/buildkit/buildkitd.sock"
        )
    return _READERS[scheme](address, rest)


def _parse_unix(address: str, path: str) -> Endpoint:
    if not path.startswith("/"):
        raise InputError(f"Address {address!r} has no absolute path: write unix:///run/buildkit/buildkitd.sock")
    if len(path.encode()) > _MAX_SOCKET_PATH:
        raise InputError(f"Address {address!r} is too long for a unix socket: {_MAX_SOCKET_PATH} bytes are the limit")
    return Endpoint(address, path=path)


def _parse_tcp(address: str, _rest: str) -> Endpoint:
    example = "write tcp://HOST:PORT or tcp://[IPV6]:PORT"
    host, port = _host_and_port(address, example)
    parts = urlsplit(address)
    if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise InputError(f"Address {address!r} has more than a host and a port: write tcp://HOST:PORT")
    return Endpoint(address, host=host, port=DEFAULT_PORT if port is None else port)


def _parse_ssh(address: str, _rest: str) -> Endpoint:
    host, port = _host_and_port(address, _SSH)
    parts = urlsplit(address)
    user, path = unquote(parts.username or ""), unquote(parts.path)
    if parts.password is not None:
        raise InputError(
            f"The address of {host} has a password, which ssh does not take from there: use a key, and {_SSH}"
        )
    if parts.query or parts.fragment:
        raise InputError(f"Address {address!r} has more than user, host, port and path: {_SSH}")
    if parts.username is not None and not _USER.fullmatch(user):
        raise InputError(f"Address {address!r} has the user {user!r}, which ssh would misread: {_SSH}")
    if not _HOST.fullmatch(host):
        raise InputError(f"Address {address!r} has the host {host!r}, which ssh would misread: {_SSH}")
    command = ["ssh"]
    command += ["-l", user] if user else []
    command += ["-p", str(port)] if port else []
    command += ["--", host, "buildctl"]
    if path.strip("/"):
        if not _REMOTE_PATH.fullmatch(path):
            raise InputError(
                f"Address {address!r} has the path {path!r}, which the shell over there would misread: use letters,"
                " digits and ._-@%+=:, alone"
            )
        command += ["--addr", f"unix://{path}"]
    return Endpoint(address, command=(*command, "dial-stdio"))


def _parse_docker(address: str, rest: str) -> Endpoint:
    name, query = _container(address, rest)
    unknown = sorted(set(query) - {"context"})
    if unknown:
        raise InputError(f"Address {address!r} has the parameter {unknown[0]!r}, which is unknown: {_CONTAINER}")
    context = query.get("context", "")
    if context and not _NAME.fullmatch(context):
        raise InputError(f"Address {address!r} has {context!r}, which cannot be the name of a context: {_CONTAINER}")
    options = (f"--context={context}",) if context else ()
    return Endpoint(address, command=("docker", *options, "exec", "-i", name, "buildctl", "dial-stdio"))


def _parse_podman(address: str, rest: str) -> Endpoint:
    name, query = _container(address, rest)
    if query:
        raise InputError(f"Address {address!r} has parameters, and there are none with Podman: {_CONTAINER}")
    return Endpoint(address, command=("podman", "exec", "-i", name, "buildctl", "dial-stdio"))


def _container(address: str, rest: str) -> tuple[str, dict[str, str]]:
    name, separator, query = rest.partition("?")
    if not _NAME.fullmatch(name):
        raise InputError(f"Address {address!r} has {name!r}, which cannot be the name of a container: {_CONTAINER}")
    try:
        return name, dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(separator)))
    except ValueError:
        raise InputError(f"Address {address!r} has parameters that cannot be read: {_CONTAINER}") from None


def _host_and_port(address: str, example: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError(f"Address {address!r} cannot be read ({error}): {example}") from None
    if not host or any(character.isspace() for character in address):
        raise InputError(f"Address {address!r} names no host: {example}")
    if port == 0:
        raise InputError(f"Address {address!r} has port 0: use a port from 1 to 65535")
    # As it was given: urlsplit makes it lower case, and ssh tells hosts in its configuration apart by case.
    given = parts.netloc.rpartition("@")[2]
    start = given.lower().find(host)
    return given[start : start + len(host)], port


_READERS: dict[str, Callable[[str, str], Endpoint]] = {
    "tcp": _parse_tcp,
    "unix": _parse_unix,
    "ssh": _parse_ssh,
    "docker-container": _parse_docker,
    "podman-container": _parse_podman,
}

SCHEMES = tuple(f"{scheme}://" for scheme in _READERS)
