# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pruning would drop, computed from records. That daemons do so is for the integration tests to show."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import prune
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import Limits, UsageRecord
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, InputError, Kind

NOW = 1_000_000.0


def record(name: str, *parents: str, used: float | None = NOW - 100, **fields: Any) -> UsageRecord:
    """A record of 10 bytes that may go, if nothing else is said."""
    values: dict[str, Any] = {"type": "regular", "size": 10, "in_use": False, "shared": False, "usage_count": 1}
    return UsageRecord(id=name, parents=parents, last_used=used, **{**values, **fields})


def going(records: list[UsageRecord], matching: set[str] | None = None, **wish: Any) -> list[str]:
    """The names of what may go, in its order."""
    return [one.id for one in prune.removable(records, prune.Wish(**wish), matching, NOW)]


def test_least_recently_used_goes_first() -> None:
    """What was never used goes before, and of equals what was used less often."""
    records = [record("new", used=NOW - 1), record("old", used=NOW - 9), record("never", used=None)]
    assert going(records) == ["never", "old", "new"]
    assert going([record("often", usage_count=5), record("seldom")]) == ["seldom", "often"]


def test_parent_goes_after_its_children() -> None:
    """However old it is."""
    assert going([record("base", used=NOW - 999), record("top", "base", used=NOW - 1)]) == ["top", "base"]


def test_what_stays_holds_what_it_stands_on() -> None:
    """Whatever makes it stay: use, type, age, a filter."""
    base = record("base")
    assert going([base, record("top", "base", in_use=True)]) == []
    assert going([base, record("top", "base", type="internal")]) == []
    assert going([base, record("top", "base", type="internal")], all_types=True) == ["top", "base"]
    assert going([base, record("top", "base", used=NOW - 5)], keep_duration=50) == []
    assert going([base, record("top", "base")], {"base"}) == []
    assert going([base, record("top", "base")], {"top"}) == ["top"]


def test_shared_and_internal_records_go_only_with_all() -> None:
    """As daemons have it."""
    records = [record("shared", shared=True), record("frontend", type="frontend"), record("mine")]
    assert going(records) == ["mine"]
    assert sorted(going(records, all_types=True)) == ["frontend", "mine", "shared"]


def test_what_was_never_used_is_old() -> None:
    """It has no time that a limit could protect."""
    assert going([record("never", used=None), record("young", used=NOW - 5)], keep_duration=50) == ["never"]


def test_records_that_are_each_others_parents_stay() -> None:
    """A daemon that makes no sense does not make us loop."""
    assert going([record("a", "b"), record("b", "a"), record("c", "unknown", "c")]) == []


def test_many_records_take_no_time() -> None:
    """A message of the largest size holds about so many."""
    records = [record(str(number), str(number // 2), used=NOW - number) for number in range(1, 150_001)]
    began = time.process_time()
    assert len(going(records)) == 150_000
    assert time.process_time() - began < 100  # where time grows with the square, it is hours


@pytest.mark.parametrize(("keep", "count"), [(100, 0), (31, 0), (30, 1), (25, 1), (11, 2), (1, 3)])
def test_pruning_ends_below_the_limit(keep: int, count: int) -> None:
    """30 bytes there are, 10 with each record; at the limit one more goes, as daemons have it."""
    assert len(prune.until([record("a"), record("b"), record("c")], keep, 30)) == count


def test_minimum_of_free_space_comes_with_a_maximum() -> None:
    """Without, a daemon would drop one record each time although enough is free."""
    assert prune.Wish(min_free_space=5).limits.max_used_space > 10**18
    assert prune.Wish(min_free_space=5, max_used_space=7).limits.max_used_space == 7
    assert prune.Wish(keep_storage=5).limits.max_used_space == 0


@pytest.mark.parametrize(
    "text",
    [
        "type==regular",
        "type!=regular",
        "type~=source.*",
        'type~="source\\\\.(local|git)"',
        "type~=/a,b/",
        "type==regular,mutable",
        "type==regular, mutable , private",
        "type==regular,type==regular",
        "type!=regular,type!=internal",
        "type!=tomorrow",
        'type=="source.git.checkout"',
        'id=="a,b"',
        "shared",
    ],
)
def test_filters_that_daemons_look_at(text: str) -> None:
    """They are passed on."""
    prune.Wish(filters=(text,)).check()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        (" ", "cannot be read"),
        (",", "cannot be read"),
        ("type==", "cannot be read"),
        ("type=regular", "cannot be read"),
        ("type==regular,", "cannot be read"),
        ('type=="regular', "cannot be read"),
        ("type > regular", "cannot be read"),
        ("description~=apt", "has the field 'description'"),
        ("mutable,parents", "has the field 'parents'"),
        ("inuse", "has the field 'inuse'"),
        ("type==exec.cachemounts", "has the type exec.cachemounts, which no record has.* exec.cachemount,"),
        ("type==source.local,type==exec.cachemount", "wants type to be source.local and exec.cachemount"),
    ],
)
def test_filters_that_match_nothing_are_refused(text: str, message: str) -> None:
    """Among them the mistake of BuildKit's own default policy before v0.31: two types in one filter."""
    with pytest.raises(InputError, match=message):
        prune.Wish(filters=(text,)).check()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("keep_storage", "", "keep_storage is '', which is no size"),
        ("keep_duration", "", "keep_duration is '', which is no length of time"),
        ("max_used_space", "", "max_used_space is '', which is no size"),
        ("min_free_space", "", "min_free_space is '', which is no size"),
        ("max_used_space", "0", "max_used_space is '0', which daemons take for no limit"),
        ("min_free_space", "0GB", "min_free_space is '0GB', which daemons take for no limit"),
    ],
)
def test_limits_that_would_let_everything_go_are_refused(name: str, value: str, message: str) -> None:
    """A variable that is empty is no wish for an empty cache, nor is little free space."""
    options = {**dict.fromkeys(["keep_storage", "keep_duration", "max_used_space", "min_free_space"]), "filters": []}
    options.update(all=False, connect_timeout=1.0, timeout=1.0)
    assert prune.read_wish({**options, "keep_storage": "0", "keep_duration": "0"}).limits == Limits()
    with pytest.raises(InputError, match=f"^{message}"):
        prune.read_wish({**options, name: value})


def report(**fields: Any) -> prune.Report:
    """Of a daemon that had 100 MB, of which two records went."""
    found = prune.Report("unix:///x", before=100_000_000, **fields)
    found.freed["regular"].add(30_000_000)
    found.freed["exec.cachemount"].add(5_000_000)
    return found


@pytest.mark.parametrize(
    ("prediction", "text"),
    [
        (None, "freed 35.0 MB in 2 records (30.0 MB regular, 5.0 MB exec.cachemount), 65.0 MB left"),
        ("exact", "would free 35.0 MB in 2 records (30.0 MB regular, 5.0 MB exec.cachemount), 65.0 MB left"),
        ("estimate", "would free about 35.0 MB in 2 records (30.0 MB regular, 5.0 MB exec.cachemount), 65.0 MB left"),
        (
            "at_most",
            "would free at most 35.0 MB in 2 records (30.0 MB regular, 5.0 MB exec.cachemount), at least 65.0 MB left",
        ),
    ],
)
def test_summary(prediction: str | None, text: str) -> None:
    """What went by type, and how certain it is if it has not gone yet."""
    assert report(prediction=prediction).summary == f"unix:///x: {text}"


def test_summary_of_a_pruning_that_broke_off() -> None:
    """What went until then is said too."""
    failed = report(failure=Failure(Kind.TIMEOUT, "Prune was not answered within 1 s"))
    assert failed.summary.startswith(
        "unix:///x: timeout: Prune was not answered within 1 s (freed 35.0 MB in 2 records"
    )
    assert failed.as_dict()["changed"] is True
    assert failed.as_dict()["cache_bytes_after"] == 65_000_000
