# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A builder in a container, as the engine tells of it and as clients use it; on a host with no way out."""

from __future__ import annotations

import json
import os

BUILDX = "/usr/libexec/docker/cli-plugins/docker-buildx"
BUILD = "build --no-cache --frontend dockerfile.v0 --local context=/srv/project --local dockerfile=/srv/project"


def test_nothing_was_downloaded(machine):
    """The host has no way out, and its image is the one of the archive."""
    assert machine.ran("ip route show default") == ""
    kind = {"docker": "NEW", "podman": "OLD"}[machine.engine]
    image = json.loads(os.environ[f"BUILDKIT_IMAGE_{kind}"])
    assert machine.inspect("image", image["image"])["Id"].removeprefix("sha256:") == image["id"]
    assert machine.inspect("container", "buildkitd")["Image"].removeprefix("sha256:") == image["id"]
    # The archive that was copied there is gone.
    assert machine.ran("find / -xdev -name '*.tar' -size +1M") == ""


def test_the_container_is_what_was_asked_for(machine):
    """Privileged, healthy, started again; the certificates read-only as a directory, the cache on a volume."""
    shown = machine.inspect("container", "buildkitd")
    assert shown["State"]["Running"] is True
    assert shown["State"]["Health"]["Status"] in ("healthy", "starting")
    check = shown["Config"]["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    machine.ran(f"{machine.engine} exec buildkitd {' '.join(check[1:])}")
    assert shown["HostConfig"]["Privileged"] is True
    log = shown["HostConfig"]["LogConfig"]
    if machine.engine == "docker":
        assert (log["Type"], log["Config"]) == ("json-file", {"max-size": "3m"})
    else:
        assert (log["Type"], log["Size"]) == ("k8s-file", "3MB")
    mounts = {mount["Destination"]: mount for mount in shown["Mounts"]}
    assert (mounts["/etc/buildkit/tls"]["Type"], mounts["/etc/buildkit/tls"]["RW"]) == ("bind", False)
    assert (mounts["/var/lib/buildkit"]["Type"], mounts["/var/lib/buildkit"]["Name"]) == ("volume", "buildkitd")
    if machine.engine == "docker":
        assert shown["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    else:
        assert machine.ran("systemctl is-active buildkitd.service") == "active\n"
        assert "WantedBy=multi-user.target" in machine.ran("cat /etc/containers/systemd/buildkitd.container")
    machine.settle()


def test_secrets_belong_to_root_alone(machine):
    """No file of the certificates is open to others, and nothing of them is in what the engine shows.

    Nor are proxies in what everyone may read: labels, command lines, units.
    """
    assert machine.ran("find /etc/buildkit/tls/ /etc/buildkit/container-proved/ -type f -perm /077") == ""
    shown = machine.inspect("container", "buildkitd")
    assert "PRIVATE KEY" not in json.dumps(shown)
    assert "pr0xy" not in json.dumps(shown["Config"]["Labels"])
    assert "pr0xy" not in machine.ran("ps -eww -o args=")
    assert machine.run("grep -rs pr0xyPass /run/systemd /etc/containers /etc/systemd").stdout == ""
    if machine.engine == "podman":
        assert "http_proxy=http://user:pr0xyPass@192.0.2.99:3128" in shown["Config"]["Env"]
        assert machine.ran("stat -c '%a %U' /etc/buildkit/container-proxy /etc/buildkit/container-proxy/*") == (
            "700 root\n600 root\n"
        )
        assert machine.ran("stat -c '%a %U' /etc/containers/systemd/buildkitd.container") == "600 root\n"


def test_it_listens_where_it_shall(hosts):
    """On one address of the host where that was asked for, else on all."""
    listening = {engine: host.ran("ss -Hltn 'sport = :1234'") for engine, host in hosts.items()}
    assert [line.split()[3] for line in listening["docker"].splitlines()] == [f"{hosts['docker'].address}:1234"]
    assert listening["podman"].split()[3] in ("0.0.0.0:1234", "*:1234")


def test_clients_build_over_mtls(machine, build, tools):
    """buildctl from outside, buildx's remote driver, and nobody without a certificate."""
    endpoint = f"tcp://{machine.address}:1234"
    assert build(endpoint) == "hello\n"
    assert build(endpoint, tls=False) != "hello\n"
    options = ",".join(
        [*(f"{option}=/srv/alice/{option}.pem" for option in ("cert", "key")), "cacert=/srv/alice/ca.pem"]
    )
    buildx = f"HOME=/root/tcp DOCKER_HOST=unix:///nowhere {BUILDX}"
    machine.ran(f"{buildx} create --name remote --driver remote --driver-opt {options} {endpoint}")
    machine.ran(f"{buildx} build --no-cache --builder remote --output type=local,dest=/root/tcp/out /srv/project")
    assert machine.ran("cat /root/tcp/out/hello.txt") == "hello\n"


def test_clients_build_through_the_engine(machine, build, tools, ssh):
    """docker-container:// and podman-container:// on the host; from outside the former over SSH, as Docker has it."""
    endpoint = f"{machine.engine}-container://buildkitd"
    machine.ran(f"buildctl --addr {endpoint} {BUILD} --output type=local,dest=/root/by-engine")
    assert machine.ran("cat /root/by-engine/hello.txt") == "hello\n"
    if machine.engine == "docker":
        buildx = f"HOME=/root/engine {BUILDX}"
        machine.ran(f"{buildx} create --name inner --driver remote {endpoint}")
        machine.ran(f"{buildx} build --no-cache --builder inner --output type=local,dest=/root/engine/out /srv/project")
        assert machine.ran("cat /root/engine/out/hello.txt") == "hello\n"
        assert build(f"{endpoint}?context={machine.name}", tls=False, **ssh) == "hello\n"


def test_clients_build_over_ssh(hosts, build, tools, ssh):
    """The unix socket appears on the host where that was asked for, and ssh:// leads to it; nobody but root may."""
    host = hosts["podman"]
    assert build(f"ssh://root@{host.address}", tls=False, **ssh) == "hello\n"
    assert host.ran("stat -c '%F %U %a' /run/buildkit/buildkitd.sock") == "socket root 660\n"
    assert host.run("su -s /bin/sh -c 'buildctl debug workers' nobody").returncode != 0
    assert hosts["docker"].run("test -e /run/buildkit/buildkitd.sock").returncode != 0


def test_the_cache_is_on_the_volume(machine):
    """With overlayfs, and not in the container's own layer."""
    workers = json.loads(
        machine.ran(f"{machine.engine} exec buildkitd buildctl debug workers --format '{{{{json .}}}}'")
    )
    assert workers[0]["labels"]["org.mobyproject.buildkit.worker.snapshotter"] == "overlayfs"
    place = machine.inspect("volume", "buildkitd")["Mountpoint"]
    assert machine.run(f"test -s {place}/runc-overlayfs/metadata_v2.db").returncode == 0


def test_it_comes_back_with_its_host(hosts, build):
    """After a boot, which empties /run; with the socket there that ssh:// leads to."""
    for host in hosts.values():
        host.reboot()
    for host in hosts.values():
        host.answered()
        assert build(f"tcp://{host.address}:1234") == "hello\n"
    assert hosts["podman"].ran("stat -c '%F %U %a' /run/buildkit/buildkitd.sock") == "socket root 660\n"
