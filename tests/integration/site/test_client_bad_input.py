# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input to the role buildkit_client: refused before anything changes, and the message says what to do."""

from __future__ import annotations

import shutil
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import run_module
from certificates import CLIENT, SERVER, Authority
from fleet import NAME, Fleet


@pytest.fixture
def client(fleet: Fleet) -> Fleet:
    """A machine that the PKI knows as a client; all that the role would make is below its directory."""
    made = run_module("buildkit_pki", {"path": str(fleet.pki), "clients": [{"name": NAME}]})
    assert not made.failed, made.output
    for variable, path in (("dir", "client"), ("bin_dir", "bin"), ("plugin_dir", "plugins"), ("profile", "env.sh")):
        fleet.variables[f"buildkit_client_{variable}"] = str(fleet.host / path)
    fleet.variables["buildkit_pki_dir"] = str(fleet.pki)
    fleet.variables["buildkit_client_buildx_package"] = ""
    return fleet


def assert_refused(fleet: Fleet, *says: str, **variables: t.Any) -> None:
    """A run that fails with these words, without a traceback, and leaves everything as it was."""
    before = fleet.state()
    run = fleet.play(fleet.role("buildkit_client"), **variables)
    said = " ".join(run.output.replace("\\n", " ").replace('\\"', '"').split())
    assert run.code != 0, run.output
    assert [words for words in says if words not in said] == [], run.output
    assert "Traceback" not in run.output
    assert "changed: [" not in run.output
    assert fleet.state() == before


def replace(fleet: Fleet, tmp_path: Path, **how: t.Any) -> None:
    """Put another certificate into the client's place in the PKI."""
    pair = Authority(tmp_path / "other", "Other CA").issue("other", how.pop("usage", CLIENT), **how)
    for source, name in ((pair.cert, "cert.pem"), (pair.key, "key.pem")):
        shutil.copyfile(source, fleet.pki / "clients" / NAME / name)


def test_a_client_that_the_pki_does_not_know(client: Fleet) -> None:
    """The message says where it was looked for, and how it becomes one."""
    assert_refused(
        client,
        "the PKI knows no client stranger",
        f"{client.pki}/clients/stranger/cert.pem on the controller",
        "run buildfarm.buildkit.site",
        buildkit_client_name="stranger",
    )


@pytest.mark.parametrize(
    "how",
    [{"days": (-10, -1)}, {"usage": SERVER, "sans": ("localhost",)}],
    ids=["expired", "for servers"],
)
def test_a_certificate_that_builders_would_refuse(client: Fleet, tmp_path: Path, how: dict[str, t.Any]) -> None:
    """It is not installed."""
    replace(client, tmp_path, **how)
    assert_refused(client, f"the certificate of {NAME} in", "every builder would refuse it", "buildfarm.buildkit.site")


def test_a_key_that_is_not_the_certificates(client: Fleet, tmp_path: Path) -> None:
    """Nor one that is missing."""
    pair = Authority(tmp_path / "other", "Other CA").issue("other", CLIENT)
    shutil.copyfile(pair.key, client.pki / "clients" / NAME / "key.pem")
    assert_refused(client, "is not for the key beside it")
    (client.pki / "clients" / NAME / "key.pem").unlink()
    assert_refused(client, "has sent a CSR and keeps its key")


def test_a_home_without_write_access(client: Fleet) -> None:
    """Before the certificate is there, and before the group is."""
    assert_refused(
        client,
        "Setting up the builder buildkit failed. buildx keeps its builders in /nonexistent/.docker/buildx",
        "cannot be written to",
        buildkit_client_users=["nobody"],
    )
    assert_refused(client, "There is no user zoe on this host", buildkit_client_users=["zoe"])


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (
            {
                "buildkit_client_buildctl_archive": "/none.tar.gz",
                "buildkit_client_dir": "client",
                "buildkit_client_daemons": [],
            },
            [
                "there is no /none.tar.gz on the controller",
                "is set without its checksum",
                "buildkit_client_dir is client. Give an absolute path",
                "there is no builder for this client",
            ],
        ),
        ({"buildkit_client_group": "", "buildkit_client_users": ["nobody"]}, ["so root alone could read"]),
        (
            {"buildkit_client_owner": "nobody", "buildkit_client_users": ["nobody", "root"]},
            ["belongs to nobody alone", "buildkit_client_users has others too"],
        ),
        ({"buildkit_admits": ["release"]}, ["no host in it admits the group default"]),
        (
            {"buildkit_client_earthly_host": "tcp://127.0.0.1:8372", "buildkit_client_users": ["root"]},
            ["Earthly takes tcp://127.0.0.1:8372 for its own container"],
        ),
        (
            {"buildkit_client_pool": "default", "buildkit_client_users": ["root"]},
            ["the pool cannot be named default"],
        ),
    ],
)
def test_what_cannot_be_meant(client: Fleet, variables: dict[str, t.Any], says: list[str]) -> None:
    """Each is refused on a machine on which nothing was done yet."""
    assert_refused(client, *says, **variables)
