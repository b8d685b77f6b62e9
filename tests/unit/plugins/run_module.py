# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of the collection as a process, the way Ansible does: JSON in, JSON out, nothing mocked.

It works with ansible-core 2.19 to 2.21: the arguments come on standard input, as when a module is debugged.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from dataclasses import dataclass
from pathlib import Path

COLLECTION = Path(__file__).absolute().parents[3]
MODULES = COLLECTION / "plugins" / "modules"
IMPORT_ROOT = COLLECTION.parents[2]
if not (IMPORT_ROOT / "ansible_collections").is_dir():  # a checkout, reached by its own path
    IMPORT_ROOT = COLLECTION / ".cache" / "collections"


@dataclass(frozen=True)
class Outcome:
    """What a module said: its result, and everything it printed."""

    result: dict[str, t.Any]
    output: str

    @property
    def failed(self) -> bool:
        """Whether it reported a failure."""
        return bool(self.result.get("failed"))

    @property
    def message(self) -> str:
        """The message of a failure."""
        return str(self.result["msg"])


def module_process(
    name: str,
    options: t.Mapping[str, t.Any],
    *,
    check: bool = False,
    diff: bool = False,
    python: str = sys.executable,
    python_path: Path | None = None,
) -> subprocess.Popen[str]:
    """Start a module without waiting for it; ``python_path`` is searched for libraries before all others."""
    search = [str(python_path)] if python_path else []
    process = subprocess.Popen(
        [python, str(MODULES / f"{name}.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*search, str(IMPORT_ROOT)])},
    )
    how = {"check_mode": check, "diff": diff}
    if "inject_invocation" in _internal_arguments():  # older ones always show their arguments
        how["inject_invocation"] = True
    arguments = {**options, **{f"_ansible_{name}": value for name, value in how.items()}}
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
    process.stdin.close()
    process.stdin = None  # so that communicate() does not flush it again
    return process


def _internal_arguments() -> t.Container[str]:
    """What this ansible-core lets a module be told beside its options."""
    from ansible.module_utils.common.parameters import PASS_VARS  # here: the PKI is also tested without Ansible

    return t.cast("t.Container[str]", PASS_VARS)


def finish(process: subprocess.Popen[str]) -> Outcome:
    """Wait for a module and read what it said."""
    output, errors = process.communicate(timeout=600)
    try:
        result = {key: value for key, value in json.loads(output).items() if key != "invocation"}
    except ValueError:
        raise AssertionError(f"The module gave no JSON:\n{output}\n{errors}") from None
    return Outcome(result, output + errors)


def run_module(name: str, options: t.Mapping[str, t.Any], **how: t.Any) -> Outcome:
    """Run a module to its end; ``how`` as for :func:`module_process`."""
    return finish(module_process(name, options, **how))


def snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below a directory, to the last byte, mode and link: to show that nothing changed."""
    found = {}
    for path in sorted(directory.rglob("*")):
        state = path.lstat()
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(directory))] = (state.st_mode, content)
    return found
