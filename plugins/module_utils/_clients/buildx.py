# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A builder of docker buildx as a wish, and as what buildx stores.

The format is that of buildx 0.13 to 0.36 (store/nodegroup.go). Everything here is pure: bytes and dictionaries in,
dictionaries out.
"""

from __future__ import annotations

import json
import os
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import endpoints, platforms
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

DRIVER = "remote"
# The first buildx whose remote driver knows the option default-load; an older one refuses the whole builder.
DEFAULT_LOAD_SINCE = (0, 14)

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9._-]*")  # store/util.go
_TLS = ("cacert", "cert", "key", "servername")
_PATHS = ("cacert", "cert", "key")
_DEFAULT_LOAD = "default-load"

Stored = t.Dict[str, t.Any]


@dataclass(frozen=True)
class Node:
    """One node as it shall be.

    ``platforms`` is None where they shall stay as they are; ``tls`` holds the driver options of TLS that shall be set.
    """

    name: str
    endpoint: str
    platforms: t.Optional[t.Tuple[str, ...]]
    tls: t.Mapping[str, str]


@dataclass(frozen=True)
class Wish:
    """A builder as it shall be; ``default_load`` is None where it shall stay as it is."""

    name: str
    nodes: t.Tuple[Node, ...]
    default_load: t.Optional[bool] = None

    @property
    def files(self) -> t.List[str]:
        """The files that the nodes name, each once."""
        return list(dict.fromkeys(node.tls[key] for node in self.nodes for key in _PATHS if key in node.tls))


def check_name(name: str) -> str:
    """Refuse a name that buildx would not take; return the one that its file has.

    :raises ClientError: with the reason.
    """
    if not _NAME.fullmatch(name):
        raise ClientError(
            f"The builder cannot be named {name!r}: buildx wants a letter first, and then letters, digits and ._- "
            "alone."
        )
    if name.lower() == "default":
        raise ClientError("The builder cannot be named default: buildx calls the Docker engine's own builder so.")
    return name.lower()


def wish(
    name: str,
    nodes: t.Sequence[t.Mapping[str, t.Any]],
    shared_tls: t.Mapping[str, t.Optional[str]],
    default_load: t.Optional[bool] = None,
) -> Wish:
    """Check what a user wants and complete it.

    :param nodes: dictionaries with ``endpoint``, and where wanted ``name``, ``platforms``, ``cacert``, ``cert``,
        ``key`` and ``servername``.
    :param shared_tls: the same options of TLS, for nodes at tcp endpoints that have none themselves.
    :raises ClientError: with the reason why buildx could not use such a builder, or not safely.
    """
    check_name(name)
    if not nodes:
        raise ClientError(f"The builder {name} needs at least one node.")
    wished = tuple(_node(f"{name}{number}", node, shared_tls) for number, node in enumerate(nodes))
    _refuse_twice("endpoint", [node.endpoint for node in wished], "a node more at the same place builds nothing faster")
    _refuse_twice("node name", [node.name for node in wished], "give every node a name of its own, or none")
    _refuse_twice(
        "platform",
        [platform for node in wished for platform in node.platforms or ()],
        "of two nodes with one platform buildx always takes the first, so it spreads no load; make one builder for "
        "each, and choose between them with the filter buildkit_pick",
    )
    return Wish(name, wished, default_load)


def _node(default_name: str, given: t.Mapping[str, t.Any], shared_tls: t.Mapping[str, t.Optional[str]]) -> Node:
    endpoint = str(given["endpoint"])
    scheme = endpoints.check(endpoint)
    name = str(given.get("name") or default_name)
    if not _NAME.fullmatch(name):
        raise ClientError(
            f"The node at {endpoint} cannot be named {name!r}: buildx wants a letter first, and then letters, digits "
            "and ._- alone."
        )
    own = {key: str(given[key]) for key in _TLS if given.get(key)}
    shared = {key: str(value) for key, value in shared_tls.items() if value} if scheme == "tcp" else {}
    tls = {key: value for key, value in {**shared, **own}.items() if value}
    _check_tls(endpoint, scheme, tls)
    wanted = given.get("platforms")
    return Node(
        name=name.lower(),
        endpoint=endpoint,
        platforms=None if wanted is None else tuple(dict.fromkeys(platforms.normalize(str(one)) for one in wanted)),
        tls={key: tls[key] for key in _TLS if key in tls},
    )


def _check_tls(endpoint: str, scheme: str, tls: t.Mapping[str, str]) -> None:
    if tls and scheme != "tcp":
        raise ClientError(
            f"The node at {endpoint} has {', '.join(sorted(tls))}: BuildKit speaks TLS over tcp:// alone, and buildx "
            "would try it here too. Take that off."
        )
    for key in _PATHS:
        if key in tls and not os.path.isabs(tls[key]):
            raise ClientError(
                f"The {key} of {endpoint} is {tls[key]}, which is no absolute path: buildx reads it from whatever "
                "directory it runs in, and refuses it. Write the whole path."
            )
    if tls and "cacert" not in tls:
        raise ClientError(
            f"The node at {endpoint} has {', '.join(sorted(tls))}, but no cacert, which buildx then wants."
        )
    if ("cert" in tls) != ("key" in tls):
        raise ClientError(f"The node at {endpoint} has one of cert and key. They are of use together alone.")
    if scheme == "tcp" and not tls and not endpoints.is_loopback(endpoint):
        raise ClientError(
            f"The node at {endpoint} has no cacert: buildx would send builds and their secrets over the network "
            "without TLS. Give cacert, cert and key."
        )


def _refuse_twice(what: str, values: t.Sequence[str], why: str) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ClientError(f"The {what} {', '.join(twice)} is there twice: {why}.")


def check_default_load(version: t.Optional[str], where: str) -> None:
    """Refuse default-load for a buildx that does not know it.

    :param version: of the oldest buildx that uses the builder, such as 0.29.1; None where that is not known.
    :raises ClientError: with the reason.
    """
    since = ".".join(str(part) for part in DEFAULT_LOAD_SINCE)
    match = re.match(r"v?(\d+)\.(\d+)", version or "")
    if not match:
        raise ClientError(
            f"default_load needs docker-buildx {since} or newer; an older one refuses the whole builder for it. Which "
            f"one is used could not be told ({where}): give buildx_version, such as 0.29.1."
        )
    if (int(match.group(1)), int(match.group(2))) < DEFAULT_LOAD_SINCE:
        raise ClientError(
            f"default_load needs docker-buildx {since} or newer, and {version} is used ({where}), which refuses the "
            "whole builder for it. Leave it out, and use --load where it is wanted."
        )


def parse(data: bytes, path: str) -> Stored:
    """What buildx has stored of a builder of ours.

    :raises ClientError: where it cannot be read, or is a builder that is not of the remote driver.
    """
    try:
        stored = json.loads(data.decode("utf-8"))
        driver, name, nodes = stored["Driver"], stored["Name"], stored["Nodes"] or []
        dump(stored)  # Python reads half a surrogate and NaN, which JSON has not
        usable = isinstance(driver, str) and bool(_NAME.fullmatch(name)) and all(map(_is_node, nodes))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ClientError):
        usable = False
    if not usable:
        raise ClientError(f"{path} is not what buildx stores of a builder. Move it away and try again.")
    if driver != DRIVER:
        raise ClientError(
            f"There is a builder {name} already, of the driver {driver or 'docker-container'}. It may have containers "
            f"and a cache that only buildx can remove: choose another name, or remove it with: docker buildx rm {name}"
        )
    return dict(stored)


def _is_node(node: t.Mapping[str, t.Any]) -> bool:
    """Whether buildx would take this for a node; where it would not, this may fail instead."""
    options = node.get("DriverOpts") or {}
    for platform in node.get("Platforms") or []:
        platforms.from_stored(platform)
    return all(isinstance(value, str) for value in (node["Name"], node["Endpoint"], *options, *options.values()))


def certificates_of(data: bytes, path: str) -> t.Set[t.Optional[str]]:
    """The cacert of each node of a builder; none for one of another driver, or one that cannot be read."""
    try:
        nodes = parse(data, path)["Nodes"] or []
    except ClientError:
        return set()
    return {(node.get("DriverOpts") or {}).get("cacert") for node in nodes}


def merge(stored: t.Optional[Stored], wished: Wish) -> Stored:
    """What shall be stored. Where nothing needs to change it equals ``stored``.

    Whatever is not part of the wish stays: keys and driver options that are not known here, and what buildx has noted
    of a node. Nodes that are not wished for are left out.
    """
    before = stored or {"Name": wished.name, "Driver": DRIVER, "Nodes": None, "Dynamic": False}
    known = {node["Name"]: node for node in before["Nodes"] or []}
    # A platform has one node: buildx takes it from all others when one gets it.
    claimed = {platform for node in wished.nodes for platform in node.platforms or ()}
    nodes = [_merge_node(known.get(node.name), node, wished.default_load, claimed) for node in wished.nodes]
    return {**before, "Nodes": nodes}


def _merge_node(
    stored: t.Optional[Stored], node: Node, default_load: t.Optional[bool], claimed: t.Container[str]
) -> Stored:
    before = stored or {
        "Name": node.name,
        "Endpoint": node.endpoint,
        "Platforms": None,
        "DriverOpts": None,
        "Flags": None,
        "Files": None,
    }
    noted = [platforms.from_stored(one) for one in before.get("Platforms") or []]
    wanted = [one for one in noted if one not in claimed] if node.platforms is None else list(node.platforms)
    after = {**before, "Endpoint": node.endpoint}
    if wanted != noted:
        after["Platforms"] = [platforms.to_stored(one) for one in wanted]
    options = {key: value for key, value in (before.get("DriverOpts") or {}).items() if key not in _TLS}
    options.update(node.tls)
    if default_load is not None:
        options.pop(_DEFAULT_LOAD, None)
    if default_load:
        options[_DEFAULT_LOAD] = "true"
    if options != (before.get("DriverOpts") or {}):
        after["DriverOpts"] = dict(sorted(options.items())) or None  # Go writes the keys of a map in order
    return after


def reasons(stored: t.Optional[Stored], after: Stored) -> t.List[str]:
    """Why ``after`` is to be written, in words; empty where nothing changes."""
    if stored is None:
        return ["there is no such builder yet"]
    if stored == after:
        return []
    before = {node["Name"]: node for node in stored["Nodes"] or []}
    wanted = {node["Name"]: node for node in after["Nodes"]}
    found = [f"node {name} is new" for name in wanted if name not in before]
    found += [f"node {name} is not wanted any more" for name in before if name not in wanted]
    for name in wanted:
        if name in before:
            keys = [key for key in wanted[name] if wanted[name][key] != before[name].get(key)]
            found += [f"node {name} has another {_WORDS[key]}" for key in keys]
    return found or ["the nodes come in another order"]


_WORDS = {"Endpoint": "endpoint", "Platforms": "list of platforms", "DriverOpts": "set of driver options"}


def dump(value: t.Mapping[str, t.Any]) -> bytes:
    """JSON, to the byte as Go writes it: compact, with these characters escaped, and no newline at the end."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "&<>\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8")


def make_current(current: t.Mapping[str, t.Any], name: str, *, default: t.Optional[bool]) -> t.Mapping[str, t.Any]:
    """What the file C(current) shall hold, so that the builder of that file name is, or is not, the default.

    It is made so for all Docker engines (C(Global)), because which one is in use is nobody's business here.
    """
    chosen = str(current.get("Name") or "").lower() == name
    if default and not (chosen and current.get("Global")):
        return {"Key": str(current.get("Key") or ""), "Name": name, "Global": True}
    if default is False and chosen:
        return {"Key": str(current.get("Key") or ""), "Name": "", "Global": False}
    return current


def describe(stored: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """A builder for results and diffs, with platforms as text."""
    nodes = [
        {
            "name": node["Name"],
            "endpoint": node["Endpoint"],
            "platforms": [platforms.from_stored(one) for one in node.get("Platforms") or []],
            "driver_options": dict(node.get("DriverOpts") or {}),
        }
        for node in stored["Nodes"] or []
    ]
    return {"name": stored["Name"], "driver": stored["Driver"], "nodes": nodes}
