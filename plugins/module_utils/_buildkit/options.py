# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that say which daemons are meant and as whom to come, shared by every module that speaks to buildkitd.

They are described in the doc fragment C(_connection).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import endpoint
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError

OLDEST_PYTHON = (3, 10)

_CREDENTIALS: dict[str, dict[str, Any]] = {
    "ca_path": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},  # where it is, not what it is
    "tls_hostname": {"type": "str"},
}


@dataclass(frozen=True)
class Daemon:
    """Which daemon to speak to, and as whom. Paths are of PEM files; an empty one was not given.

    :param address: as buildctl spells it
    :param tls_hostname: the name that its certificate must have, if not the host of the address
    """

    address: str
    ca_path: str = ""
    client_cert: str = ""
    client_key: str = ""
    tls_hostname: str = ""


def module_arguments(own: Mapping[str, Any], *, of_each: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The keyword arguments of C(AnsibleModule) for a module that asks one daemon or a fleet.

    :param own: the options that only this module has
    :param of_each: those that each item of C(daemons) has beside the shared ones
    """
    return {
        "argument_spec": {
            "address": {"type": "str"},
            "daemons": {
                "type": "list",
                "elements": "dict",
                "options": {"address": {"type": "str", "required": True}, **_CREDENTIALS, **(of_each or {})},
            },
            **_CREDENTIALS,
            "connect_timeout": {"type": "float", "default": 10},
            **own,
        },
        "mutually_exclusive": [("address", "daemons")],
        "required_one_of": [("address", "daemons")],
    }


def read_daemons(options: Mapping[str, Any]) -> list[Daemon]:
    """The daemons that the options of a module name, in their order.

    What an item of C(daemons) leaves out is taken from the option of the same name of the module, where its address
    has a use for it.

    :raises InputError: an address that cannot be read
    """
    if options["address"] is not None:
        return [Daemon(options["address"], **{name: options[name] or "" for name in _CREDENTIALS})]
    return [_read_item(item, options) for item in options["daemons"]]


def _read_item(item: Mapping[str, Any], options: Mapping[str, Any]) -> Daemon:
    inherited = options if endpoint.parse(item["address"]).is_tcp else {}
    return Daemon(item["address"], **{name: item.get(name) or inherited.get(name) or "" for name in _CREDENTIALS})


def check_transport(daemon: Daemon, target: endpoint.Endpoint) -> None:
    """Make sure that the options of TLS were given where TLS can be.

    :raises InputError: they were given for a unix socket, or for a program that leads to one
    """
    given = [name for name in _CREDENTIALS if getattr(daemon, name)]
    if given and not target.is_tcp:
        raise InputError(
            f"{daemon.address}: {' and '.join(given)} cannot be used there: buildkitd speaks TLS on tcp:// alone, and "
            "this address leads to its unix socket. Leave them out"
        )


def check_python() -> None:
    """Make sure that this Python is new enough.

    :raises InputError: it is not; the text says where to run instead
    """
    if sys.version_info < OLDEST_PYTHON:
        raise InputError(
            f"This module needs Python 3.10 or newer, and {sys.executable} is {sys.version.split()[0]}. Run it on "
            "the controller (delegate_to: localhost), or set ansible_python_interpreter to a newer one."
        )
