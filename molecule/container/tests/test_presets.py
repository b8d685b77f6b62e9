# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each preset is brought up once, on the host of one engine, and built on through what its clients use."""

from __future__ import annotations

DOCKER, PODMAN = "container-docker", "container-podman"


def test_heighliner_and_buildx(hosts, play, build, ssh):
    """docker-container:// over SSH without any TCP listener; and the container of buildx's guide."""
    # DOCKER_HOST=ssh:// as a context of the Docker command line.
    endpoint = f"docker-container://hln-buildkitd?context={DOCKER}"
    wishes = {DOCKER: {"preset": "heighliner", "endpoint": endpoint}, PODMAN: {"preset": "buildx"}}
    run = play("site", environment=ssh, wishes=wishes)
    assert run.code == 0, run.output
    docker, podman = hosts["docker"], hosts["podman"]
    # What ran before under another name is gone.
    assert (docker.containers(), podman.containers()) == (["hln-buildkitd"], ["remote-buildkitd"])
    shown = docker.inspect("container", "hln-buildkitd")["HostConfig"]
    assert (shown["Privileged"], shown["NetworkMode"]) == (True, "host")
    assert ":1234 " not in docker.ran("ss -Hltn")
    assert build(endpoint, tls=False, **ssh) == "hello\n"
    # And as Heighliner's own guide has it.
    engine = {"DOCKER_HOST": f"ssh://root@{docker.address}", **ssh}
    assert build("docker-container://hln-buildkitd", tls=False, **engine) == "hello\n"
    mounts = {mount["Destination"]: mount for mount in podman.inspect("container", "remote-buildkitd")["Mounts"]}
    assert mounts["/etc/buildkit/certs"]["RW"] is False
    assert build(f"tcp://{podman.address}:1234") == "hello\n"
    assert run.proved == [endpoint, f"tcp://{podman.address}:1234"]


def test_earthly_and_earthbuild(hosts, play, build):
    """Both serve mTLS on port 8372, and nothing on the others, with their data on a volume."""
    odd = 'a$HOME ${PATH} 5% "q" b\\s'  # what systemd would make something else of
    cache = {"buildkitd_container_environment": {"CACHE_SIZE_MB": "5000", "ODD": odd}}
    wishes = {
        DOCKER: {"preset": "earthly", "image": "EARTHLY", "port": 8372},
        PODMAN: {"preset": "earthbuild", "image": "EARTHBUILD", "port": 8372},
    }
    run = play("site", wishes=wishes, **cache)
    assert run.code == 0, run.output
    assert run.proved == [f"tcp://{host.address}:8372" for host in hosts.values()]
    for engine, name in (("docker", "earthly"), ("podman", "earthbuild")):
        host = hosts[engine]
        assert host.containers() == [f"{name}-buildkitd"]
        assert build(f"tcp://{host.address}:8372") == "hello\n"
        assert build(f"tcp://{host.address}:8372", tls=False) != "hello\n"
        listening = host.ran("ss -Hltn")
        assert ":8372 " in listening
        assert not {port for port in (1234, 8371, 8373) if f":{port} " in listening}
        mounts = {mount["Destination"]: mount for mount in host.inspect("container", f"{name}-buildkitd")["Mounts"]}
        (data,) = (mount for place, mount in mounts.items() if place.endswith(f"/{name}"))
        assert data["Type"] == "volume"
        assert "keepBytes = 5000000000" in host.ran(f"{engine} exec {name}-buildkitd cat /etc/buildkitd.toml")
        assert f"ODD={odd}" in host.inspect("container", f"{name}-buildkitd")["Config"]["Env"]


def test_rootless(hosts, play, build):
    """A daemon without root's rights, in a container that is not privileged."""
    # What a privileged daemon left in its volume belongs to root.
    wish = {"image": "ROOTLESS", "volume": "rootless"}
    run = play("site", wishes={DOCKER: wish, PODMAN: wish})
    assert run.code == 0, run.output
    assert run.proved == [f"tcp://{host.address}:1234" for host in hosts.values()]
    for host in hosts.values():
        shown = host.inspect("container", "buildkitd")
        assert shown["HostConfig"]["Privileged"] is False
        assert host.ran("ps -o user= -C buildkitd").split() == ["1000"]
        assert build(f"tcp://{host.address}:1234") == "hello\n"
