# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user reads when a Python library is missing."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._deps import (
    CRYPTOGRAPHY,
    Library,
    MissingLibraryError,
    require,
)

ABSENT = Library("surely_absent.part", "surely-absent", "1.2", debian="python3-absent", rpm="python3-absent")
UNPACKAGED = Library("surely_missing", "surely-missing", "2", debian="python3-missing")


def test_libraries_that_are_there_are_no_problem() -> None:
    """The one that everything here needs."""
    require(CRYPTOGRAPHY)


def test_a_missing_library_is_named_with_place_and_remedies() -> None:
    """Machine, interpreter, and the packages of both families and of pip."""
    with pytest.raises(MissingLibraryError) as caught:
        require(CRYPTOGRAPHY, ABSENT)
    text = str(caught.value)
    for part in (
        "surely-absent (1.2 or newer) cannot be imported",
        platform.node(),
        sys.executable,
        "'apt-get install python3-absent'",
        "'dnf install python3-absent'",
        f"{sys.executable} -m pip install 'surely-absent>=1.2'",
    ):
        assert part in text
    assert "cryptography" not in text


def test_several_are_reported_at_once() -> None:
    """With one command for all; a family that does not package all of them is not mentioned."""
    with pytest.raises(MissingLibraryError) as caught:
        require(ABSENT, UNPACKAGED)
    text = str(caught.value)
    assert "'apt-get install python3-absent python3-missing'" in text
    assert "dnf" not in text
    assert "'surely-absent>=1.2' 'surely-missing>=2'" in text


@pytest.mark.parametrize(
    ("minimum", "below", "problem"),
    [("9999", "", "is too old (found "), ("3", "3.1", "below 3.1) is too new (found ")],
)
def test_a_version_out_of_range_is_reported(minimum: str, below: str, problem: str) -> None:
    """The message has the version that was found."""
    library = Library("cryptography.x509", "cryptography", minimum, debian="python3-cryptography", below=below)
    with pytest.raises(MissingLibraryError) as caught:
        require(library)
    assert problem in str(caught.value)


@pytest.mark.parametrize("load", [True, False])
def test_a_library_that_says_no_version_is_asked_of_its_packager(load: bool) -> None:
    """pytest-xdist's package says none; what pip knows of it counts."""
    require(Library("xdist.workermanage", "pytest-xdist", "1", debian="python3-pytest-xdist"), load=load)
    with pytest.raises(MissingLibraryError, match=r"too old \(found "):
        require(Library("xdist.workermanage", "pytest-xdist", "9999", debian="python3-pytest-xdist"), load=load)


def test_looking_does_not_import() -> None:
    """The part that takes its time is left for later, and a part that is not there is missed all the same."""
    code = """
import sys
from ansible_collections.buildfarm.buildkit.plugins.module_utils import _deps
_deps.require(_deps.CRYPTOGRAPHY, load=False)
assert "cryptography.x509" not in sys.modules
try:
    _deps.require(_deps.Library("cryptography.nothing", "cryptography", "3", debian="x"), load=False)
except _deps.MissingLibraryError as error:
    print(error)
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "cannot be imported (No module named 'cryptography.nothing')" in printed
