# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gRPC modules with the oldest and the newest libraries that they allow, against real daemons."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import daemon as daemons
import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._deps import GRPCLIB, PROTOBUF
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from daemon import Daemon

KEPT = 2 * 86400.0  # seconds for which somebody may use what was looked for before midnight
CHECKOUT = Path(__file__).resolve().parents[2]
# What reads and writes messages, and what speaks HTTP/2 through grpclib's hook.
UNITS = [f"tests/unit/plugins/module_utils/buildkit/test_{name}.py" for name in ("messages", "channel", "control")]
VERSIONS = """
import google.protobuf, importlib.metadata
from google.protobuf.internal import api_implementation
print(google.protobuf.__version__, importlib.metadata.version("grpclib"), api_implementation.Type())
"""


@pytest.fixture(scope="module", params=["oldest", "newest"])
def libraries(request: pytest.FixtureRequest) -> Path:
    """A directory with both libraries as pip installs them, without what else is there."""
    if request.param == "oldest":
        wanted, name = [f"{one.pip}=={one.minimum}" for one in (PROTOBUF, GRPCLIB)], "oldest"
    else:  # looked for anew every day
        wanted, name = [PROTOBUF.requirement, GRPCLIB.requirement], f"newest-{datetime.now(timezone.utc):%Y%m%d}"
    cache = CHECKOUT / ".cache" / "libraries"
    cache.mkdir(parents=True, exist_ok=True)
    directory = cache / f"{name}-python{sys.version_info.major}.{sys.version_info.minor}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.is_dir():
            for old in cache.glob(f"{request.param}-*"):
                if time.time() - old.stat().st_mtime > KEPT:
                    shutil.rmtree(old)
            unfinished = cache / f"{directory.name}.{os.getpid()}"
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            again = CHECKOUT / "tools" / "again.sh"  # what is fetched may stutter
            subprocess.run([again, *pip, "--only-binary=:all:", "--target", unfinished, *wanted], check=True)
            unfinished.rename(directory)
    return directory


def run(libraries: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these libraries before all others."""
    search = os.pathsep.join([str(libraries), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *command],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )


def test_these_are_the_libraries_that_are_used(libraries: Path) -> None:
    """Both come from the directory, and the oldest protobuf is the one that is written in Python alone."""
    found = run(libraries, "-c", VERSIONS)
    assert found.returncode == 0, found.stderr
    protobuf, grpclib, implementation = found.stdout.split()
    if libraries.name.startswith("oldest"):
        assert (protobuf, grpclib) == ("3.20.0", "0.4.8")
        assert implementation == ("python" if sys.version_info >= (3, 11) else "cpp")
    else:
        assert int(protobuf.split(".")[0]) >= 7
        assert implementation == "upb"
    for package in ("google/protobuf", "grpclib"):
        assert (libraries / package).is_dir()


def test_units_pass(libraries: Path) -> None:
    """Messages, channels and bounded calls."""
    found = run(libraries, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *UNITS)
    assert found.returncode == 0, found.stdout + found.stderr
    assert int(re.search(r"(\d+) passed", found.stdout)[1]) > 100
    assert not re.search(r"failed|error|skipped", found.stdout)


@pytest.fixture(scope="module")
def builder(bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon of each generation."""
    with daemons.run(bin_dir, tmp_path_factory.mktemp("libraries")) as running:
        yield running


def test_every_call_is_understood_on_both_sides(libraries: Path, builder: Daemon) -> None:
    """Each module does with these libraries what it is for: all calls, and all messages, of both generations."""
    where = {"address": builder.unix, "connect_timeout": LONG}
    outcomes = {
        name: run_module(f"buildkit_{name}", {**where, **options}, python_path=libraries)
        for name, options in {
            "verify": {},  # Info, ListWorkers, Solve, Status, DiskUsage, Prune
            "info": {},  # ListenBuildHistory
            "drain": {"timeout": 0},
            "prune": {"keep_duration": "1s", "filters": ["type==regular"]},
        }.items()
    }
    for name, outcome in outcomes.items():
        assert not outcome.failed, f"{name}: {outcome.message}"
    assert outcomes["verify"].result["daemons"][0]["ok"] is True
    info = outcomes["info"].result["daemons"][0]
    assert info["failure"] is None
    assert info["disk_usage"]["count"] > 0
    assert info["workers"][0]["platforms"]
    assert info["clock"] is not None
    limited = run_module("buildkit_prune", {**where, "max_used_space": "1TB"}, python_path=libraries)
    old = "0.13" in info["version"]
    assert limited.failed is old  # ServerReflectionInfo, and a version that is understood
