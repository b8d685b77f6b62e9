# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From container to service and back: one run each, and nothing of the other is left but its cache."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="module")
def archive() -> dict[str, str]:
    """The variables of the host service, which is provisioned from an archive too."""
    return {
        "buildkit_backend": "service",
        "buildkit_version": os.environ["BUILDKIT_NEW_VERSION"],
        "buildkitd_archive": os.environ["BUILDKIT_NEW_ARCHIVE"],
        "buildkitd_archive_sha256": os.environ["BUILDKIT_NEW_SHA256"],
    }


def test_from_container_to_service_and_back(hosts, play, build, archive):
    """On both hosts; the same certificate serves."""
    certificates = {engine: host.installed() for engine, host in hosts.items()}
    run = play("site", **archive)
    assert run.code == 0, run.output
    for engine, host in hosts.items():
        assert host.containers() == []
        assert "buildkitd" in host.ran(f"{engine} volume ls --quiet").split()
        assert host.run("ls /etc/containers/systemd/*.container /etc/buildkit/container.json").stdout == ""
        assert host.ran("systemctl is-active buildkit.service buildkit.socket") == "active\nactive\n"
        assert host.installed() == certificates[engine] == host.served()
        assert build(f"tcp://{host.address}:1234") == "hello\n"
    back = play("site")
    assert back.code == 0, back.output
    for engine, host in hosts.items():
        assert host.containers() == ["buildkitd"]
        assert host.run("systemctl cat buildkit.service buildkit.socket").returncode != 0
        assert host.run("command -v buildkitd; ls -d /usr/local/lib/buildkit").stdout == ""
        assert host.ran("ls /var/lib/buildkit") != ""
        assert host.installed() == certificates[engine] == host.served()
        assert build(f"tcp://{host.address}:1234") == "hello\n"
    assert sum(play("site").changed.values()) == 0


def test_what_is_no_cache_is_refused_before_anything_goes(hosts, play):
    """A directory that was never a daemon's: the container runs on."""
    record, aside = "/etc/buildkit/container.json", "/srv/container.json"
    for host in hosts.values():
        host.ran(f"mkdir /srv/theirs && touch /srv/theirs/file && cp {record} {aside}")
        host.ran(f"""sed -i 's|"volume": ".*"|"volume": "/srv/theirs"|' {record} && grep /srv/theirs {record}""")
    run = play("remove", buildkitd_container_purge_cache=True)
    for host in hosts.values():
        host.ran(f"mv {aside} {record} && rm /srv/theirs/file && rmdir /srv/theirs")
        assert host.inspect("container", "buildkitd")["State"]["Running"]
    assert run.code == 2, run.output
    assert run.text.count("so it is not buildkitd's, and nothing was removed") >= 2
    assert set(run.changed.values()) == {0}


def test_removal_leaves_the_cache(hosts, play):
    """And, when that is asked for, not even that."""
    run = play("remove")
    assert run.code == 0, run.output
    for engine, host in hosts.items():
        assert host.containers() == []
        assert "buildkitd" in host.ran(f"{engine} volume ls --quiet").split()
        left = "/etc/buildkit /etc/containers/systemd/*.container /run/buildkit /run/runc"
        assert host.run(f"ls -d {left}").stdout == ""
        assert host.ran(f"{engine} images --all --quiet") == ""
        assert host.ran("systemctl is-system-running") == "running\n"
    assert sum(play("remove").changed.values()) == 0
    # What a first stage alone put there goes too.
    run = play("site", "--tags", "pki,install", "--limit", "container-podman")
    assert run.code == 0, run.output
    assert hosts["podman"].ran("podman images --quiet") != ""
    run = play("remove", buildkitd_container_purge_cache=True)
    assert run.code == 0, run.output
    for engine, host in hosts.items():
        assert "buildkitd" not in host.ran(f"{engine} volume ls --quiet").split()
        assert host.ran(f"{engine} images --all --quiet") == ""
        assert host.run("ls -d /etc/buildkit").stdout == ""
