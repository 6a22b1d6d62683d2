"""
The books of log files: lines go in, lives come out, with what is missing of each and how much of it is accounted for. Pure.

A life is one process's: (service, host, worker, boot). Its events are numbered from 1 without a hole, so what is not there was
refused, dropped, removed by retention, or lost; or taken away by somebody.

Invariants:

1. No line makes it raise: each is a line of a life, the first line of a file (`fapilog.rotated`), torn, or foreign.
2. For each life ``last_seq = lines - duplicates + missing + trimmed`` and ``unexplained <= missing``. `last_seq` is the highest
   that anything speaks of: a line, the life's `fapilog.closed`, what others wrote about its death, the next file's first line.
3. A notice explains each event once: one that stands in the files twice counts once, and so does one that two recoverers wrote.
4. What fapilog says of itself is believed in lines of its own logger only; nobody tells of the own death.
5. Memory is that of lives, of runs of seqs without a hole, and of notices; not of lines.

What retention has removed is said by the first line of the files that are left (see `sinks.rotation`, 3): how the last removed
one ended. Of that life all holes up to there are trimmed, not missing. A file that a first line names as the one before, which is
not there and did not end in this way, was removed by somebody else.
"""

from __future__ import annotations

import os
import re
from array import array
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from fapilog._internal.seqs import MOST, Seqs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fapilog._internal.seqs import Notice

#: service, host, worker, boot.
Key = tuple[str, str, int | None, str]

HEADER = "fapilog.rotated"
CLOSED, DROPPED, DIED, RECOVERED = "fapilog.closed", "fapilog.dropped", "fapilog.worker_died", "fapilog.recovered"
SPOKEN = frozenset((CLOSED, DROPPED, DIED, RECOVERED))

_FIELDS = itemgetter("event", "service", "host", "worker", "boot", "seq")
_END_OF_OURS = re.compile(rb'"boot":"[^"]*","seq":[0-9]+\}\s*\Z')
_ROTATED = re.compile(r"(.+)\.[0-9]{8}T[0-9]{6}\.[0-9]{6}Z")


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    """One that is being read, of the series of the path *written*."""

    written: str


@dataclass(slots=True, eq=False)
class Life:
    """
    What the lines of one life say.

    Args:
        key: Whose they are.
        seqs: Of them.
        closed: The last seq that its `fapilog.closed` names; 0 without one.
        notices: Of events that it has refused or dropped itself: the seq of the notice, first and last seq, count, and so on.
        torn: Lines that broke off, next to lines of this life.
        file: The last one that it was in.
    """

    key: Key
    seqs: Seqs = field(default_factory=Seqs)
    closed: int = 0
    notices: array[int] = field(default_factory=lambda: array("q"))
    torn: int = 0
    file: _File | None = None

    def told_notices(self) -> list[Notice]:
        """Return each notice once, also if its line is there twice."""
        once = {self.notices[at]: at for at in range(0, len(self.notices), 4)}
        return [(self.notices[at + 1], self.notices[at + 2], self.notices[at + 3]) for at in once.values()]


@dataclass(slots=True)
class Told:
    """
    What others say of a life.

    Args:
        key: Whose it is, as far as they know.
        last_seq: The highest that they know of.
        died: Whether they say that it has ended.
        by: Boots of those who say so.
        dropped: Notices of its losses: scope, reason, first and last seq, count.
        recovered: What was put back: first and last seq, count.
    """

    key: Key
    last_seq: int = 0
    died: bool = False
    by: set[str] = field(default_factory=set)
    dropped: set[tuple[str, str, int, int, int]] = field(default_factory=set)
    recovered: set[tuple[int, int, int]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Header:
    """
    The first line of a file that follows another one.

    Args:
        writer: Service, host and worker of the process that wrote it.
        previous: The name of the file before; empty where it is not known.
        ended: Boot and seq of the last line there.
    """

    writer: tuple[str, str, int | None]
    previous: str
    ended: tuple[Any, Any]


@dataclass(slots=True)
class Series:
    """
    The files that were rotated away from one name, and that one.

    Args:
        headers: Their first lines.
        removed: How many files retention has removed.
        removed_end: Boot and seq of the last line of the last one of them.
        begins: The first seq of each life in what is left.
    """

    headers: list[Header] = field(default_factory=list)
    removed: int = 0
    removed_end: tuple[Any, Any] = (None, None)
    begins: dict[Key, int] = field(default_factory=dict)


class Books:
    """
    Takes the lines of all files, those of one series in their order.

    Args:
        sink: The name of the sink that wrote the files: of the sinks' own losses only this one's are missing here.

    Attributes:
        lives: By key.
        told: What lives say of others, by boot.
        series: By the path of the written file.
        torn: Lines that broke off.
        foreign: Lines that are not of fapilog.
    """

    def __init__(self, sink: str = "file") -> None:
        self.lives: dict[Key, Life] = {}
        self.told: dict[str, Told] = {}
        self.series: dict[str, Series] = {}
        self.torn = 0
        self.foreign = 0
        self._scopes = frozenset(("queue", sink))
        self._file = _File("")
        self._at: Life | None = None
        self._torn_before = 0

    def begin(self, written: str) -> None:
        """Say that the next lines are those of another file, of the series of the path *written*."""
        self._file, self._at, self._torn_before = _File(written), None, 0

    def feed(self, lines: Iterable[bytes]) -> None:
        """Take the next lines of a file, without their ends."""
        lives, loads, file = self.lives, orjson.loads, self._file
        for line in lines:
            try:
                fields = loads(line)
            except ValueError:
                self._broken(line)
                continue
            try:  # nearly all lines are the next one of a life that was there before
                event, service, host, worker, boot, seq = _FIELDS(fields)
                life = lives[service, host, worker, boot]
                if life.file is file and type(seq) is int and event not in SPOKEN:
                    seqs = life.seqs
                    if seq == seqs.next:
                        seqs.next += 1
                        self._at = life
                        continue
                    if 0 < seq <= MOST:
                        seqs.add(seq)
                        self._at = life
                        continue
            except (KeyError, TypeError):  # the first of a life, or none of a life
                pass
            self._take(fields)

    def _take(self, fields: Any) -> None:
        if not isinstance(fields, dict):
            self.foreign += 1
            return
        boot, seq = fields.get("boot"), fields.get("seq")
        if type(boot) is str and boot and type(seq) is int and 0 < seq <= MOST:
            self._line((*_writer(fields), boot), seq, fields)
        elif fields.get("event") == HEADER and fields.get("logger") == "fapilog" and seq is None:
            self._header(fields)
        else:
            self.foreign += 1

    def _broken(self, line: bytes) -> None:
        """Count what is no JSON: half a line of ours, or anything else."""
        if line.startswith(b"{") or _END_OF_OURS.search(line):
            self.torn += 1
            if self._at is not None:
                self._at.torn += 1
            else:
                self._torn_before += 1
        elif line.strip():
            self.foreign += 1

    def _line(self, key: Key, seq: int, fields: dict[str, Any]) -> None:
        life = self.lives.get(key)
        if life is None:
            life = self.lives[key] = Life(key)
        self._at = life
        if life.file is not self._file:
            life.file = self._file
            life.torn += self._torn_before
            self._torn_before = 0
            self._series(self._file.written).begins.setdefault(key, seq)
        life.seqs.add(seq)
        event = fields.get("event")
        if type(event) is str and event in SPOKEN and fields.get("logger") == "fapilog":
            self._spoken(life, seq, event, fields)

    def _spoken(self, life: Life, seq: int, event: str, fields: dict[str, Any]) -> None:
        """Take what a life says about itself or a dead one."""
        first, last, count = (number(fields.get(name)) for name in ("first_seq", "last_seq", "count"))
        scope, boot = str(fields.get("scope")), fields.get("dead_boot")
        if event == CLOSED:
            life.closed = max(life.closed, last)
        elif event == DROPPED and boot is None:
            if scope in self._scopes and 0 < first <= last:
                life.notices.extend((seq, first, last, count))
        elif type(boot) is str and boot and boot != life.key[3]:
            told = self.hear(boot, (*life.key[:2], _worker(fields.get("dead_worker")), boot))
            if event == DROPPED:
                if scope in self._scopes and 0 < first <= last:
                    told.dropped.add((scope, str(fields.get("reason")), first, last, count))
                    told.last_seq = max(told.last_seq, last)
                return
            told.last_seq = max(told.last_seq, last)
            told.died = True
            told.by.add(life.key[3])
            if event == RECOVERED and count:
                told.recovered.add((first, last, count))

    def hear(self, boot: str, key: Key) -> Told:
        """Return what is said of the life *boot*, whose rest of *key* is a guess."""
        told = self.told.setdefault(boot, Told(key))
        if told.key[2] is None:
            told.key = key
        return told

    def _header(self, fields: dict[str, Any]) -> None:
        previous = fields.get("previous")
        previous = previous if type(previous) is str and os.path.basename(previous) == previous else ""
        found = _ROTATED.fullmatch(previous)
        series = self._series(os.path.join(os.path.dirname(self._file.written), found[1]) if found else self._file.written)
        boot, seq = fields.get("previous_boot"), fields.get("previous_last_seq")
        series.headers.append(Header(_writer(fields), previous, (boot, seq)))
        trimmed = fields.get("trimmed")
        if isinstance(trimmed, dict) and number(trimmed.get("files")) >= max(1, series.removed):
            series.removed = number(trimmed.get("files"))
            series.removed_end = (trimmed.get("boot"), trimmed.get("last_seq"))

    def _series(self, written: str) -> Series:
        return self.series.setdefault(written, Series())


def _writer(fields: dict[str, Any]) -> tuple[str, str, int | None]:
    service, host = (value if type(value) is str else str(value or "") for value in map(fields.get, ("service", "host")))
    return service, host, _worker(fields.get("worker"))


def _worker(value: object) -> int | None:
    return value if type(value) is int else None


def number(value: object) -> int:
    """Return *value* if it is a number that can be a seq or a count, else 0."""
    return value if type(value) is int and 0 <= value <= MOST else 0
