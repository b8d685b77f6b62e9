# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a configuration for a release: everything at once, by the dotted names of the keys.

buildkitd ignores keys that it does not know without a word, and limits that others override.

Private to this collection.
"""

from __future__ import annotations

import difflib
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config import keys, releases, values
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config.gc import limits_of
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config.tables import Table, dotted, leaves, part

_OF_THREE = ("reservedSpace", "maxUsedSpace", "minFreeSpace")


def problems(config: t.Any, version: str, *, decided: Table, variable: str = "buildkitd_config") -> list[str]:
    """One sentence or more for each thing that is wrong; none if it can be written for this release.

    :param decided: what the role decides, and the user may not
    :param variable: the variable that the configuration is from, for the messages
    """
    if not isinstance(config, t.Mapping):
        return [f"{variable} is {values.show(config)}, but a dictionary is needed."]
    found = [f"{variable} sets {name}. {why}" for name, why in _already_decided(config, decided, variable)]
    found += [f"{variable}: {text}." for text in _walk(config, keys.TREE, (), version)]
    found += [f"{variable}: {text}." for text in _together(config)]
    return found


def _already_decided(config: Table, decided: Table, variable: str) -> t.Iterator[tuple[str, str]]:
    role = variable.removesuffix("config")
    # Who has the socket is root, so these are refused whatever the role says of them.
    names = [
        f"grpc.{name}"
        for name in ("address", "gid", "securityDescriptor", "tls", "uid")
        if name in part(config, "grpc")
    ]
    if names:
        yield (
            ", ".join(names),
            "A daemon with TLS but no CA is open to everyone, and who may use its socket is root, so the role alone "
            f"decides these: use {role}tls_dir, {role}listen_address and {role}port.",
        )
    if "root" in config:
        yield "root", f"Use {role}root, so that the role knows where the cache is."
    for path in leaves(decided):
        name = dotted(path)
        if path[0] in ("grpc", "root") and path[:2] != ("grpc", "debugAddress"):
            continue
        if path[-1] in part(config, *path[:-1]):
            yield (
                name,
                f"The role decides it, and has {values.show(part(decided, *path[:-1])[path[-1]])}: leave it out.",
            )


def _walk(config: Table, node: keys.Node, path: tuple[str, ...], version: str) -> t.Iterator[str]:
    """What is wrong with the keys of a table, and of those within."""
    for name, value in config.items():
        here = (*path, str(name))
        child = node.children.get(str(name)) or node.children.get(keys.ANY)
        if child is None:
            nearest = _nearest(here, node)
            yield (
                f"{dotted(here)} is no key of buildkitd.toml, and buildkitd would ignore it silently"
                + (f"; the nearest one is {nearest}" if nearest else "")
            )
        elif child.key is not None:
            yield from _one(dotted(here), child.key, value, version)
        elif child.is_list:
            yield from _list(here, child, value, version)
        elif isinstance(value, t.Mapping):
            yield from _walk(value, child, here, version)
        else:
            yield f"{dotted(here)} is {values.show(value)}, but a dictionary is needed"


def _list(path: tuple[str, ...], node: keys.Node, value: t.Any, version: str) -> t.Iterator[str]:
    if isinstance(value, (str, t.Mapping)) or not isinstance(value, t.Iterable):
        yield f"{dotted(path)} is {values.show(value)}, but a list of dictionaries is needed"
        return
    for position, item in enumerate(value):
        here = (*path[:-1], f"{path[-1]}[{position}]")
        if isinstance(item, t.Mapping):
            yield from _walk(item, node, here, version)
        else:
            yield f"{dotted(here)} is {values.show(item)}, but a dictionary is needed"


def _one(name: str, key: keys.Key, value: t.Any, version: str) -> t.Iterator[str]:
    if not releases.has(key.since, version):
        yield (
            f"{name} is a key from BuildKit {key.since} on, and {version} would ignore it silently"
            + (": use keepBytes in rules of gcpolicy, or gckeepstorage" if name.endswith(_OF_THREE) else "")
        )
        return
    check, _shown = values.KINDS[key.kind]
    problem = check(value, version)
    if problem:
        yield f"{name} {problem}"


def _nearest(path: tuple[str, ...], node: keys.Node) -> str:
    """The known key that is most likely meant."""
    meant = keys.MEANT.get(".".join(path))
    if meant is None:
        by_name = {name.lower().replace("-", "").replace("_", ""): name for name in node.children if name != keys.ANY}
        wished = path[-1].lower().replace("-", "").replace("_", "")
        near = difflib.get_close_matches(wished, by_name, n=1, cutoff=0.6)
        near = near or [name for name in by_name if name.startswith(wished)]
        meant = dotted((*path[:-1], by_name[near[0]])) if near else _elsewhere(path[-1])
    return meant


def _elsewhere(name: str) -> str:
    """A key of this name at another place, as when a key of a worker is written beside the worker."""
    places = [path for path in keys.KEYS if path.split(".")[-1] == name and keys.ANY not in path]
    return places[0] if places else ""


def _together(config: Table) -> t.Iterator[str]:
    """Keys that are right alone and not beside each other."""
    for worker in ("oci", "containerd"):
        yield from _limits(part(config, "worker", worker), f"worker.{worker}")
    oci, containerd = part(config, "worker", "oci"), part(config, "worker", "containerd")
    if oci.get("enabled") is False and containerd.get("enabled") is False:
        yield "worker.oci.enabled and worker.containerd.enabled are both false, so nothing could build"
    if containerd.get("enabled") is True and oci.get("enabled") is not False:
        yield (
            "worker.containerd.enabled is true beside worker.oci, but only the first worker is ever used, and that is "
            "oci: set worker.oci.enabled to false too"
        )
    if oci.get("noProcessSandbox") is True and oci.get("rootless") is not True:
        yield "worker.oci.noProcessSandbox is for worker.oci.rootless alone: leave it out, or set both"
    for name, registry in part(config, "registry").items():
        if isinstance(registry, t.Mapping):
            yield from _registry(registry, dotted(("registry", str(name))))


def _registry(registry: Table, name: str) -> t.Iterator[str]:
    if registry.get("http") is True and registry.get("insecure") is True:
        yield f"{name} has both http and insecure: without TLS there is no certificate to accept, so leave one out"
    pairs = registry.get("keypair")
    for position, pair in enumerate(pairs if isinstance(pairs, list) else []):
        missing = [half for half in ("key", "cert") if isinstance(pair, t.Mapping) and half not in pair]
        if missing:
            yield f"{name}.keypair[{position}] lacks {' and '.join(missing)}"


def _limits(worker: Table, name: str) -> t.Iterator[str]:
    rules = worker.get("gcpolicy")
    rules = rules if isinstance(rules, list) else []
    set_here = limits_of(worker)
    if worker.get("gc") is False and (rules or set_here):
        what = ", ".join([*(["gcpolicy"] if rules else []), *set_here])
        yield f"{name}.gc is false, so {what} would be ignored: leave out one or the other"
    if rules and set_here:
        yield (
            f"{name} has both gcpolicy and {', '.join(set_here)}, which would be ignored: write limits into the rules "
            "of gcpolicy, or leave these out"
        )
    mixed = [limit for limit in set_here if limit in _OF_THREE]
    if "gckeepstorage" in set_here and mixed:
        yield (
            f"{name}.gckeepstorage is ignored beside {', '.join(mixed)}: it is an older name of reservedSpace, so "
            "leave it out"
        )
    for position, rule in enumerate(rules):
        mixed = [limit for limit in _OF_THREE if isinstance(rule, t.Mapping) and limit in rule]
        if mixed and "keepBytes" in rule:
            yield (
                f"{name}.gcpolicy[{position}] mixes keepBytes with {', '.join(mixed)}: keepBytes is the older name of "
                "reservedSpace, so write that"
            )
