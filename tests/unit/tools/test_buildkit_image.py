# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of containers: what engines read of them, what is kept, and the entry point that stands in for Earthly's."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Callable

import pytest

LDD = """\tlinux-vdso.so.1 (0x00007ffd)
\tlibseccomp.so.2 => /lib/x86_64-linux-gnu/libseccomp.so.2 (0x00007f01)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f02)
"""


@pytest.fixture
def tool(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool, on a cache of this test's own, with programs that are words."""
    import buildkit_image

    programs = tmp_path / "programs.tar"
    with buildkit_image.written(programs) as layer:
        for name in ("usr/bin/runc", "usr/bin/newuidmap", "lib/libc.so.6"):
            layer.data(name, name.encode(), mode=0o755)
    monkeypatch.setattr(buildkit_image, "runtime", lambda _programs: programs)
    return buildkit_image


@pytest.fixture
def made(tool: ModuleType, pack: Callable[..., Path]) -> Callable[[str], dict[str, str]]:
    """Makes the image of a flavour with a BuildKit 0.13.2 whose programs are words."""
    archive = pack("buildkit-v0.13.2.linux-amd64.tar.gz")
    release = tool._cache.Archive(archive, tool._cache.sha256_of(archive), "0.13.2+debian", "given")
    return lambda flavour: tool.make(release, flavour)


def _unpack(archive: str) -> tuple[dict, dict, dict[str, tarfile.TarInfo]]:
    """Manifest, configuration and files of an image, read as an engine does."""
    files = {}
    with tarfile.open(archive) as opened:
        (manifest,) = json.load(opened.extractfile("manifest.json"))
        text = opened.extractfile(manifest["Config"]).read()
        assert manifest["Config"] == f"{hashlib.sha256(text).hexdigest()}.json"
        config = json.loads(text)
        for path, expected in zip(manifest["Layers"], config["rootfs"]["diff_ids"], strict=True):
            content = opened.extractfile(path).read()
            assert expected == f"sha256:{hashlib.sha256(content).hexdigest()}"
            with tarfile.open(fileobj=io.BytesIO(content)) as layer:
                for entry in layer:
                    above = os.path.dirname(entry.name)
                    assert not above or files[above].isdir()
                    files.setdefault(entry.name, entry)
    return manifest, config, files


def test_an_engine_finds_what_the_image_says(made) -> None:
    """Every sum is right, directories come before what is in them, and both programs are there and executable."""
    result = made("buildkit")
    manifest, config, files = _unpack(result["archive"])
    assert manifest["RepoTags"] == [result["image"]] == ["localhost/buildkit:v0.13.2-debian"]
    assert manifest["Config"] == f"{result['id']}.json"
    assert result["sha256"] == hashlib.sha256(Path(result["archive"]).read_bytes()).hexdigest()
    assert config["config"]["Entrypoint"] == ["buildkitd"]
    assert {files[f"usr/bin/{name}"].mode for name in ("buildkitd", "buildctl", "runc")} == {0o755}
    assert files["tmp"].mode == 0o1777
    assert files["bin/sh"].linkname == "/usr/bin/busybox"


def test_the_rootless_image_maps_users_without_root(made) -> None:
    """newuidmap has CAP_SETUID as a file capability, and what the user writes to belongs to the user."""
    manifest, config, files = _unpack(made("rootless")["archive"])
    assert manifest["RepoTags"] == ["localhost/buildkit:v0.13.2-debian-rootless"]
    assert config["config"]["User"] == "1000:1000"
    value = files["usr/bin/newuidmap"].pax_headers["SCHILY.xattr.security.capability"]
    assert value.encode(errors="surrogateescape") == bytes.fromhex("01000002 80000000 00000000 00000000 00000000")
    assert files["usr/bin/newuidmap"].mode == 0o755
    (volume,) = config["config"]["Volumes"]
    assert files[volume.lstrip("/")].uid == 1000


@pytest.mark.parametrize("flavour", ["earthly", "earthbuild"])
def test_earthlys_images_differ_by_their_directory(made, flavour) -> None:
    """Its volume and the variable of its entry point."""
    _manifest, config, files = _unpack(made(flavour)["archive"])
    directory = "/".join(["", "tmp", flavour])
    assert list(config["config"]["Volumes"]) == [directory]
    assert f"EARTHLY_TMP_DIR={directory}" in config["config"]["Env"]
    assert files["usr/bin/entrypoint.sh"].mode == 0o755


def test_the_same_content_is_the_same_archive(made) -> None:
    """Made anew after it was damaged, with the sum that it had; nothing is left beside it."""
    first = made("buildkit")
    path = Path(first["archive"])
    path.write_bytes(b"damaged")
    assert made("buildkit") == first
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.sha256"]


def test_what_is_kept_is_used_again(made) -> None:
    """It is not written a second time."""
    path = Path(made("buildkit")["archive"])
    before = path.stat().st_mtime_ns
    made("buildkit")
    assert path.stat().st_mtime_ns == before


def test_another_entry_point_is_another_image(tool, made, tmp_path, monkeypatch) -> None:
    """And takes the place of the one before."""
    before = Path(made("earthly")["archive"])
    script = tmp_path / "entrypoint.sh"
    script.write_text("#!/bin/sh\n")
    changed = dataclasses.replace(tool.FLAVOURS["earthly"], scripts={"usr/bin/entrypoint.sh": script})
    monkeypatch.setitem(tool.FLAVOURS, "earthly", changed)
    assert Path(made("earthly")["archive"]) != before
    assert not before.exists()


def test_libraries_are_what_ldd_names(tool) -> None:
    """By their absolute paths, the loader included; the kernel's own has none, nor has a static program any."""
    assert tool.libraries(LDD) == ["/lib/x86_64-linux-gnu/libseccomp.so.2", "/lib64/ld-linux-x86-64.so.2"]
    assert tool.libraries("\tnot a dynamic executable\n") == []


@pytest.fixture
def configured(tool: ModuleType, tmp_path: Path) -> Callable[..., str]:
    """Runs Earthly's entry point with variables, on a volume of 100 GB, and returns its buildkitd.toml."""
    mounts = tmp_path / "mounts"
    data = tmp_path / "data"
    text = tool.EARTHLY_ENTRYPOINT.read_text()
    script = text.replace("/etc/buildkitd.toml", str(tmp_path / "toml")).replace("/proc/mounts", str(mounts))
    (tmp_path / "df").write_text("#!/bin/sh\necho header\necho disk 100000 0 0 0 /\n")
    (tmp_path / "df").chmod(0o755)

    def run(*, kind: str = "ext4", **variables: str) -> str:
        mounts.write_text(f"overlay / overlay rw 0 0\n/dev/sda {data} {kind} rw 0 0\n")
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", script, "entrypoint", "echo", "started"],
            env={"PATH": path, "EARTHLY_TMP_DIR": str(data), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return done.stderr
        assert done.stdout == "started\n"
        return (tmp_path / "toml").read_text()

    return run


def test_earthlys_entry_point_listens_where_it_is_told(configured) -> None:
    """On the unix socket, or on TCP in its place, with TLS when that is asked for too."""
    assert 'address = ["unix:///run/buildkit/buildkitd.sock"]' in configured()
    plain = configured(BUILDKIT_TCP_TRANSPORT_ENABLED="true")
    assert 'address = ["tcp://0.0.0.0:8372"]' in plain
    assert "unix://" not in plain
    assert "[grpc.tls]" not in plain
    safe = configured(BUILDKIT_TCP_TRANSPORT_ENABLED="true", BUILDKIT_TLS_ENABLED="true")
    assert '[grpc.tls]\ncert = "/etc/cert.pem"\nkey = "/etc/key.pem"\nca = "/etc/ca.pem"\n' in safe


@pytest.mark.parametrize(
    ("variables", "megabytes"),
    [
        ({}, 20480),
        ({"CACHE_SIZE_MB": "0", "CACHE_SIZE_PCT": "0"}, 20480),
        ({"CACHE_SIZE_MB": "5000"}, 5000),
        ({"CACHE_SIZE_PCT": "30"}, 30000),
        ({"CACHE_SIZE_MB": "5000", "CACHE_SIZE_PCT": "30"}, 5000),
        ({"CACHE_SIZE_MB": "50000", "CACHE_SIZE_PCT": "30"}, 30000),
    ],
)
def test_earthlys_entry_point_sizes_the_cache(configured, variables, megabytes) -> None:
    """As documented: the lesser of both; without any, a share of the disk that is at most 20 GB on this one."""
    assert f"keepBytes = {megabytes}000000\n" in configured(**variables)


def test_earthlys_entry_point_adds_what_it_is_given(configured) -> None:
    """Further TOML comes last, as tables of its own."""
    given = configured(EARTHLY_ADDITIONAL_BUILDKIT_CONFIG='[registry."example.com"]\nmirrors = ["m"]')
    assert given.endswith('[registry."example.com"]\nmirrors = ["m"]\n')


def test_earthlys_entry_point_refuses(configured) -> None:
    """Data on an overlay, and numbers that are none."""
    assert "is on an overlay. Mount a volume there" in configured(kind="overlay")
    assert "CACHE_SIZE_MB is '5 GB', which is no number" in configured(CACHE_SIZE_MB="5 GB")
