# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hand-out tells each client to type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

TEMPLATE = Path(__file__).resolve().parents[2] / "roles" / "buildkit_pki" / "templates" / "handout.txt.j2"
SEALED = {"path": "/b/p-ci.tar.gz.age", "encrypted": True, "key": True, "not_after": "2027"}
VARIABLES: dict[str, Any] = {
    "__buildkit_pki_clients_dir": "/clients",
    "__buildkit_pki_bundle_daemons": [
        {"name": "a", "address": "tcp://a:1"},
        {"name": "b", "address": "tcp://b:1", "admits": ["release"]},
        {"name": "c", "address": "tcp://c:1", "admits": ["default", "release"]},
    ],
    "__buildkit_pki_bundles": {"bundles": []},
    "buildkit_pki_pool": "p",
    "buildkit_pki_bundles_encrypt": {},
}


def told(item: dict[str, str], **variables: Any) -> list[str]:
    """The lines for a client."""
    text = trust_as_template(TEMPLATE.read_text())
    rendered = Templar(DataLoader(), variables={**VARIABLES, **variables, "item": item}).template(text)
    return str(rendered).splitlines()


@pytest.mark.parametrize(
    ("item", "expected"),
    [({"name": "alice"}, ["a", "c"]), ({"name": "ci", "group": "release"}, ["a", "b", "c"])],
)
def test_a_client_is_told_of_the_builders_that_admit_it(item: dict[str, str], expected: list[str]) -> None:
    """And of no other, which would refuse it."""
    lines = told(item)
    made = [line.rpartition("tcp://")[2] for line in lines if "docker buildx create" in line]
    assert made == [f"{name}:1" for name in expected]
    assert f"  buildctl --addr tcp://a:1 --tlsdir /clients/{item['name']} debug workers" in lines


def test_a_client_that_no_builder_admits_is_told_of_none() -> None:
    """It still has its directory."""
    daemons = VARIABLES["__buildkit_pki_bundle_daemons"][1:2]
    (line,) = told({"name": "alice"}, __buildkit_pki_bundle_daemons=daemons)
    assert line == "alice: give this person or machine /clients/alice over a safe way (key.pem is secret)."


@pytest.mark.parametrize(
    ("how", "command"), [({"recipients": ["age1x"]}, "age -d -i KEY"), ({"passphrase": "words"}, "age -d")]
)
def test_an_encrypted_bundle_is_opened_as_it_was_closed(how: dict[str, Any], command: str) -> None:
    """For a key with that key, with a passphrase by typing it."""
    bundles = {"bundles": [{"client": "ci", **SEALED}]}
    lines = told({"name": "ci"}, __buildkit_pki_bundles=bundles, buildkit_pki_bundles_encrypt={"ci": how})
    assert lines[1:] == [f"  {command} p-ci.tar.gz.age | tar -xz && p-ci/verify.sh"]
