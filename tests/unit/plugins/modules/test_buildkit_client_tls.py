# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkit_client_tls, run as Ansible runs it, and the rename by which three files change together."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import identity, users
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module, snapshot

ME = pwd.getpwuid(os.geteuid()).pw_name
MY_GROUP = grp.getgrgid(os.getegid()).gr_name
DASHES = "-" * 5


def pem(kind: str, content: str) -> str:
    """Text in PEM format, as far as the module looks at it."""
    return f"{DASHES}BEGIN {kind}{DASHES}\n{content}\n{DASHES}END {kind}{DASHES}\n"


def wish(path: Path, version: str = "1", **more: t.Any) -> dict[str, t.Any]:
    """The options for one version of a client's files."""
    return {
        "path": str(path),
        "ca": pem("CERTIFICATE", "ca"),
        "certificate": pem("CERTIFICATE", f"cert{version}"),
        "key": pem("PRIVATE KEY", f"key{version}"),
        "owner": ME,
        **more,
    }


def modes(path: Path) -> dict[str, int]:
    """Modes of all that is no link, and of the directory itself."""
    found = {name: stat.S_IMODE(mode) for name, (mode, _content) in snapshot(path).items() if not stat.S_ISLNK(mode)}
    return {".": stat.S_IMODE(path.stat().st_mode), **found}


def in_use(path: Path) -> set[int]:
    """Modes of the files that the paths lead to."""
    return {stat.S_IMODE((path / name).stat().st_mode) for name in identity.FILES}


def test_install_predict_and_again(tmp_path: Path) -> None:
    """Predicted without a trace, readable for its owner alone, and not again."""
    path = tmp_path / "client" / "pool"
    predicted = run_module("buildkit_client_tls", wish(path), check=True, diff=True)
    assert snapshot(tmp_path) == {}
    made = run_module("buildkit_client_tls", wish(path), diff=True)
    assert predicted.result == made.result
    assert made.result["reasons"] == ["there is no certificate yet"]
    assert (path / "key.pem").read_text() == pem("PRIVATE KEY", "key1")
    assert "key1" not in made.output
    assert {mode & 0o077 for mode in modes(path).values()} == {0}
    for check in (True, False):
        assert run_module("buildkit_client_tls", wish(path), check=check).result["changed"] is False


def test_a_renewed_certificate_comes_by_one_rename(tmp_path: Path) -> None:
    """The version before stays for a tool that has read half, and no older one."""
    path = tmp_path / "pool"
    links = []
    for version in ("1", "2", "3"):
        run_module("buildkit_client_tls", wish(path, version))
        links.append(os.readlink(path / "current"))
        for name in ("cert", "key"):
            assert f"{name}{version}" in (path / f"{name}.pem").read_text()
    assert len(set(links)) == 3
    assert sorted(f"versions/{name}" for name in os.listdir(path / "versions")) == sorted(links[1:])
    back = run_module("buildkit_client_tls", wish(path, "2"))
    assert back.result["reasons"] == ["cert.pem is another one", "key.pem is another one"]
    assert "key2" in (path / "key.pem").read_text()


def test_whatever_kills_it_the_three_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every call that changes something, the paths show one version; the next run makes it good."""

    class Killed(BaseException):
        """The end of a process."""

    def contents(version: str) -> dict[str, bytes]:
        return {name: f"{name}{version}".encode() for name in identity.FILES}

    calls = 0
    for fatal in range(1, 100):
        path = tmp_path / str(fatal)
        directory = identity.IdentityDirectory(str(path), identity.Access(os.geteuid(), -1, shared=False))
        directory.install(contents("1"))
        calls = 0

        def count(real: t.Callable[..., t.Any], at: int = fatal) -> t.Callable[..., t.Any]:
            def counted(*arguments: t.Any, **more: t.Any) -> t.Any:
                nonlocal calls
                calls += 1
                if calls == at:
                    raise Killed
                return real(*arguments, **more)

            return counted

        for name in ("mkdir", "rename", "symlink", "chown", "chmod"):
            monkeypatch.setattr(os, name, count(getattr(os, name)))
        monkeypatch.setattr(_files, "write_new", count(_files.write_new))
        try:
            directory.install(contents("2"))
        except Killed:
            monkeypatch.undo()
            found = {name: (path / name).read_bytes() for name in identity.FILES}
            assert found in (contents("1"), contents("2"))
            directory.install(contents("2"))
            assert directory.reasons(contents("2")) == []
            assert len(os.listdir(path / "versions")) <= 2
        else:
            monkeypatch.undo()
            break
    assert calls > 10  # it was killed at each of them


def test_a_group_may_read_it_where_it_is_named(tmp_path: Path) -> None:
    """And no longer once it is not."""
    path = tmp_path / "pool"
    run_module("buildkit_client_tls", wish(path))
    shared = run_module("buildkit_client_tls", wish(path, group=MY_GROUP))
    assert shared.result["reasons"] == ["its owner, group or mode is another one"]
    assert in_use(path) == {0o640}
    assert modes(path)["."] == modes(path)["versions"] == 0o750
    assert run_module("buildkit_client_tls", wish(path, group=MY_GROUP)).result["changed"] is False
    alone = run_module("buildkit_client_tls", wish(path))
    assert alone.result["reasons"] == ["its owner, group or mode is another one"]
    assert in_use(path) == {0o600}
    assert modes(path)["."] == modes(path)["versions"] == 0o700


def test_modes_that_somebody_opened_are_closed(tmp_path: Path) -> None:
    """Of the key, and of the directory."""
    path = tmp_path / "pool"
    run_module("buildkit_client_tls", wish(path))
    for opened in (path, path / "key.pem"):
        opened.chmod(0o755)
        assert run_module("buildkit_client_tls", wish(path)).result["changed"] is True
        assert (path / "key.pem").stat().st_mode & 0o077 == 0
        assert path.stat().st_mode & 0o077 == 0


def test_removal(tmp_path: Path) -> None:
    """All that is ours; what somebody else put there stays, and the directory with it."""
    path, gone = tmp_path / "pool", {"path": str(tmp_path / "pool"), "state": "absent", "owner": ME}
    run_module("buildkit_client_tls", wish(path))
    before = snapshot(path)
    assert run_module("buildkit_client_tls", gone, check=True).result["changed"] is True
    assert snapshot(path) == before
    assert run_module("buildkit_client_tls", gone).result["reasons"] == ["it shall be absent"]
    assert not path.exists()
    assert run_module("buildkit_client_tls", gone).result["changed"] is False
    run_module("buildkit_client_tls", wish(path))
    (path / "notes").write_text("mine")
    run_module("buildkit_client_tls", gone)
    assert os.listdir(path) == ["notes"]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"path": "relative"}, "relative is no absolute path"),
        ({"key": "nothing"}, r"key.pem holds no private key"),
        ({"ca": "nothing"}, r"ca.pem holds no certificate"),
        ({"owner": "nobody-of-that-name"}, "There is no user nobody-of-that-name"),
        ({"group": "no-such-group"}, "There is no group no-such-group"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, wrong: dict[str, str], why: str) -> None:
    """Before anything is made."""
    refused = run_module("buildkit_client_tls", {**wish(tmp_path / "pool"), **wrong})
    assert why in refused.message
    assert snapshot(tmp_path) == {}


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    """Such as a bundle that was unpacked there."""
    (tmp_path / "key.pem").write_text("mine")
    before = snapshot(tmp_path)
    for state in ("present", "absent"):
        refused = run_module("buildkit_client_tls", wish(tmp_path, state=state))
        assert f"{tmp_path}/key.pem was put there by other means" in refused.message
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (["versions/1.2.3/app"], "versions was put there by other means"),
        (["versions/0123456789abcdef/app"], "versions was put there by other means"),
        (["Documents/letter", "notes"], "is in use for something else: it has Documents, notes in it"),
    ],
)
def test_a_directory_of_others_is_not_taken_over(tmp_path: Path, theirs: list[str], why: str) -> None:
    """Such as the releases of an application, or a whole home: nothing is removed, and no mode is changed."""
    path = tmp_path / "app"
    for name in theirs:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("mine")
    path.chmod(0o755)
    before = snapshot(tmp_path)
    assert why in run_module("buildkit_client_tls", wish(path)).message
    run_module("buildkit_client_tls", wish(path, state="absent"))
    assert snapshot(tmp_path) == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_a_strict_umask_locks_nobody_out(tmp_path: Path) -> None:
    """The group reaches the key through directories that were made on the way."""
    before = os.umask(0o077)
    try:
        made = run_module("buildkit_client_tls", wish(tmp_path / "etc" / "client" / "pool", group=MY_GROUP))
    finally:
        os.umask(before)
    assert not made.failed
    assert {stat.S_IMODE((tmp_path / part).stat().st_mode) for part in ("etc", "etc/client")} == {0o755}


def test_a_user_who_is_no_more_hinders_no_removal(tmp_path: Path) -> None:
    """The directory goes all the same."""
    path = tmp_path / "pool"
    run_module("buildkit_client_tls", wish(path))
    gone = run_module("buildkit_client_tls", {"path": str(path), "state": "absent", "owner": "nobody-of-that-name"})
    assert gone.result["changed"] is True
    assert not path.exists()


def test_root_does_not_write_where_others_could_lead_it_astray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that belongs to somebody else, also behind a link, or that all can write to, but for a sticky one."""
    theirs, link = tmp_path / "home", tmp_path / "link"
    theirs.mkdir()
    link.symlink_to(theirs)
    if os.geteuid() == 0:
        os.chown(theirs, 65534, 65534)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for path in (theirs / "pool", link / "deep" / "pool"):
        assert "belongs to" in users.why_not_roots_own(str(path))
    if os.getuid() == 0:
        refused = run_module("buildkit_client_tls", wish(theirs / "pool"))
        assert "Name that user as owner" in refused.message
        assert users.why_not_roots_own(str(tmp_path / "pool")) == ""
        tmp_path.chmod(0o2775)
        assert users.why_not_roots_own(str(tmp_path / "pool")) == ""
        tmp_path.chmod(0o777)
        assert "others can write to it" in users.why_not_roots_own(str(tmp_path / "pool"))
        tmp_path.chmod(0o1777)
        assert users.why_not_roots_own(str(tmp_path / "pool")) == ""
