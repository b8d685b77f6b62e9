# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof for other platforms than the daemon's own: real daemons with real emulators."""

from __future__ import annotations

import contextlib
import platform
import shutil
from pathlib import Path
from typing import Iterator

import daemon as daemons
import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import platforms, verify
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from daemon import Daemon

# Architecture -> as QEMU names it, which is also how buildkitd looks for a buildkit-qemu program.
EMULATED = {
    "arm": "arm",
    "arm64": "aarch64",
    "mips64": "mips64",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
NATIVE = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}[platform.machine()]
FOREIGN = sorted({"linux/arm/v7" if name == "arm" else f"linux/{name}" for name in EMULATED} - {NATIVE})


def emulator(name: str) -> str:
    """QEMU's program for user emulation, which a step's empty file system can run because it is static."""
    found = shutil.which(f"qemu-{name}-static") or shutil.which(f"qemu-{name}")
    assert found, f"install qemu-user-static, for qemu-{name}"
    return found


@pytest.fixture(scope="module")
def emulating(bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with emulators beside it, as BuildKit's releases have them, whose worker offers what they can run."""
    programs = tmp_path_factory.mktemp("emulators")
    for architecture, name in EMULATED.items():
        for alias in sorted({architecture, name}):
            (programs / f"buildkit-qemu-{alias}").symlink_to(emulator(name))
    options = [f"--oci-worker-platform={one}" for one in (NATIVE, *FOREIGN)]
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("PATH", str(programs), prepend=":")
            directory = tmp_path_factory.mktemp("emulating")
            running = stack.enter_context(daemons.run(bin_dir, directory, options=tuple(options)))
        yield running


@pytest.fixture(scope="module")
def boasting(bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose worker offers a platform for which it has no emulator."""
    options = (f"--oci-worker-platform={NATIVE}", "--oci-worker-platform=linux/s390x")
    with daemons.run(bin_dir, tmp_path_factory.mktemp("boasting"), options=options) as running:
        yield running


def report_of(daemon: Daemon, *wanted: str, **settings: object) -> dict[str, object]:
    """The report of a proof for these platforms."""
    wishes = tuple(platforms.parse(text) for text in wanted)
    proof = verify.Proof(**{"connect_timeout": LONG, "build_timeout": LONG, "platforms": wishes, **settings})
    [report] = verify.verify([verify.Daemon(daemon.unix)], proof)
    return report.as_dict()


def test_each_platform_builds(emulating: Daemon) -> None:
    """The step ran for each platform, for the daemon's own without an emulator, all at the same time."""
    report = report_of(emulating, NATIVE, *FOREIGN)
    assert report["failure"] is None
    expected = ["exec", *(f"exec {one}" for one in FOREIGN), "dockerfile"]
    assert [stage for stage in report["timings_ms"] if stage.startswith(("exec", "dockerfile"))] == expected


def test_own_platform_is_not_proved_where_only_another_is_wished(emulating: Daemon) -> None:
    """The list is what it says; a platform that is wished twice, or in another spelling, is proved once."""
    report = report_of(emulating, FOREIGN[0], FOREIGN[0], "linux/riscv64", builds=("exec",))
    assert report["failure"] is None
    stages = [stage for stage in report["timings_ms"] if stage.startswith("exec")]
    assert stages == sorted({f"exec {FOREIGN[0]}", "exec linux/riscv64"})


def test_each_daemon_may_have_its_own(emulating: Daemon, boasting: Daemon) -> None:
    """In one call, each builds for what it is wished to; one without a wish has that of all, an empty one its own."""
    daemons = [
        {"address": emulating.unix, "platforms": ["linux/riscv64"]},
        {"address": boasting.unix},
        {"address": boasting.unix, "platforms": []},
        {"address": boasting.unix, "platforms": ["linux/riscv64"]},
    ]
    limits = {"connect_timeout": LONG, "build_timeout": LONG}
    outcome = run_module("buildkit_verify", {**limits, "daemons": daemons, "builds": ["exec"], "platforms": [NATIVE]})
    kinds = [one["failure"] and one["failure"]["kind"] for one in outcome.result["daemons"]]
    assert kinds == [None, None, None, "platform_missing"]
    stages = [[stage for stage in one["timings_ms"] if "exec" in stage] for one in outcome.result["daemons"]]
    assert stages == [["exec linux/riscv64"], ["exec"], ["exec"], []]


def test_platform_that_is_not_offered(emulating: Daemon) -> None:
    """It is named beside those that are, before anything is built."""
    report = report_of(emulating, NATIVE, "linux/loong64", "linux/mips64le")
    assert report["failure"]["kind"] == "platform_missing"
    message = report["failure"]["message"]
    assert message.startswith(f"The daemon's worker does not offer linux/loong64 and linux/mips64le, but {NATIVE}, ")
    assert all(one in message for one in FOREIGN)
    assert "binfmt_misc" in report["failure"]["remedy"]
    assert not {"exec", "dockerfile"} & set(report["timings_ms"])


def test_platform_without_its_emulator(boasting: Daemon) -> None:
    """A worker that offers what it cannot run is found out, and the remedy speaks of emulators."""
    report = report_of(boasting, NATIVE, "linux/s390x", builds=("exec",))
    assert report["failure"]["kind"] == "build_failed"
    assert "The exec linux/s390x build failed" in report["failure"]["message"]
    assert "emulator for linux/s390x" in report["failure"]["remedy"]
    assert report["timings_ms"]["exec"] > 0
