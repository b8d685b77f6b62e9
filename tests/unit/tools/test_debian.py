# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the builds in Debian roots decide before they run anything."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(cache: Path) -> None:
    """No test here touches the user's cache."""


def sources(directory: Path, *, one_line: str = "", deb822: str = "") -> Path:
    """Lay out an apt configuration."""
    (directory / "sources.list.d").mkdir()
    (directory / "sources.list").write_text(one_line)
    (directory / "sources.list.d" / "x.sources").write_text(deb822)
    return directory


@pytest.mark.parametrize(
    ("one_line", "deb822", "expected"),
    [
        (
            "deb [arch=amd64 signed-by=/k] http://mirror.example/debian/ trixie main\n",
            "",
            "http://mirror.example/debian",
        ),
        (
            "",
            "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm bookworm-updates\n",
            "http://m.example/debian",
        ),
        ("", "# c\nTypes: deb\nURIs:\n http://m.example/debian\nSuites:\n sid\n", "http://m.example/debian"),
        ("", "Enabled: no\nTypes: deb\nURIs: http://m.example/debian\nSuites: sid\n", None),
        ("", "Types: deb-src\nURIs: http://m.example/debian\nSuites: sid\n", None),
        ("deb http://mirror.example/ubuntu noble main\n", "", None),
        ("# deb http://mirror.example/debian trixie main\n", "", None),
        ("deb http://security.example/debian-security trixie-security main\n", "", None),
        ("deb file:/srv/debian trixie main\n", "", None),
        (
            "deb http://other.example stable-tool main\n",
            "Types: deb\nURIs: http://s.example/sec\nSuites: trixie-security\n\n"
            "Types: deb\nURIs: http://m.example/debian\nSuites: trixie\n",
            "http://m.example/debian",
        ),
    ],
)
def test_the_mirror_is_the_one_that_apt_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: str, deb822: str, expected: str | None
) -> None:
    """Only an enabled source of Debian's main archive counts; otherwise debootstrap's default serves."""
    import _apt

    monkeypatch.delenv(_apt.MIRROR_VARIABLE, raising=False)
    etc = tmp_path / "apt"
    etc.mkdir()
    assert _apt.debian_mirror(sources(etc, one_line=one_line, deb822=deb822)) == expected


def test_a_named_mirror_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BUILDFARM_DEBIAN_MIRROR is taken before the machine's own."""
    import _apt

    monkeypatch.setenv(_apt.MIRROR_VARIABLE, "http://named.example/debian/")
    assert _apt.debian_mirror(tmp_path) == "http://named.example/debian"


def test_the_overlay_replaces_whole_packages(tmp_path: Path) -> None:
    """Each Go file of a replaced package is hidden, and the stand-in's takes its place."""
    import debian_buildkit

    standins, source = tmp_path / "standins", tmp_path / "source"
    for path in (standins / "cache/gha/new.go", source / "cache/gha/old.go", source / "cache/other/kept.go"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    inside = "/usr/share/gocode/src/github.com/moby/buildkit/cache/gha"
    assert debian_buildkit.overlay(standins, source) == {
        f"{inside}/old.go": "",
        f"{inside}/new.go": "/gobuild/overlay/cache/gha/new.go",
    }


def test_an_archive_is_packed_as_upstream_packs(tmp_path: Path) -> None:
    """Both programs lie under bin/, executable and root's, whatever they were on disk."""
    import _cache
    import debian_buildkit

    for name in ("buildkitd", "buildctl"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o600)
    target = tmp_path / debian_buildkit.archive_name(debian_buildkit.GENERATIONS["0.13"])
    debian_buildkit.pack(tmp_path, target)
    _cache.check_contents(target)
    with tarfile.open(target) as archive:
        assert {(m.name, m.mode, m.uid, m.gid) for m in archive if m.isreg()} == {
            ("bin/buildkitd", 0o755, 0, 0),
            ("bin/buildctl", 0o755, 0, 0),
        }


def test_archives_say_that_they_are_debians() -> None:
    """File name and reported version can never be taken for upstream's."""
    import _cache
    import debian_buildkit

    for generation in debian_buildkit.GENERATIONS.values():
        version, _platform = _cache.parse_name(debian_buildkit.archive_name(generation))
        assert version == f"{generation.version}+debian"
        assert f"version.Version=v{version}" in " ".join(debian_buildkit.go_command(generation))


def test_a_changed_stand_in_changes_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive in the cache is not taken for one that would be built from other stand-ins."""
    import debian_buildkit

    generation = debian_buildkit.GENERATIONS["0.13"]
    monkeypatch.setattr(debian_buildkit, "STANDINS", tmp_path)
    before = debian_buildkit.recipe(generation)
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "x.go").write_text("package x")
    assert debian_buildkit.recipe(generation) != before


def test_what_cannot_be_built_is_said_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no suite can build a generation, the run ends with exit code 3 and every suite's reason."""
    import _apt
    import _progress
    import debian_buildkit

    def build_in(suite: str, _generation: object) -> None:
        raise _progress.ToolError(f"{suite} moved on")

    monkeypatch.setattr(debian_buildkit, "build_in", build_in)
    monkeypatch.setattr(_apt, "need_root", lambda _purpose: None)
    with pytest.raises(_progress.ToolError, match=r"(?s)CANNOT BE BUILT.*forky moved on.*sid moved on") as caught:
        debian_buildkit.obtain(debian_buildkit.GENERATIONS["0.25"])
    assert caught.value.code == 3


def test_a_changed_entrypoint_changes_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image's tag stands for its content."""
    import host_image

    before = host_image.image_name()
    monkeypatch.setattr(host_image, "ENTRYPOINT", tmp_path / "entrypoint")
    (tmp_path / "entrypoint").write_text("#!/bin/sh\n")
    assert host_image.image_name() != before


def test_a_host_without_engines_stays_small() -> None:
    """Docker and Podman are in one flavour only, which is another image and starts neither at boot."""
    import host_image

    names = {flavour: host_image.image_name(flavour) for flavour in host_image.FLAVOURS}
    assert host_image.image_name() == names["plain"] != names["engines"]
    plain, engines = (set(host_image.FLAVOURS[name][0]) for name in ("plain", "engines"))
    assert {"docker.io", "podman"} <= engines - plain
    assert "etc/systemd/system/multi-user.target.wants/docker.service" in host_image.FLAVOURS["engines"][1]
