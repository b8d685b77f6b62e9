# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters bundle_clients and bundle_daemons: the inventory as buildkit_client_bundles wants it."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.filter.bundle_clients import bundle_clients
from ansible_collections.buildfarm.buildkit.plugins.filter.bundle_daemons import bundle_daemons


def test_a_client_with_a_csr_keeps_its_key() -> None:
    """Group and encryption are passed on, the CSR itself is not."""
    wished = ["alice", {"name": "ci", "group": "release", "csr": "PEM"}]
    assert bundle_clients(wished, {"alice": {"recipients": ["age1x"]}}) == [
        {"name": "alice", "recipients": ["age1x"]},
        {"name": "ci", "group": "release", "own_key": True},
    ]


@pytest.mark.parametrize(
    ("encrypt", "message"),
    [
        ({"alcie": {"passphrase": "x"}}, "The bundle of alcie is to be encrypted, and there is no such client"),
        ({"alice": {"password": "x"}}, "must be recipients or passphrase"),
        ({"alice": "x"}, "must be recipients or passphrase"),
    ],
)
def test_encryption_that_would_not_happen_is_refused(encrypt: dict[str, t.Any], message: str) -> None:
    """A wish that nobody would fulfil must not leave a bundle open."""
    with pytest.raises(AnsibleFilterError, match=message):
        bundle_clients(["alice"], encrypt)


def test_builders_say_what_the_inventory_says() -> None:
    """Platforms, groups and the release where they are set; builders that are not dialled by TCP are left out."""
    hostvars = {
        "b1": {"buildkit_platforms": ["linux/arm64"], "buildkit_admits": ["release"], "buildkit_version": "0.31.0"},
        "b2": {"buildkit_version": "0.31.0", "buildkitd_version": "0.13.2", "buildkit_port": 99},
        "b3": {"buildkit_endpoint": "unix:///run/b.sock"},
        "b4": {},
    }
    assert bundle_daemons(hostvars, hostvars) == [
        {
            "name": "b1",
            "address": "tcp://b1:1234",
            "platforms": ["linux/arm64"],
            "admits": ["release"],
            "version": "0.31.0",
        },
        {"name": "b2", "address": "tcp://b2:99", "version": "0.13.2"},
        {"name": "b4", "address": "tcp://b4:1234"},
    ]
