# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate of a client on its machine, laid out as a daemon's TLS directory is::

    <path>/                  0700, or 0750 with a group
      ca.pem cert.pem key.pem     links to current/..., the paths that the tools are given
      current                     link to one directory below versions/
      versions/<id>/              ca.pem cert.pem key.pem, which belong together

The three change together, by the one rename that moves ``current``. The version before is kept for a tool that has
read one file and not yet the next. Nobody but the owner, and the group where there is one, can read any of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import typing as t
from dataclasses import dataclass

from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

FILES = ("ca.pem", "cert.pem", "key.pem")

_CURRENT = "current"
_VERSIONS = "versions"
_STAGE = ".new"
_LOCK = ".lock"
_OUR_VERSION = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{4})?")


@dataclass(frozen=True)
class Access:
    """Who may read it: user and group ids, -1 to leave the group as it comes; and whether the group may at all."""

    uid: int
    gid: int
    shared: bool

    @property
    def directory_mode(self) -> int:
        """Of every directory."""
        return 0o750 if self.shared else 0o700

    @property
    def file_mode(self) -> int:
        """Of every file."""
        return 0o640 if self.shared else 0o600


class IdentityDirectory:
    """One such directory. Methods raise ``OSError`` as it comes and :class:`ClientError` for the rest."""

    def __init__(self, path: str, access: Access) -> None:
        self.path = path
        self.access = access

    def at(self, *parts: str) -> str:
        """A path below the directory."""
        return os.path.join(self.path, *parts)

    def current(self) -> str:
        """The version in use; empty where there is none."""
        try:
            target = os.readlink(self.at(_CURRENT))
        except OSError:
            return ""
        return os.path.basename(target) if os.path.dirname(target) == _VERSIONS else ""

    def refuse_foreign_files(self) -> None:
        """Refuse a directory in which something else has our names, or that is in use for something else.

        :raises ClientError: naming it.
        """
        for name in (*FILES, _CURRENT, _VERSIONS):
            path = self.at(name)
            if os.path.lexists(path) and not self._is_ours(name):
                raise ClientError(f"{path} was put there by other means. Move it away, or choose another directory.")

    def refuse_other_use(self) -> None:
        """Refuse a directory that is in use for something else, whose mode and owner would be changed.

        :raises ClientError: naming what is in it.
        """
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            raise ClientError(f"{self.path} is no directory. Move it away, or choose another path.")
        if os.path.isdir(self.path) and not os.path.lexists(self.at(_VERSIONS)):
            others = sorted(set(os.listdir(self.path)) - {_LOCK})
            if others:
                raise ClientError(
                    f"{self.path} is in use for something else: it has {', '.join(others[:3])} in it. Choose a "
                    "directory for the certificate alone."
                )

    def _is_ours(self, name: str) -> bool:
        path = self.at(name)
        if name in FILES:
            return _link(path) == os.path.join(_CURRENT, name)
        if name == _CURRENT:
            return bool(_OUR_VERSION.fullmatch(self.current()))
        if os.path.islink(path) or not os.path.isdir(path):
            return False
        return all(
            (_OUR_VERSION.fullmatch(version) or version == _STAGE)
            and set(os.listdir(self.at(name, version))) <= {*FILES}
            for version in os.listdir(path)
        )

    def reasons(self, contents: t.Mapping[str, bytes]) -> t.List[str]:
        """Why something is to be changed, in words; empty where all is as it shall be."""
        current = self.current()
        if not current or not os.path.isdir(self.at(_CURRENT)):
            return ["there is no certificate yet"]
        found = {name: _files.read_optional(self.at(_CURRENT, name)) for name in FILES}
        changed = [f"{name} is another one" for name in FILES if found[name] != contents[name]]
        if any(_link(self.at(name)) != os.path.join(_CURRENT, name) for name in FILES):
            changed.append("a link is missing")
        places = [self.path, self.at(_VERSIONS), self.at(_VERSIONS, current)]
        wrong = [path for path in places if self._differs(path, self.access.directory_mode)]
        files = [self.at(_CURRENT, name) for name in FILES]
        wrong += [path for path in files if self._differs(path, self.access.file_mode)]
        return changed + (["its owner, group or mode is another one"] if wrong else [])

    def _differs(self, path: str, mode: int) -> bool:
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            return False  # another reason says so
        group = self.access.gid not in (-1, info.st_gid)
        return stat.S_IMODE(info.st_mode) != mode or info.st_uid != self.access.uid or group

    def install(self, contents: t.Mapping[str, bytes]) -> None:
        """Put the three files in place together."""
        self._make(self.path, os.path.lexists(self.path))
        with _files.locked(self.at(_LOCK), timeout=60):
            self._make(self.at(_VERSIONS), os.path.isdir(self.at(_VERSIONS)))
            before, version = self.current(), _version(contents)
            # Written again where it is there already: its mode may be what was wrong.
            stage = self.at(_VERSIONS, _STAGE)
            _files.remove_tree(stage)
            self._make(stage, False)
            for name in FILES:
                _files.write_new(os.path.join(stage, name), contents[name])
                self._give(os.path.join(stage, name), self.access.file_mode)
            _files.flush([*(os.path.join(stage, name) for name in FILES), stage])
            target = self.at(_VERSIONS, version)
            if os.path.isdir(target):
                if before == version:  # so that the paths lead somewhere meanwhile
                    version = f"{version}-{os.urandom(2).hex()}"
                    target = self.at(_VERSIONS, version)
                else:
                    _files.remove_tree(target)
            os.rename(stage, target)
            _files.link_atomically(self.at(_CURRENT), os.path.join(_VERSIONS, version))
            for name in FILES:
                if _link(self.at(name)) != os.path.join(_CURRENT, name):
                    _files.link_atomically(self.at(name), os.path.join(_CURRENT, name))
            for other in os.listdir(self.at(_VERSIONS)):
                if other not in (version, before):
                    _files.remove_tree(self.at(_VERSIONS, other))

    def _make(self, path: str, exists: bool) -> None:
        if not exists:
            _files.make_public_directories(os.path.dirname(path))
            os.mkdir(path, _files.PRIVATE_DIRECTORY)
        self._give(path, self.access.directory_mode)

    def _give(self, path: str, mode: int) -> None:
        os.chown(path, self.access.uid, self.access.gid)
        os.chmod(path, mode)

    def traces(self) -> t.List[str]:
        """All that there is of it, for removal."""
        names = (*FILES, _CURRENT, _VERSIONS, _LOCK)
        return [self.at(name) for name in names if os.path.lexists(self.at(name))]

    def remove(self) -> None:
        """Remove what is ours, the key first, and the directory where nothing is left in it."""
        for path in reversed(self.traces()):
            if os.path.isdir(path) and not os.path.islink(path):
                _files.remove_tree(path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(self.path)


def _version(contents: t.Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(hashlib.sha256(contents[name]).digest())
    return digest.hexdigest()[:16]


def _link(path: str) -> str:
    return os.readlink(path) if os.path.islink(path) else ""
