# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkitd_cache among real mounts and processes, as a daemon that was killed leaves them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module


def mount(*arguments: str | Path) -> None:
    """Mount something; :func:`root` unmounts it again."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def points(directory: Path) -> list[str]:
    """What is mounted at a directory and below it."""
    listed = subprocess.run(["findmnt", "-rno", "TARGET"], check=True, capture_output=True, text=True).stdout
    return [one for one in listed.splitlines() if f"{one}/".startswith(f"{directory}/")]


@pytest.fixture
def root(tmp_path: Path) -> t.Iterator[Path]:
    """A state directory with two layers of a snapshotter. Not every file system can be below an overlay: a tmpfs."""
    mount("-t", "tmpfs", "tmpfs", tmp_path)
    directory = tmp_path / "state"
    for name in ("lower", "upper", "work"):
        (directory / "snapshots" / name).mkdir(parents=True)
    (directory / "executor" / "step" / "rootfs").mkdir(parents=True)
    (directory / "snapshots" / "lower" / "old").mkdir()
    libraries = subprocess.run(["ldd", "/bin/sleep"], check=True, capture_output=True, text=True).stdout.split()
    for path in ("/bin/sleep", *(word for word in libraries if word.startswith("/"))):
        target = directory / "snapshots" / "lower" / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-L", path, target], check=True)
    (directory / "cache.db").touch()
    yield directory
    for point in reversed(points(tmp_path)):
        subprocess.run(["umount", "--lazy", point], check=False)


def layers(root: Path) -> str:
    """The options of an overlay of the snapshotter."""
    return ",".join(f"{name}dir={root}/snapshots/{name}" for name in ("lower", "upper", "work"))


def step_file_system(root: Path) -> Path:
    """What the daemon mounts for a step."""
    rootfs = root / "executor" / "step" / "rootfs"
    mount("-t", "overlay", "overlay", "-o", layers(root), rootfs)
    return rootfs


@contextlib.contextmanager
def step(root: Path, state: Path | None = None) -> t.Iterator[subprocess.Popen[bytes]]:
    """A process with that root directory, in a mount namespace of its own, as runc makes it.

    With ``state``, there is a daemon in a container: its state directory has the same path, but is another one.
    """
    rootfs = root / "executor" / "step" / "rootfs"
    own = f"mount --bind {state} {root} && mount -t overlay overlay -o {layers(root)} {rootfs} && " if state else ""
    pivot = f"mount --bind {rootfs} {rootfs} && cd {rootfs} && pivot_root . old && exec /bin/sleep 86397"
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", own + pivot]) as process:
        try:
            while Path(f"/proc/{process.pid}/cmdline").read_bytes() != b"/bin/sleep\x0086397\x00":
                assert process.poll() is None
            yield process
        finally:
            process.kill()


def clear(root: Path, *, purge: bool = True, check: bool = False) -> Outcome:
    """Run the module."""
    return run_module("buildkitd_cache", {"path": str(root), "purge": purge}, check=check)


@pytest.mark.parametrize("kind", ["another file system", "a bind mount of this file system", "a bind mount of a file"])
def test_what_somebody_mounted_below_is_never_touched(root: Path, kind: str) -> None:
    """Refused, with its name, in check mode too; once it is unmounted all goes."""
    precious, point = root.parent / "precious", root / "snapshots" / "lower"
    precious.mkdir()
    (precious / "file").write_text("x")
    if kind == "another file system":
        mount("-t", "tmpfs", "tmpfs", point)
        (point / "file").write_text("x")
    elif kind == "a bind mount of this file system":
        mount("--bind", precious, point)
    else:
        point = root / "cache.db"
        mount("--bind", precious / "file", point)
    for check in (True, False):
        outcome = clear(root, check=check)
        assert f"below it is mounted what no build step mounts: {point} (tmpfs)" in outcome.message
        assert "Nothing was removed" in outcome.message
    assert points(root) == [str(point)]
    assert (point / "file" if point.is_dir() else point).read_text() == "x"
    assert clear(root, purge=False).result["changed"] is False
    subprocess.run(["umount", point], check=True)
    assert clear(root).result["changed"]
    assert not root.exists()
    assert (precious / "file").read_text() == "x"


def test_a_cache_with_a_file_system_of_its_own_keeps_the_directory(root: Path) -> None:
    """Also when it is but a bind mount; and what mke2fs made there is nobody's."""
    mount("--bind", root, root)
    (root / "lost+found").mkdir()
    assert str(root) not in clear(root).result["removed"]
    assert os.listdir(root) == ["lost+found"]
    assert clear(root).result["changed"] is False
    assert points(root) == [str(root)]


def test_what_a_killed_daemon_left_is_ended_and_unmounted(root: Path) -> None:
    """A step in the file system that was mounted for it, a network namespace, a snapshot that was being read."""
    rootfs, namespace = step_file_system(root), root / "net" / "cni" / "one"
    namespace.parent.mkdir(parents=True)
    namespace.touch()
    mount("--bind", "/proc/self/ns/net", namespace)
    many = root / "executor" / "many" / "rootfs"
    many.mkdir(parents=True)
    relative = ["mount", "-t", "overlay", "overlay", "-o", "lowerdir=lower:upper", str(many)]
    subprocess.run(relative, cwd=root / "snapshots", check=True)
    reading = root.parent / "buildkit-mount1"
    reading.mkdir()
    mount("--bind", root / "snapshots" / "lower", reading)
    with step(root) as process:
        predicted = clear(root, purge=False, check=True)
        assert process.poll() is None
        done = clear(root, purge=False)
        assert process.wait(120) == -9
    for outcome in (predicted, done):
        assert outcome.result["ended"] == [f"{process.pid} (/bin/sleep)"]
        assert sorted(outcome.result["unmounted"]) == sorted(map(str, (rootfs, namespace, many, reading)))
    assert points(root) == []
    assert not reading.exists()
    assert (root / "cache.db").exists()
    assert clear(root, purge=False).result["changed"] is False


def test_a_step_of_another_daemon_is_left_alone(root: Path) -> None:
    """One in a container mounts by the same paths, but not the same directories."""
    other = root.parent / "other"
    subprocess.run(["cp", "-a", root, other], check=True)
    rootfs = step_file_system(root)
    with step(root, other) as process:
        done = clear(root)
        assert done.result["ended"] == []
        assert done.result["unmounted"] == [str(rootfs)]
        assert process.poll() is None
