# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what still runs while the module of the same name waits, which a module itself cannot."""

from __future__ import annotations

import time
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import restart, watch

_MODULE = "buildfarm.buildkit.buildkitd_restart"
_FIRST = 1.0  # seconds: it is soon known whether there is anything to wait for
_SHORTEST = 3 * watch.SETTLED  # seconds: each call counts anew for how long clients have been idle


class ActionModule(ActionBase):
    """Calls the module until it restarted the daemon or the time is over, and says in between how it goes.

    Until then the module is called with the policy that leaves the daemon as it is.
    """

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """The result of the module, as if it had waited by itself."""
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        try:
            limit, progress = float(arguments.get("limit", 600)), float(arguments.get("progress", 10))
        except (TypeError, ValueError):
            progress = 0.0  # the module is to say what is wrong
        if self._task.check_mode or self._task.async_val or progress < 1:
            return {**result, **self._call(arguments, task_vars)}
        return {**result, **self._wait(arguments, limit, progress, task_vars)}

    def _wait(self, arguments: dict[str, t.Any], limit: float, progress: float, task_vars: t.Any) -> dict[str, t.Any]:
        began, length, final = time.monotonic(), _FIRST, False
        while True:
            left = max(0.0, limit - (time.monotonic() - began))
            final = final or left <= length
            options = {"limit": left if final else length, "policy": arguments.get("policy", "") if final else "skip"}
            waited = time.monotonic() - began
            found = self._call({**arguments, **options, "waited": waited}, task_vars)
            if final or found.get("failed") or found.get("how") != restart.SKIPPED:
                return found
            # Nobody waits for a daemon that was silent for so long, nor for a policy that it does not allow.
            refused = arguments.get("policy") == restart.GRACEFUL and not restart.ends_builds(found["version"])
            if refused or (found["problem"] and length > watch.SILENT):
                limit, final = 0.0, True
            elif not found["problem"] and not self._task.no_log:
                number = len(found["builds"])
                who = f"{task_vars['inventory_hostname']}: {number} build{'' if number == 1 else 's'} running"
                Display().display(f"buildkitd_restart: {who}; waited {found['waited_seconds']:.0f} s")
            length = max(progress, _SHORTEST, 2 * watch.SILENT if found["problem"] else 0.0)

    def _call(self, options: dict[str, t.Any], task_vars: t.Any) -> dict[str, t.Any]:
        wrap_async = bool(self._task.async_val) and not self._connection.has_native_async
        result: dict[str, t.Any] = self._execute_module(
            module_name=_MODULE, module_args=options, task_vars=task_vars, wrap_async=wrap_async
        )
        return result
