# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was proved of each daemon, as results and in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import entitlements, smoke
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import Version, Worker
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, Kind

if TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.certificate import Certificate
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.refusal import Refusal

REFUSALS = ("no_certificate", "foreign_ca", "plaintext")

STRANGERS = {
    "no_certificate": "without a client certificate",
    "foreign_ca": "with a certificate of another CA",
    "plaintext": "without TLS",
}

# What gives the host away comes first, and what still builds comes last.
_RANKS = {
    Kind.OPEN_TO_ANYONE: 0,
    Kind.ENTITLEMENT_GRANTED: 1,
    Kind.VERSION_TOO_OLD: 3,
    Kind.VERSION_UNKNOWN: 3,
    Kind.GC_POLICY_DIFFERS: 3,
    Kind.CERTIFICATE_EXPIRES_SOON: 3,
}
_OTHER_FAILURES = 2
_PROVED = 4


@dataclass
class Report:
    """What was proved of one daemon. It fills up while the proof goes on."""

    address: str
    version: Version | None = None
    workers: list[Worker] = field(default_factory=list)
    certificate: Certificate | None = None
    timings: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    entitlements: dict[str, entitlements.Answer] = field(default_factory=dict)
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        """Whether all is proved."""
        return self.failure is None

    @property
    def summary(self) -> str:
        """What was proved, or why not and what to try, in one line."""
        if self.failure is not None:
            return f"{self.address}: {self.failure.kind.value}: {self.failure.message}. {self.failure.remedy}"
        facts = [f"BuildKit {self.version.version}"] if self.version else []
        facts += [f"{_words(stage)} in {self.timings[stage] * 1000:.0f} ms" for stage in self._builds]
        facts += [f"stranger {STRANGERS[name]} refused ({one.how})" for name, one in self._in_order(self.refusals)]
        facts += [f"{name} refused" for name, dummy in self._in_order(self.entitlements)]
        return f"{self.address}: {', '.join(facts)}"

    @property
    def _builds(self) -> list[str]:
        return [stage for stage in self._stages if stage.partition(" ")[0] in smoke.BUILDS]

    @property
    def _stages(self) -> list[str]:
        """What has a time, in the order in which it is shown; other platforms follow the daemon's own."""
        order = ("connect", "tls", "info", "workers", *smoke.BUILDS, *REFUSALS, *entitlements.ENTITLEMENTS, "total")
        return sorted(self.timings, key=lambda stage: (order.index(stage.partition(" ")[0]), stage))

    @staticmethod
    def _in_order(found: dict[str, Any]) -> list[tuple[str, Any]]:
        return [(name, found[name]) for name in (*REFUSALS, *entitlements.ENTITLEMENTS) if name in found]

    def as_dict(self, now: datetime | None = None) -> dict[str, Any]:
        """The form that modules return."""
        return {
            "address": self.address,
            "ok": self.ok,
            "version": self.version.version if self.version else None,
            "workers": [worker.as_dict() for worker in self.workers],
            "certificate": self.certificate.as_dict(now or datetime.now(timezone.utc)) if self.certificate else None,
            "timings_ms": {stage: round(self.timings[stage] * 1000, 1) for stage in self._stages},
            "refusals": {name: one.as_dict() for name, one in self._in_order(self.refusals)},
            "entitlements": {name: one.as_dict() for name, one in self._in_order(self.entitlements)},
            "failure": self.failure.as_dict() if self.failure else None,
        }


def summarise(reports: Sequence[Report]) -> list[str]:
    """One line for each, the worst first; equals stay in their order."""
    return [report.summary for report in sorted(reports, key=_rank_of_report)]


def _rank_of_report(report: Report) -> int:
    return _PROVED if report.failure is None else rank(report.failure)


def rank(failure: Failure) -> int:
    """How bad it is, the worst with the lowest number."""
    return _RANKS.get(failure.kind, _OTHER_FAILURES)


def raise_worst(errors: Iterable[BaseException]) -> None:
    """Raise the failure to report: a bug of ours before anything else, then the worst, then the first."""
    for error in sorted(errors, key=lambda one: rank(one) if isinstance(one, Failure) else -1):
        raise error


def _words(stage: str) -> str:
    build, _space, platform = stage.partition(" ")
    return f"{build} build for {platform}" if platform else f"{build} build"
