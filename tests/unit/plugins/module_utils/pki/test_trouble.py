# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that are full or read-only, files that are damaged or another's, clocks that are wrong, two runs at once.

Always: a clear error or a correct result, nothing lost, and no CA in place of one that cannot be read.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import typing as t
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._files import LockTimeoutError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import PkiError, StoreError
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.pki import crash, disk
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.pki.scenes import (
    FIRST,
    FLEET,
    HOSTS,
    OTHER_WORDS,
    SCENARIOS,
    WORDS,
    Host,
    Run,
    restore,
    virgin_host,
)
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import snapshot

PASSPHRASES = (WORDS, OTHER_WORDS)

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here loses its power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """Where the PKI directory is going to be."""
    return tmp_path / "pki"


@pytest.fixture
def host(tmp_path: Path, now: datetime) -> Host:
    """A virgin host."""
    return virgin_host(tmp_path / "tls", now)


def pem_of(kind: str, body: bytes) -> str:
    """A PEM block."""
    text = base64.encodebytes(body).decode()
    return f"-----BEGIN {kind}-----\n{text}-----END {kind}-----\n"


def refusal(action: t.Callable[[], object]) -> str | None:
    """The message with which an action refuses, or None when it came to its end; other errors are not expected."""
    try:
        action()
    except PkiError as exc:
        return str(exc)
    return None


# --- disks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_disk_that_takes_nothing_any_more_loses_nothing(
    name: str, code: int, tmp_path: Path, pki: Path, now: datetime
) -> None:
    """From any operation on: the error of the operating system, a whole directory, and room again is all it needs."""
    scenario = SCENARIOS[name]
    run = scenario.prepare(pki, now)
    had, start = disk.read(pki, PASSPHRASES), tmp_path / "start"
    if scenario.before:
        pki.rename(start)
    restore(start, pki)
    count = len(crash.operations(pki, lambda: run.on(pki, now)))
    whole = disk.read(pki, PASSPHRASES)
    for point in range(0, count, 5 if code == errno.ENOSPC else 11):
        restore(start, pki)
        failure = crash.refused_from(pki, point, code, lambda: run.on(pki, now))
        left = disk.read(pki, PASSPHRASES)
        assert failure is None or f"[Errno {code}]" in failure, point
        assert left.faults == (), (point, failure)
        assert had.authority_keys <= left.authority_keys, point
        assert had.leaves & whole.leaves <= left.leaves, point
        run.on(pki, now)
        after = disk.read(pki, PASSPHRASES)
        assert after.faults == (), point
        assert left.authority_keys <= after.authority_keys, point
        assert disk.leftovers(pki) == [], point
        assert run.on(pki, now)["changed"] is False, point


@pytest.mark.parametrize("name", HOSTS)
def test_a_full_disk_on_a_host_leaves_what_was_installed(host: Host, name: str, tmp_path: Path) -> None:
    """From any operation on."""
    prepare, day = HOSTS[name]
    prepare(host)
    saved = tmp_path / "saved"
    if host.tls.exists():
        host.tls.rename(saved)
    restore(saved, host.tls)
    for point in range(len(crash.operations(host.tls, lambda: host.deploy(day)))):
        restore(saved, host.tls)
        failure = crash.refused_from(host.tls, point, errno.ENOSPC, lambda: host.deploy(day))
        assert failure is None or failure.startswith("OSError: [Errno 28]"), point
        assert host.faults() == [], (point, failure)
        assert not saved.exists() or (host.tls / "cert.pem").exists(), point
        certificate = host.deploy(day)
        assert host.faults() == [], point
        assert host.install(day, certificate)["changed"] is False, point


@contextmanager
def small_disk(directory: Path, size: int) -> t.Iterator[Path]:
    """A file system of so many bytes where we may mount one, else a directory whose files cannot grow beyond that."""
    directory.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", directory]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        try:
            yield directory
        finally:
            subprocess.run(["umount", directory], check=True)
        return
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 8, limits[1]))
    try:
        yield directory
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_is_really_full(tmp_path: Path, now: datetime) -> None:
    """A fleet that does not fit: its first part stays whole, and who has a certificate keeps it."""
    many = {"clients": [{"name": f"client-{number}"} for number in range(60)]}
    with small_disk(tmp_path / "disk", 128 * 1024) as directory:
        pki = directory / "pki"
        FIRST.on(pki, now)
        had = disk.read(pki)
        certificate = (pki / "clients/ci/cert.pem").read_bytes()
        with pytest.raises(OSError, match=r"No space left on device|File too large"):
            Run(0, many).on(pki, now)
        left = disk.read(pki)
        assert left.faults == ()
        assert had.authority_keys == left.authority_keys
        assert had.leaves <= left.leaves
        assert FIRST.on(pki, now)["changed"] is False
        assert (pki / "clients/ci/cert.pem").read_bytes() == certificate


# --- owners ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shared_place() -> t.Iterator[Path]:
    """A directory that everyone reaches, unlike those of pytest."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def give_to_nobody(path: Path) -> None:
    """Hand everything over, if we may; whoever else runs the tests is nobody already."""
    if os.geteuid() == 0:
        for one in (path, *path.rglob("*")):
            os.chown(one, crash.NOBODY, crash.NOBODY, follow_symlinks=False)


def close(directory: Path) -> None:
    """Take its owner's right to write away."""
    directory.chmod(0o500)


@pytest.mark.parametrize("where", [".", "clients", "clients/ci", "daemons/build-1"])
def test_a_directory_that_may_not_be_written_is_named_and_left(shared_place: Path, where: str, now: datetime) -> None:
    """At the top and inside; what is there can still be read and is enough for a run without changes."""
    pki = shared_place / "pki"
    FIRST.on(pki, now)
    give_to_nobody(shared_place)
    close(pki / where)
    before = disk.read(pki)
    changed = Run(80, {**FLEET, "clients": [{"name": "ci"}, {"name": "new"}]})
    failure = crash.as_nobody(pki, lambda: changed.on(pki, now))
    assert failure is not None
    assert failure.startswith("PermissionError: [Errno 13] Permission denied: ")
    assert str(pki) in failure
    after = disk.read(pki)
    assert after.authority_keys == before.authority_keys
    assert {"clients/ci", "daemons/build-1"} <= after.leaves
    assert after.faults == ()
    assert crash.as_nobody(pki, lambda: FIRST.on(pki, now)) is None or where == "."
    (pki / where).chmod(0o700)
    assert crash.as_nobody(pki, lambda: changed.on(pki, now)) is None
    assert disk.read(pki).faults == ()


@pytest.mark.parametrize("name", ["authorities/default/key.pem", "authorities/default/ca.pem", "issued.json"])
def test_what_may_not_be_read_is_not_replaced(shared_place: Path, name: str, now: datetime) -> None:
    """The CA above all."""
    pki = shared_place / "pki"
    FIRST.on(pki, now)
    (pki / name).chmod(0)
    before = snapshot_as_root(pki) if os.geteuid() == 0 else None
    give_to_nobody(shared_place)
    failure = crash.as_nobody(pki, lambda: Run(0, {"clients": [{"name": "new"}]}).on(pki, now))
    assert failure is not None
    assert failure.startswith("PermissionError: [Errno 13]")
    assert name in failure
    assert not (pki / "clients/new").exists()
    assert before is None or snapshot_as_root(pki) == before


def snapshot_as_root(pki: Path) -> dict[str, tuple[int, bytes]]:
    """Everything but the lock."""
    return {name: state for name, state in snapshot(pki).items() if name != ".lock"}


def test_the_directory_of_another_user_is_refused(shared_place: Path, now: datetime) -> None:
    """Its owner is root here, or whoever made the tests run, and we are nobody."""
    pki = shared_place / "pki"
    FIRST.on(pki, now)
    if os.geteuid() != 0:
        pki.chmod(0)
    failure = crash.as_nobody(pki, lambda: FIRST.on(pki, now))
    pki.chmod(0o700)
    assert failure is not None
    assert failure.startswith("PermissionError: [Errno 13]")
    assert disk.read(pki).faults == ()


def test_root_may_work_on_the_directory_of_another_user(shared_place: Path, now: datetime) -> None:
    """Correct all the same, and private; whoever is not root works on a directory of their own here."""
    pki = shared_place / "pki"
    FIRST.on(pki, now)
    give_to_nobody(shared_place)
    result = Run(80, FLEET).on(pki, now)
    assert result["clients"][0]["changed"]
    assert disk.read(pki).faults == ()
    assert Run(80, FLEET).on(pki, now)["changed"] is False


# --- damaged files --------------------------------------------------------------------------------------------

FILES = (
    *(f"authorities/default/{name}.pem" for name in ("ca", "key")),
    *(f"{leaf}/{name}.pem" for leaf in ("clients/ci", "daemons/build-1") for name in ("cert", "key", "ca")),
)


def damaged(pem: bytes) -> t.Iterator[bytes]:
    """A file cut short, emptied, overwritten, and with single bytes of its contents changed."""
    yield from (b"", b"\0" * len(pem), b"hello\n", pem[: len(pem) // 2], pem[:-20], pem[20:])
    kind = pem.split(b"-----")[1].decode().replace("BEGIN ", "")
    body = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    for index in range(0, len(body), 11):
        yield pem_of(kind, body[:index] + bytes([body[index] ^ 0x24]) + body[index + 1 :]).encode()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_or_mended_and_never_costs_a_ca(pki: Path, name: str, now: datetime) -> None:
    """No unexpected error; a refusal changes nothing, and an accepted run ends in pairs of the same CA."""
    FIRST.on(pki, now)
    whole, saved = disk.read(pki), pki.with_name("saved")
    pki.rename(saved)
    original = (saved / name).read_bytes()
    refused = 0
    for content in damaged(original):
        restore(saved, pki)
        (pki / name).write_bytes(content)
        before = snapshot(pki)
        message = refusal(lambda: FIRST.on(pki, now))
        if message is not None:
            refused += 1
            assert snapshot(pki) == before
            assert name in message or "authorities/default" in message
        else:
            assert name != "authorities/default/ca.pem"  # its signature shows every damage
            after = disk.read(pki)
            assert after.faults == ()
            assert after.signing_key == whole.signing_key
            assert FIRST.on(pki, now)["changed"] is False
    assert refused or name.endswith("/ca.pem")


def rewritten(register: dict[str, t.Any]) -> t.Iterator[str]:
    """A register with each of its values replaced by what does not belong there."""
    for junk in (None, 7, "x", [], {}):
        yield json.dumps(junk)
        yield json.dumps({**register, "format": junk})
        yield json.dumps({**register, "certificates": junk})
        yield json.dumps({**register, "certificates": [junk]})
        for number, entry in enumerate(register["certificates"]):
            for key in entry:
                entries = list(register["certificates"])
                entries[number] = {**entry, key: junk}
                yield json.dumps({**register, "certificates": entries})
                entries[number] = {other: value for other, value in entry.items() if other != key}
                yield json.dumps({**register, "certificates": entries})
    text = json.dumps(register)
    yield from (text[:-1], text[: len(text) // 2], "", "\0" * 100, text.replace("{", "[", 1), "\ud800x")


def test_a_damaged_register_is_an_error_or_does_no_harm(pki: Path, now: datetime) -> None:
    """Left as it is, or read as far as it goes; moved away, it comes back from the files."""
    FIRST.on(pki, now)
    path, whole = pki / "issued.json", disk.read(pki)
    original = path.read_bytes()
    refused = 0
    for text in rewritten(json.loads(original)):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        before = snapshot(pki)
        message = refusal(lambda: FIRST.on(pki, now))
        if message is not None:
            refused += 1
            assert "issued.json" in message
            assert snapshot(pki) == before
        after = disk.read(pki)
        assert after == whole
    assert refused > 20
    path.unlink()
    assert FIRST.on(pki, now)["changed"] is False
    assert disk.unregistered(pki) == []


@pytest.mark.parametrize("name", ["cert.pem", "key.pem", "ca.pem"])
def test_a_damaged_file_on_a_host_is_refused_or_mended(host: Host, name: str, tmp_path: Path) -> None:
    """The request and the installation; what is installed ends as a pair, or stays as it is."""
    host.deploy(0)
    saved = tmp_path / "saved"
    host.tls.rename(saved)
    for content in damaged((saved / name).read_bytes()):
        restore(saved, host.tls)
        (host.tls / "current" / name).write_bytes(content)
        before = snapshot(host.tls)
        message = refusal(lambda: host.deploy(0))
        if message is not None:
            assert snapshot(host.tls) == before
            assert name in message
        else:
            assert host.faults() == []


# --- clocks ---------------------------------------------------------------------------------------------------


def test_a_clock_a_year_back_changes_nothing(pki: Path, now: datetime) -> None:
    """The CA is not valid yet then; a new one would be wrong."""
    FIRST.on(pki, now)
    before = snapshot(pki)
    with pytest.raises(StoreError, match="set the clock right"):
        Run(-365, {**FLEET, "clients": [{"name": "new"}]}).on(pki, now)
    assert snapshot(pki) == before


def test_a_clock_a_year_forward_and_right_again_keeps_the_ca(pki: Path, now: datetime) -> None:
    """Leaves are renewed, the CA is not; when the clock is right again, what begins in the future is issued again."""
    FIRST.on(pki, now)
    had = disk.read(pki)
    ahead = Run(365, FLEET).on(pki, now)
    assert ahead["clients"][0]["reasons"] == ["it expired 275 days ago"]
    assert not ahead["authorities"][0]["changed"]
    back = FIRST.on(pki, now)
    assert "it is valid only from" in back["clients"][0]["reasons"][0]
    assert FIRST.on(pki, now)["changed"] is False
    after = disk.read(pki)
    assert (after.authority_keys, after.faults) == (had.authority_keys, ())


def test_a_host_with_a_wrong_clock_keeps_what_it_has(host: Host) -> None:
    """A year back it installs nothing that is not valid yet; a year forward it asks for a new key beside the old."""
    host.deploy(0)
    before = snapshot(host.tls)
    later = host.sign(host.request(0)["csr"], 100)
    with pytest.raises(PkiError, match="set the clock right"):
        host.install(-365, later)
    assert snapshot(host.tls) == before
    assert host.request(365)["reasons"] == ["the certificate expired 275 days ago"]
    assert host.faults() == []
    shown = (host.tls / "cert.pem").read_text()
    assert host.install(0, shown)["changed"] is False


# --- two runs at once -----------------------------------------------------------------------------------------


def at_once(*actions: t.Callable[[], object]) -> list[Exception]:
    """Let each action run in a thread, all of them started together; returns how some failed."""
    failures: list[Exception] = []
    gate = threading.Barrier(len(actions))

    def run(action: t.Callable[[], object]) -> None:
        gate.wait()
        try:
            action()
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_runs_at_once_wait_for_each_other(pki: Path, now: datetime) -> None:
    """Nine of them on a directory that is not there yet: one CA, and everyone's certificate."""
    runs = [Run(0, {"clients": [{"name": f"client-{number // 3}"}]}) for number in range(9)]
    assert at_once(*(lambda run=run: run.on(pki, now) for run in runs)) == []
    found = disk.read(pki)
    assert found.faults == ()
    assert len(found.authority_keys) == 1
    assert found.leaves == {"clients/client-0", "clients/client-1", "clients/client-2"}
    assert disk.leftovers(pki) == []
    assert disk.unregistered(pki) == []
    # One issue for each client: those that waited found it done.
    assert len(json.loads((pki / "issued.json").read_text())["certificates"]) == 4


def test_a_run_that_may_not_wait_says_what_it_waits_for(pki: Path, now: datetime) -> None:
    """Both kinds are clear about it, and the one that holds the lock is not disturbed."""
    FIRST.on(pki, now)
    hurried = [Run(80, {**FLEET, "lock_timeout": 0}) for _number in range(6)]
    failures = at_once(*(lambda run=run: run.on(pki, now) for run in hurried))
    assert {type(failure) for failure in failures} <= {LockTimeoutError}
    assert all(".lock" in str(failure) for failure in failures)
    assert len(failures) < len(hurried)
    assert disk.read(pki).faults == ()
    assert Run(80, FLEET).on(pki, now)["changed"] is False


def test_requests_and_installations_at_once_end_in_one_pair(host: Host) -> None:
    """On one host: nobody fails, unless with a certificate for a key that was replaced meanwhile."""
    requests: list[str] = []
    assert at_once(*(lambda: requests.append(host.request(0)["csr"]) for _number in range(6))) == []
    certificates = [host.sign(request, 0) for request in requests]
    assert at_once(*(lambda pem=pem: host.install(0, pem) for pem in certificates)) == []
    assert host.faults() == []
    assert (host.tls / "cert.pem").read_text() in certificates
    assert not (host.tls / "pending").exists()
