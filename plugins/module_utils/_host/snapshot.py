# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a daemon was proved with last, kept so that a change that fails can be taken back::

    <path>/                0700
      manifest.json        what there is, and what it is a copy of; written last
      <sha256>             the contents of a file, 0600

A certificate goes back together with its key. The CA file goes back only as far as that accepts nobody whom the new one
does not accept: a client that was revoked, or a CA that was retired, must not come back by a failed restart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

_MANIFEST = "manifest.json"
_CA, _PAIR = "ca.pem", ("cert.pem", "key.pem")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


class Manifest(t.NamedTuple):
    """What a snapshot holds.

    :param digests: the fingerprint of the daemon at that time
    :param files: path of each file to the name of its copy and its mode
    :param links: path of each link to its target
    :param stamps: path of each link to what names the contents of its target, the file C(.sha256) in there
    :param tls: name of each file of the TLS directory to the name of its copy
    :param argv: the command line of a daemon that runs without an init system
    :param environment: the variables that such a daemon was given, but those of files
    :param absent: path of each file that was not there
    """

    digests: t.Dict[str, str]
    files: t.Dict[str, t.Tuple[str, int]]
    links: t.Dict[str, str]
    stamps: t.Dict[str, str]
    tls: t.Dict[str, str]
    argv: t.List[str]
    environment: t.Dict[str, str]
    absent: t.List[str]


def read(path: str) -> t.Optional[Manifest]:
    """What was kept; None if nothing was, or if it cannot be understood."""
    data = _files.read_optional(os.path.join(path, _MANIFEST))
    if data is None:
        return None
    try:
        found = json.loads(data.decode())
        return Manifest(
            digests={str(name): str(value) for name, value in found["digests"].items()},
            files={str(name): (str(copy), int(mode)) for name, (copy, mode) in found["files"].items()},
            links={str(name): str(target) for name, target in found["links"].items()},
            stamps={str(name): str(text) for name, text in found["stamps"].items()},
            tls={str(name): str(copy) for name, copy in found["tls"].items()},
            argv=[str(part) for part in found["argv"]],
            environment={str(name): str(value) for name, value in found.get("environment", {}).items()},
            absent=[str(name) for name in found.get("absent", [])],
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def keep(
    path: str,
    digests: t.Mapping[str, str],
    *,
    files: t.Sequence[str],
    links: t.Sequence[str],
    tls_dir: str,
    argv: t.Sequence[str],
    environment: t.Optional[t.Mapping[str, t.Any]] = None,
) -> None:
    """Copies what is there now in place of what was kept before. Whatever interrupts it, one of the two is whole."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _files.make_private_directory(path)
    os.chmod(path, _files.PRIVATE_DIRECTORY)
    made = Manifest(
        digests=dict(digests),
        files={
            one: (_copy(path, one), stat.S_IMODE(os.stat(one).st_mode)) for one in sorted(files) if os.path.isfile(one)
        },
        links={one: os.readlink(one) for one in sorted(links) if os.path.islink(one)},
        stamps={one: _stamp(one) for one in sorted(links) if os.path.islink(one)},
        tls={name: _copy(path, os.path.join(tls_dir, name)) for name in (_CA, *_PAIR)},
        argv=list(argv),
        environment={name: str(value) for name, value in (environment or {}).items()},
        absent=[one for one in sorted(files) if not os.path.lexists(one)],
    )
    text = json.dumps(made._asdict(), indent=1, sort_keys=True) + "\n"
    _files.write_atomically(os.path.join(path, _MANIFEST), text.encode())
    used = {_MANIFEST, *made.tls.values(), *(copy for copy, _mode in made.files.values())}
    for name in set(os.listdir(path)) - used:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(path, name))


def _copy(path: str, source: str) -> str:
    with open(source, "rb") as stream:
        data = stream.read()
    name = hashlib.sha256(data).hexdigest()
    if not os.path.exists(os.path.join(path, name)):
        _files.write_atomically(os.path.join(path, name), data)
    return name


def _stamp(directory: str) -> str:
    data = _files.read_optional(os.path.join(directory, ".sha256"))
    return (data or b"").decode("ascii", "replace").strip()


def _is(place: str, entry: str, stamp: str) -> bool:
    path = os.path.join(place, entry)
    return not os.path.islink(path) and os.path.isdir(path) and _stamp(path) == stamp


def _kept(path: str, name: str) -> bytes:
    data = _files.read_optional(os.path.join(path, name))
    if data is None or hashlib.sha256(data).hexdigest() != name:
        raise HostError(
            f"The copy {os.path.join(path, name)} of what was proved last is missing or damaged, so nothing was put "
            f"back."
        )
    return data


def restore(
    path: str,
    *,
    tls_dir: str,
    names: t.Mapping[str, str],
    argv: t.Sequence[str] = (),
    environment: t.Optional[t.Mapping[str, t.Any]] = None,
) -> t.Tuple[t.List[str], t.List[str], Manifest]:
    """Puts back what was kept.

    :param names: what files and links are called, by their paths; others are called by their paths
    :param argv: the command line of now, and with it ``environment``, of a daemon that runs without an init system;
        whoever starts it again takes those of the manifest
    :return: what was put back, what was not and why, and the manifest
    Raises HostError when there is nothing, or a copy is damaged; then nothing was changed.
    """
    manifest = read(path)
    if manifest is None:
        raise HostError("There is nothing to go back to: no earlier state of this daemon was proved and kept.")
    contents = {one: _kept(path, copy) for one, (copy, _mode) in manifest.files.items()}
    pair = {name: _kept(path, manifest.tls[name]) for name in (_CA, *_PAIR)}
    done, left = [], []
    for one, target in manifest.links.items():
        if not os.path.islink(one) or _stamp(one) == manifest.stamps[one]:
            continue
        place = os.path.dirname(one)
        same = [entry for entry in [target, *sorted(os.listdir(place))] if _is(place, entry, manifest.stamps[one])]
        if same:
            _files.link_atomically(one, same[0])
            done.append(f"{names.get(one, one)} {target}")
        else:
            left.append(f"{names.get(one, one)} {target} is no longer installed")
    for one, data in contents.items():
        mode = manifest.files[one][1]
        if _files.read_optional(one) != data:
            _files.write_atomically(one, data, mode=mode)
            done.append(names.get(one, one))
    # Such as a proxy, which the service unit of before would read, too.
    for one in manifest.absent:
        if os.path.isfile(one) and one in names:
            os.unlink(one)
            done.append(names[one])
    if argv and list(argv) != manifest.argv:
        done.append("command line")
    if argv and {name: str(value) for name, value in (environment or {}).items()} != manifest.environment:
        done.append("environment")
    _restore_tls(tls_dir, pair, done, left)
    return done, left, manifest


def _restore_tls(tls_dir: str, kept: t.Dict[str, bytes], done: t.List[str], left: t.List[str]) -> None:
    present = {name: _files.read_optional(os.path.join(tls_dir, name)) or b"" for name in kept}
    wanted = dict(kept)
    if kept[_CA] != present[_CA] and not certificates(kept[_CA]) <= certificates(present[_CA]):
        wanted[_CA] = present[_CA]
        left.append("the trust bundle from before accepts clients that the new one does not")
    elif kept[_CA] != present[_CA]:
        done.append("trust bundle")
    if any(kept[name] != present[name] for name in _PAIR):
        done.append("certificate and key")
    if wanted == present:
        return
    if os.path.islink(os.path.join(tls_dir, _CA)) and os.path.islink(os.path.join(tls_dir, "current")):
        _switch(tls_dir, wanted)
    else:  # files that somebody else put there, one by one
        for name, data in wanted.items():
            _files.write_atomically(os.path.join(tls_dir, name), data)


def _switch(tls_dir: str, wanted: t.Mapping[str, bytes]) -> None:
    """All three by one rename, in the layout of the module buildkit_csr."""
    versions, current = os.path.join(tls_dir, "versions"), os.path.join(tls_dir, "current")
    digests = b"".join(hashlib.sha256(wanted[name]).digest() for name in sorted(wanted))
    name = f"proved-{hashlib.sha256(digests).hexdigest()[:16]}"
    while os.readlink(current) == os.path.join("versions", name):
        name += "+"
    stage = os.path.join(versions, f".{name}")
    _files.remove_tree(stage)
    os.mkdir(stage, _files.PRIVATE_DIRECTORY)
    for file, data in wanted.items():
        _files.write_new(os.path.join(stage, file), data)
    _files.flush([*(os.path.join(stage, file) for file in wanted), stage])
    _files.remove_tree(os.path.join(versions, name))
    os.rename(stage, os.path.join(versions, name))
    _files.flush([versions])
    _files.link_atomically(os.path.join(tls_dir, "previous"), os.readlink(current))
    _files.link_atomically(current, os.path.join("versions", name))


def certificates(pem: bytes) -> t.Set[str]:
    """The certificates of a PEM file, as they are written there without white space."""
    return {"".join(body.split()) for body in _CERTIFICATE.findall(pem.decode("ascii", "replace"))}
