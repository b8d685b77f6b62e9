# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory says of a builder: its names, its addresses, and the endpoint that clients dial.

Private to this collection.
"""

from __future__ import annotations

import ipaddress
import typing as t
from dataclasses import dataclass

from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import endpoint
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError

# How every variable of this collection starts. Facts outrank the inventory, so none may come from a host.
_OURS = "buildkit"
DEFAULT_PORT = 1234


@dataclass(frozen=True)
class Builder:
    """One builder as the inventory has it.

    ``endpoint`` is what clients dial, such as tcp://192.0.2.11:1234; ``admits`` the groups of clients that may build on
    it, None for all; ``platforms`` those that it builds for, its own first, None where the inventory does not say.
    """

    name: str
    dns: list[str]
    ip: list[str]
    endpoint: str
    admits: list[str] | None = None
    platforms: list[str] | None = None


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _wished_list(variables: t.Mapping[str, t.Any], variable: str, name: str) -> list[str] | None:
    value = variables.get(variable)
    if value is None:
        return None
    if isinstance(value, (str, bytes)) or not isinstance(value, t.Sequence):
        raise AnsibleFilterError(f"{variable} of host {name} must be a list, such as [{value!s}].")
    return [str(item) for item in value]


def _checked(address: str, name: str) -> str:
    try:
        endpoint.parse(address)
    except InputError as error:
        raise AnsibleFilterError(f"The endpoint of host {name} is not one that clients can dial. {error}") from error
    return address


def builder(name: str, variables: t.Mapping[str, t.Any]) -> Builder:
    """What is known of a host from the inventory alone.

    :raises AnsibleFilterError: where the host returned a variable of this collection as a fact, one is no list, or the
        endpoint is no address.
    """
    claimed = sorted(fact for fact in variables.get("ansible_facts", {}) if fact.startswith(_OURS))
    if claimed:
        raise AnsibleFilterError(
            f"Host {name} returned {', '.join(claimed)} as a fact. Variables of this collection come from the "
            f"inventory alone, so this run is refused. Look for what sets that fact on the host or in the fact cache; "
            f"a builder that claims another's name may be compromised."
        )
    known_as = list(dict.fromkeys([name, str(variables.get("ansible_host") or name)]))
    names = _wished_list(variables, "buildkit_names", name)
    addresses = _wished_list(variables, "buildkit_addresses", name)
    dial = [*(names or []), *(addresses or []), known_as[-1]][0]
    host = f"[{dial}]" if ":" in dial else dial
    port = variables.get("buildkit_port") or DEFAULT_PORT
    return Builder(
        name=name,
        dns=[item for item in known_as if not _is_ip(item)] if names is None else names,
        ip=[item for item in known_as if _is_ip(item)] if addresses is None else addresses,
        endpoint=_checked(str(variables.get("buildkit_endpoint") or f"tcp://{host}:{port}"), name),
        admits=_wished_list(variables, "buildkit_admits", name),
        platforms=_wished_list(variables, "buildkit_platforms", name),
    )
