# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables within tables: looking one up, putting one on another, and plain types.

Private to this collection.
"""

from __future__ import annotations

import typing as t

Table = t.Mapping[str, t.Any]


def part(config: Table, *names: str) -> Table:
    """The table at these names; an empty one where there is none."""
    found: t.Any = config
    for name in names:
        found = found.get(name) if isinstance(found, t.Mapping) else None
    return found if isinstance(found, t.Mapping) else {}


def merged(below: Table, above: Table) -> dict[str, t.Any]:
    """Both in one, table by table; where both say something, ``above`` counts."""
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, t.Mapping) and isinstance(value, t.Mapping) else value
    return result


def leaves(config: Table, prefix: tuple[str, ...] = ()) -> t.Iterator[tuple[str, ...]]:
    """The names that lead to each value that is no table, or to an empty table."""
    for name, value in config.items():
        path = (*prefix, str(name))
        if isinstance(value, t.Mapping) and value:
            yield from leaves(value, path)
        else:
            yield path


def dotted(path: t.Iterable[str]) -> str:
    """The path as people write it, with names that hold a dot in quotes as TOML has them."""
    return ".".join(f'"{name}"' if "." in name else name for name in path)
