# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports a missing Python library once, in one wording: which, where, and how to install it.

Private to this collection. Every file imports third-party libraries inside ``try``/``except ImportError``;
a module calls :func:`require` before it uses any of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import re
import sys
from dataclasses import dataclass


class MissingLibraryError(Exception):
    """A Python library is absent, broken or too old; the text says how to install it."""


@dataclass(frozen=True)
class Library:
    """A third-party library: how it is imported and what it is called where it comes from."""

    import_name: str
    pip: str
    minimum: str
    debian: str = ""
    rpm: str = ""
    below: str = ""  # the first version that is too new, where one is known

    @property
    def requirement(self) -> str:
        """The requirement as pip reads it, such as ``cryptography>=3.4``."""
        return f"{self.pip}>={self.minimum}" + (f",<{self.below}" if self.below else "")


CRYPTOGRAPHY = Library(
    "cryptography.x509", "cryptography", "3.4", debian="python3-cryptography", rpm="python3-cryptography"
)
# Below 0.5: the streams of this collection reach grpclib through a hook that is private to it.
GRPCLIB = Library("grpclib.client", "grpclib", "0.4.8", debian="python3-grpclib", below="0.5")
PROTOBUF = Library("google.protobuf", "protobuf", "3.20", debian="python3-protobuf", rpm="python3-protobuf")
PYRAGE = Library("pyrage", "pyrage", "1.2")
TOMLI_W = Library("tomli_w", "tomli-w", "1.0", debian="python3-tomli-w", rpm="python3-tomli-w")


def require(*libraries: Library, load: bool = True) -> None:
    """Guarantee that all ``libraries`` can be imported and are new enough.

    :param load: import them whole, which takes its time; else only what tells whether they are there
    :raises MissingLibraryError: naming every library that is not, the interpreter and the machine.
    """
    problems = [(library, problem) for library in libraries for problem in [_problem(library, load)] if problem]
    if not problems:
        return
    wanted = [library for library, _text in problems]
    raise MissingLibraryError(
        "On {host}, {what}, for {python} (Python {version}). Install {it} {ways}.".format(
            host=platform.node() or "this machine",
            what="; ".join(problem for _library, problem in problems),
            python=sys.executable or "the Python in use",
            version=platform.python_version(),
            it="it" if len(wanted) == 1 else "them",
            ways=_ways_to_install(wanted),
        )
    )


def _problem(library: Library, load: bool) -> str:
    """Say what is wrong with a library, or nothing."""
    newest = f", below {library.below}" if library.below else ""
    name = f"the Python library {library.pip} ({library.minimum} or newer{newest})"
    try:
        if load:
            importlib.import_module(library.import_name)
        elif importlib.util.find_spec(library.import_name) is None:
            raise ImportError(f"No module named {library.import_name!r}")
    except ImportError as exc:
        return f"{name} cannot be imported ({exc})"
    found = _version(library)
    if found is None:
        return ""  # importable, and its packager left nothing to judge by
    if _release(found) < _release(library.minimum):
        return f"{name} is too old (found {found})"
    if library.below and _release(found) >= _release(library.below):
        return f"{name} is too new (found {found})"
    return ""


def _version(library: Library) -> str | None:
    """The version of a library that is imported, as it says itself, or else as its packager says."""
    name = library.import_name
    while name:
        found = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(found, str):
            return found
        name = name.rpartition(".")[0]
    # Not at the top: it takes longer to import than most modules here take to run.
    metadata = importlib.import_module("importlib.metadata")
    try:
        return str(metadata.version(library.pip))
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison: ``3.4.8`` is ``(3, 4, 8)``."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _ways_to_install(libraries: list[Library]) -> str:
    ways = []
    if all(one.debian for one in libraries):
        ways.append("with 'apt-get install {}' (Debian, Ubuntu)".format(" ".join(one.debian for one in libraries)))
    if all(one.rpm for one in libraries):
        ways.append("with 'dnf install {}' (Fedora, RHEL)".format(" ".join(one.rpm for one in libraries)))
    requirements = " ".join(f"'{one.requirement}'" for one in libraries)
    ways.append(f"{'or ' if ways else ''}with: {sys.executable or 'python3'} -m pip install {requirements}")
    return ", ".join(ways)
