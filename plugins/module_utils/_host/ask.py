# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a daemon says of itself on its own host: its version, and which builds run.

Messages and their fields are those of api/services/control/control.proto; each number stands where it is used.
"""

from __future__ import annotations

import time
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.line import Answer, Line

_AGAIN = 0.1  # seconds between two questions to a daemon that ends
_HISTORY = "ListenBuildHistory"
_ACTIVE = b"\x08\x01\x18\x01"  # BuildHistoryRequest: ActiveOnly (1) and EarlyExit (3), both true


def version(line: Line) -> str:
    """What the daemon says that it is, such as v0.13.2; empty if it does not. Raises HostError."""
    for message in line.ask("Info", b""):
        for field, value in _fields(message):  # InfoResponse: buildkitVersion (1), and in there version (2)
            if field == 1:
                return dict(_fields(value)).get(2, b"").decode("utf-8", "replace")
    return ""


def builds(line: Line) -> t.Set[str]:
    """The names of the builds that run now, without those that were sent as internal. Raises HostError."""
    return _names(line.ask(_HISTORY, _ACTIVE))


def _names(messages: t.Iterable[bytes]) -> t.Set[str]:
    """Of the builds in a number of BuildHistoryEvents: record (2), and in there Ref (1)."""
    records = [dict(_fields(message)).get(2, b"") for message in messages]
    return {dict(_fields(record)).get(1, b"").decode("utf-8", "replace") for record in records}


class Rest:
    """What a daemon still builds that was told to end.

    As long as it takes calls it is asked which builds run, so none is missed that began in the very moment; for each of
    them a call to Status goes on until that has ended.
    """

    def __init__(self, line: Line) -> None:
        self.line = line
        self._question: t.Optional[Answer] = None
        self._after = False  # whether the question was asked after it was told
        self._next = 0.0
        self._known = False
        self._listed: t.Set[str] = set()  # what ran when that was last answered
        self._status: t.Dict[str, Answer] = {}

    @property
    def running(self) -> t.Set[str]:
        """Builds that run, or of which it is not known that they ended."""
        followed = {ref for ref, status in self._status.items() if not (status.ended and status.good)}
        return followed if self.line.over else followed | self._listed

    @property
    def none(self) -> bool:
        """Whether it is known that nothing runs. More may still come, unless the line is over."""
        return self._known and not self.running

    def update(self, seconds: float) -> None:
        """Listen for so long. Raises HostError when nothing can be heard any more."""
        now = time.monotonic()
        due = now >= self._next or (self.line.told and not self._known)
        if due and self._question is None and not self.line.over:
            self._question, self._after, self._next = self.line.call(_HISTORY, _ACTIVE), self.line.told, now + _AGAIN
        self.line.listen(seconds)
        if self._question is None or not self._question.ended:
            return
        question, self._question = self._question, None
        if not question.good:
            self._known = False
            return
        names = self._listed = _names(self.line.read(question))
        for ref in [one for one, status in self._status.items() if status.ended and not status.good]:
            del self._status[ref]  # it is told anew
        for ref in names - set(self._status):
            if self.line.over:
                self._status[ref] = Answer(keep=False)  # never to be heard of
            else:
                self._status[ref] = self.line.call("Status", _text(1, ref), keep=False)
        self._known = self._known or self._after


def _text(field: int, value: str) -> bytes:
    """A field of a message."""
    data = value.encode()
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    done = b""
    while number > 0x7F:
        done += bytes([number & 0x7F | 0x80])
        number >>= 7
    return done + bytes([number])


def _fields(message: bytes) -> t.Iterator[t.Tuple[int, bytes]]:
    """Number and content of the fields that have a length, such as texts and messages. Raises HostError."""
    at = 0

    def number() -> int:
        nonlocal at
        found = shift = 0
        while True:
            if at >= len(message) or shift > 63:
                raise HostError("buildkitd answered with what is no message.")
            byte = message[at]
            at += 1
            found |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return found

    while at < len(message):
        key = number()
        kind = key & 7
        if kind == 0:
            number()
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            size = number()
        if kind not in (1, 2, 5) or at + size > len(message):
            raise HostError("buildkitd answered with what is no message.")
        at += size
        if kind == 2:
            yield key >> 3, message[at - size : at]
