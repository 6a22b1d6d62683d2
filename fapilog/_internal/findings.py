"""
What the books of log files come to: see `audit` for what is what. Pure.

Invariants:

1. The sums are those of the lives.
2. A life without any line is there if something speaks of it and retention does not explain why there is none.
3. Nothing is `balanced` that is open, misses events without an explanation, has any twice, or misses a file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from fapilog._internal.audit import Life, number
from fapilog._internal.seqs import MOST, Range, size, unexplained

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog._internal.audit import Books, Key, Told

SHOWN = 10


@dataclass(frozen=True, slots=True)
class Counts:
    """
    What was counted, of one life or of all.

    Args:
        balanced: Whether there is nothing more to ask.
        lines: With a seq.
        missing: Seqs that are in no line, but for what retention removed.
        announced: Events that the hub says it has refused or dropped.
        unexplained: What is missing and not announced.
        duplicates: Lines whose seq was there before.
        torn: Lines that broke off.
        recovered: Events that were written after the death of their process.
        trimmed: Seqs that are in no line because retention removed the file.
    """

    balanced: bool
    lines: int
    missing: int
    announced: int
    unexplained: int
    duplicates: int
    torn: int
    recovered: int
    trimmed: int


@dataclass(frozen=True, slots=True)
class LifeFindings(Counts):
    """
    The books of one life.

    Args:
        service: Whose it is, and so the next three.
        host: See there.
        worker: See there; *None* where it is not known.
        boot: See there.
        first_seq: The lowest that is in a line; *None* where there is no line at all.
        last_seq: The highest that anything speaks of.
        state: ``closed``, ``died`` or ``open``.
        unexplained_at: The first ranges of seqs that are missing and not announced.
    """

    service: str
    host: str
    worker: int | None
    boot: str
    first_seq: int | None
    last_seq: int
    state: str
    unexplained_at: list[Range]


@dataclass(frozen=True, slots=True)
class Findings(Counts):
    """
    The books of all lives.

    Args:
        lives: By service, host and worker, and then in the order of the files.
        open: How many lives have no end.
        foreign: Lines that are not of fapilog.
        files: How many were read.
        missing_files: Rotated files that are not there, although neither retention nor anything else explains it.
        unread_files: Rotated files that are there and belong to those that were read.
        damaged_files: What could not be read to its end, and why.
    """

    lives: list[LifeFindings]
    open: int
    foreign: int
    files: int
    missing_files: list[str]
    unread_files: list[str]
    damaged_files: dict[str, str]


def findings(books: Books, read: set[str], damaged: dict[str, str], exists: Callable[[str], bool]) -> Findings:
    """
    Return what *books* come to.

    Args:
        books: With all lines.
        read: The paths of the files these are from, without ``.gz``.
        damaged: See `Findings`.
        exists: Tells whether there is a file at a path, compressed or not.
    """
    missing_files, unread_files = _looked_back(books, read, exists)
    removed = _removed(books)
    by_boot: dict[str, list[Life]] = {}
    for life in books.lives.values():
        by_boot.setdefault(life.key[3], []).append(life)
    lives = [_life(life, books.told.get(life.key[3]), removed.get(life.key[3], 0)) for life in books.lives.values()]
    for boot, told in books.told.items():
        if boot not in by_boot and not (told.died and _had_files_removed(books, told.key)):
            ghost = _life(Life(told.key), told, removed.get(boot, 0))
            lives += [ghost] if ghost.missing else []
    lives.sort(key=lambda life: (life.service, life.host, -1 if life.worker is None else life.worker))
    sums: dict[str, Any] = {
        name: sum(getattr(life, name) for life in lives)
        for name in ("lines", "missing", "announced", "unexplained", "duplicates", "recovered", "trimmed")
    }
    return Findings(
        balanced=bool(lives) and all(life.balanced for life in lives) and not missing_files and not damaged,
        torn=books.torn,
        lives=lives,
        open=sum(life.state == "open" for life in lives),
        foreign=books.foreign,
        files=len(read),
        missing_files=missing_files,
        unread_files=unread_files,
        damaged_files=damaged,
        **sums,
    )


def _looked_back(books: Books, read: set[str], exists: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Return the files that first lines speak of and that are not there, and those that were not read; hear how others ended."""
    missing: set[str] = set()
    unread: set[str] = set()
    for written, series in books.series.items():
        for header in series.headers:
            path = os.path.join(os.path.dirname(written), header.previous)
            if header.previous and path not in read:
                if exists(path):
                    unread.add(path)
                    continue
                if not series.removed or header.ended != series.removed_end:
                    missing.add(path)
            boot, seq = header.ended
            if type(boot) is str and boot:
                told = books.hear(boot, (*header.writer, boot))
                told.last_seq = max(told.last_seq, number(seq))
    return sorted(missing), sorted(unread)


def _removed(books: Books) -> dict[str, int]:
    """Return up to which seq retention has removed the lines of a life, by boot."""
    removed: dict[str, int] = {}
    for series in books.series.values():
        if not series.removed:
            continue
        boot, seq = series.removed_end
        last = number(seq)
        if type(boot) is str and last:
            removed[boot] = max(removed.get(boot, 0), last)
        elif type(boot) is str and not any(key[3] == boot for key in series.begins):
            removed[boot] = MOST
        for index, (key, first) in enumerate(series.begins.items()):
            told = books.told.get(key[3])
            unsaid = not last and (key[3] == boot or (type(boot) is not str and not index))
            # Of one that had died before, only what was recovered is left: the lives of a series follow one another.
            if unsaid or (key[3] != boot and told is not None and boot in told.by):
                removed[key[3]] = max(removed.get(key[3], 0), first - 1)
    return removed


def _had_files_removed(books: Books, key: Key) -> bool:
    """Whether retention has removed files of the worker that *key* names: which lives were in them cannot be known."""
    return any(series.removed and any(header.writer == key[:3] for header in series.headers) for series in books.series.values())


def _life(life: Life, told: Told | None, removed: int) -> LifeFindings:
    notices = life.told_notices()
    last = max(life.seqs.next - 1, life.closed)
    if told is not None:
        last = max(last, told.last_seq)
        notices += [each[2:] for each in told.dropped]
    distinct = life.seqs.count()
    trimmed = size(life.seqs.holes(min(removed, last))) if removed else 0
    rest = unexplained(life.seqs.holes(last, removed), notices)
    begin = list(islice(rest, SHOWN))
    lost = size(begin) + size(rest)
    state = "died" if told is not None and told.died else "closed" if life.closed else "open"
    service, host, worker, boot = life.key
    return LifeFindings(
        balanced=not lost and not life.seqs.duplicates and state != "open",
        lines=distinct + life.seqs.duplicates,
        missing=last - distinct - trimmed,
        announced=sum(count for _, _, count in notices),
        unexplained=lost,
        duplicates=life.seqs.duplicates,
        torn=life.torn,
        recovered=sum(count for _, _, count in told.recovered) if told is not None else 0,
        trimmed=trimmed,
        service=service,
        host=host,
        worker=worker,
        boot=boot,
        first_seq=life.seqs.first,
        last_seq=last,
        state=state,
        unexplained_at=begin,
    )
