# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The digests that a daemon is started with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import fingerprint


def test_digests_of_files_and_of_what_is_not_there(tmp_path: Path) -> None:
    """Each part has a variable; an absent file and a directory have no digest."""
    (tmp_path / "ca.pem").write_text("ca")
    files = {"trust bundle": f"{tmp_path}/ca.pem", "ns-config": f"{tmp_path}/none", "binary": str(tmp_path)}
    assert fingerprint.digests(files, {}) == {
        "BUILDFARM_SHA256_TRUST_BUNDLE": hashlib.sha256(b"ca").hexdigest(),
        "BUILDFARM_SHA256_NS_CONFIG": "absent",
        "BUILDFARM_SHA256_BINARY": "absent",
    }


def test_a_known_digest_stands_for_a_file_that_is_yet_to_be_written(tmp_path: Path) -> None:
    """That is what check mode compares the daemon with."""
    (tmp_path / "a").write_text("old")
    files = {"one": f"{tmp_path}/a", "two": f"{tmp_path}/b"}
    known = {f"{tmp_path}/a": "new", f"{tmp_path}/c": "other"}
    assert fingerprint.digests(files, known) == {"BUILDFARM_SHA256_ONE": "new", "BUILDFARM_SHA256_TWO": "absent"}


def test_environment_file_has_a_fixed_order() -> None:
    """Equal digests give equal text."""
    assert fingerprint.environment_file({"B": "2", "A": "1"}) == "A=1\nB=2\n"
    assert fingerprint.environment_file({"A": "1", "B": "2"}) == "A=1\nB=2\n"


def test_reasons_in_the_order_of_the_files() -> None:
    """What changed, what the daemon does not tell of, and nothing for what is as it was."""
    files = {"trust bundle": "x", "binary": "y", "certificate": "z"}
    wanted = {fingerprint.variable(part): "new" for part in files}
    started_with = {"BUILDFARM_SHA256_TRUST_BUNDLE": "old", "BUILDFARM_SHA256_CERTIFICATE": "new", "PATH": "/bin"}
    assert fingerprint.reasons(files, wanted, started_with) == [
        "trust bundle changed",
        "the running daemon does not say which binary it was started with",
    ]
    assert fingerprint.reasons(files, wanted, wanted) == []
