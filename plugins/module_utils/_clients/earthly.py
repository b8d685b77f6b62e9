# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration file of Earthly and of its successor EarthBuild: a few keys of its mapping ``global``.

The file is edited as text, line by line. So comments and the order of keys stay, nothing but Python is needed, and what
cannot be edited that way is refused. Facts are of earthly/earthly: config/config.go, and EarthBuild/earthbuild.
"""

from __future__ import annotations

import json
import re
import typing as t
from urllib.parse import urlsplit

from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import endpoints
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

# Below the home: of earthly, and of EarthBuild's earth.
DIRECTORIES = (".earthly", ".earth")
# config.yaml is read only where there is no config.yml.
NAMES = ("config.yml", "config.yaml")

_PLAIN = re.compile(r"/?[A-Za-z][A-Za-z0-9_./@+-]*(?:://[A-Za-z0-9_./@+:-]*[A-Za-z0-9_./@+-])?")
_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
_LOCAL = ("127.0.0.1", "::1", "localhost")
_GLOBAL = re.compile(r"""^["']?global["']?\s*:(?P<value>.*)$""")


def settings(host: str, ca: str, certificate: str, key: str) -> t.Dict[str, t.Any]:
    """The keys that make Earthly use a daemon.

    :raises ClientError: where Earthly could not use it, or would start one of its own instead.
    """
    if endpoints.check(host) != "tcp":
        raise ClientError(f"Earthly cannot use {host} as a remote builder: it takes tcp://HOST:PORT alone.")
    if (urlsplit(host).hostname or "") in _LOCAL:
        raise ClientError(
            f"Earthly takes {host} for its own container on this machine, which it would start and replace. Use "
            "another name or address of the machine that is in the daemon's certificate, such as 127.0.0.2."
        )
    for what, path in (("CA", ca), ("certificate", certificate), ("key", key)):
        if not path.startswith("/"):
            raise ClientError(f"The {what} {path} is no absolute path: Earthly would look for it in its own directory.")
    return {"buildkit_host": host, "tlsca": ca, "tlscert": certificate, "tlskey": key, "tls_enabled": True}


def merge(text: str, wanted: t.Mapping[str, t.Any]) -> str:
    """The file with these keys of ``global`` set, and nothing else changed.

    :raises ClientError: where its form allows no edit of single lines.
    """
    lines = _checked(text)
    start, end, indent = _find_global(lines)
    if start < 0:
        before = "" if not text or text.endswith("\n") else "\n"
        return text + before + "global:\n" + "".join(_line("  ", key, value) for key, value in wanted.items())
    lines[start] = "global:" + _comment(lines[start]) + "\n"
    missing = []
    for key, value in wanted.items():
        found = _find_key(lines, start + 1, end, indent, key)
        if not found:
            missing.append(_line(indent, key, value))
        elif not _is(lines[found[0] : found[1]], indent, key, value):
            lines[found[0] : found[1]] = [_line(indent, key, value)]
            end -= found[1] - found[0] - 1
    lines[start + 1 : start + 1] = missing
    return "".join(lines)


def remove(text: str, ours: t.Mapping[str, t.Any]) -> str:
    """The file without these keys where they have these values; without an empty ``global`` too.

    :raises ClientError: where its form allows no edit of single lines.
    """
    lines = _checked(text)
    start, end, indent = _find_global(lines)
    if start < 0:
        return text
    removed = False
    for key, value in ours.items():
        found = _find_key(lines, start + 1, end, indent, key)
        if found and _is(lines[found[0] : found[1]], indent, key, value):
            del lines[found[0] : found[1]]
            end -= found[1] - found[0]
            removed = True
    if removed and not any(line.strip() for line in lines[start + 1 : end]):
        del lines[start:end]
    return "".join(lines) if removed else text


def shown(text: str, ours: t.Iterable[str]) -> str:
    """The lines of these keys of ``global``, for a diff; all else may be secret, such as passwords for git."""
    lines = _checked(text)
    start, end, indent = _find_global(lines)
    found = [_find_key(lines, start + 1, end, indent, key) for key in ours] if start >= 0 else []
    kept = "".join("".join(lines[place[0] : place[1]]) for place in found if place)
    return f"global:\n{kept}" if kept else ""


def _checked(text: str) -> t.List[str]:
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    documents = [number for number, line in enumerate(lines) if re.match(r"(---|\.\.\.)(\s|$)", line)]
    content = [number for number, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    odd = next((line for line in lines if line.lstrip(" ").startswith("\t") and line.strip()), "")
    if odd or len(documents) > 1 or (documents and documents[0] != content[0]):
        raise ClientError("It has tabs, or more than one document, so it is not edited. Write it with spaces, as one.")
    if text.startswith("\ufeff"):
        raise ClientError("It begins with a byte order mark, behind which its first key is not seen. Write it without.")
    first = lines[content[0]] if content else ""
    if first.lstrip().startswith(("{", "[")):
        raise ClientError(
            "It is written in braces, so single lines cannot be edited. Write every key on a line of its own."
        )
    return lines


def _find_global(lines: t.Sequence[str]) -> t.Tuple[int, int, str]:
    """The line of ``global``, that after its mapping, and the mapping's indentation; -1 where there is none."""
    starts = [number for number, line in enumerate(lines) if _GLOBAL.match(line)]
    if not starts:
        return -1, -1, ""
    match = _GLOBAL.match(lines[starts[0]])
    value = re.sub(r"(^|\s)#.*$", "", match.group("value") if match else "").strip()
    if len(starts) > 1 or value not in ("", "{}", "null", "~"):
        raise ClientError(
            "Its key global is there twice or not a list of lines. Write it once, with each key on a line below."
        )
    start, indent = starts[0], ""
    end = start + 1
    for number in range(start + 1, len(lines)):
        line = lines[number]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        spaces = line[: len(line) - len(line.lstrip(" "))]
        if not spaces:
            break
        indent = indent or spaces
        end = number + 1
    return start, end, indent or "  "


def _find_key(lines: t.Sequence[str], start: int, end: int, indent: str, key: str) -> t.Optional[t.Tuple[int, int]]:
    """The lines of a key: its own and those that continue its value."""
    pattern = re.compile(rf"""^{indent}["']?{re.escape(key)}["']?\s*:(\s|$)""")
    for number in range(start, end):
        if pattern.match(lines[number]):
            after = number + 1
            while after < end and lines[after].startswith(indent + " ") and lines[after].strip():
                after += 1
            return number, after
    return None


def _is(found: t.Sequence[str], indent: str, key: str, value: t.Any) -> bool:
    """Whether these lines give the key that value already, in whatever quotes."""
    if len(found) != 1:
        return False
    given = found[0][len(indent) :].partition(":")[2].strip()
    if given[:1] == '"':
        try:
            text, end = json.JSONDecoder().raw_decode(given)
        except ValueError:
            return False  # an escape of YAML's own
        return text == str(value) and given[end:].strip()[:1] in ("", "#")
    if given[:1] == "'":
        match = re.fullmatch(r"'((?:[^']|'')*)'\s*(#.*)?", given)
        return match is not None and match.group(1).replace("''", "'") == str(value)
    text = re.sub(r"\s+#.*$", "", given)
    return text == (str(value).lower() if isinstance(value, bool) else value)


def _comment(line: str) -> str:
    match = re.search(r"\s+#.*$", line.rstrip("\n"))
    return match.group() if match else ""


def _line(indent: str, key: str, value: t.Any) -> str:
    if isinstance(value, bool):
        return f"{indent}{key}: {str(value).lower()}\n"
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return f"{indent}{key}: {value if plain else json.dumps(value, ensure_ascii=False)}\n"
