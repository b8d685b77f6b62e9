# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which daemons the options of a module name, and as whom."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import endpoint, options
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError

SHARED = {"ca_path": "ca.pem", "client_cert": "cert.pem", "client_key": "key.pem", "tls_hostname": None}


def read(**given: Any) -> list[options.Daemon]:
    """The daemons of a module that was called with these options."""
    return options.read_daemons({"address": None, "daemons": None, **SHARED, **given})


def test_an_item_takes_what_it_leaves_out_from_the_module() -> None:
    """An item's own options outrank those of the module."""
    items = [
        {"address": "tcp://one"},
        {"address": "tcp://two", "ca_path": "other.pem", "tls_hostname": "two.example.com"},
    ]
    one, two = read(daemons=items)
    assert one == options.Daemon("tcp://one", "ca.pem", "cert.pem", "key.pem", "")
    assert two == options.Daemon("tcp://two", "other.pem", "cert.pem", "key.pem", "two.example.com")


@pytest.mark.parametrize(
    "address", ["unix:///run/x.sock", "ssh://one", "docker-container://one", "podman-container://one"]
)
def test_an_item_without_tls_takes_nothing_of_tls(address: str) -> None:
    """A fleet may share its options of TLS with daemons that have no use for them; its own are kept, and refused."""
    assert read(daemons=[{"address": address}]) == [options.Daemon(address)]
    [own] = read(daemons=[{"address": address, "client_key": "key.pem"}])
    with pytest.raises(InputError, match=r"client_key cannot be used there: buildkitd speaks TLS on tcp:// alone"):
        options.check_transport(own, endpoint.parse(address))


def test_options_of_tls_beside_an_address_without_it_are_refused() -> None:
    """They belong to this one address, so they are never ignored."""
    [daemon] = read(address="unix:///run/x.sock")
    with pytest.raises(InputError, match="ca_path and client_cert and client_key cannot be used there"):
        options.check_transport(daemon, endpoint.parse(daemon.address))


def test_an_item_whose_address_cannot_be_read_is_refused() -> None:
    """It is named before anything is contacted."""
    with pytest.raises(InputError, match="'builder:1234' has no scheme"):
        read(daemons=[{"address": "builder:1234"}])
