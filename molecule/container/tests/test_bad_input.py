# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be meant, or cannot work, is refused before anything changes, with what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

DOCKER, PODMAN = "container-docker", "container-podman"


def _state(host) -> str:
    """What a refused run must leave as it is: containers, images, volumes, files."""
    engine = host.engine
    return host.ran(
        f"{engine} ps --all --no-trunc --format '{{{{.ID}}}} {{{{.Names}}}}'; {engine} images --all --quiet | sort; "
        f"{engine} volume ls --quiet; "
        "find /etc/buildkit /etc/containers /etc/systemd/system -type f | sort | xargs sha256sum"
    )


@contextlib.contextmanager
def _unchanged(hosts) -> Iterator[None]:
    before = {engine: _state(host) for engine, host in hosts.items()}
    yield
    assert {engine: _state(host) for engine, host in hosts.items()} == before


def test_what_cannot_be_meant_is_refused(hosts, play):
    """All at once: a tag that moves, no tag, plaintext, a cache on the overlay that the host itself lies on, nonsense.

    What an engine would refuse once the old container has ended, and what would be an option or a line of its own.
    """
    for engine, host in hosts.items():
        host.ran(f"{engine} create --name buildkitd-next $({engine} images --quiet | head -n 1) /none")
    wishes = {
        DOCKER: {"image_name": "localhost/buildkit", "preset": "earthly", "port": 8372},
        PODMAN: {"image_name": "localhost/buildkit:latest", "preset": "earthbuild", "port": 8372},
    }
    with _unchanged(hosts):
        run = play(
            "site",
            wishes=wishes,
            buildkitd_container_volume="/srv/cache",
            buildkitd_container_environment={
                "BUILDKIT_TLS_ENABLED": "false",
                "BUILDKIT_PPROF_ENABLED": "true",
                "API_TOKEN": "s3cret-token",
            },
            buildkitd_container_name="buildkitd",
            buildkitd_container_host_network=True,
            buildkitd_container_publish=["8371", "8372:70000"],
            buildkitd_container_limits={"memory": "16g --volume=/:/host"},
            buildkitd_container_log_options={"max size": "10m"},
            buildkitd_container_config_dir="/etc/build:kit",
            buildkitd_container_socket_dir="/run",
            buildkitd_container_start_timeout=0,
            buildkit_listen_address="192.0.2.9",
            buildkit_restart_policy="maybe",
            buildkit_cache_size="half",
            buildkit_network="bridge",
            buildkit_version="latest",
        )
    for engine, host in hosts.items():
        host.ran(f"{engine} rm --volumes buildkitd-next")
    assert run.code == 2, run.output
    assert "s3cret-token" not in run.output
    for said in (
        "a container named buildkitd-next is here already, which this collection did not make",
        "this host does not have the listen address 192.0.2.9",
        "it is no place for secrets",
        "buildkitd_container_limits is ",
        "buildkitd_container_log_options has max size",
        "They are absolute paths",
        "buildkitd_container_socket_dir is /run, of which everything would be in the container",
        "the ports 8372, 8371, 8372, 70000 are to be published",
        "buildkitd_container_start_timeout 0. They are seconds",
        "buildkit_restart_policy is 'maybe'",
        "buildkitd_container_version is 'latest'",
    ):
        assert run.text.count(said) >= 2, said
    assert run.text.count("buildkit_network is bridge, which only buildkit_backend: service has") >= 2
    assert "without a tag or digest, which means latest" in run.text
    assert "a tag that moves" in run.text
    assert run.text.count("buildkitd_container_environment sets BUILDKIT_TLS_ENABLED") >= 2
    assert run.text.count("buildkitd_container_environment sets BUILDKIT_PPROF_ENABLED") >= 2
    assert run.text.count("also serves its registry, port 8371, without a certificate") >= 2
    assert run.text.count("buildkitd_container_publish is 8371, 8372:70000. Name the port of the host") >= 2
    assert run.text.count("buildkitd_container_cache_size is 'half'") >= 2
    assert run.text.count("/srv/cache") >= 2
    assert "overlay" in run.text
    assert set(run.changed.values()) == {0}


def test_what_strangers_have_is_left_to_them(hosts, play):
    """A name and a port that somebody else uses; and an image that is none of BuildKit's."""
    strangers = {}
    for engine, host in hosts.items():
        host.ran(f"tar -cT /dev/null | {engine} import - localhost/empty:1")
        host.ran(f"{engine} create --name theirs localhost/empty:1 /none")
        strangers[engine] = host.ran("python3 -m http.server 2345 >/dev/null 2>&1 & echo $!").strip()
        host.ran("until ss -Hltn | grep -q ':2345 '; do sleep 0.1; done")
    try:
        with _unchanged(hosts):
            run = play(
                "site",
                wishes={name: {"image_name": "localhost/empty:1", "port": 2345} for name in (DOCKER, PODMAN)},
                buildkitd_container_name="theirs",
                buildkitd_container_image_archive="",
            )
    finally:
        for engine, host in hosts.items():
            host.ran(f"kill {strangers[engine]}; {engine} rm theirs; {engine} rmi localhost/empty:1")
    assert run.code == 2, run.output
    for host in hosts.values():
        assert f"{host.name}: {host.engine}: " in run.text
    assert run.text.count("a container named theirs is here already") >= 2
    assert run.text.count("port 2345 is in use by something else") >= 2
    assert run.text.count("the image localhost/empty:1 has no buildkitd") >= 2
    assert set(run.changed.values()) == {0}


@contextlib.contextmanager
def _instead(host, body: str) -> Iterator[None]:
    """Has the engine's command stand aside for one that does this before anything else; for none without a body."""
    program, aside = f"/usr/bin/{host.engine}", f"/usr/lib/{host.engine}.away"
    host.ran(f"mv {program} {aside}")
    try:
        if body:
            host.ran(f"cat >{program} <<'X'\n#!/bin/sh\n{body}\nexec {aside} \"$@\"\nX\nchmod 755 {program}")
        yield
    finally:
        host.ran(f"mv -f {aside} {program}")


def test_an_engine_that_is_missing_or_cannot_give_what_is_needed_is_refused(hosts, play):
    """The latter is found out by starting a container, which a command here answers as an engine without the rights."""
    unable = 'case "$1" in run) echo "unable to apply caps: operation not permitted" >&2; exit 126;; esac'
    # One that runs proves that it can.
    hosts["podman"].ran("systemctl stop buildkitd")
    with _unchanged(hosts), _instead(hosts["docker"], ""), _instead(hosts["podman"], unable):
        run = play("site")
    hosts["podman"].ran("systemctl start buildkitd")
    hosts["podman"].answered()
    assert run.code == 2, run.output
    assert "container-docker: docker: there is no command docker. Install Docker" in run.text
    assert "Podman cannot start a container with what buildkitd needs" in run.text
    assert set(run.changed.values()) == {0}
