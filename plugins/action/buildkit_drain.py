# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what still runs while the module of the same name waits, which a module itself cannot."""

from __future__ import annotations

import time
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import drain
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError

_MODULE = "buildfarm.buildkit.buildkit_drain"
_MOST_LINES = 5


class ActionModule(ActionBase):
    """Calls the module until nothing runs or the time is over, and says in between how it goes.

    The module runs where the task would run it, so that everything that holds for modules holds here.
    """

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """The result of the module, as if it had waited by itself."""
        result = super().run(tmp, task_vars)
        wish, arguments = self._wish(), dict(self._task.args)
        if self._task.check_mode or self._task.async_val or wish is None or not wish.progress:
            return {**result, **self._call(arguments, task_vars)}
        return {**result, **self._wait(wish, arguments, task_vars)}

    def _wish(self) -> drain.Wish | None:
        """What the options say; None if the module is to say what is wrong with them."""
        given = self._task.args
        try:
            wish = drain.Wish(**{name: float(given[name]) for name in drain.OPTIONS if name in given})
            wish.check()
        except (InputError, TypeError, ValueError):
            return None
        if given.get("on_timeout", drain.ON_TIMEOUT[0]) not in drain.ON_TIMEOUT:
            return None
        daemons = given.get("daemons")
        return wish if daemons is None or (daemons and isinstance(daemons, list)) else None

    def _wait(self, wish: drain.Wish, arguments: dict[str, t.Any], task_vars: t.Any) -> dict[str, t.Any]:
        daemons = arguments.get("daemons")
        rounds = drain.Rounds(1 if daemons is None else len(daemons), wish, time.monotonic())
        said: dict[str, t.Any] = {}
        while rounds.pending:
            chosen = {} if daemons is None else {"daemons": [daemons[index] for index in rounds.pending]}
            options = {**arguments, **chosen, **rounds.next(time.monotonic()), "on_timeout": "continue"}
            found = self._call(options, task_vars)
            if "daemons" not in found:  # it did not even begin
                return found
            said = said or {key: value for key, value in found.items() if key not in ("failed", "msg", "invocation")}
            rounds.add(found["daemons"], time.monotonic())
            self._say(rounds)
        return {**said, **self._conclude(rounds, arguments)}

    def _conclude(self, rounds: drain.Rounds, arguments: dict[str, t.Any]) -> dict[str, t.Any]:
        result = drain.conclude(rounds.items, may_run_on=arguments.get("on_timeout") == "continue")
        return {**result, "failed": "msg" in result}

    def _say(self, rounds: drain.Rounds) -> None:
        if self._task.no_log:
            return
        lines = [drain.describe(rounds.items[index]) for index in rounds.pending]
        more = len(lines) - _MOST_LINES
        for line in [*lines[:_MOST_LINES], *([f"and {more} more"] if more > 0 else [])]:
            Display().display(f"buildkit_drain: {line}")

    def _call(self, options: dict[str, t.Any], task_vars: t.Any) -> dict[str, t.Any]:
        wrap_async = bool(self._task.async_val) and not self._connection.has_native_async
        result: dict[str, t.Any] = self._execute_module(
            module_name=_MODULE, module_args=options, task_vars=task_vars, wrap_async=wrap_async
        )
        return result
