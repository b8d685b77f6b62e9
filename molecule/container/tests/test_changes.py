# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container is recreated once, and only for a reason: a new certificate, another image."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCENARIO = Path(__file__).resolve().parents[1]

# The certificates have 90 days left, and the new ones 100.
DUE = {"buildkit_pki_valid_for": "100d", "buildkit_pki_renew_before": "95d"}


@pytest.fixture(scope="module")
def worker_ids(hosts):
    """Who the daemons were in the beginning: the identity lies in the cache."""
    return {engine: _worker(host) for engine, host in hosts.items()}


def _worker(host) -> str:
    shown = host.ran(f"{host.engine} exec buildkitd buildctl debug workers --format '{{{{json .}}}}'")
    return json.loads(shown)[0]["id"]


def test_a_renewed_certificate_is_served(hosts, play, worker_ids):
    """Rotation recreates each container once, and both serve what is installed; again it changes nothing."""
    before = {engine: host.served() for engine, host in hosts.items()}
    began = time.time()
    run = play("rotate", **DUE)
    assert run.code == 0, run.output
    assert len(run.proved) == 2
    assert "certificate" in run.text
    assert "pr0xyPass" not in run.output
    for engine, host in hosts.items():
        assert host.created(began) == 1
        assert host.served() == host.installed() != before[engine]
        assert host.containers() == ["buildkitd"]
    began = time.time()
    again = play("rotate", **DUE)
    assert (again.code, sum(again.changed.values())) == (0, 0), again.output
    assert [host.created(began) for host in hosts.values()] == [0, 0]


def test_a_certificate_that_is_not_proved_goes_back(hosts, play, worker_ids):
    """Where clients would refuse the new one: container, key and certificate of before serve again, and were proved.

    One container is replaced for it, the other, of which the inventory wishes more by now, is restarted as it is.
    """
    before = {engine: host.served() for engine, host in hosts.items()}
    wishes = {
        "container-docker": {"addresses": ["192.0.2.11"]},
        "container-podman": {"addresses": ["192.0.2.12"], "environment": {"ODD": "yes"}},
    }
    run = play("rotate", wishes=wishes)
    assert run.code == 2, run.output
    assert "The previous container was put back, with configuration, certificate and key, and proved again" in run.text
    assert set(run.proved) == {f"tcp://{host.address}:1234" for host in hosts.values()}
    for engine, host in hosts.items():
        assert f"{host.name}: the new container was not proved: The certificate of the daemon does not name" in run.text
        assert host.served() == host.installed() == before[engine]
        assert host.containers() == ["buildkitd"]
        assert host.inspect("container", "buildkitd")["State"]["Running"]


GOING_BACK = """
- hosts: container-podman
  gather_facts: false
  tasks:
    - include_role: {name: buildfarm.buildkit.buildkitd_container, tasks_from: look}
    - block:
        - fail: {msg: the policy was refused}
      rescue:
        - include_role: {name: buildfarm.buildkit.buildkitd_container, tasks_from: rollback}
"""


def test_a_container_that_was_never_ended_is_left_to_its_builds(hosts, play, tmp_path):
    """Where the exchange fails before that, going back restarts nothing, and asks it where it listens.

    The inventory may name another port by now, where it cannot be proved.
    """
    (tmp_path / "back.yml").write_text(GOING_BACK)
    began = time.time()
    wishes = {"container-podman": {"port": 2345}}
    run = play(tmp_path / "back.yml", wishes=wishes, __buildkitd_container_replace=True, __buildkitd_container_go=True)
    assert run.code == 2, run.output
    assert "the policy was refused. The previous container was put back, with configuration" in run.text
    assert "it answers on port 1234; it was not proved, since clients are to dial another" in run.text
    assert hosts["podman"].created(began) == 0


@contextlib.contextmanager
def _registry(host, kind: str) -> Iterator[str]:
    """Runs a registry on a host, which has no way to another, with the image of a kind; tells its digest."""
    host.put(SCENARIO / "registry.py", "/srv/registry.py")
    host.put(Path(json.loads(os.environ[f"BUILDKIT_IMAGE_{kind}"])["archive"]), "/srv/image.tar")
    trusted = "/etc/containers/registries.conf.d/here.conf"
    host.ran(f"printf '[[registry]]\\nlocation = \"127.0.0.1:5000\"\\ninsecure = true\\n' >{trusted}")
    host.ran("cd /srv && python3 registry.py image.tar 5000 >registry.out 2>/dev/null & echo $! >/srv/registry.pid")
    try:
        yield host.ran("until [ -s /srv/registry.out ]; do sleep 0.1; done; cat /srv/registry.out").strip()
    finally:
        host.ran(f"kill $(cat /srv/registry.pid); rm /srv/registry.* /srv/image.tar {trusted}")


def test_another_image_keeps_the_cache(hosts, play, worker_ids):
    """A new and an older BuildKit take the places of one another, once, on the same volume.

    They come from a registry, one by its digest and one by its tag.
    """
    began = time.time()
    with _registry(hosts["docker"], "OLD") as digest, _registry(hosts["podman"], "NEW"):
        tag = json.loads(os.environ["BUILDKIT_IMAGE_NEW"])["image"].rpartition(":")[2]
        images = {"docker": f"127.0.0.1:5000/buildkit@{digest}", "podman": f"127.0.0.1:5000/buildkit:{tag}"}
        wishes = {
            f"container-{engine}": {"image": kind, "pull": True, "image_name": images[engine]}
            for engine, kind in (("docker", "OLD"), ("podman", "NEW"))
        }
        run = play("site", wishes=wishes)
    assert run.code == 0, run.output
    assert len(run.proved) == 2
    for engine, kind in (("docker", "OLD"), ("podman", "NEW")):
        host = hosts[engine]
        assert host.created(began) == 1
        image = json.loads(os.environ[f"BUILDKIT_IMAGE_{kind}"])
        assert host.inspect("container", "buildkitd")["Image"].removeprefix("sha256:") == image["id"]
        assert image["version"] in host.ran(f"{engine} exec buildkitd buildkitd --version")
        assert _worker(host) == worker_ids[engine]
        assert host.containers() == ["buildkitd"]
