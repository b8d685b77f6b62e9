# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The endpoints that buildx's remote driver takes (buildx: driver/remote/util/endpoint.go)."""

from __future__ import annotations

import ipaddress
import typing as t
from urllib.parse import SplitResult, urlsplit

from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

SCHEMES = ("tcp", "unix", "ssh", "docker-container", "kube-pod")
_NOT_OF_BUILDX = {
    "podman-container": "let docker-container:// find Podman's socket with DOCKER_HOST, or use ssh://",
    "nerdctl-container": "use ssh:// or a forwarded unix socket",
    "npipe": "it is for Windows",
}


def check(endpoint: str) -> str:
    """Refuse an endpoint that buildx would refuse or could never dial; return its scheme.

    :raises ClientError: with the reason.
    """
    scheme, separator, rest = endpoint.partition("://")
    if scheme in _NOT_OF_BUILDX:
        raise ClientError(f"The endpoint {endpoint} is none that buildx's remote driver has: {_NOT_OF_BUILDX[scheme]}.")
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise ClientError(
            f"The endpoint {endpoint!r} has no scheme that buildx's remote driver takes: use one of {known}."
        )
    if any(character.isspace() for character in endpoint):
        raise ClientError(f"The endpoint {endpoint!r} has a space in it.")
    user, at, place = rest.partition("/")[0].rpartition("@")
    if at and ":" in user:
        raise ClientError(
            f"The endpoint at {place} has a password, which buildx does not take. Use a key or a certificate."
        )
    try:
        parts = urlsplit(endpoint)
        port = parts.port if scheme in ("tcp", "ssh") else None
    except ValueError as error:
        raise ClientError(f"The endpoint {endpoint} cannot be read: {error}.") from None
    _CHECKS[scheme](endpoint, rest, parts, port)
    return scheme


def is_loopback(endpoint: str) -> bool:
    """Whether a tcp endpoint is this very machine, as far as its spelling tells."""
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tcp(endpoint: str, _rest: str, parts: SplitResult, port: t.Optional[int]) -> None:
    if not parts.hostname or not port:
        raise ClientError(f"The endpoint {endpoint} needs a host and a port, such as tcp://builder.example.com:1234.")
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        raise ClientError(f"The endpoint {endpoint} has more than a host and a port.")


def _unix(endpoint: str, rest: str, _parts: SplitResult, _port: t.Optional[int]) -> None:
    if not rest.startswith("/"):
        raise ClientError(f"The endpoint {endpoint} has no absolute path, such as unix:///run/buildkit/buildkitd.sock.")


def _ssh(endpoint: str, _rest: str, parts: SplitResult, _port: t.Optional[int]) -> None:
    if not parts.hostname:
        raise ClientError(f"The endpoint {endpoint} names no host, such as ssh://user@builder.example.com.")
    if parts.query or parts.fragment:
        raise ClientError(f"The endpoint {endpoint} has more than user, host, port and the path of a socket.")


def _container(endpoint: str, rest: str, _parts: SplitResult, _port: t.Optional[int]) -> None:
    if not rest.partition("?")[0]:
        raise ClientError(f"The endpoint {endpoint} names nothing, such as docker-container://buildkitd.")


_CHECKS: t.Dict[str, t.Callable[[str, str, SplitResult, t.Optional[int]], None]] = {
    "tcp": _tcp,
    "unix": _unix,
    "ssh": _ssh,
    "docker-container": _container,
    "kube-pod": _container,
}
