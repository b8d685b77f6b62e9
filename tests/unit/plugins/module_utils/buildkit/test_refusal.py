# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stranger's certificate."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import refusal
from cryptography import x509


def test_key_of_the_stranger_is_never_readable_by_others(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While ssl reads it, the file and its directory are their owner's alone, and both are gone afterwards."""
    seen: list[int] = []
    issuers: list[str] = []
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))

    class Context:
        def load_cert_chain(self, path: str) -> None:
            seen.extend(stat.S_IMODE(one.stat().st_mode) for one in (Path(path), Path(path).parent))
            issuers.append(x509.load_pem_x509_certificate(Path(path).read_bytes()).issuer.rfc4514_string())

    monkeypatch.setattr(refusal.tls, "stranger_context", Context)
    refusal.foreign_context(make("client").cert, "")
    assert seen == [0o600, 0o700]
    assert issuers == ["CN=client"]
    assert list(directory.iterdir()) == []


def test_issuer_has_the_name_of_the_true_one(make: Callable[..., Any]) -> None:
    """The stranger's CA is told from the true one by its key alone; it has the name of ours or the daemon's."""
    files = make("Builders CA")
    assert refusal._name_to_copy(files.cert, "").rfc4514_string() == "CN=Builders CA"
    assert refusal._name_to_copy("", files.cert).rfc4514_string() == "CN=Builders CA"


def test_strange_file_does_not_stop_the_stranger(tmp_path: Path) -> None:
    """Where cryptography reads no certificate, some other name serves."""
    (tmp_path / "ca.pem").write_text("something", encoding="ascii")
    assert refusal._name_to_copy("", str(tmp_path / "ca.pem")).rfc4514_string() == "CN=foreign CA"
