# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a BuildKit archive comes from, in which order, and what is refused."""

from __future__ import annotations

import functools
import http.server
import socket
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports

RELEASE = "0.31.0"


@pytest.fixture
def module(cache: Path) -> ModuleType:
    """The tool, on a cache of this test's own."""
    import buildkit_archive

    return buildkit_archive


@pytest.fixture
def release_name(module: ModuleType) -> str:
    """The name of this machine's release archive."""
    return f"buildkit-v{RELEASE}.{module.platform()}.tar.gz"


@pytest.fixture
def debian(module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Stands for the build from Debian's packages: the generations that were asked of it."""
    asked: list[str] = []

    def obtain(generation: Any) -> Any:
        asked.append(generation.name)
        return module._cache.Archive(tmp_path / "debian", "0" * 64, f"{generation.name}+debian", "debian")

    monkeypatch.setattr(module.debian_buildkit, "obtain", obtain)
    return asked


@pytest.fixture
def pinned(module: ModuleType, monkeypatch: pytest.MonkeyPatch, pack: Callable[..., Path], release_name: str) -> Path:
    """A release that upstream has and the role pins."""
    path = pack(release_name, directory=Path(pack("x").parent) / "upstream" / f"v{RELEASE}")
    digest = module._cache.sha256_of(path)
    monkeypatch.setattr(module, "pinned", lambda _generation: (RELEASE, digest))
    return path


@pytest.fixture
def upstream_url(pinned: Path) -> Iterator[str]:
    """A server that has the pinned release where upstream would."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(pinned.parent.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def closed_url() -> Iterator[str]:
    """A loopback address where nothing listens."""
    with ports.held() as port:
        yield f"http://127.0.0.1:{port}"


def obtain(module: ModuleType, url: str, generation: str = "default", **flags: bool) -> Any:
    """Call the tool's core."""
    wishes = {"debian_only": False, "offline": False, **flags}
    return module.obtain(generation, upstream_url=url, **wishes)


def give(monkeypatch: pytest.MonkeyPatch, path: Path, digest: str | None) -> None:
    """Name an archive in the environment."""
    monkeypatch.setenv("BUILDKIT_ARCHIVE", str(path))
    if digest is not None:
        monkeypatch.setenv("BUILDKIT_ARCHIVE_SHA256", digest)


def test_a_given_archive_comes_first(
    module: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    pack: Callable[..., Path],
    release_name: str,
    upstream_url: str,
    debian: list[str],
) -> None:
    """The archive that the user names is taken, though upstream answers."""
    path = pack(release_name)
    give(monkeypatch, path, module._cache.sha256_of(path).upper())
    found = obtain(module, upstream_url)
    assert (found.path, found.version, found.source) == (path, RELEASE, "given")
    assert debian == []


def test_a_wrong_sha256_is_refused(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, pack: Callable[..., Path], release_name: str
) -> None:
    """An archive with another sum is refused, with both sums."""
    path = pack(release_name)
    give(monkeypatch, path, "a" * 64)
    with pytest.raises(Exception, match=f"wrong sha256:\n.*{'a' * 64}\n.*{module._cache.sha256_of(path)}"):
        obtain(module, "http://127.0.0.1:9")


@pytest.mark.parametrize("digest", [None, "", "abc"])
def test_a_given_archive_needs_its_sha256(
    module: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    pack: Callable[..., Path],
    release_name: str,
    digest: str | None,
) -> None:
    """An archive without a proper sum is refused; the message says which variable is missing."""
    give(monkeypatch, pack(release_name), digest)
    with pytest.raises(Exception, match="needs BUILDKIT_ARCHIVE_SHA256"):
        obtain(module, "http://127.0.0.1:9")


def test_a_sum_without_an_archive_is_refused(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten BUILDKIT_ARCHIVE is not silently ignored."""
    monkeypatch.setenv("BUILDKIT_ARCHIVE_SHA256", "a" * 64)
    with pytest.raises(Exception, match="BUILDKIT_ARCHIVE is not"):
        obtain(module, "http://127.0.0.1:9")


def test_a_missing_file_is_named(module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong path is an error, not a reason to look elsewhere."""
    give(monkeypatch, tmp_path / "none.tar.gz", "a" * 64)
    with pytest.raises(Exception, match="no such file"):
        obtain(module, "http://127.0.0.1:9")


def test_an_archive_without_the_daemon_is_refused(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, pack: Callable[..., Path], release_name: str
) -> None:
    """A given archive of the right sum that holds no bin/buildkitd is refused."""
    path = pack(release_name, ("bin/buildctl",))
    give(monkeypatch, path, module._cache.sha256_of(path))
    with pytest.raises(Exception, match="does not contain bin/buildkitd"):
        obtain(module, "http://127.0.0.1:9")


def test_another_machines_archive_is_refused(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, pack: Callable[..., Path]
) -> None:
    """An archive for another platform is refused before it is installed."""
    path = pack(f"buildkit-v{RELEASE}.linux-s390x.tar.gz")
    give(monkeypatch, path, module._cache.sha256_of(path))
    with pytest.raises(Exception, match="is for linux-s390x; this machine is"):
        obtain(module, "http://127.0.0.1:9")


def test_a_nameless_archive_needs_a_version(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, pack: Callable[..., Path]
) -> None:
    """An archive of any name is taken once its version is said."""
    path = pack("mine.tar.gz")
    give(monkeypatch, path, module._cache.sha256_of(path))
    with pytest.raises(Exception, match="BUILDKIT_VERSION"):
        obtain(module, "http://127.0.0.1:9")
    monkeypatch.setenv("BUILDKIT_VERSION", "v0.30.1")
    assert obtain(module, "http://127.0.0.1:9").version == "0.30.1"


def test_a_given_archive_of_another_generation_is_left_alone(
    module: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    pack: Callable[..., Path],
    release_name: str,
    closed_url: str,
    debian: list[str],
    pinned: Path,
) -> None:
    """Tests that ask for 0.13 get 0.13, though the user named a newer archive for the demo."""
    path = pack(release_name)
    give(monkeypatch, path, module._cache.sha256_of(path))
    assert obtain(module, closed_url, "0.13").source == "debian"
    assert debian == ["0.13"]


def test_upstream_is_downloaded_once(
    module: ModuleType, upstream_url: str, closed_url: str, debian: list[str], pinned: Path
) -> None:
    """The pinned release is downloaded and verified, and comes from the cache the next time."""
    first = obtain(module, upstream_url)
    assert (first.version, first.source) == (RELEASE, "upstream")
    assert first.path.read_bytes() == pinned.read_bytes()
    second = obtain(module, closed_url)
    assert (second.path, second.sha256, second.source) == (first.path, first.sha256, "cache")
    assert debian == []


def test_upstream_with_another_sum_is_an_error(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, upstream_url: str, debian: list[str], cache: Path
) -> None:
    """A release that is not the pinned one is refused and not kept, and nothing else takes its place."""
    monkeypatch.setattr(module, "pinned", lambda _generation: (RELEASE, "b" * 64))
    with pytest.raises(Exception, match=f"wrong sha256:\n  pinned {'b' * 64}"):
        obtain(module, upstream_url)
    assert debian == []
    assert list(cache.glob("archives/upstream/*")) == []


def test_an_unreachable_upstream_leads_to_debian(
    module: ModuleType, closed_url: str, debian: list[str], pinned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where releases cannot be reached, Debian's packages serve, and the reason is said."""
    assert obtain(module, closed_url).source == "debian"
    assert debian == ["0.13"]
    assert "cannot be reached" in capsys.readouterr().err


def test_a_release_that_is_not_there_leads_to_debian(
    module: ModuleType, upstream_url: str, debian: list[str], pinned: Path
) -> None:
    """A mirror without the release is no error."""
    pinned.unlink()
    assert obtain(module, upstream_url, "0.25").source == "debian"
    assert debian == ["0.25"]


def test_a_silent_upstream_is_given_up_in_time(module: ModuleType) -> None:
    """A server that accepts and never answers holds nobody up for longer than the time-out."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(Exception, match=r"no answer within 0\.2 s"):
            module.connect(url, timeout=0.2)


def test_a_url_of_another_kind_is_not_opened(module: ModuleType) -> None:
    """A file: address is no place to download from."""
    with pytest.raises(Exception, match="unknown url type: file"):
        module.connect("file:///etc/hostname")


def test_debian_only_asks_nobody_else(
    module: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    pack: Callable[..., Path],
    release_name: str,
    upstream_url: str,
    debian: list[str],
) -> None:
    """With --debian-only neither a given archive nor upstream nor its cached release counts."""
    obtain(module, upstream_url)
    path = pack(release_name)
    give(monkeypatch, path, module._cache.sha256_of(path))
    assert obtain(module, upstream_url, debian_only=True).source == "debian"


def test_offline_fetches_nothing(module: ModuleType, upstream_url: str, debian: list[str]) -> None:
    """With --offline and an empty cache the run ends with exit code 3 and says what to give."""
    with pytest.raises(module._progress.ToolError, match="BUILDKIT_ARCHIVE=") as caught:
        obtain(module, upstream_url, offline=True)
    assert caught.value.code == 3
    assert debian == []


def test_pinned_releases_come_from_the_role(module: ModuleType) -> None:
    """The role's default version and both generations have a sum for this machine."""
    for generation in ("0.13", "0.25"):
        version, digest = module.pinned(generation)
        assert module.belongs(version, generation)
        assert len(digest) == 64
    version, digest = module.pinned("default")
    assert len(digest) == 64
    assert f"'{version}'" in (module.CHECKOUT / "roles/buildkitd/defaults/main.yml").read_text()


def test_sums_are_read_from_plain_yaml(module: ModuleType) -> None:
    """Versions, platforms and sums are found, whatever comments stand beside them."""
    text = f'''# sums
buildkitd_release_sha256:
  "0.13.2":
    linux-amd64: {"a" * 64}  # 2
    linux-arm-v7: {"b" * 64}
  0.14.0:  # no quotes
    linux-amd64: "{"c" * 64}"
'''
    assert module.parse_sums(text) == {
        "0.13.2": {"linux-amd64": "a" * 64, "linux-arm-v7": "b" * 64},
        "0.14.0": {"linux-amd64": "c" * 64},
    }
