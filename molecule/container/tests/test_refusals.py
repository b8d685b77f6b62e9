# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be meant, or cannot work, is refused before anything changes, with what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

DOCKER, PODMAN = "container-docker", "container-podman"
STRANGER = "python3 -m http.server 2345 >/dev/null 2>&1 & echo $!"


def _state(host) -> str:
    """What a refused run must leave as it is: containers, images, volumes, files."""
    engine = host.engine
    return host.ran(
        f"{engine} ps --all --no-trunc --format '{{{{.ID}}}} {{{{.Names}}}}'; {engine} images --all --quiet; "
        f"{engine} volume ls --quiet; find /etc/buildkit /etc/containers /etc/systemd/system -newermt '1 minute ago'; "
        f"find /etc/buildkit /etc/containers /etc/systemd/system -type f | sort | xargs sha256sum"
    )


@contextlib.contextmanager
def _unchanged(hosts) -> Iterator[None]:
    before = {engine: _state(host) for engine, host in hosts.items()}
    yield
    assert {engine: _state(host) for engine, host in hosts.items()} == before


@pytest.mark.parametrize(
    ("wishes", "variables", "messages"),
    [
        (
            {DOCKER: {"image_name": "localhost/buildkit"}, PODMAN: {"image_name": "localhost/buildkit:latest"}},
            {},
            ["without a tag or digest, which means latest", "a tag that moves"],
        ),
        (
            {DOCKER: {"preset": "earthly", "port": 8372}, PODMAN: {"preset": "earthbuild", "port": 8372}},
            {"buildkitd_container_environment": {"BUILDKIT_TLS_ENABLED": "false"}},
            ["container-docker: buildkitd_container_environment sets BUILDKIT_TLS_ENABLED", "open to everyone"],
        ),
        (
            {},
            {"buildkitd_container_volume": "/srv/cache"},
            ["container-docker: docker: ", "container-podman: podman: ", "overlay"],
        ),
        (
            {DOCKER: {"image_name": "localhost/empty:1"}, PODMAN: {"image_name": "localhost/empty:1"}},
            {"buildkitd_container_image_archive": ""},
            [
                "container-docker: docker: ",
                "container-podman: podman: ",
                "the image localhost/empty:1 has no buildkitd",
            ],
        ),
    ],
    ids=["latest", "plaintext", "overlay", "no buildkitd"],
)
def test_bad_input_is_refused(hosts, play, wishes, variables, messages):
    """By both engines' hosts, each in words of its own."""
    for host in hosts.values():
        host.ran(f"{host.engine} image inspect localhost/empty:1 >/dev/null 2>&1 || tar -cT /dev/null | "
                 f"{host.engine} import - localhost/empty:1")  # fmt: skip
    with _unchanged(hosts):
        run = play("site", wishes=wishes, **variables)
    assert run.code == 2, run.output
    assert [message for message in messages if message not in run.text] == [], run.output
    assert set(run.changed.values()) == {0}


def test_what_strangers_have_is_left_to_them(hosts, play):
    """A name and a port that somebody else uses."""
    for host in hosts.values():
        name = "localhost/buildkit:" + ("v0.25.2-debian" if host.engine == "docker" else "v0.13.2-debian")
        image = host.ran(f"{host.engine} images --quiet").split()[0]
        host.ran(f"{host.engine} create --name theirs {image or name} >/dev/null")
    strangers = {engine: host.ran(STRANGER).strip() for engine, host in hosts.items()}
    try:
        with _unchanged(hosts):
            run = play("site", buildkitd_container_name="theirs", buildkit_port=2345)
    finally:
        for engine, host in hosts.items():
            host.ran(f"kill {strangers[engine]}; {engine} rm theirs")
    assert run.code == 2, run.output
    for host in hosts.values():
        assert f"{host.name}: {host.engine}: " in run.text
    assert run.text.count("theirs") >= 2
    assert run.text.count("port 2345 is in use by something else") == 2


@pytest.mark.parametrize("program", ["missing", "old", "unable"])
def test_an_engine_that_will_not_do_is_refused(hosts, play, program):
    """None there, one that is too old, or one that cannot give a container what buildkitd needs."""
    # Debian's programs stand aside for one that answers as such an engine does.
    fakes = {
        "old": """case "$*" in *version*) echo %s; exit;; esac""",
        "unable": """case "$1" in run) echo "unable to apply caps: operation not permitted" >&2; exit 126;; esac""",
    }
    versions = {"docker": "19.03.15", "podman": "4.3.1"}
    with _unchanged(hosts):
        for engine, host in hosts.items():
            host.ran(f"mv /usr/bin/{engine} /usr/lib/{engine}.away")
            if program != "missing":
                body = fakes[program].replace("%s", versions[engine])
                host.ran(f"cat >/usr/bin/{engine} <<'X'\n#!/bin/sh\n{body}\nexec /usr/lib/{engine}.away \"$@\"\nX\n")
                host.ran(f"chmod 755 /usr/bin/{engine}")
        try:
            run = play("site")
        finally:
            for engine, host in hosts.items():
                host.ran(f"mv -f /usr/lib/{engine}.away /usr/bin/{engine}")
    assert run.code == 2, run.output
    said = {
        "missing": ["there is no command docker. Install Docker", "there is no command podman. Install Podman"],
        "old": ["19.03.15", "20.10", "4.3.1", "4.4"],
        "unable": ["Docker cannot start a container with what buildkitd needs", "Podman cannot start a container"],
    }
    assert [words for words in said[program] if words not in run.text] == [], run.output
    assert set(run.changed.values()) == {0}
