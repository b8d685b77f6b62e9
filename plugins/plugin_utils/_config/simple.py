# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simple variables: what most people set, without the names of buildkitd.toml.

Private to this collection.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config import gc, values
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config.tables import Table, merged, part

NAMES = ("cache_size", "max_parallelism", "proxy", "registry_mirrors")
_PROXIES = ("http", "https", "no")
# user:password@host, of which a message shows nothing: the password may be in it.
_PROXY = re.compile(r"https?://[\w.%~!*'();:&=+,-]*@?(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?/?")


def given(simple: Table, name: str) -> t.Any:
    """What a simple variable says, or nothing; empty is the same as left out."""
    value = simple.get(name)
    return None if value in ("", 0, "0") or value == {} else value


def problems(config: Table, simple: Table, disk: int, prefix: str) -> t.Iterator[str]:
    """What is wrong with them, alone and beside the configuration.

    :param disk: bytes of the file system that holds the cache; 0 if that is not known
    :param prefix: what the names of the variables begin with
    """
    for name in sorted(set(simple) - set(NAMES)):
        yield f"{prefix}{name} is no simple variable; there are {', '.join(NAMES)}."
    yield from _cache_size(config, given(simple, "cache_size"), disk, prefix)
    yield from _parallelism(config, given(simple, "max_parallelism"), prefix)
    yield from _mirrors(config, given(simple, "registry_mirrors"), prefix)
    yield from _proxy(given(simple, "proxy"), f"{prefix}proxy")


def _cache_size(config: Table, wished: t.Any, disk: int, prefix: str) -> t.Iterator[str]:
    if wished is None:
        return
    name = f"{prefix}cache_size"
    try:
        size, percent = values.read_size(wished)
    except ValueError:
        yield (
            f"{name} is {values.show(wished)}, but a size such as 200GB (powers of 1024), or 1% to 100% of the disk, "
            "is needed."
        )
        return
    if 0 < size < values.SMALLEST:
        yield f"{name} is {values.show(wished)}, which is {size} bytes: write the unit too, such as {size}GB."
    if gc.is_set(config):
        yield f"{name} is set, and {prefix}config decides the garbage collection too: set one of them."
    if disk and size > disk:
        yield (
            f"{name} is {wished}, more than the {disk // 1024**3}GB of the file system that holds the cache. Leave it "
            f"empty to have it sized from the disk, or set {prefix}root to a larger disk."
        )
    if percent and not disk:
        yield f"{name} is {wished}, but the size of the disk is not known: write it in GB."


def _parallelism(config: Table, wished: t.Any, prefix: str) -> t.Iterator[str]:
    if wished is None:
        return
    name = f"{prefix}max_parallelism"
    if isinstance(wished, bool) or not re.fullmatch(r"[0-9]{1,9}", str(wished)):
        yield f"{name} is {values.show(wished)}, but a whole number is needed, 0 for no limit."
    worker = gc.worker_in_use(config)
    if "max-parallelism" in part(config, "worker", worker):
        yield f"{name} is set, and {prefix}config sets worker.{worker}.max-parallelism too: set one of them."


def _mirrors(config: Table, wished: t.Any, prefix: str) -> t.Iterator[str]:
    if wished is None:
        return
    name = f"{prefix}registry_mirrors"
    if not isinstance(wished, t.Mapping):
        yield (
            f"{name} is {values.show(wished)}, but a dictionary of lists is needed, such as "
            "{docker.io: [mirror.example.com]}."
        )
        return
    check, _shown = values.KINDS["mirrors"]
    for registry, mirrors in wished.items():
        problem = check(mirrors, "")
        if problem:
            yield f"{name}: {registry} {problem}."
        if "mirrors" in part(config, "registry", str(registry)):
            yield f"{name} has {registry}, and {prefix}config sets its mirrors too: set one of them."


def _proxy(wished: t.Any, name: str) -> t.Iterator[str]:
    if wished is None:
        return
    if not isinstance(wished, t.Mapping) or set(wished) - set(_PROXIES):
        yield f"{name} must be a dictionary of http, https and no."
        return
    for key in ("http", "https"):
        if wished.get(key) and not _PROXY.fullmatch(str(wished[key])):
            yield (
                f"{name}.{key} is not a proxy as http://[user:password@]host[:port], with special characters of user "
                "and password written as %40 and so on. It is not shown, because there may be a password in it."
            )
    if wished.get("no") and not re.fullmatch(r"[\w.:/*\[\],-]+", _comma_list(wished["no"])):
        yield f"{name}.no is not a list of host names, domains, addresses and networks."


def _comma_list(value: t.Any) -> str:
    return value if isinstance(value, str) else ",".join(str(item) for item in value)


def proxy_environment(wished: t.Any) -> dict[str, str]:
    """The environment variables that make a daemon use a proxy; git wants small letters, others capitals."""
    found = {}
    for key in _PROXIES:
        value = (wished or {}).get(key)
        if value:
            text = _comma_list(value) if key == "no" else str(value)
            found[f"{key.upper()}_PROXY"] = found[f"{key}_proxy"] = text
    return dict(sorted(found.items()))


def applied(config: Table, version: str, simple: Table, disk: int) -> dict[str, t.Any]:
    """The configuration with what the simple variables add, and with garbage collection sized from the disk.

    Both are known to be right.
    """
    worker = gc.worker_in_use(config)
    added: dict[str, t.Any] = {}
    if given(simple, "max_parallelism") is not None:
        added["max-parallelism"] = int(simple["max_parallelism"])
    size, percent = values.read_size(given(simple, "cache_size") or 0)
    size = size or disk * percent // 100
    if (disk or size) and not gc.is_set(config):
        added["gcpolicy"] = gc.rules(disk, version, size)
    result = merged(config, {"worker": {worker: added}} if added else {})
    mirrors = given(simple, "registry_mirrors") or {}
    registries = {str(name): {"mirrors": list(wished)} for name, wished in mirrors.items()}
    return merged(result, {"registry": registries} if registries else {})
