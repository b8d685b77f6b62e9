# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PKI directory on disk::

    <path>/                         0700, refused when others can enter it
      .gitignore                    *
      .lock                         held by a run from reading to writing
      issued.json                   the register, see register.py
      authorities/<name>/           ca.pem key.pem: the CA that signs
        next/                       ca.pem key.pem of the CA to come, in the phase distribute of a rollover
        previous/                   ca.pem key.pem of the CA before, in the phase issue
        retired/<fingerprint>/      ca.pem key.pem of CAs before that; no key of a CA is ever deleted
        rollover.json               who was given what in this phase, see rollover.py
      daemons/<name>/               ca.pem cert.pem, and key.pem when the key was made here
      clients/<name>/               ca.pem cert.pem, and key.pem when the key was made here
        group                       of a pinned client, when it is not "default"
        superseded/<serial>.pem     earlier certificates of a pinned client that are still valid
      revoked/clients/<name>-<serial>/  what a client had whose certificate was revoked

A ``ca.pem`` beside a CA's key is its certificate; beside a leaf it is what the holder verifies the other side by. An
authority is called ``default`` or like the group of clients whose certificates it signs. Everything a run needs is in
here: a copy of the directory goes on as the original would.

A key and its certificate always belong together, whatever kills a run. A directory with new ones is built
complete as ``.<name>.new`` and flushed to disk. Then the current one is renamed to ``.<name>.old``, the new one
takes its name, and the old one goes. So when ``<name>`` is missing beside both others, the new one is complete
and :meth:`Store.recover` finishes the exchange; in every other case ``<name>`` is whole and the others are waste.
Single files (a CA file, the register) are replaced by a rename. A phase of a rollover is one exchange of the
authority's directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts, keys, rollover
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import (
    PassphraseError,
    StoreError,
    UnreadableError,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.register import Register
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.state import (
    Authority,
    AuthorityState,
    Leaf,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import CLIENT, DAEMON

if t.TYPE_CHECKING:
    from cryptography import x509

AUTHORITY = "authority"
REVOKED = "revoked"

CA_FILE = "ca.pem"
CERTIFICATE_FILE = "cert.pem"
KEY_FILE = "key.pem"
GROUP_FILE = "group"
ROLLOVER_FILE = "rollover.json"
NEXT = "next"
PREVIOUS = "previous"
RETIRED = "retired"
SUPERSEDED = "superseded"

_PARENTS = {
    AUTHORITY: "authorities",
    DAEMON: "daemons",
    CLIENT: "clients",
    REVOKED: os.path.join("revoked", "clients"),
}
_LOCK = ".lock"
_REGISTER = "issued.json"
_IGNORE = ".gitignore"
_OURS = {_LOCK, _REGISTER, _IGNORE, "authorities", "daemons", "clients", "revoked"}
_OUR_FILES = (CA_FILE, CERTIFICATE_FILE, KEY_FILE, GROUP_FILE, ROLLOVER_FILE)
_OUR_ENTRIES = {
    *_OUR_FILES,
    *(f".{name}.tmp" for name in _OUR_FILES),
    NEXT,
    PREVIOUS,
    SUPERSEDED,
}


@dataclass(frozen=True)
class Change:
    """New contents for the directory of an authority, daemon or client.

    :param files: our files by name, such as ``cert.pem`` or ``next/key.pem``; with ``whole`` they replace all of ours
        that are there but retired CAs, without it each is a replacement for one file.
    """

    kind: str
    name: str
    files: t.Mapping[str, bytes]
    whole: bool


class Store:
    """One PKI directory. All methods raise ``OSError`` as it comes and :class:`StoreError` for the rest."""

    def __init__(self, path: str) -> None:
        self.path = path

    def directory(self, kind: str, name: str) -> str:
        """Where the files of an authority, daemon or client are."""
        return os.path.join(self.path, _PARENTS[kind], name)

    def exists(self) -> bool:
        """Whether there is a directory at all."""
        return os.path.isdir(self.path)

    def check(self) -> None:
        """Refuse a directory that is not ours or that others can read.

        :raises StoreError: with the command that puts it right.
        """
        if not os.path.lexists(self.path):
            return
        if not self.exists():
            raise StoreError(f"{self.path} is not a directory: name one for the PKI that is, or is not there yet.")
        entries = set(os.listdir(self.path))
        if not entries & {_PARENTS[AUTHORITY], _REGISTER} and entries - _OURS:
            raise StoreError(
                f"{self.path} is no PKI directory: it has other contents ({', '.join(sorted(entries - _OURS)[:3])}) "
                "and no authorities/. Name a directory of its own for the PKI."
            )
        self._refuse_exposed([self.path])

    def check_keys(self) -> None:
        """Refuse keys that others can read. Only under the lock: without it they may be exchanged meanwhile.

        :raises StoreError: with the command that puts it right.
        """
        self._refuse_exposed(self._key_files())

    def _refuse_exposed(self, paths: t.Iterable[str]) -> None:
        for path in paths:
            if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
                raise StoreError(
                    f"Others than its owner have access to {path}: keys that others may have read are no longer "
                    f"secret. Close the directory with 'chmod -R go= {self.path}', and consider whether its keys "
                    "have to be replaced."
                )

    @contextlib.contextmanager
    def locked(self, *, timeout: float, read_only: bool) -> t.Iterator[None]:
        """Hold the directory against other runs; without ``read_only`` make it first, private.

        :raises LockTimeoutError: when another run does not end within ``timeout`` seconds.
        """
        with _files.locked_directory(self.path, _LOCK, timeout=timeout, read_only=read_only):
            yield

    def recover(self) -> None:
        """Finish or undo what a killed run left behind."""
        for parent in self._parents():
            for entry in sorted(os.listdir(parent)):
                name = _name_of(entry, ".old")
                if name is None:
                    continue
                current, old, new = _trio(os.path.join(parent, name))
                if not os.path.lexists(current):
                    os.rename(new if os.path.isdir(new) else old, current)
                    _files.flush([parent])
                _files.remove_tree(old)
            for entry in os.listdir(parent):
                if _name_of(entry, ".new") is not None:
                    _files.remove_tree(os.path.join(parent, entry))

    def is_tidy(self) -> bool:
        """Whether :meth:`recover` would find nothing to do."""
        entries = [entry for parent in self._parents() for entry in os.listdir(parent)]
        return all(_name_of(entry, suffix) is None for entry in entries for suffix in (".old", ".new"))

    def names(self, kind: str) -> list[str]:
        """The names of all authorities, daemons or clients, sorted."""
        parent = os.path.join(self.path, _PARENTS[kind])
        try:
            entries = os.listdir(parent)
        except FileNotFoundError:
            return []
        waiting = {name for name in (_name_of(entry, ".old") for entry in entries) if name is not None}
        # A file that lies beside the directories, such as an archive of one, is the user's.
        there = {one for one in entries if not one.startswith(".") and not os.path.isfile(os.path.join(parent, one))}
        return sorted(there | waiting)

    def read_authority(
        self, name: str, passphrase: str | None, previous_passphrase: str | None = None
    ) -> tuple[AuthorityState | None, list[str]]:
        """Read an authority, and what to warn of; None when it was never made.

        :raises StoreError: when only a part of it is there, or it is no CA, or key and certificate differ.
        """
        directory = self._readable_directory(AUTHORITY, name)
        words = (passphrase, previous_passphrase)
        current = self._read_ca(directory, *words)
        if current is None:
            return None, []
        coming = self._read_ca(os.path.join(directory, NEXT), *words)
        going = self._read_ca(os.path.join(directory, PREVIOUS), *words)
        if coming is not None and going is not None:
            raise StoreError(
                f"{directory} has both a CA to come ({NEXT}) and a CA before ({PREVIOUS}): a rollover has one of them. "
                "Restore the directory from a backup."
            )
        retired, warnings = {}, []
        parent = os.path.join(directory, RETIRED)
        for entry in sorted(os.listdir(parent)) if os.path.isdir(parent) else []:
            if os.path.isfile(os.path.join(parent, entry)):
                continue
            try:
                found = self._read_ca(os.path.join(parent, entry), *words)
            except StoreError as exc:
                warnings.append(f"A retired CA was passed over, which does no harm: {exc}")
                continue
            if found is not None:
                retired[entry] = found
        path = os.path.join(directory, ROLLOVER_FILE)
        record = rollover.parse_record(_files.read_optional(path), path)
        return AuthorityState(current, coming, going, retired, record), warnings

    def _read_ca(self, directory: str, passphrase: str | None, previous: str | None) -> Authority | None:
        ca_path, key_path = os.path.join(directory, CA_FILE), os.path.join(directory, KEY_FILE)
        ca_pem, key_pem = _files.read_optional(ca_path), _files.read_optional(key_path)
        if ca_pem is None and key_pem is None:
            return None
        for pem, missing, there in ((ca_pem, ca_path, key_path), (key_pem, key_path, ca_path)):
            if pem is None:
                raise StoreError(
                    f"The CA is incomplete: {missing} is missing and {there} is there. Restore it from a backup; "
                    "no new CA is made in its place."
                )
        certificate = facts.load_certificates(t.cast(bytes, ca_pem), ca_path)[0]
        if not facts.may_sign_certificates(certificate):
            raise UnreadableError(
                f"{ca_path} is not the certificate of a CA: it may not sign certificates. Restore the right file "
                "from a backup; no new CA is made in its place."
            )
        if not compat.is_signed_by(certificate, certificate):
            raise UnreadableError(
                f"{ca_path} is damaged: its contents are not those that its own key signed. Restore the right file "
                "from a backup; no new CA is made in its place."
            )
        key, encryption = _open_key(t.cast(bytes, key_pem), key_path, passphrase, previous)
        if keys.spki(key) != keys.spki(certificate):
            raise StoreError(
                f"The key {key_path} does not belong to the certificate {ca_path}. Restore the two files that "
                "belong together from a backup; no new CA is made in their place."
            )
        if not keys.can_be_ca(key):
            raise UnreadableError(
                f"The CA key {key_path} is of type {keys.type_of(key)}, which is not supported: "
                f"{', '.join(keys.KEY_TYPES)} and other RSA keys from 2048 bits on are."
            )
        return Authority(certificate, key, encryption)

    def read_leaf(self, kind: str, name: str) -> Leaf:
        """Read the files of a daemon or client, those that are there.

        :raises UnreadableError: when one is there and cannot be read.
        """
        directory = self._readable_directory(kind, name)
        key_path = os.path.join(directory, KEY_FILE)
        key_pem = _files.read_optional(key_path)
        return replace(self.read_public(kind, name), key=None if key_pem is None else keys.load(key_pem, key_path))

    def read_public(self, kind: str, name: str) -> Leaf:
        """Read all of a daemon or client but its key.

        :raises UnreadableError: when a certificate is there and cannot be read.
        """
        directory = self._readable_directory(kind, name)
        path = os.path.join(directory, CERTIFICATE_FILE)
        pem = _files.read_optional(path)
        certificate = None if pem is None else facts.load_certificates(pem, path)[0]
        bundle = _files.read_optional(os.path.join(directory, CA_FILE))
        if kind != CLIENT:
            return Leaf(certificate=certificate, bundle=bundle)
        group = _files.read_optional(os.path.join(directory, GROUP_FILE))
        return Leaf(
            certificate=certificate,
            bundle=bundle,
            group=None if group is None else group.decode("utf-8", "replace").strip(),
            superseded=tuple(self._read_superseded(os.path.join(directory, SUPERSEDED))),
        )

    def _read_superseded(self, directory: str) -> t.Iterator[x509.Certificate]:
        for entry in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
            if entry.startswith(".") or not entry.endswith(".pem"):
                continue
            path = os.path.join(directory, entry)
            yield facts.load_certificates(t.cast(bytes, _files.read_optional(path)), path)[0]

    def read_revoked(self) -> t.Iterator[tuple[str, x509.Certificate]]:
        """The revoked certificates whose files are kept, with the name of the directory; damaged ones are left out."""
        for name in self.names(REVOKED):
            directory = self._readable_directory(REVOKED, name)
            for folder in (directory, os.path.join(directory, SUPERSEDED)):
                for entry in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
                    if entry == CERTIFICATE_FILE or folder != directory:
                        path = os.path.join(folder, entry)
                        with contextlib.suppress(UnreadableError):
                            yield name, facts.load_certificates(_files.read_optional(path) or b"", path)[0]

    def read_register(self) -> Register:
        """Read the register; an empty one when there is none.

        :raises UnreadableError: when it is damaged.
        """
        path = os.path.join(self.path, _REGISTER)
        return Register.parse(_files.read_optional(path), path)

    def write_register(self, register: Register) -> None:
        """Replace the register."""
        _files.write_atomically(os.path.join(self.path, _REGISTER), register.dump(), alone=True)

    def write_ignore_file(self) -> None:
        """Keep the directory out of Git, unless the user decided about that already."""
        with contextlib.suppress(FileExistsError):
            _files.write_new(os.path.join(self.path, _IGNORE), b"*\n")

    def write(self, changes: t.Sequence[Change]) -> None:
        """Carry out changes, each of them completely or not at all.

        All are prepared and flushed together first: one by one, a fleet would wait for the disk most of the time.
        """
        if not changes:
            return
        for parent in sorted({_PARENTS[change.kind] for change in changes}):
            self._make_parent(parent)
        _files.flush([path for change in changes for path in self._prepare(change)])
        for change in changes:
            self._commit(change)
        _files.flush(sorted({directory for change in changes for directory in self._holders(change)}))
        for change in changes:
            if change.whole:
                _files.remove_tree(_trio(self.directory(change.kind, change.name))[1])

    def _prepare(self, change: Change) -> list[str]:
        """Write the new files beside the current ones; returns what to flush."""
        current, _old, new = _trio(self.directory(change.kind, change.name))
        if not change.whole:
            paths = []
            for name, data in change.files.items():
                paths.append(_temporary(os.path.join(current, name)))
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(paths[-1])
                _files.write_new(paths[-1], data)
            return paths
        os.mkdir(new, _files.PRIVATE_DIRECTORY)
        if os.path.isdir(current):
            # What the user or a role put beside our files stays there, and so do retired CAs.
            shutil.copytree(
                current,
                new,
                symlinks=True,
                ignore=_only_below(current, change),
                copy_function=_copy,
                dirs_exist_ok=True,
            )
        for name, data in change.files.items():
            path = os.path.join(new, name)
            for folder in _between(new, path):
                _files.make_private_directory(folder)
            _files.write_new(path, data)
        return [
            os.path.join(folder, name)
            for folder, _folders, files in os.walk(new)
            for name in ("", *files)
            if not os.path.islink(os.path.join(folder, name))
        ]

    def _commit(self, change: Change) -> None:
        current, old, new = _trio(self.directory(change.kind, change.name))
        if not change.whole:
            for name in change.files:
                path = os.path.join(current, name)
                os.rename(_temporary(path), path)
            return
        if os.path.lexists(current):
            os.rename(current, old)
        os.rename(new, current)

    def move_to_revoked(self, client: str, name: str) -> None:
        """Put the directory of a client away as the one of a revoked certificate."""
        self._make_parent(_PARENTS[REVOKED])
        source, target = self.directory(CLIENT, client), self.directory(REVOKED, name)
        _files.remove_tree(target)  # the same certificate's, from an earlier revocation
        os.rename(source, target)
        _files.flush([os.path.dirname(source), os.path.dirname(target)])

    def remove_superseded(self, client: str, certificate: x509.Certificate) -> None:
        """Remove the file of a superseded certificate; one that is not there is fine."""
        path = os.path.join(self.directory(CLIENT, client), superseded_file(certificate))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def _make_parent(self, parent: str) -> None:
        for folder in _between(self.path, os.path.join(self.path, parent, "x")):
            _files.make_private_directory(folder)

    def _holders(self, change: Change) -> list[str]:
        """The directories in which a change renamed something, to flush."""
        directory = self.directory(change.kind, change.name)
        return [os.path.dirname(directory) if change.whole else directory]

    def _readable_directory(self, kind: str, name: str) -> str:
        """The directory to read from: as :meth:`recover` would leave it, which check mode does not run."""
        current, old, new = _trio(self.directory(kind, name))
        if os.path.lexists(current) or not os.path.isdir(old):
            return current
        return new if os.path.isdir(new) else old

    def _parents(self) -> list[str]:
        found = (os.path.join(self.path, parent) for parent in _PARENTS.values())
        return [parent for parent in found if os.path.isdir(parent)]

    def _key_files(self) -> t.Iterator[str]:
        """All keys of ours; what users put into directories below those of leaves is theirs."""
        for kind, parent in _PARENTS.items():
            for folder, folders, files in os.walk(os.path.join(self.path, parent)):
                if KEY_FILE in files:
                    yield os.path.join(folder, KEY_FILE)
                if kind in (DAEMON, CLIENT) and folder != os.path.join(self.path, parent):
                    folders.clear()


def superseded_file(certificate: x509.Certificate) -> str:
    """The name of the file of a superseded certificate, from the directory of its client."""
    return os.path.join(SUPERSEDED, f"{facts.serial_hex(certificate)}.pem")


def _open_key(pem: bytes, path: str, passphrase: str | None, previous: str | None) -> tuple[keys.PrivateKey, str]:
    """Read the key of a CA, and say why it must be encrypted anew, if it must."""
    if passphrase and not keys.is_encrypted(pem):
        return keys.load(pem, path), "its key is not encrypted"
    try:
        return keys.load(pem, path, passphrase=passphrase), ""
    except PassphraseError:
        if not previous:
            raise
    return (
        keys.load(pem, path, passphrase=previous, option="neither ca.passphrase nor ca.previous_passphrase fits"),
        "its key is encrypted with another passphrase",
    )


def _trio(directory: str) -> tuple[str, str, str]:
    """The current, old and new form of a directory that is exchanged as a whole."""
    parent, name = os.path.split(directory)
    return directory, os.path.join(parent, f".{name}.old"), os.path.join(parent, f".{name}.new")


def _copy(source: str, target: str) -> None:
    """Copy a file with its times and mode; it may be a key, so it is private until it has them."""
    with open(source, "rb") as stream:
        _files.write_new(target, stream.read())
    shutil.copystat(source, target)


def _only_below(directory: str, change: Change) -> t.Callable[[str, list[str]], list[str]]:
    """For copytree: leave out our own entries, which only the top of ``directory`` has, and what is written anew."""
    written = {os.path.join(directory, name) for name in change.files}
    return lambda folder, entries: [
        entry
        for entry in entries
        if (folder == directory and entry in _OUR_ENTRIES) or os.path.join(folder, entry) in written
    ]


def _between(top: str, path: str) -> list[str]:
    """The directories from below ``top`` down to the one that holds ``path``."""
    folders = []
    folder = os.path.dirname(path)
    while folder != top:
        folders.append(folder)
        folder = os.path.dirname(folder)
    return folders[::-1]


def _name_of(entry: str, suffix: str) -> str | None:
    """The name behind ``.<name>.old`` or ``.<name>.new``."""
    if entry.startswith(".") and entry.endswith(suffix) and len(entry) > len(suffix) + 1:
        return entry[1 : -len(suffix)]
    return None


def _temporary(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.tmp")
