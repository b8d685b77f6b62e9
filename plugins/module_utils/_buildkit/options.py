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


def module_arguments(own: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of C(AnsibleModule) for a module that asks one daemon or a fleet.

    :param own: the options that only this module has
    """
    return {
        "argument_spec": {
            "address": {"type": "str"},
            "daemons": {
                "type": "list",
                "elements": "dict",
                "options": {"address": {"type": "str", "required": True}, **_CREDENTIALS},
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

    What an item of C(daemons) leaves out is taken from the option of the same name of the module.
    """
    items = options["daemons"] if options["address"] is None else [{"address": options["address"]}]
    return [
        Daemon(item["address"], **{name: item.get(name) or options[name] or "" for name in _CREDENTIALS})
        for item in items
    ]


def check_python() -> None:
    """Make sure that this Python is new enough.

    :raises InputError: it is not; the text says where to run instead
    """
    if sys.version_info < OLDEST_PYTHON:
        raise InputError(
            f"This module needs Python 3.10 or newer, and {sys.executable} is {sys.version.split()[0]}. Run it on "
            "the controller (delegate_to: localhost), or set ansible_python_interpreter to a newer one."
        )
