# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is configured is in effect: asked of the daemon by buildctl, and seen by whom it talks to."""

from __future__ import annotations

import json
import re
import time

testinfra_hosts = ["ansible://buildkit_daemons"]

MIRROR = "buildfarm-lifecycle-mirror"
GIB = 1024**3


def test_the_cache_has_the_size_of_the_disk_and_head_room(host, builder):
    """On the old daemon half of it; on the new one all but what stays free. The first rule is for what is cheap."""
    disk = int(host.check_output("df -B1 --output=size /var/lib/buildkit | tail -1"))
    # In bytes, where buildctl shows it for people in another unit on another disk.
    told = builder.buildctl("debug", "workers", "--format", "{{json .}}")
    assert told.returncode == 0, told.stderr
    early, ordinary, last = json.loads(told.stdout)[0]["gcPolicy"]
    most, free = (disk // 2, None) if builder.name == "lifecycle-old" else (disk - min(disk // 5, 100 * GIB), disk // 5)
    used, kept = ("keepBytes", None) if free is None else ("maxUsedSpace", "minFreeSpace")
    for rule in (ordinary, last):
        assert most - GIB <= rule[used] <= most
        assert kept is None or min(free, 100 * GIB) - GIB <= rule[kept] <= free
    assert early["filter"] == ["type==source.local", "type==exec.cachemount", "type==source.git.checkout"]
    assert [rule["all"] for rule in (early, ordinary, last)] == [False, False, True]


def asked(builder) -> str:
    """What the mirror was asked for so far."""
    return builder.docker("logs", MIRROR).stderr


def test_mirror_and_proxy_are_used(host, builder):
    """A build asks the mirror for its image, which has it not, and then the registry, through the proxy."""
    own = set(host.check_output("hostname -I").split())
    before = len(asked(builder))
    (builder.scratch / "Dockerfile").write_text(f"FROM docker.io/library/{builder.name}:1\n")
    built = builder.buildctl(
        *("build", "--frontend", "dockerfile.v0", "--local", f"context={builder.scratch}"),
        *("--local", f"dockerfile={builder.scratch}"),
    )
    assert built.returncode != 0
    # The engine writes what the mirror says to its log in its own time.
    deadline = time.monotonic() + 120
    while True:
        new = asked(builder)[before:]
        through = set(re.findall(r'^([0-9.]+) .*"CONNECT [^"]*docker\.io:443', new, re.MULTILINE))
        if f"/v2/library/{builder.name}/manifests/1" in new and through & own:
            break
        assert time.monotonic() < deadline, new
        time.sleep(0.2)


def test_the_password_of_the_proxy_is_for_root_alone(host, builder, mode_of):
    """It is in the daemon's environment and in one file that only root can read, and not in the unit."""
    assert mode_of("/etc/buildkit/proxy.env") == "root 600"
    assert "s3cret" in host.file("/etc/buildkit/proxy.env").content_string
    assert "HTTPS_PROXY=http://user:s3cret@" in host.check_output(
        "tr '\\0' '\\n' < /proc/$(systemctl show -P MainPID buildkit.service)/environ"
    )
    assert "s3cret" not in host.check_output("systemctl cat buildkit.service; systemctl show buildkit.service")
    readable = host.run("find /etc /run/buildkit /usr/local -xdev -type f -perm /044 -exec grep -l s3cret {} +")
    assert readable.stdout == ""


def test_simple_variables_and_the_dictionary_meet(host, builder):
    """Both are in the file, which has its keys in order."""
    text = host.file("/etc/buildkit/buildkitd.toml").content_string
    wanted = ["[history]\nmaxEntries = 9", '[registry."docker.io"]', "[worker.oci]\n", "max-parallelism = 3"]
    assert [part for part in wanted if part not in text] == []
    tables = re.findall(r"^\[([^\[\]]+)\]$", text, re.MULTILINE)
    assert tables == sorted(tables), json.dumps(tables)
