# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory in which buildx keeps its builders, used as buildx uses it (store/store.go)::

<path>/                  0700, $BUILDX_CONFIG or ~/.docker/buildx
  .lock                  flock; held while anything here is read or written
  instances/<name>       JSON of one builder; the name in lower case
  current                the builder that ``docker buildx use`` chose
  defaults/<hash>        the same for one Docker engine
  activity/<name>        when it was last used
  refs/<name>/           the builds that were made with it
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import secrets
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import buildx, users
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

_LOCK = ".lock"
_DIRECTORIES = ("instances", "defaults", "activity")


def default_path(home: str, environment: t.Mapping[str, str]) -> str:
    """Where buildx keeps its builders for a user with this home and environment."""
    return environment.get("BUILDX_CONFIG") or os.path.join(docker_config(home, environment), "buildx")


def docker_config(home: str, environment: t.Mapping[str, str]) -> str:
    """Docker's own directory of that user."""
    return environment.get("DOCKER_CONFIG") or os.path.join(home, ".docker")


def is_docker_context(docker_directory: str, name: str) -> bool:
    """Whether Docker has a context of this name, which buildx shows as a builder (docker/cli: context/store)."""
    digest = hashlib.sha256(name.encode("utf-8")).hexdigest()
    return os.path.isfile(os.path.join(docker_directory, "contexts", "meta", digest, "meta.json"))


class BuildxStore:
    """One such directory. Methods raise ``OSError`` as it comes."""

    def __init__(self, path: str) -> None:
        self.path = path

    def instance(self, name: str) -> str:
        """The path of a builder's file, by the name that it has there."""
        return os.path.join(self.path, "instances", name)

    def names(self, prefix: str) -> t.List[str]:
        """The builders whose names in their files begin so."""
        directory = os.path.join(self.path, "instances")
        found = os.listdir(directory) if os.path.isdir(directory) else []
        return sorted(name for name in found if name.startswith(prefix))

    @contextlib.contextmanager
    def locked(self, *, timeout: float, read_only: bool) -> t.Iterator[None]:
        """Hold the directory against buildx; without ``read_only`` make it first.

        :raises LockTimeoutError: when buildx or another run does not end within ``timeout`` seconds.
        """
        if not read_only:
            os.makedirs(os.path.dirname(self.path), mode=_files.PRIVATE_DIRECTORY, exist_ok=True)
            for directory in (self.path, *(os.path.join(self.path, name) for name in _DIRECTORIES)):
                _files.make_private_directory(directory)
        with _files.locked(os.path.join(self.path, _LOCK), timeout=timeout, read_only=read_only):
            yield

    def check_writable(self) -> None:
        """Refuse a directory that the user in force could not write to, before anything is.

        :raises ClientError: with the place and what to try.
        """
        candidates = [self.path, *(os.path.join(self.path, name) for name in (_LOCK, *_DIRECTORIES, "current"))]
        for path in candidates:
            why = users.why_not_writable(path)
            if why:
                raise ClientError(
                    f"buildx keeps its builders in {self.path}, where this user cannot: {why}. Give the directory back "
                    "to its user (chown -R), or name another one that is the user's own."
                )

    def read_instance(self, name: str) -> t.Optional[bytes]:
        """The bytes of a builder's file; None when there is none."""
        return _files.read_optional(self.instance(name))

    def read_current(self) -> t.Mapping[str, t.Any]:
        """What the file ``current`` holds; empty where there is none, or buildx could not read it either."""
        try:
            found = json.loads(_files.read_optional(os.path.join(self.path, "current")) or b"{}")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_instance(self, name: str, stored: t.Mapping[str, t.Any]) -> None:
        """Replace a builder's file in one rename."""
        self._write(self.instance(name), buildx.dump(stored))

    def write_current(self, current: t.Mapping[str, t.Any]) -> None:
        """Replace the file ``current`` in one rename."""
        self._write(os.path.join(self.path, "current"), buildx.dump(current))

    def _write(self, path: str, data: bytes) -> None:
        # Not beside its target: in instances/ buildx takes every file for a builder, what a killed run left too.
        name = os.path.basename(path)
        for leftover in glob.glob(os.path.join(glob.escape(self.path), f".{glob.escape(name)}.*.tmp")):
            os.unlink(leftover)
        temporary = os.path.join(self.path, f".{name}.{secrets.token_hex(8)}.tmp")
        try:
            _files.write_new(temporary, data)
            _files.flush([temporary])
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        _files.flush([os.path.dirname(path)])

    def defaults_of(self, name: str) -> t.List[str]:
        """The files below ``defaults`` that name a builder."""
        directory = os.path.join(self.path, "defaults")
        found = []
        for entry in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
            path = os.path.join(directory, entry)
            if (_files.read_optional(path) or b"").decode("utf-8", "replace").strip().lower() == name:
                found.append(path)
        return found

    def traces_of(self, name: str, shown_as: str) -> t.List[str]:
        """All that is there of a builder beside its file and ``current``: times and references of builds."""
        names = sorted({name, shown_as})
        candidates = [os.path.join(self.path, part, one) for part in ("activity", "refs") for one in names]
        return [path for path in candidates if os.path.lexists(path)] + self.defaults_of(name)

    def remove(self, name: str, traces: t.Iterable[str]) -> None:
        """Remove a builder's file, and then what else is there of it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.instance(name))
        for path in traces:
            if os.path.isdir(path) and not os.path.islink(path):
                _files.remove_tree(path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
