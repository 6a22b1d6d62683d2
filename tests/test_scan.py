"""When a process tries which journals: its predecessor's at once, others' seldom and at moments of its own, after a death all."""

from __future__ import annotations

import os
from itertools import count, pairwise
from typing import TYPE_CHECKING

import pytest

from fapilog._internal import scan as module
from fapilog._internal.journal import Journal, journals
from fapilog._internal.scan import LIST_EVERY, LOOK_EVERY, MOST_WAITING, RIPE_AFTER, Scan
from fapilog.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODYS: list[str] = []


class Clock:
    """The monotonic clock of the module under test."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def identity(worker: int, boot: int | None = None) -> Identity:
    return Identity("s", "", "h", worker, 100 + worker, f"{worker if boot is None else boot:016x}")


def name_of(worker: int) -> str:
    return f"journal-1.{identity(worker).boot}.0"


def left(run_dir: Path, worker: int) -> str:
    """Leave a journal with an owner, that nobody holds; return its name."""
    journal = Journal.make(run_dir, identity(worker), ("file",), "t", 4096)
    journal.close(done=False)
    return journal.path.name


def crowd(run_dir: Path, number: int) -> list[str]:
    for worker in range(number):
        (run_dir / name_of(worker)).touch()
    return [name_of(worker) for worker in range(number)]


def watcher(run_dir: Path, worker: int = 900) -> Scan:
    scan = Scan(run_dir, identity(worker, boot=worker + 1_000_000))
    scan.everything = False
    return scan


def looks(scan: Scan, clock: Clock, seconds: float) -> Iterator[tuple[float, list[str]]]:
    """Look for so long; return when each look was and what it chose."""
    end = clock.now + seconds
    while clock.now < end:
        yield clock.now, scan.chosen(NOBODYS)
        clock.now += LOOK_EVERY


def test_a_process_that_began_in_the_slot_of_a_dead_one(run_dir: Path, clock: Clock) -> None:
    """It tries that one's journal at each look, and nobody else's before they are ripe."""
    mine, other = left(run_dir, 3), left(run_dir, 4)
    chosen = [names for _, names in looks(watcher(run_dir, 3), clock, RIPE_AFTER)]
    assert all(names == [mine] for names in chosen)
    assert set(watcher(run_dir, 3).chosen(NOBODYS)) == {mine}
    assert other != mine


def test_a_journal_whose_head_comes_late(run_dir: Path, clock: Clock) -> None:
    """It is read again when it is tried, and then known for the own slot's."""
    (run_dir / name_of(3)).touch()
    scan = watcher(run_dir, 3)
    assert [names for _, names in looks(scan, clock, RIPE_AFTER) if names] == []
    os.unlink(run_dir / name_of(3))
    left(run_dir, 3)
    assert scan.chosen(NOBODYS) == [name_of(3)]
    clock.now += LOOK_EVERY
    assert scan.chosen(NOBODYS) == [name_of(3)]


def test_the_own_journals_and_those_that_were_adopted(run_dir: Path, clock: Clock) -> None:
    """They are not tried."""
    crowd(run_dir, 3)
    scan = Scan(run_dir, identity(1))
    assert sorted(scan.chosen([name_of(2)])) == [name_of(0)]


def test_a_few_processes(run_dir: Path, clock: Clock) -> None:
    """Each tries the others' journals when they are ripe, and from then on about as often."""
    names = crowd(run_dir, 4)
    tried = [at for at, chosen in looks(watcher(run_dir), clock, 60) if names[0] in chosen]
    assert tried[0] == 1_000.0 + RIPE_AFTER
    assert {late - early for early, late in pairwise(tried)} == {RIPE_AFTER}


@pytest.mark.parametrize("number", [MOST_WAITING * 2, 80])
def test_many_processes(run_dir: Path, clock: Clock, number: int) -> None:
    """Together they try each journal about every five seconds, and no more than some fifty are tried in a second, all in all."""
    names = crowd(run_dir, number)
    scans = [watcher(run_dir, 1_000 + each) for each in range(number)]
    assert all(len(scan.chosen(NOBODYS)) == number for scan in scans)  # with so many nobody waits for ripeness, once
    seconds = 200
    seen, gaps = dict.fromkeys(names, clock.now), []
    for _ in range(seconds):
        clock.now += LOOK_EVERY
        for name in [name for scan in scans for name in scan.chosen(NOBODYS)]:
            gaps.append(clock.now - seen[name])
            seen[name] = clock.now
    assert len(gaps) <= 1.5 * seconds * MOST_WAITING**2 / RIPE_AFTER
    assert sum(gap > 12 * RIPE_AFTER for gap in gaps) <= len(gaps) // 100
    assert len(seen) == number


def test_a_death(run_dir: Path, clock: Clock) -> None:
    """Who has found one dead tries all the others at the next look, once."""
    names = crowd(run_dir, 10)
    scan = watcher(run_dir)
    tried = [each for _, each in looks(scan, clock, RIPE_AFTER + LOOK_EVERY)]
    assert tried == [[]] * 5 + [names]
    scan.found_dead()
    assert scan.chosen(NOBODYS) == names
    clock.now += LOOK_EVERY
    assert scan.chosen(NOBODYS) == []


def test_a_death_while_others_are_not_ripe(run_dir: Path, clock: Clock) -> None:
    """They are left to their successors all the same."""
    crowd(run_dir, 3)
    scan = watcher(run_dir)
    scan.found_dead()
    assert scan.chosen(NOBODYS) == []


def test_a_directory_that_does_not_change(run_dir: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed twice and then once a minute; a change is seen at the next look."""
    crowd(run_dir, 3)
    lists = count()
    monkeypatch.setattr(module, "journals", lambda path: (next(lists), journals(path))[1])
    scan = watcher(run_dir)
    tuple(looks(scan, clock, LIST_EVERY * 3 * LOOK_EVERY))
    assert next(lists) == 1 + 3
    (run_dir / name_of(7)).touch()
    scan.chosen(NOBODYS)
    assert next(lists) == 1 + 3 + 1 + 1


def test_a_change_within_the_same_tick(run_dir: Path, clock: Clock) -> None:
    """It is seen at the next look although the directory's time is the same: it moves in ticks of some milliseconds."""
    crowd(run_dir, 1)
    scan = watcher(run_dir)
    scan.chosen(NOBODYS)
    before = os.stat(run_dir)
    (run_dir / name_of(5)).touch()
    os.utime(run_dir, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.now += LOOK_EVERY
    scan.chosen(NOBODYS)
    clock.now += RIPE_AFTER
    assert name_of(5) in scan.chosen(NOBODYS)


def test_a_run_directory_that_is_gone(run_dir: Path, clock: Clock) -> None:
    """There is nothing to try, and what comes back is found."""
    scan = watcher(run_dir)
    os.rmdir(run_dir)
    assert scan.chosen(NOBODYS) == []
    run_dir.mkdir(mode=0o700)
    crowd(run_dir, 1)
    assert any(name_of(0) in names for _, names in looks(scan, clock, RIPE_AFTER + 2))
