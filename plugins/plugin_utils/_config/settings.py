# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One daemon's whole configuration: what the user wishes, what the simple variables add, and what the role decides.

Private to this collection.
"""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config import check, gc, simple
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config.tables import Table, merged


def problems(
    config: t.Any, version: str, given: Table, own: Table, disk: int, variable: str = "buildkitd_config"
) -> list[str]:
    """What is wrong with a user's configuration and simple variables, everything at once."""
    found = check.problems(config, version, decided=own, variable=variable)
    table = config if isinstance(config, t.Mapping) else {}
    return [*found, *simple.problems(table, given, disk, variable.removesuffix("config"))]


def whole(config: t.Any, version: str, given: Table, own: Table, disk: int) -> dict[str, t.Any]:
    """The whole configuration.

    :raises AnsibleFilterError: naming everything that is wrong
    """
    found = problems(config, version, given, own, disk)
    if found:
        raise AnsibleFilterError(f"Writing buildkitd.toml failed: {' '.join(found)}")
    return merged(simple.applied(config, version, given, disk), own)


def gc_policy(config: t.Any, version: str, given: Table, own: Table, disk: int) -> list[dict[str, t.Any]] | None:
    """The garbage collection that a daemon with this configuration will have; None where that cannot be foretold.

    :raises AnsibleFilterError: naming everything that is wrong
    """
    return gc.effective(whole(config, version, given, own, disk), version, disk)
