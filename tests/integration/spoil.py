# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to spoil what a daemon said: bytes, frames of HTTP/2, and messages of gRPC; and noise of the same kinds."""

from __future__ import annotations

import random
from collections.abc import Callable

# RFC 9113: the types of frames, one that is unknown, and lengths and numbers at which something changes.
_TYPES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xEE)
_LENGTHS = (0, 1, 4, 5, 6, 8, 9, 255, 256, 16383, 16384, 16385, 65535, 2**24 - 1)
_NUMBERS = (0, 1, 2, 127, 128, 2**14, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
# A server's SETTINGS, without which nobody is listened to.
GREETING = b"\0\0\0\x04\0\0\0\0\0"

Frame = tuple[int, int, int, bytes]  # type, flags, stream, body


def frames_of(data: bytes) -> list[Frame]:
    """The frames of a conversation."""
    found = []
    position = 0
    while position + 9 <= len(data):
        length = int.from_bytes(data[position : position + 3], "big")
        stream = int.from_bytes(data[position + 5 : position + 9], "big")
        found.append((data[position + 3], data[position + 4], stream, data[position + 9 : position + 9 + length]))
        position += 9 + length
    return found


def joined(frames: list[Frame]) -> bytes:
    """The bytes of frames."""
    return b"".join(
        len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")[-4:] + body
        for kind, flags, stream, body in frames
    )


def spoilt(pieces: list[bytes], chance: random.Random) -> list[bytes]:
    """A conversation with one to four faults, cut into more pieces now and then."""
    data = b"".join(pieces)
    for _number in range(chance.randint(1, 4)):
        data = chance.choice(_FAULTS)(data, chance)
    # What comes before the question is no answer to it, so the pieces stay about where they were.
    whole = []
    for piece in pieces[:-1]:
        whole.append(data[: len(piece)])
        data = data[len(piece) :]
    whole.append(data)
    return cut(whole, chance) if chance.random() < 0.2 else whole


def noise(chance: random.Random) -> list[bytes]:
    """Bytes or frames that nobody ever said."""
    if chance.random() < 0.5:
        said = GREETING * chance.randint(0, 1) + chance.randbytes(chance.choice((1, 9, 30, 200, 2000)))
    else:
        said = GREETING + joined([_random_frame(chance) for _number in range(chance.randint(1, 20))])
    return cut([said], chance)


def cut(pieces: list[bytes], chance: random.Random) -> list[bytes]:
    """Each piece in several, as a network may deliver it."""
    parts = []
    for piece in pieces:
        where = sorted(chance.randrange(len(piece) + 1) for _number in range(chance.randint(0, 3)))
        parts += [piece[start:end] for start, end in zip([0, *where], [*where, len(piece)])]
    return [part for part in parts if part]


def _random_frame(chance: random.Random) -> Frame:
    stream = chance.choice((0, 1, 1, 1, 3, 5, 2, 2**31 - 1))
    return chance.choice(_TYPES), chance.randrange(256), stream, chance.randbytes(chance.choice((0, 1, 4, 5, 6, 8, 40)))


def _flip(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return data
    position = chance.randrange(len(data))
    return data[:position] + bytes((data[position] ^ (1 << chance.randrange(8)),)) + data[position + 1 :]


def _overwrite(data: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(len(data) + 1)
    new = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80", chance.randbytes(4), b"\xff" * 8))
    return data[:position] + new + data[position + len(new) :]


def _remove(data: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(len(data) + 1)
    return data[:position] + data[position + chance.choice((1, 2, 9, 50)) :]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(len(data) + 1)
    end = position + chance.choice((1, 9, 50, 500))
    return data[:end] + data[position:end] * chance.randint(1, 5) + data[end:]


def _end(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _insert(data: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(len(data) + 1)
    return data[:position] + chance.randbytes(chance.choice((1, 9, 40))) + data[position:]


def _with_frames(change: Callable[[list[Frame], random.Random], None]) -> Callable[[bytes, random.Random], bytes]:
    def fault(data: bytes, chance: random.Random) -> bytes:
        frames = frames_of(data)
        if not frames:
            return data
        change(frames, chance)
        return joined(frames)

    return fault


def _drop_frame(frames: list[Frame], chance: random.Random) -> None:
    frames.pop(chance.randrange(len(frames)))


def _repeat_frame(frames: list[Frame], chance: random.Random) -> None:
    position = chance.randrange(len(frames))
    frames[position:position] = [frames[position]] * chance.choice((1, 2, 100))


def _swap_frames(frames: list[Frame], chance: random.Random) -> None:
    one, other = chance.randrange(len(frames)), chance.randrange(len(frames))
    frames[one], frames[other] = frames[other], frames[one]


def _insert_frame(frames: list[Frame], chance: random.Random) -> None:
    frames.insert(chance.randrange(len(frames) + 1), _random_frame(chance))


def _change_header(frames: list[Frame], chance: random.Random) -> None:
    position = chance.randrange(len(frames))
    kind, flags, stream, body = frames[position]
    what = chance.randrange(4)
    if what == 0:
        kind = chance.choice(_TYPES)
    elif what == 1:
        flags ^= 1 << chance.randrange(8)
    elif what == 2:
        stream = chance.choice(_NUMBERS)
    else:
        body = body[: chance.choice(_LENGTHS)]
    frames[position] = kind, flags, stream, body


def _change_message(frames: list[Frame], chance: random.Random) -> None:
    """Another length before a message, or another flag."""
    messages = [position for position, frame in enumerate(frames) if frame[0] == 0 and len(frame[3]) >= 5]
    if messages:
        position = chance.choice(messages)
        kind, flags, stream, body = frames[position]
        length = chance.choice(_NUMBERS) % 2**32
        frames[position] = (
            kind,
            flags,
            stream,
            bytes((chance.choice((0, 0, 0, 1, 255)),)) + length.to_bytes(4, "big") + body[5:],
        )


def _change_body(frames: list[Frame], chance: random.Random) -> None:
    """Another byte in a body, where only the one that decodes it can see it."""
    position = chance.randrange(len(frames))
    kind, flags, stream, body = frames[position]
    frames[position] = kind, flags, stream, _flip(body, chance)


_FAULTS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _overwrite,
    _remove,
    _repeat,
    _end,
    _insert,
    *map(_with_frames, (_drop_frame, _repeat_frame, _swap_frames, _insert_frame)),
    *map(_with_frames, (_change_header, _change_message, _change_body, _change_body)),
)
