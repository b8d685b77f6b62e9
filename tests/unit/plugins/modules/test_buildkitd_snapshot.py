# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkitd_snapshot, run as Ansible runs it, on files as the roles lay them out."""

from __future__ import annotations

import json
import os
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module


def pem(*names: str) -> str:
    """What looks like certificates."""
    return "".join(f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n" for name in names)


class Host:
    """A host's files, and the module on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.version("1.0.0", "one")
        self.use("1.0.0")
        (root / "buildkitd.toml").write_text("debug = false\n")
        (root / "buildkitd.toml").chmod(0o640)
        (root / "tls" / "versions").mkdir(parents=True)
        for name in ("ca.pem", "cert.pem", "key.pem"):
            (root / "tls" / name).symlink_to(f"current/{name}")
        self.certify("first", ca=pem("team"))

    def version(self, name: str, stamp: str) -> None:
        """Install a version."""
        (self.root / "lib" / name).mkdir(parents=True, exist_ok=True)
        (self.root / "lib" / name / ".sha256").write_text(f"{stamp}\n")

    def use(self, name: str) -> None:
        """Make a version the one in use."""
        (self.root / "lib" / "current").unlink(missing_ok=True)
        (self.root / "lib" / "current").symlink_to(name)

    def certify(self, name: str, *, ca: str) -> None:
        """Install a certificate as buildkit_csr does."""
        directory = self.root / "tls" / "versions" / name
        directory.mkdir()
        for file, text in (("ca.pem", ca), ("cert.pem", pem(name)), ("key.pem", f"key of {name}")):
            (directory / file).write_text(text)
        (self.root / "tls" / "current").unlink(missing_ok=True)
        (self.root / "tls" / "current").symlink_to(f"versions/{name}")

    def run(self, state: str, *, check: bool = False, **changed: t.Any) -> Outcome:
        """Run the module."""
        options = {
            "path": str(self.root / "proved"),
            "state": state,
            "tls_dir": str(self.root / "tls"),
            "files": {str(self.root / "buildkitd.toml"): "configuration", str(self.root / "none"): "nothing"},
            "links": {str(self.root / "lib" / "current"): "BuildKit"},
            "fingerprint": {"PART": (self.root / "buildkitd.toml").read_text()} if state == "kept" else {},
            "argv": ["/bin/buildkitd"],
            **changed,
        }
        return run_module("buildkitd_snapshot", options, check=check)

    def shown(self) -> dict[str, str]:
        """What a daemon that starts now would find."""
        files = {name: (self.root / "tls" / name).read_text() for name in ("ca.pem", "cert.pem", "key.pem")}
        return {
            **files,
            "version": os.readlink(self.root / "lib" / "current"),
            "configuration": (self.root / "buildkitd.toml").read_text(),
        }

    def break_all(self, ca: str) -> None:
        """A change of everything."""
        self.version("2.0.0", "two")
        self.use("2.0.0")
        (self.root / "buildkitd.toml").write_text("debug = nonsense\n")
        self.certify("second", ca=ca)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host whose daemon was proved."""
    made = Host(tmp_path)
    assert made.run("kept").result["changed"]
    return made


def test_everything_goes_back(host: Host) -> None:
    """Version, configuration, certificate and key; a second time there is nothing to do. Copies are root's alone."""
    before = host.shown()
    assert not host.run("kept").result["changed"]
    host.break_all(pem("team", "new team"))
    assert host.run("restored", check=True).result["changed"] is False
    done = host.run("restored")
    assert done.result["restored"] == ["BuildKit 1.0.0", "configuration", "trust bundle", "certificate and key"]
    assert done.result["left"] == []
    assert done.result["argv"] == ["/bin/buildkitd"]
    assert host.shown() == before
    assert stat.S_IMODE((host.root / "buildkitd.toml").stat().st_mode) == 0o640
    assert os.readlink(host.root / "tls" / "previous") == "versions/second"
    assert host.run("restored").result["restored"] == []
    for path in [host.root / "proved", *(host.root / "proved").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE((host.root / "tls" / "key.pem").stat().st_mode) == 0o600


def test_what_a_plain_process_was_started_with(tmp_path: Path) -> None:
    """Its command line and its variables are kept, and it is told where they are others by now."""
    host = Host(tmp_path)
    host.run("kept", environment={"COLOUR": "red", "NUMBER": 1})
    assert host.run("restored", environment={"COLOUR": "red", "NUMBER": 1}).result["restored"] == []
    done = host.run("restored", argv=["/bin/buildkitd", "--debug"], environment={"COLOUR": "blue"})
    assert done.result["restored"] == ["command line", "environment"]
    assert done.result["argv"] == ["/bin/buildkitd"]
    assert done.result["environment"] == {"COLOUR": "red", "NUMBER": "1"}


def test_what_was_not_there_goes(host: Host) -> None:
    """A file that came since is removed: the unit of before would read it."""
    (host.root / "none").write_text("HTTPS_PROXY=http://nowhere\n")
    assert host.run("restored").result["restored"] == ["nothing"]
    assert not (host.root / "none").exists()
    assert host.run("restored").result["restored"] == []


def test_a_snapshot_that_does_not_say_what_was_not_there(host: Host) -> None:
    """Nothing is removed then."""
    manifest = host.root / "proved" / "manifest.json"
    found = json.loads(manifest.read_text())
    del found["absent"]
    manifest.write_text(json.dumps(found))
    (host.root / "none").write_text("text\n")
    assert host.run("restored").result["restored"] == []
    assert (host.root / "none").exists()


def test_nobody_is_let_in_again(host: Host) -> None:
    """Where the new trust bundle refuses somebody whom the old one accepts, it stays; the certificate goes back."""
    before, ca = host.shown(), pem("new team")
    host.break_all(ca)
    done = host.run("restored").result
    assert "trust bundle" not in done["restored"]
    assert done["left"] == ["the trust bundle from before accepts clients that the new one does not"]
    assert host.shown() == {**before, "ca.pem": ca}


def test_the_same_version_from_another_archive(host: Host) -> None:
    """What was put aside is used again."""
    host.version("1.0.0~one", "one")
    host.version("1.0.0", "another")
    assert host.run("restored").result["restored"] == ["BuildKit 1.0.0"]
    assert os.readlink(host.root / "lib" / "current") == "1.0.0~one"


def test_a_version_that_is_gone(host: Host) -> None:
    """It is said, and the rest goes back."""
    host.break_all(pem("team"))
    (host.root / "lib" / "1.0.0" / ".sha256").unlink()
    done = host.run("restored").result
    assert done["left"] == ["BuildKit 1.0.0 is no longer installed"]
    assert done["restored"] == ["configuration", "certificate and key"]


def test_files_put_there_by_hand(tmp_path: Path) -> None:
    """They go back one by one."""
    host = Host(tmp_path)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        text = (tmp_path / "tls" / name).read_text()
        (tmp_path / "tls" / name).unlink()
        (tmp_path / "tls" / name).write_text(text)
    before = host.shown()
    host.run("kept")
    (tmp_path / "tls" / "cert.pem").write_text(pem("other"))
    assert host.run("restored").result["restored"] == ["certificate and key"]
    assert host.shown() == before


def damage(host: Host) -> None:
    """Change a copy."""
    [copy] = [one for one in (host.root / "proved").iterdir() if one.read_text().startswith("debug")]
    copy.write_text("debug = true\n")


def forget(host: Host) -> None:
    """Write what is no manifest."""
    (host.root / "proved" / "manifest.json").write_text("[]")


@pytest.mark.parametrize(("spoil", "message"), [(damage, "missing or damaged"), (forget, "nothing to go back to")])
def test_what_cannot_go_back(host: Host, spoil: t.Callable[[Host], None], message: str) -> None:
    """Nothing is changed then."""
    host.break_all(pem("team"))
    spoil(host)
    before = host.shown()
    done = host.run("restored")
    assert done.failed
    assert message in done.message
    assert host.shown() == before


def test_only_the_last_is_kept(host: Host) -> None:
    """Copies that nothing names are removed."""
    number = len(os.listdir(host.root / "proved"))
    (host.root / "buildkitd.toml").write_text("debug = true\n")
    assert host.run("kept").result["changed"]
    assert len(os.listdir(host.root / "proved")) == number
