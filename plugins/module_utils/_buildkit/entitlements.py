# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proof that a daemon refuses entitlements: rights that a build may ask for, and that lead out of the sandbox.

Facts: util/entitlements/entitlements.go, and loadLLB in solver/llbsolver/vertex.go. A daemon refuses the build before
any step of it exists, so a step in its status means that it was granted, whatever became of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import llb, messages, smoke
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import Control, Platform
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, Kind

# The conditions of a step that makes use of it.
_STEPS = {
    "network.host": llb.Conditions(network=messages.NETWORK_HOST),
    "security.insecure": llb.Conditions(security=messages.SECURITY_INSECURE),
}

ENTITLEMENTS = tuple(_STEPS)


@dataclass(frozen=True)
class Answer:
    """What a daemon says to a build that asks for an entitlement.

    :param refused: whether it refused
    :param how: what it said
    """

    refused: bool
    how: str

    def as_dict(self) -> dict[str, Any]:
        """The form that modules return."""
        return {"refused": self.refused, "how": self.how}


async def ask(entitlement: str, control: Control, platform: Platform, *, timeout: float) -> Answer:
    """Ask for an entitlement, with a build that makes use of it.

    :param entitlement: one of :data:`ENTITLEMENTS`
    :param platform: the daemon's own
    :param timeout: seconds for the build
    :raises Failure: the daemon neither granted nor refused it
    """
    request = smoke.exec_request(smoke.probe_file(platform), _STEPS[entitlement])
    request.Entitlements.append(entitlement)
    log = smoke.Log()
    try:
        await smoke.follow(request, control, log, name=entitlement, timeout=timeout)
    except Failure as error:
        if log.has_step(smoke.STEP):
            return Answer(False, "the daemon took the build on")
        if error.kind is Kind.BUILD_FAILED and smoke.NOT_ALLOWED in error.message:
            return Answer(True, "the daemon refused the build")
        raise
    return Answer(False, "the daemon built it")
