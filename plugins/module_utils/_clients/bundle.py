# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a client bundle: one archive with the certificate of a client and all that its tools need.

Equal input gives equal bytes: the members are sorted, their time is the start of the certificate's validity, they
belong to nobody, and the header of gzip has neither name nor time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import ipaddress
import json
import re
import shlex
import tarfile
import typing as t
import zlib
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlsplit

from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import (
    endpoints,
    pool,
    scripts,
    snippets,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

FACTS = "bundle.json"
SCHEMA = 1

# Names that buildx takes for a builder and a node (store.ValidateName), in the spelling that it keeps.
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,62}")
_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]*")
# Nothing that a shell, YAML or Groovy reads as more than text.
_ADDRESS = re.compile(r"tcp://(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):[0-9]+")
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_RELEASE = re.compile(r"v?(\d+)\.(\d+)")
# buildkitd offers h2 by ALPN from 0.17 on, and buildctl from 0.19 on insists on it.
_FIRST_WITH_ALPN = (0, 17)
_ALPN_VARIABLE = "GRPC_ENFORCE_ALPN_ENABLED"
_WITHOUT_ALPN = f"{_ALPN_VARIABLE}=false"


@dataclass(frozen=True)
class Daemon:
    """A builder as its clients see it.

    :param member: its name in buildx, its address as tcp://HOST:PORT and its platforms
    :param server_name: the name in its certificate, where that is not the host of its address; else empty
    :param alpn: whether buildctl may insist on ALPN
    :param admits: the groups of clients that may build on it; None for all
    """

    member: pool.Member
    server_name: str
    alpn: bool
    admits: tuple[str, ...] | None = None

    @property
    def address(self) -> str:
        """Where clients dial it."""
        return self.member.endpoint


@dataclass(frozen=True)
class Identity:
    """A client's files and what its certificate says. Without ``key`` the client keeps that itself."""

    name: str
    ca: bytes
    certificate: bytes
    key: bytes | None
    serial: str
    fingerprint: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True)
class Member:
    """A file of the bundle."""

    data: bytes
    mode: int = 0o644


def checked_pool(name: str) -> str:
    """Refuse a name that is no name of a builder in buildx.

    :raises ClientError: with the rule.
    """
    if not _NAME.fullmatch(name) or name == "default":
        raise ClientError(
            f"The pool cannot be named {name!r}: docker buildx names its builder so. Use lower-case letters, digits "
            "and . _ -, with a letter first, and not 'default'."
        )
    return name


def checked_client(name: str) -> str:
    """Refuse a name that is no name of a client, since it becomes a part of paths.

    :raises ClientError: with the rule.
    """
    if not _CLIENT.fullmatch(name):
        raise ClientError(f"{name!r} cannot be the name of a client: use letters, digits and . _ @ + - only.")
    return name


def daemon_of(wish: t.Mapping[str, t.Any]) -> Daemon:
    """Read one item of the option daemons.

    :raises ClientError: when clients could not dial it with a certificate.
    """
    address, name = str(wish["address"]), str(wish["name"])
    if endpoints.check(address) != "tcp":
        raise ClientError(f"The builder {name} is at {address}: a bundle is for builders at tcp://HOST:PORT.")
    if not _ADDRESS.fullmatch(address):
        raise ClientError(f"The address {address!r} of the builder {name} is none: write tcp://HOST:PORT.")
    server_name = str(wish.get("server_name") or "")
    if server_name and not _SERVER_NAME.fullmatch(server_name):
        raise ClientError(f"The server_name {server_name!r} of the builder {name} is no host name or address.")
    admits = wish.get("admits")
    return Daemon(
        member=pool.member(name, address, wish.get("platforms") or []),
        server_name="" if server_name == urlsplit(address).hostname else server_name,
        alpn=_offers_alpn(wish.get("version")),
        admits=None if admits is None else tuple(str(group) for group in admits),
    )


def checked_daemons(daemons: t.Sequence[Daemon]) -> list[Daemon]:
    """Refuse no builder at all, and two that are one to buildx.

    :raises ClientError: naming them.
    """
    if not daemons:
        raise ClientError("There is no builder to tell clients of: list at least one in daemons.")
    pool.nodes([daemon.member for daemon in daemons])
    addresses = [daemon.address for daemon in daemons]
    for address in addresses:
        if addresses.count(address) > 1:
            raise ClientError(f"Two builders are both at {address}: list each once.")
    return list(daemons)


def admitted(daemons: t.Sequence[Daemon], group: str) -> list[Daemon]:
    """The builders that admit a group of clients."""
    return [daemon for daemon in daemons if daemon.admits is None or group in daemon.admits]


def builders_of(name: str, daemons: t.Sequence[Daemon]) -> dict[str, list[Daemon]]:
    """The builders to make in buildx, each with its nodes and the platforms of each in it."""
    known = {daemon.member.node: daemon for daemon in daemons}
    made = pool.builders(name, [daemon.member for daemon in daemons])
    return {
        builder: [replace(known[member.node], member=member) for member in nodes] for builder, nodes in made.items()
    }


def members_of(name: str, identity: Identity, daemons: t.Sequence[Daemon]) -> dict[str, Member]:
    """Every file of a client's bundle, by its path in it."""
    builders = builders_of(name, daemons)
    values = _values(name, identity, daemons, builders)
    executable = {
        "bin/buildctl": scripts.BUILDCTL,
        "setup-buildx.sh": scripts.SETUP_BUILDX,
        "remove-buildx.sh": scripts.REMOVE_BUILDX,
        "verify.sh": scripts.VERIFY,
        "snippets/earthly.sh": scripts.EARTHLY,
        "snippets/compose.sh": scripts.COMPOSE,
    }
    readable = {
        "README.md": snippets.README,
        "env.sh": scripts.ENV,
        "snippets/gitlab-ci.yml": snippets.GITLAB,
        "snippets/Jenkinsfile": snippets.JENKINS,
        "snippets/github-actions.yml": snippets.GITHUB,
    }
    found = {path: Member(scripts.render(text, values).encode(), 0o755) for path, text in executable.items()}
    found.update({path: Member(scripts.render(text, values).encode()) for path, text in readable.items()})
    found["ca.pem"] = Member(identity.ca)
    found["cert.pem"] = Member(identity.certificate)
    sums = {path: hashlib.sha256(member.data).hexdigest() for path, member in sorted(found.items())}
    if identity.key is not None:
        found["key.pem"] = Member(identity.key, 0o600)
    found[FACTS] = Member(_facts(name, identity, daemons, builders, sums))
    return found


def pack(members: t.Mapping[str, Member], *, root: str, moment: datetime) -> bytes:
    """The archive, not yet compressed: everything below the private directory ``root``."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        folders = sorted({root, *(f"{root}/{path.rpartition('/')[0]}" for path in members if "/" in path)})
        for folder in folders:
            archive.addfile(_entry(folder, 0o700, moment, tarfile.DIRTYPE))
        for path, member in sorted(members.items()):
            entry = _entry(f"{root}/{path}", member.mode, moment, tarfile.REGTYPE)
            entry.size = len(member.data)
            archive.addfile(entry, io.BytesIO(member.data))
    return stream.getvalue()


def compress(archive: bytes) -> bytes:
    """The archive as gzip (RFC 1952), with no name and no time in its header."""
    stream = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=stream, mtime=0) as packed:
        packed.write(archive)
    return stream.getvalue()


def decompress(data: bytes) -> bytes | None:
    """The reverse of :func:`compress`; None when it is damaged."""
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return None


def facts_in(archive: bytes | None) -> dict[str, t.Any]:
    """The facts that a bundle states of itself; empty when it states none that can be read."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive or b"")) as opened:
            for entry in opened:
                stream = opened.extractfile(entry) if entry.name.endswith(f"/{FACTS}") else None
                if stream is not None:
                    found = json.loads(stream.read())
                    return found if isinstance(found, dict) else {}
    except (tarfile.TarError, ValueError):
        pass
    return {}


def differences(before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any]) -> list[str]:
    """Why a bundle is made again, judged by the facts of both."""
    if not before:
        return ["there was none that can be read"]
    reasons = []
    if before.get("serial") != after["serial"]:
        reasons.append(f"the certificate is another one (serial {after['serial']}, until {after['not_after']})")
    old, new = before.get("sha256", {}), after["sha256"]
    if old.get("ca.pem") != new["ca.pem"]:
        reasons.append("ca.pem changed")
    if before.get("builders") != after["builders"]:
        reasons.append("the builders changed")
    if before.get("key") != after["key"]:
        reasons.append("it has a key now" if after["key"] else "it has no key any more")
    return reasons or ["its scripts or texts changed"]


def _entry(name: str, mode: int, moment: datetime, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, int(moment.timestamp())
    return entry


def _offers_alpn(version: t.Any) -> bool:
    match = _RELEASE.match(str(version or ""))
    return match is None or (int(match.group(1)), int(match.group(2))) >= _FIRST_WITH_ALPN


def _verified(daemon: Daemon) -> str:
    """The name or address that the daemon's certificate must have."""
    return daemon.server_name or t.cast(str, urlsplit(daemon.address).hostname)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _facts(
    name: str,
    identity: Identity,
    daemons: t.Sequence[Daemon],
    builders: t.Mapping[str, t.Sequence[Daemon]],
    sums: t.Mapping[str, str],
) -> bytes:
    shown = {
        "schema": SCHEMA,
        "pool": name,
        "client": identity.name,
        "serial": identity.serial,
        "fingerprint": identity.fingerprint,
        "not_before": utc(identity.not_before),
        "not_after": utc(identity.not_after),
        "key": identity.key is not None,
        "daemons": [
            {"address": one.address, "platforms": list(one.member.platforms), "server_name": _verified(one)}
            for one in daemons
        ],
        "builders": {
            builder: [
                {"node": one.member.node, "address": one.address, "platforms": list(one.member.platforms)}
                for one in nodes
            ]
            for builder, nodes in builders.items()
        },
        "sha256": dict(sums),
    }
    return (json.dumps(shown, indent=2) + "\n").encode()


def utc(moment: datetime) -> str:
    """A moment in UTC as ISO 8601 to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _values(
    name: str, identity: Identity, daemons: t.Sequence[Daemon], builders: t.Mapping[str, t.Sequence[Daemon]]
) -> dict[str, str]:
    """What the templates say of this pool and client."""
    first = daemons[0]
    own_key = "`key.pem` is secret: whoever has it can build there as root. Keep its mode at 0600."
    if identity.key is None:
        own_key = "Your private key is not in here: put it beside this file as `key.pem`, mode 0600."
    several = (
        "\nEach platform is built on one node of that builder; the others are builders of their own. docker buildx\n"
        "shares nothing out: choose one for each repository, and its cache stays warm.\n"
    )
    return {
        "POOL": name,
        "CLIENT": identity.name,
        "BUILDER": name,
        "BUILDERS": " ".join(builders),
        "NOT_AFTER": utc(identity.not_after),
        "FIRST": first.address,
        "FIRST_WORD": shlex.quote(first.address),
        "ALL": shlex.quote(" ".join(daemon.address for daemon in daemons)),
        "CREDENTIAL": f"{name}-{identity.name}",
        "SERVER_NAME": f" --tlsservername {first.server_name}" if first.server_name else "",
        "CASES": "\n".join(_case(daemon) for daemon in daemons),
        "CHECKS": "\n".join(_check(daemon) for daemon in daemons),
        "NODES": "\n".join(_setup(builder, nodes) for builder, nodes in builders.items()),
        "GITHUB_NODES": _github_nodes(builders[name]),
        "GITHUB_SECRETS": "\n".join(_github_secrets(number) for number in range(len(builders[name]))),
        "GITLAB_ALPN": "" if first.alpn else f'    {_ALPN_VARIABLE}: "false"\n',
        "JENKINS_ALPN": "" if first.alpn else f"{_WITHOUT_ALPN} ",
        "DAEMONS": "\n".join(_line(daemon) for daemon in daemons),
        "KEY": own_key,
        "SEVERAL": several if len(builders) > 1 else "",
        "ALPN_NOTE": _alpn_note([daemon for daemon in daemons if not daemon.alpn]),
    }


def _case(daemon: Daemon) -> str:
    steps = []
    if daemon.server_name:
        steps.append(f"server_name={daemon.server_name}")
    if not daemon.alpn:
        steps.append(f"export {_WITHOUT_ALPN}")
    return f"    {shlex.quote(daemon.address)}) {'; '.join(steps) or ':'} ;;"


def _check(daemon: Daemon) -> str:
    parts = urlsplit(daemon.address)
    name = _verified(daemon)
    words = [daemon.address, parts.netloc, "ip" if _is_address(name) else "dns", name]
    return "check " + " ".join(shlex.quote(word) for word in words)


def _setup(builder: str, nodes: t.Sequence[Daemon]) -> str:
    lines = [
        "node "
        + " ".join(
            shlex.quote(word)
            for word in (
                builder,
                daemon.member.node,
                ",".join(daemon.member.platforms),
                daemon.address,
                daemon.server_name,
            )
        )
        for daemon in nodes
    ]
    shown = [f"{one.member.node} {one.address} {'+' if one.member.platforms else '-'}" for one in nodes]
    return "\n".join([f"builder {builder} " + " ".join(shlex.quote(text) for text in shown), *lines])


def _github_nodes(nodes: t.Sequence[Daemon]) -> str:
    """The inputs of docker/setup-buildx-action that say where the nodes are (its README, "append")."""
    first, *others = nodes
    lines = [f'endpoint: "{first.address}"']
    if first.member.platforms:
        lines.append(f"platforms: {','.join(first.member.platforms)}")
    if first.server_name:
        lines.append(f"driver-opts: servername={first.server_name}")
    if others:
        lines.append("append: |")
    for node in others:
        lines += [f"  - name: {node.member.node}", f'    endpoint: "{node.address}"']
        if node.member.platforms:
            lines.append(f"    platforms: {','.join(node.member.platforms)}")
        if node.server_name:
            lines += ["    driver-opts:", f"      - servername={node.server_name}"]
    return "\n".join(f"          {line}" for line in lines)


def _github_secrets(number: int) -> str:
    files = {"CACERT": "CA", "CERT": "CERT", "KEY": "KEY"}
    return "\n".join(
        f"          BUILDER_NODE_{number}_AUTH_TLS_{name}: ${{{{ secrets.BUILDKIT_{secret} }}}}"
        for name, secret in files.items()
    )


def _line(daemon: Daemon) -> str:
    notes = [", ".join(daemon.member.platforms)] if daemon.member.platforms else []
    if daemon.server_name:
        notes.append(f"its certificate says {daemon.server_name}")
    return f"- `{daemon.address}`" + (f" ({'; '.join(notes)})" if notes else "")


def _alpn_note(daemons: t.Sequence[Daemon]) -> str:
    if not daemons:
        return ""
    return (
        f"- {', '.join(daemon.address for daemon in daemons)} is older than BuildKit 0.17: a newer buildctl needs\n"
        f"  `{_WITHOUT_ALPN}` in its environment. `bin/buildctl` sees to it.\n"
    )
