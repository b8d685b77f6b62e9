# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of engines, of mounts, and of the role's record."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import container, proc
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.mounts import Mount


@pytest.mark.parametrize(
    ("text", "version"),
    [("26.1.5+dfsg1", (26, 1, 5)), ("4.4.0-rc2", (4, 4, 0)), ("20.10", (20, 10)), ("", ()), ("dev", ())],
)
def test_versions_are_their_numbers(text, version):
    """Whatever distributions add behind them."""
    assert container.parse_version(text) == version


def _mounts(*points):
    return [Mount(point, "8:1", "/", kind, ()) for point, kind in points]


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/var/lib/docker/volumes/buildkitd", ""),
        ("/var/lib/dockerish", "/"),
        ("/srv", "/"),
        ("/var/lib/docker/merged/x", "/var/lib/docker/merged"),
    ],
)
def test_the_nearest_mount_decides(path, where):
    """An overlay above a real file system does not count, and a longer name is another directory."""
    table = _mounts(("/", "overlay"), ("/var/lib/docker", "ext4"), ("/var/lib/docker/merged", "overlay"))
    assert container.on_overlay(path, table) == where


def test_what_is_mounted_last_counts():
    """Two mounts at one place: the second hides the first."""
    assert container.on_overlay("/data/x", _mounts(("/", "ext4"), ("/data", "overlay"), ("/data", "xfs"))) == ""


def _made(**settings):
    return container.Container(**{"identifier": "a", "running": True, "image": "b", "pid": os.getpid(), **settings})


def test_a_container_holds_what_it_publishes():
    """Its port by the engine's forwarder; not another program's, another port, or what it published before."""
    forwarder = proc.Listener(address="::", port=1234, pid=1, executable="/usr/sbin/docker-proxy")
    stranger = proc.Listener(address="::", port=1234, pid=1, executable="/usr/sbin/nginx")
    assert container.holds(_made(ports=(("", 1234),)), forwarder)
    assert not container.holds(_made(ports=(("", 1234),)), stranger)
    assert not container.holds(_made(ports=(("", 1235),)), forwarder)
    assert not container.holds(_made(ports=(("", 1234),), running=False), forwarder)
    assert not container.holds(None, forwarder)


def test_a_container_holds_what_its_processes_do():
    """With the host's network, the daemon listens itself."""
    assert container.holds(
        _made(), proc.Listener(address="::", port=1234, pid=os.getpid(), executable="/usr/bin/buildkitd")
    )


def test_a_record_is_read_or_refused(tmp_path):
    """None is no record; one that cannot be read is an error, not the same as none."""
    assert container.read_record(str(tmp_path)) == {}
    record = tmp_path / container.RECORD
    record.write_text('{"engine": "docker", "name": "buildkitd"}')
    assert container.read_record(str(tmp_path))["name"] == "buildkitd"
    record.write_text("{")
    with pytest.raises(HostError, match="cannot be read"):
        container.read_record(str(tmp_path))


def test_a_restart_is_remembered_of_the_container_that_was_restarted(tmp_path):
    """Its labels tell what it was made with. One that was made since has others, which are the truth."""
    made_with = {"image": "one", "certificate": "old"}
    assert container.runs_with(str(tmp_path), made_with) == made_with
    note = tmp_path / container.RESTARTED
    note.write_text(json.dumps({"made_with": made_with, "runs_with": {"certificate": "new"}}))
    assert container.runs_with(str(tmp_path), made_with) == {"image": "one", "certificate": "new"}
    newer = {"image": "one", "certificate": "newest"}
    assert container.runs_with(str(tmp_path), newer) == newer
    note.write_text("{")
    with pytest.raises(HostError, match="Remove it, and run again"):
        container.runs_with(str(tmp_path), made_with)


def test_a_missing_engine_is_named(monkeypatch, tmp_path):
    """With what to do."""
    monkeypatch.setattr(container.shutil, "which", lambda *_arguments, **_options: None)
    with pytest.raises(HostError, match="there is no command podman"):
        container.Engine("podman").version()
