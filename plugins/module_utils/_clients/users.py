# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Acting as a user: what is read, written and owned is as if that user had done it."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError


def entry_of(user: str) -> pwd.struct_passwd:
    """The user's entry in the password database; that of the user who runs this where ``user`` is empty.

    :raises ClientError: where there is no such user.
    """
    if not user:
        return pwd.getpwuid(os.geteuid())
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise ClientError(
            f"There is no user {user} on this host. Create that user first, or take the name off."
        ) from None


def is_known(user: str) -> bool:
    """Whether there is such a user; the one who runs this, whose name may be left empty, always."""
    try:
        entry_of(user)
    except ClientError:
        return False
    return True


@contextlib.contextmanager
def acting_as(entry: pwd.struct_passwd) -> t.Iterator[None]:
    """Take the rights of a user and no others until the block ends.

    The effective ids alone change, so that root comes back; run no program of that user meanwhile.

    :raises ClientError: where that user is another one, and this is not run by root.
    """
    if entry.pw_uid == os.geteuid():
        yield
        return
    if os.geteuid() != 0:
        raise ClientError(
            f"Acting as the user {entry.pw_name} needs root, and this runs as {pwd.getpwuid(os.geteuid()).pw_name}. "
            "Use become: true."
        )
    groups, group = os.getgroups(), os.getegid()
    os.setgroups(os.getgrouplist(entry.pw_name, entry.pw_gid))
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def said(error: OSError) -> str:
    """An error of the operating system as a sentence, with what to try where a file is not that user's."""
    hint = " Give it back to its user (chown -R)." if isinstance(error, PermissionError) and error.filename else ""
    return f"{error}.{hint}"


def why_not_writable(path: str) -> str:
    """Why a file or directory could not be made or changed at ``path`` with the rights in force; empty where it could.

    A read-only file system counts too.
    """
    place = os.path.abspath(path)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if place != os.path.abspath(path) and not os.path.isdir(place):
        return f"{place} is no directory"
    if not os.access(place, os.W_OK | (os.X_OK if os.path.isdir(place) else 0), effective_ids=True):
        return f"{place} cannot be written to"
    return ""


def why_not_roots_own(path: str) -> str:
    """Why root must not write at ``path``: a directory on the way that another user could exchange meanwhile for a
    link to anywhere. Empty where there is none, and for whoever is not root.
    """
    if os.geteuid() != 0:
        return ""
    for start in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
        place = os.path.dirname(start)
        while True:
            with contextlib.suppress(FileNotFoundError):
                info = os.stat(place)
                # In a sticky directory, such as /tmp, nobody else can exchange what is root's. A group may be one of
                # administrators, such as staff in Debian's /usr/local.
                open_to_others = info.st_mode & 0o002 and not info.st_mode & stat.S_ISVTX
                if info.st_uid != 0 or open_to_others:
                    return f"{place} belongs to {_name_of(info.st_uid)}, or others can write to it"
            if place == os.path.dirname(place):
                break
            place = os.path.dirname(place)
    return ""


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def why_not_readable(path: str) -> str:
    """Why a file cannot be read with the rights in force; empty where it can."""
    try:
        _files.read_optional(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if os.path.exists(path) else f"{path}: No such file or directory"
