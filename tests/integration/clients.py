# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real docker-buildx of two ages, each run with a configuration of its own and without Docker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[2]
AGES = ("old", "new")
NO_ENGINE = "unix:///none.sock"


@dataclass(frozen=True)
class Buildx:
    """A docker-buildx and the directory in which it keeps its builders."""

    program: Path
    version: str
    config: Path

    def run(self, *arguments: str, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run it, whatever becomes of it."""
        return subprocess.run(
            [str(self.program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            timeout=timeout,
            env=self.environment(),
        )

    def environment(self) -> dict[str, str]:
        """Nothing of this machine's Docker."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.config.parent),
            "BUILDX_CONFIG": str(self.config),
            "DOCKER_HOST": NO_ENGINE,
            "DOCKER_CONFIG": str(self.config.parent / "docker"),
        }

    def good(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run it, and return what it printed; it must succeed."""
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def build(self, context: Path, *options: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Build a Dockerfile that needs no registry, and write what comes out beside it."""
        (context / "Dockerfile").write_text("FROM scratch\nCOPY word /word\n", encoding="ascii")
        (context / "word").write_text("built", encoding="ascii")
        options = (*options, "--output", f"type=local,dest={context / 'out'}")
        return self.run("build", "--no-cache", *options, str(context), timeout=timeout)

    def builds(self, context: Path, *options: str) -> bool:
        """Whether a build succeeds; its result must then be there."""
        context.mkdir(parents=True)
        done = self.build(context, *options)
        if done.returncode == 0:
            assert (context / "out" / "word").read_text(encoding="ascii") == "built"
        return done.returncode == 0

    def fails(self, context: Path, *options: str) -> bool:
        """Whether a build does not come to its end; buildx itself tries for 20 seconds."""
        context.mkdir(parents=True)
        try:
            done = self.build(context, *options, timeout=5)
        except subprocess.TimeoutExpired:
            return not (context / "out").exists()
        return done.returncode != 0

    def instance(self, name: str) -> bytes:
        """What it has stored of a builder."""
        return (self.config / "instances" / name).read_bytes()

    def stored(self, name: str) -> dict[str, Any]:
        """The same, parsed."""
        found: dict[str, Any] = json.loads(self.instance(name))
        return found


def obtain(age: str) -> dict[str, str]:
    """The program of an age, with its version."""
    command = [sys.executable, "tools/docker_buildx.py", age]
    found: dict[str, str] = json.loads(subprocess.check_output(command, cwd=_CHECKOUT))
    return found
