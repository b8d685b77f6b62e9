# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether one value is what a key holds.

Private to this collection.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

# Not of gc_policy, which brings the gRPC library along: templates load this again for each task of each host.
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import units
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config import releases

# Says what is wrong with a value for a release, or nothing. Both are known to be there.
Check = t.Callable[[t.Any, str], str]

# Go's time.ParseDuration; units of a day and more are not among them.
_GO_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_MOST_SECONDS = (2**63 - 1) // 10**9
_MOST_BYTES = 2**63 - 1
# Nobody means a cache of less, but the unit was forgotten. Options of the daemon's command line are in MB.
SMALLEST = 1024**2

_HOST_AND_PATH = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?(?:/[\w./-]+)?"
_LOOPBACK = r"unix:///.+|(?:127(?:\.[0-9]{1,3}){3}|localhost|\[::1\]):[0-9]{1,5}"


def show(value: t.Any) -> str:
    """A value in a message, in plain types and not without end."""
    text = repr(str(value)) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_size(value: t.Any) -> tuple[int, int]:
    """A size as buildkitd reads it: bytes, or percent of the disk; the other of the two is 0.

    :raises ValueError: it is none
    """
    if _is_number(value):
        size, percent = int(value), 0
    elif isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}%", value):
        size, percent = 0, int(value[:-1])
    elif isinstance(value, str):
        try:
            size, percent = units.parse_ram_size(value, "it"), 0
        except InputError as error:
            raise ValueError(str(error)) from error
    else:
        raise ValueError("no size")
    if not (0 <= size <= _MOST_BYTES and percent <= 100):
        raise ValueError("out of range")
    return size, percent


def read_duration(value: t.Any) -> float:
    """Seconds, of a number of them or of a length of time as Go writes it.

    :raises ValueError: it is none
    """
    if (_is_number(value) and value >= 0) or (isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value)):
        seconds = float(value)
    elif isinstance(value, str) and re.fullmatch(r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h))+", value):
        parts = re.findall(r"([0-9.]+)(ns|us|µs|ms|s|m|h)", value)
        seconds = sum(float(count) * _GO_SECONDS[unit] for count, unit in parts)
    else:
        raise ValueError("no length of time")
    if seconds > _MOST_SECONDS:
        raise ValueError("out of range")
    return seconds


def _is_number(value: t.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _needed(what: str, test: t.Callable[[t.Any], bool]) -> Check:
    return lambda value, _version: "" if test(value) else f"is {show(value)}, but {what} is needed"


def _is_text(value: t.Any) -> bool:
    return isinstance(value, str)


def _is_path(value: t.Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _is_address(value: t.Any) -> bool:
    try:
        ipaddress.ip_address(str(value))
    except ValueError:
        return False
    return isinstance(value, str)


def _is_subnet(value: t.Any) -> bool:
    try:
        ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        return False
    return isinstance(value, str) and "/" in value


def _reads(read: t.Callable[[t.Any], t.Any]) -> t.Callable[[t.Any], bool]:
    def test(value: t.Any) -> bool:
        try:
            read(value)
        except ValueError:
            return False
        return True

    return test


def _choice(*choices: str) -> Check:
    return _needed(f"one of {', '.join(choices)}", lambda value: value in choices)


def _each(what: str, check: t.Callable[[t.Any], bool]) -> Check:
    def test(value: t.Any, version: str) -> str:
        if isinstance(value, (str, bytes, t.Mapping)) or not isinstance(value, t.Iterable):
            return f"is {show(value)}, but a list of {what} is needed"
        bad = [show(item) for item in value if not check(item)]
        return f"has {', '.join(bad)}, but a list of {what} is needed" if bad else ""

    return test


def _mirrors(value: t.Any, version: str) -> str:
    with_scheme = [item for item in value if isinstance(item, str) and "://" in item] if isinstance(value, list) else []
    if with_scheme:
        return (
            f"has {', '.join(map(show, with_scheme))}: leave the scheme out. A mirror speaks HTTPS, unless an entry of "
            "its own below registry has http: true"
        )
    test = _each("registries as host[:port][/path]", lambda item: _is_text(item) and _matches(_HOST_AND_PATH, item))
    return test(value, version)


def _entitlements(value: t.Any, version: str) -> str:
    known = ["network.host", "security.insecure"]
    if releases.has("0.20.0", version):
        known.append("device")
    return _each(f"{', '.join(known)}", lambda item: item in known)(value, version)


def _filters(value: t.Any, version: str) -> str:
    problem = _each("texts", _is_text)(value, version)
    if problem:
        return problem
    for item in value:
        fields = [part.partition("==")[0] for part in item.split(",") if "==" in part]
        if len(set(fields)) < len(fields):
            return (
                f"has {show(item)}, which no record fulfils: conditions in one text must all hold. Write each as an "
                "item of the list"
            )
    return ""


def _size(value: t.Any, version: str) -> str:
    what = "a number of bytes, a size such as 500MB or 10GB (powers of 1024), or 1% to 100% of the disk"
    problem = _needed(what, _reads(read_size))(value, version)
    if not problem and 0 < read_size(value)[0] < SMALLEST:
        size = read_size(value)[0]
        return f"is {show(value)}, which is {size} bytes: write the unit too, such as {size}MB"
    return problem


def _debug_address(value: t.Any, version: str) -> str:
    if not _is_text(value) or not _matches(_LOOPBACK, value):
        return f"is {show(value)}. Whoever reaches it needs no certificate: use unix:// or a loopback address"
    if value.startswith("unix://") and not releases.has("0.19.0", version):
        return (
            f"is {show(value)}, but only BuildKit 0.19.0 and newer take a unix socket there, and this is {version}. "
            "Use a loopback address such as 127.0.0.1:6060"
        )
    return ""


def _matches(pattern: str, value: str) -> bool:
    return re.fullmatch(pattern, value) is not None


# Kind -> its check, and how the documentation says it.
KINDS: t.Mapping[str, tuple[Check, str]] = {
    "boolean": (_needed("true or false", lambda value: isinstance(value, bool)), "`true` or `false`"),
    "text": (_needed("text", _is_text), "text"),
    "texts": (_each("texts", _is_text), "list of texts"),
    "path": (_needed("an absolute path", _is_path), "absolute path"),
    "paths": (_each("absolute paths", _is_path), "list of absolute paths"),
    "number": (
        _needed("a whole number from 0 on", lambda value: _is_number(value) and value >= 0),
        "whole number from 0 on",
    ),
    "positive number": (
        _needed("a whole number from 1 on", lambda value: _is_number(value) and value >= 1),
        "whole number from 1 on",
    ),
    "table": (_needed("a dictionary", lambda value: isinstance(value, t.Mapping)), "dictionary, not checked further"),
    "size": (_size, "size"),
    "duration": (
        _needed("a number of seconds, or a length of time of h, m and s such as 48h", _reads(read_duration)),
        "length of time",
    ),
    "platforms": (
        _each(
            "platforms such as linux/arm64",
            lambda item: _is_text(item) and _matches(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?", item),
        ),
        "list of platforms",
    ),
    "addresses": (_each("IP addresses", _is_address), "list of IP addresses"),
    "subnet": (_needed("a subnet such as 10.10.0.0/16", _is_subnet), "subnet"),
    "network mode": (_choice("auto", "host", "bridge", "cni"), "`auto`, `host`, `bridge` or `cni`"),
    "log format": (_choice("text", "json"), "`text` or `json`"),
    "log level": (_choice("error", "warn", "info", "debug", "trace"), "`error`, `warn`, `info`, `debug` or `trace`"),
    "mirrors": (_mirrors, "list of `host[:port][/path]`"),
    "entitlements": (_entitlements, "list of `network.host`, `security.insecure`; `device` from 0.20.0 on"),
    "filters": (_filters, "list of conditions"),
    "debug address": (_debug_address, "loopback `address:port`; `unix://` from 0.19.0 on"),
}
