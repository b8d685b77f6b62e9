# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkitd_release, run as Ansible runs it, with real archives."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import os
import stat
import subprocess
import tarfile
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import release
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import (
    Outcome,
    module_process,
    run_module,
    snapshot,
)

Run = t.Callable[..., Outcome]
PROGRAMS = {"bin/buildkitd": b"daemon", "bin/buildctl": b"client"}


def member(name: str, content: bytes = b"x", **fields: t.Any) -> tuple[tarfile.TarInfo, bytes]:
    """An entry of an archive."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o4600
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry, content


class Archive:
    """An archive on disk: ``options`` are what the module wants to know of it."""

    def __init__(self, path: Path, version: str, *members: tuple[tarfile.TarInfo, bytes]) -> None:
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            for entry, content in members:
                archive.addfile(entry, io.BytesIO(content))
        self.path = path
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.options = {"version": version, "src": str(path), "sha256": sha256}


@pytest.fixture
def make(tmp_path: Path) -> t.Callable[..., Archive]:
    """A function that makes an archive of these programs and members."""
    (tmp_path / "archives").mkdir()

    def once(version: str, programs: t.Mapping[str, bytes] | None = None, *members: t.Any) -> Archive:
        name = f"{len(os.listdir(tmp_path / 'archives'))}.tar.gz"
        return Archive(
            tmp_path / "archives" / name,
            version,
            *(member(*program) for program in (PROGRAMS if programs is None else programs).items()),
            *members,
        )

    return once


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The directory that stands for the host."""
    (tmp_path / "host").mkdir()
    return tmp_path / "host"


@pytest.fixture
def run(host: Path) -> Run:
    """A function that runs the module there."""

    def once(archive: Archive | None = None, check: bool = False, **changed: t.Any) -> Outcome:
        options = {
            **({"state": "absent"} if archive is None else archive.options),
            "install_dir": f"{host}/lib",
            "bin_dir": f"{host}/bin",
            **changed,
        }
        return run_module("buildkitd_release", options, check=check, diff=True)

    return once


def test_install_check_again(run: Run, make: t.Callable[..., Archive], host: Path) -> None:
    """Predicted without a trace, installed for everyone to run, and not again."""
    archive = make("1.0.0")
    predicted = run(archive, check=True)
    assert snapshot(host) == {}
    first = run(archive)
    for outcome in (predicted, first):
        assert outcome.result["changed"]
        assert outcome.result["reasons"] == ["version 1.0.0 is not installed", "no version was in use"]
        assert outcome.result["previous_version"] == ""
        assert outcome.result["diff"] == {"before": "version in use: none\n", "after": "version in use: 1.0.0\n"}
    assert [predicted.result["bundled_runc"], first.result["bundled_runc"]] == [None, False]
    assert (host / "bin" / "buildkitd").read_bytes() == b"daemon"
    assert (host / "bin" / "buildctl").read_bytes() == b"client"
    assert sorted(os.listdir(host / "bin")) == ["buildctl", "buildkitd"]
    for path in (host / "lib" / "1.0.0", host / "lib" / "1.0.0" / "bin", host / "bin" / "buildkitd"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    before = snapshot(host)
    for check in (True, False):
        again = run(archive, check=check)
        assert (again.result["changed"], again.result["reasons"]) == (False, [])
    assert snapshot(host) == before


def test_check_mode_tells_whether_an_archive_brings_cni_plugins(run: Run, make: t.Callable[..., Archive]) -> None:
    """All of them, or it counts as none."""
    names = [f"bin/buildkit-cni-{name}" for name in ("bridge", "loopback", "host-local", "firewall")]
    for count, expected in ((4, True), (3, False), (0, False)):
        archive = make(f"1.0.{count}", {"bin/buildkitd": b"daemon", **dict.fromkeys(names[:count], b"plugin")})
        assert run(archive, check=True).result["bundled_cni"] is expected
    run(archive)
    assert run(archive, check=True).result["bundled_cni"] is None


def test_a_new_version_and_back_is_one_link(run: Run, make: t.Callable[..., Archive], host: Path) -> None:
    """The version before stays, and coming back needs no archive any more."""
    old, new = make("1.0.0"), make("1.1.0-rc1", {"bin/buildkitd": b"new", "bin/buildkit-runc": b"runc"})
    run(old)
    upgrade = run(new)
    assert upgrade.result["reasons"] == ["version 1.1.0-rc1 is not installed", "version 1.0.0 was in use"]
    assert (upgrade.result["previous_version"], upgrade.result["bundled_runc"]) == ("1.0.0", True)
    assert (host / "bin" / "buildkitd").read_bytes() == b"new"
    assert (host / "bin" / "buildkit-runc").read_bytes() == b"runc"
    installed = snapshot(host / "lib" / "1.0.0")
    old.path.unlink()
    rollback = run(old)
    assert rollback.result["reasons"] == ["version 1.1.0-rc1 was in use"]
    assert os.readlink(host / "lib" / "current") == "1.0.0"
    assert (host / "bin" / "buildkitd").read_bytes() == b"daemon"
    assert snapshot(host / "lib" / "1.0.0") == installed


def test_another_archive_under_the_same_version(run: Run, make: t.Callable[..., Archive], host: Path) -> None:
    """It is noticed and replaces all programs, and a process that runs one of them is still known by its path."""
    first = make("1.0.0", {"bin/buildkitd": Path("/bin/sleep").read_bytes(), "bin/buildctl": b"client"})
    run(first)
    with subprocess.Popen([str(host / "lib" / "1.0.0" / "bin" / "buildkitd"), "60"]) as daemon:
        outcome = run(make("1.0.0", {"bin/buildkitd": b"other"}))
        running = os.readlink(f"/proc/{daemon.pid}/exe")
        daemon.kill()
    assert outcome.result["reasons"] == [
        f"version 1.0.0 was installed from another archive ({first.options['sha256'][:12]})"
    ]
    assert running == f"{host}/lib/1.0.0/bin/buildkitd (deleted)"
    assert os.listdir(host / "lib" / "1.0.0" / "bin") == ["buildkitd"]
    assert (host / "bin" / "buildkitd").read_bytes() == b"other"
    aside = f"1.0.0~{first.options['sha256'][:8]}"
    assert sorted(os.listdir(host / "lib")) == ["1.0.0", aside, "current"]
    # The way back.
    assert (host / "lib" / aside / "bin" / "buildkitd").read_bytes() == Path("/bin/sleep").read_bytes()
    assert (host / "lib" / aside / ".sha256").read_text() == first.options["sha256"] + "\n"


def test_old_versions_go(run: Run, make: t.Callable[..., Archive], host: Path) -> None:
    """Only so many stay; never the one before, one that runs, or one that is protected."""
    for number, version in enumerate(("1.0.0", "2.0.0", "3.0.0", "4.0.0")):
        run(make(version, {"bin/buildkitd": Path("/bin/sleep").read_bytes()}), keep=0)
        os.utime(host / "lib" / version / ".sha256", (number, number))
    with subprocess.Popen([str(host / "lib" / "2.0.0" / "bin" / "buildkitd"), "60"]) as daemon:
        predicted = run(make("5.0.0"), keep=2, protected=["3.0.0"], check=True)
        outcome = run(make("5.0.0"), keep=2, protected=["3.0.0"])
        daemon.kill()
    assert "version 1.0.0 need not be kept" in outcome.result["reasons"]
    assert predicted.result["reasons"] == outcome.result["reasons"]
    assert sorted(os.listdir(host / "lib")) == ["2.0.0", "3.0.0", "4.0.0", "5.0.0", "current"]
    run(make("6.0.0"), keep=3)
    assert sorted(os.listdir(host / "lib")) == ["4.0.0", "5.0.0", "6.0.0", "current"]


def test_a_link_that_went_away_comes_back(run: Run, make: t.Callable[..., Archive], host: Path) -> None:
    """It is a change with its reason."""
    archive = make("1.0.0")
    run(archive)
    (host / "bin" / "buildctl").unlink()
    assert run(archive).result["reasons"] == [f"programs are not linked in {host}/bin"]
    assert (host / "bin" / "buildctl").exists()


@pytest.mark.parametrize("check", [False, True])
def test_a_wrong_checksum(run: Run, make: t.Callable[..., Archive], host: Path, check: bool) -> None:
    """Both sums are told, and nothing is installed."""
    archive = make("1.0.0")
    outcome = run(archive, check=check, sha256="0" * 64)
    for part in (archive.options["sha256"], "0" * 64, "nothing was installed"):
        assert part in outcome.message
    assert snapshot(host) == {}


def test_a_checksum_in_capitals_is_the_same(run: Run, make: t.Callable[..., Archive]) -> None:
    """And not another archive on the next run."""
    archive = make("1.0.0")
    capitals = archive.options["sha256"].upper()
    assert [run(archive, sha256=capitals).result["changed"] for _run in range(2)] == [True, False]


@pytest.mark.parametrize(
    "members",
    [
        (member("bin/buildctl"),),
        (member("buildkitd"),),
        (member("bin/buildkitd", b"", type=tarfile.SYMTYPE, linkname="/bin/sh"),),
        (member("bin/buildkitd", b"", type=tarfile.DIRTYPE),),
        (member("../bin/buildkitd"),),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_an_archive_without_the_daemon(
    run: Run, make: t.Callable[..., Archive], host: Path, members: t.Any, check: bool
) -> None:
    """What is called bin/buildkitd must be a file there."""
    outcome = run(make("1.0.0", {}, *members), check=check)
    assert "has no bin/buildkitd, so it is no BuildKit release for Linux" in outcome.message
    assert snapshot(host) == {}


@pytest.mark.parametrize(
    "content", [b"", b"no archive", gzip.compress(b"no tar", mtime=0), gzip.compress(b"x" * 9000, mtime=0)[:-20]]
)
@pytest.mark.parametrize("check", [False, True])
def test_what_is_no_archive(run: Run, make: t.Callable[..., Archive], host: Path, content: bytes, check: bool) -> None:
    """The right checksum does not make it one."""
    archive = make("1.0.0")
    archive.path.write_bytes(content)
    outcome = run(archive, check=check, sha256=hashlib.sha256(content).hexdigest())
    assert f"Reading the archive {archive.path} failed" in outcome.message or "no bin/buildkitd" in outcome.message
    assert "Traceback" not in outcome.output
    assert snapshot(host) == {}


def test_an_archive_that_breaks_off(run: Run, make: t.Callable[..., Archive], host: Path) -> None:
    """The daemon is complete, what follows is not."""
    archive = make("1.0.0", {"bin/buildkitd": b"daemon", "bin/buildctl": os.urandom(100_000)})
    archive.path.write_bytes(archive.path.read_bytes()[:-50_000])
    outcome = run(archive, sha256=hashlib.sha256(archive.path.read_bytes()).hexdigest())
    assert f"Reading the archive {archive.path} failed" in outcome.message
    assert snapshot(host) == {}


def test_no_archive_is_there(run: Run, make: t.Callable[..., Archive], host: Path) -> None:
    """The path is told."""
    outcome = run(make("1.0.0"), src=f"{host}/none.tar.gz")
    assert f"Opening the archive {host}/none.tar.gz failed: No such file or directory" in outcome.message
    assert snapshot(host) == {}


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
@pytest.mark.parametrize("check", [False, True])
def test_what_is_no_regular_file(
    run: Run, make: t.Callable[..., Archive], host: Path, tmp_path: Path, kind: str, check: bool
) -> None:
    """Neither followed nor waited for."""
    archive = make("1.0.0")
    there = tmp_path / kind
    {"link": lambda: there.symlink_to(archive.path), "pipe": lambda: os.mkfifo(there), "directory": there.mkdir}[kind]()
    outcome = run(archive, check=check, src=str(there))
    assert f"Opening the archive {there} failed" in outcome.message
    assert snapshot(host) == {}


def test_what_was_verified_is_what_is_unpacked(make: t.Callable[..., Archive], host: Path) -> None:
    """An archive that is exchanged in between changes nothing."""
    archive, other = make("1.0.0"), make("1.0.0", {"bin/buildkitd": b"other"})
    sha256 = archive.options["sha256"]
    with release.opened_archive(str(archive.path)) as source:
        release.verify_archive(source, str(archive.path), sha256)
        os.replace(other.path, archive.path)
        release.unpack(source, sha256, f"{host}/lib", "1.0.0")
    assert (host / "lib" / "1.0.0" / "bin" / "buildkitd").read_bytes() == b"daemon"


def test_members_cannot_escape(run: Run, make: t.Callable[..., Archive], host: Path, tmp_path: Path) -> None:
    """Regular files of bin/ are unpacked below the version, and nothing else is made anywhere."""
    outside = snapshot(tmp_path)
    archive = make(
        "1.0.0",
        {"./bin/buildkitd": b"daemon", f"{tmp_path}/bin/absolute": b"x", "/bin/rooted": b"rooted"},
        member("../../escaped"),
        member("bin/../../escaped"),
        member("bin/link", b"", type=tarfile.SYMTYPE, linkname=str(tmp_path)),
        member("bin/link/through", b"x"),
        member("bin/hard", b"", type=tarfile.LNKTYPE, linkname="/etc/hostname"),
        member("bin/device", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("bin/pipe", b"", type=tarfile.FIFOTYPE),
        member("etc/passwd"),
        member("bin/below/program"),
    )
    assert not run(archive).failed
    installed = {name: state for name, state in snapshot(host / "lib" / "1.0.0").items() if name != "bin"}
    assert {name: content for name, (_mode, content) in installed.items()} == {
        ".sha256": archive.options["sha256"].encode() + b"\n",
        "bin/buildkitd": b"daemon",
        "bin/rooted": b"rooted",
    }
    assert {stat.S_IMODE(mode) for name, (mode, _content) in installed.items() if name != ".sha256"} == {0o755}
    archive.path.unlink()
    now = snapshot(tmp_path)
    assert {name: now[name] for name in now if not name.startswith("host/")} == outside


@pytest.mark.parametrize("kind", ["file", "link to /elsewhere/buildctl"])
@pytest.mark.parametrize("check", [False, True])
def test_a_foreign_program_is_refused_before_anything_is_unpacked(
    run: Run, make: t.Callable[..., Archive], host: Path, check: bool, kind: str
) -> None:
    """A file, or a link to somewhere else, where a link is to be stays what it is."""
    (host / "bin").mkdir()
    if kind == "file":
        (host / "bin" / "buildctl").write_text("of another package")
    else:
        (host / "bin" / "buildctl").symlink_to("/elsewhere/buildctl")
    before = snapshot(host)
    outcome = run(make("1.0.0"), check=check)
    assert f"Linking {host}/bin/buildctl to BuildKit failed: a {kind} that is not ours is there" in outcome.message
    assert snapshot(host) == before


@pytest.mark.parametrize("version", ["latest", "", "v1.0.0", "1.0", "../1.0.0", "1.0.0/../../x", "1.0.0\n", "current"])
@pytest.mark.parametrize("check", [False, True])
def test_a_version_is_one_release(
    run: Run, make: t.Callable[..., Archive], host: Path, version: str, check: bool
) -> None:
    """Nothing that moves by itself, and no path."""
    outcome = run(make("1.0.0"), check=check, version=version)
    assert f"The version {version!r} names no release of BuildKit. Name one, such as" in outcome.message
    assert snapshot(host) == {}


def test_a_run_that_is_killed_leaves_no_half_version(run: Run, make: t.Callable[..., Archive], host: Path) -> None:
    """Killed while it unpacks, it has installed nothing; the next run completes, and removal leaves nothing."""
    archive = make("1.0.0", {**PROGRAMS, "bin/buildkit-qemu-s390x": b"\0" * 400_000_000})
    options = {**archive.options, "install_dir": f"{host}/lib", "bin_dir": f"{host}/bin"}
    for _try in range(10):  # whoever is late finds it installed
        process = module_process("buildkitd_release", options)
        while not list(host.glob("lib/.*/bin/buildkitd")) and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        if list(host.glob("lib/.*/bin/buildkitd")):
            break
        run()
    assert list(host.glob("lib/.*/bin/buildkitd"))
    assert not (host / "lib" / "1.0.0").exists()
    assert not (host / "bin").exists()
    assert run(archive).result["reasons"] == ["version 1.0.0 is not installed", "no version was in use"]
    assert (host / "bin" / "buildkitd").read_bytes() == b"daemon"
    assert run().result["changed"]
    assert os.listdir(host) == ["bin"]
    assert os.listdir(host / "bin") == []


@pytest.mark.parametrize("half", ["no stamp", "no programs"])
def test_an_interrupted_replacement_is_made_good(
    run: Run, make: t.Callable[..., Archive], host: Path, half: str
) -> None:
    """A version without its stamp counts as not installed."""
    archive = make("1.0.0")
    run(archive)
    (host / "lib" / "1.0.0" / ".sha256").unlink()
    (host / "lib" / "1.0.0" / "bin" / "half").write_text("x")
    if half == "no programs":
        (host / "lib" / "1.0.0" / "bin" / "buildkitd").unlink()
    assert run(archive).result["reasons"] == ["version 1.0.0 is not installed"]
    assert sorted(os.listdir(host / "lib" / "1.0.0" / "bin")) == ["buildctl", "buildkitd"]
    assert run(archive).result["changed"] is False


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not log."""

    def log_message(self, *_: t.Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Serve the file, or break off in the way that the path names."""
        if self.path not in ("/silent", "/torn"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header(*(("Content-Length", "9") if self.path == "/silent" else ("Transfer-Encoding", "chunked")))
        self.end_headers()
        self.wfile.write(b"9\r\nhalf")
        self.wfile.flush()
        if self.path == "/silent":
            self.rfile.read()  # until the client has had enough
        self.close_connection = True


@pytest.fixture
def mirror(tmp_path: Path) -> t.Iterator[str]:
    """A server of the archives on loopback."""
    serve = functools.partial(Quiet, directory=str(tmp_path / "archives"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_download(run: Run, make: t.Callable[..., Archive], host: Path, mirror: str) -> None:
    """From a server; check mode does not ask it, and an installed version is not fetched again."""
    archive = make("1.0.0")
    there = f"{mirror}/{archive.path.name}"
    assert run(archive, check=True, src=f"{mirror}/none").result["changed"]
    assert snapshot(host) == {}
    assert run(archive, src=there).result["changed"]
    assert (host / "bin" / "buildkitd").read_bytes() == b"daemon"
    assert run(archive, src=f"{mirror}/none").result["changed"] is False


def test_a_download_that_fails(run: Run, make: t.Callable[..., Archive], host: Path, mirror: str) -> None:
    """What the server said, and what to do about it; nothing is installed."""
    outcome = run(make("1.0.0"), src=f"{mirror}/none.tar.gz")
    for part in (f"Downloading {mirror}/none.tar.gz failed: HTTP Error 404", "buildkitd_mirror", "buildkitd_archive"):
        assert part in outcome.message
    assert snapshot(host) == {}


@pytest.mark.parametrize(("path", "why"), [("silent", "timed out"), ("torn", "IncompleteRead"), ("none", "HTTP Error")])
def test_a_download_that_breaks_off(
    run: Run, make: t.Callable[..., Archive], host: Path, mirror: str, path: str, why: str
) -> None:
    """The address without its password, what happened, and what to do about it."""
    archive = make("1.0.0")
    for patience in (1, 5, 25) if path == "silent" else (60,):  # in which the beginning has to come at least
        outcome = run(archive, src=f"{mirror}/{path}".replace("//", "//ci:secret@"), timeout=patience)
        if "Connection failure" not in outcome.message:
            break
    assert outcome.message.startswith(f"Downloading {mirror}/{path} failed: {why}")
    assert "buildkitd_archive" in outcome.message
    assert "secret" not in outcome.message
    assert snapshot(host) == {}


def test_a_download_of_something_else(run: Run, make: t.Callable[..., Archive], host: Path, mirror: str) -> None:
    """The checksum tells."""
    outcome = run(make("1.0.0"), src=f"{mirror}/{make('1.1.0', {'bin/buildkitd': b'other'}).path.name}")
    assert "the one that was pinned; nothing was installed" in outcome.message
    assert snapshot(host) == {}


def test_nobody_answers(run: Run, make: t.Callable[..., Archive], host: Path) -> None:
    """A server that is not there is one clear message."""
    outcome = run(make("1.0.0"), src="http://127.0.0.1:1/x.tar.gz")
    assert "Downloading http://127.0.0.1:1/x.tar.gz failed" in outcome.message
    assert "Traceback" not in outcome.output
    assert snapshot(host) == {}


def test_absent_removes_every_version_and_our_links(run: Run, make: t.Callable[..., Archive], host: Path) -> None:
    """Predicted without a trace, done, and not again; what is not ours stays."""
    for version in ("1.0.0", "1.1.0+debian"):
        run(make(version))
    (host / "bin" / "buildctl").unlink()
    (host / "bin" / "buildctl").symlink_to("/elsewhere/buildctl")
    (host / "bin" / "other").write_text("x")
    before = snapshot(host)
    predicted = run(check=True)
    assert snapshot(host) == before
    removed = run()
    for outcome in (predicted, removed):
        paths = ["bin/buildkitd", "lib/1.0.0", "lib/1.1.0+debian", "lib/current", "lib"]
        assert outcome.result["reasons"] == [f"{host}/{path} is to be absent" for path in paths]
        assert outcome.result["previous_version"] == "1.1.0+debian"
        assert outcome.result["bundled_runc"] is None
    assert sorted(str(path.relative_to(host)) for path in host.rglob("*")) == ["bin", "bin/buildctl", "bin/other"]
    for check in (True, False):
        assert run(check=check).result["changed"] is False


def test_what_killed_runs_left_goes(run: Run, make: t.Callable[..., Archive], host: Path) -> None:
    """A half version goes with the next installation, once nobody can be writing it; all of it with the removal."""
    run(make("1.0.0"))
    for name in (".0.9.0.abcd", ".1.1.0.abcd", ".incoming", ".theirs"):
        (host / "lib" / name / "bin").mkdir(parents=True)
    os.utime(host / "lib" / ".0.9.0.abcd", (0, 0))
    (host / "bin" / "buildctl.4711.new").symlink_to(f"{host}/lib/current/bin/buildctl")
    run(make("1.1.0"))
    assert sorted(os.listdir(host / "lib")) == [".1.1.0.abcd", ".incoming", ".theirs", "1.0.0", "1.1.0", "current"]
    assert run().result["changed"]
    assert os.listdir(host / "lib") == [".theirs"]
    assert os.listdir(host / "bin") == []


def test_absent_leaves_what_else_is_in_the_install_directory(
    run: Run, make: t.Callable[..., Archive], host: Path
) -> None:
    """Somebody may have named a directory that holds more than BuildKit."""
    run(make("1.0.0"))
    for path in ("lib/python/bin", "lib/2.0.0", "lib/current.d"):
        (host / path).mkdir(parents=True)
    assert run().result["changed"]
    assert sorted(os.listdir(host / "lib")) == ["2.0.0", "current.d", "python"]
    assert run().result["changed"] is False
