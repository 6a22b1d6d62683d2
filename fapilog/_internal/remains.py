"""
What a dead process has left in its journal, as far as it can be trusted. Values; the only I/O is reading the file.

Invariants:

1. `read()` never returns a line that its process did not log as it stands there: it begins and ends as that process's lines do
   and is JSON as a whole. A part of a line is no JSON object. What is put together of two may be one: of the bytes that a kill
   let through, and of the line that they were to stand on. It begins where the newest line ends: see `_doubted()`. One thing
   nobody can tell: that the kill came between two digits of the seq, which stand before the last ones of another seq, and that
   the number they make is not in the ring.
2. Nothing else that is read is trusted: words out of range count as none; nothing raises but `OSError`.
3. Lines come in the order of their seqs, each once.
4. Every event that has met no fate is a line or counted once: `lost` if it may have been overwritten, or else `interrupted`.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import orjson

from fapilog._internal.journal import LIVE_AT, LIVE_BYTES, MAX_SINKS, OF_QUEUE, OF_SINK, RING_AT, WORD, Owner, Words, owner_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog._internal.accounting import Reason
    from fapilog._internal.journal import Journal

BEGINS = b'{"timestamp":"'
MOST = 1 << 62
MOST_DIGITS = 19
BLOCK_BYTES = 1 << 18
CLOSED = b'"event":"fapilog.closed","logger":"fapilog","last_seq":'
_WORDS = struct.Struct(f"={LIVE_BYTES // WORD}Q")


class Standing(NamedTuple):
    """
    A line in the ring.

    Args:
        place: Where it begins.
        seq: Its seq.
        line: Its bytes.
    """

    place: int
    seq: int
    line: bytes

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.place + len(self.line)


@dataclass(frozen=True, slots=True)
class Unannounced:
    """
    What was lost for one reason and is in no notice yet.

    Args:
        scope: ``queue`` or the name of a sink.
        reason: Why.
        count: How many events.
        first_seq: Of the first.
        last_seq: Of the last.
        first_ns: When the first was lost, in nanoseconds since the epoch.
        last_ns: When the last was.
    """

    scope: str
    reason: Reason
    count: int
    first_seq: int
    last_seq: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Remains:
    """
    What a dead process has left.

    Args:
        owner: Who it was.
        lines: Of accepted events that were not thrown out, by seq, in order.
        cursors: By the name of the sink, the seq up to which every event had met its fate there.
        lost: By the name of the sink, how many events were accepted, had met no fate there, and are not here.
        unannounced: Losses that no notice has told of.
        last_seq: The last seq that is known to have been taken.
        interrupted: How many calls had taken a seq and not come to an end.
        closed: Whether its hub came to its end, however little it could deliver then.
        told: Whether its death and what was lost have been told of.
        marked: The seq up to which none of these calls has taken one.
    """

    owner: Owner
    lines: dict[int, bytes]
    cursors: dict[str, int]
    lost: dict[str, int]
    unannounced: list[Unannounced]
    last_seq: int
    interrupted: int
    closed: bool
    told: bool
    marked: int

    def after(self, seq: int) -> dict[int, bytes]:
        """Return the lines whose seqs are higher."""
        return {each: line for each, line in self.lines.items() if each > seq}


def read(fd: int) -> Remains | None:
    """
    Return what the journal *fd* holds; None if it is none, or one of another version.

    Raises:
        OSError: It cannot be read.
    """
    owner = owner_in(os.pread(fd, LIVE_AT, 0))
    if owner is None or os.fstat(fd).st_size < RING_AT + owner.ring_bytes:
        return None
    words = _WORDS.unpack(os.pread(fd, LIVE_BYTES, LIVE_AT).ljust(LIVE_BYTES, b"\0"))
    return interpreted(owner, words, _ring(fd, owner.ring_bytes, lapped=words[Words.LAPS] > 0))


def _ring(fd: int, size: int, *, lapped: bool) -> bytes:
    """Return what was written of the ring, which grows from its beginning to its end and is full from the first lap on."""
    parts = []
    at = RING_AT
    while at < RING_AT + size and (part := os.pread(fd, min(RING_AT + size - at, BLOCK_BYTES), at)):
        parts.append(part)
        at += len(part)
        if not lapped and part.endswith(b"\0"):
            break
    return b"".join(parts)


def interpreted(owner: Owner, words: Sequence[int], ring: bytes) -> Remains:
    """Return what *words* and *ring* of the journal of *owner* say."""
    cursors = {name: _number(words[Words.of_sink(index) + Words.CURSOR]) for index, name in enumerate(owner.sinks[:MAX_SINKS])}
    places = lines_in(ring, owner, min(cursors.values(), default=0))
    closed = any(CLOSED in each.line for each in places)
    lapped = words[Words.LAPS] > 0
    doubted = _doubted(places, words[Words.BEGUN], words[Words.BEFORE]) if lapped else None
    found = {each.seq: each.line for each in places if each is not doubted}
    mark, accepted, oldest = _mark(words)
    struck = _struck(words)
    words = _with_the_last_thrown_out(words, struck)
    lines = {seq: found[seq] for seq in sorted(found) if not _is_in(seq, struck)}
    windows = list(_windows(words, owner))
    refused = sum(_number(words[Words.of_queue(reason)]) for reason in OF_QUEUE[:-1])
    thrown = _number(words[Words.of_queue(OF_QUEUE[-1])])
    last = max([mark, *found, *(each.last_seq for each in windows if each.scope == "queue"), *(pair[1] for pair in struck)])
    accepted_since = sum(seq > mark for seq in lines) + max(0, thrown - oldest)
    missing = max(0, last - mark - accepted_since - max(0, refused - (mark - accepted)))
    # The ring goes round: nothing newer was overwritten than what still stands there of the last two laps. Behind the end of the
    # one before, which began with the seq BEFORE, there may be lines that are older still, and say nothing.
    before = _number(words[Words.BEFORE])
    whole = not lapped or min((seq for seq in found if seq >= before), default=MOST) <= mark
    interrupted, overwritten = (missing, 0) if whole else (0, missing)
    put = accepted + accepted_since + overwritten
    lost = {name: _lost(words, index, put, lines, struck) for index, name in enumerate(cursors)}
    # The worker has taken and counted these, and their calls did not come as far as the ring.
    overtaken = 0 if lapped else min(lost.values(), default=0)
    if overtaken:
        interrupted += overtaken
        lost = {name: count - overtaken for name, count in lost.items()}
        mark = min(cursors.values())
    return Remains(owner, lines, cursors, lost, windows, last, interrupted, closed, words[Words.TOLD] > 0, mark)


def _lost(words: Sequence[int], index: int, put: int, lines: dict[int, bytes], struck: list[tuple[int, int]]) -> int:
    """Return how many of *put* accepted events are neither done with in the sink number *index* nor here."""
    at = Words.of_sink(index)
    cursor, done = _number(words[at + Words.CURSOR]), _number(words[at + Words.PUT])
    thrown_out = sum(max(0, last - max(first, cursor + 1) + 1) for first, last in struck)
    return max(0, put - done - sum(seq > cursor for seq in lines) - thrown_out)


def lines_in(ring: bytes, owner: Owner, known: int = 0) -> list[Standing]:
    """
    Return the whole lines of *owner* in *ring*, in the order of their places.

    Those up to the seq *known*, which nobody needs, are not looked at closely.
    """
    ends = owner.identity.ends()
    found: list[Standing] = []
    place = 0
    for piece in ring.split(b"\n"):
        at = piece.rfind(ends)
        begin = piece.rfind(b"\0") + 1  # of what was never written, or of a line whose beginning was overwritten
        digits = piece[at + len(ends) : -1]
        if (
            at >= 0
            and piece.startswith(BEGINS, begin)
            and piece.endswith(b"}")
            and digits.isdigit()
            and len(digits) <= MOST_DIGITS
        ):
            seq, line = int(digits), piece[begin:] + b"\n"
            if 0 < seq < MOST and (seq <= known or _is_object(line)):
                found.append(Standing(place + begin, seq, line))
        place += len(piece) + 1
    return found


def standing(journal: Journal, known: int) -> set[int]:
    """Return the seqs above *known* that whoever finds *journal*, whose ring has come round, will find in it."""
    data = journal.content()
    words = _WORDS.unpack(data[LIVE_AT:RING_AT])
    found = lines_in(data[RING_AT:], journal.owner, known)
    doubted = _doubted(found, words[Words.BEGUN], words[Words.BEFORE])
    return {each.seq for each in found if each.seq > known and each is not doubted}


def _doubted(found: list[Standing], begun: int, before: int) -> Standing | None:
    """
    Return the line that stands where the next one goes, and may be half overwritten; None if there is none.

    That is where the newest line ends, with those behind it of threads that were late. Or else the ring has begun anew, for the
    line *begun*, and nothing but the first bytes of that is there. The lap before had begun with the line *before*.

    A line that was late, by less than half a lap, is older than few others; one that is next to be overwritten is older than all
    others of its lap and the newest. A seq that stands elsewhere too is made of the digits of two.
    """
    if not found:
        return None
    newest = max(range(len(found)), key=lambda at: found[at].seq)
    at, end = (newest + 1, found[newest].end) if found[newest].seq >= begun else (0, 0)
    seqs = sorted(each.seq for each in found)
    others = len(seqs) - bisect_left(seqs, before) - 1
    for each in found[at:]:
        if each.place != end:
            return None
        newer = len(seqs) - bisect_right(seqs, each.seq)
        is_late = each.seq >= begun or 2 * newer < others
        if not is_late or len(seqs) - bisect_left(seqs, each.seq) > newer + 1:
            return each
        end = each.end
    return None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except ValueError:
        return False


def _number(word: int) -> int:
    return word if word < MOST else 0


def _mark(words: Sequence[int]) -> tuple[int, int, int]:
    at = Words.MARKS + 3 * (words[Words.MARK] % 2)
    seq, accepted, oldest = map(_number, words[at : at + 3])
    return seq, accepted, oldest


def _struck(words: Sequence[int]) -> list[tuple[int, int]]:
    ranges = zip(words[Words.STRUCK : Words.SINKS : 2], words[Words.STRUCK + 1 : Words.SINKS : 2], strict=True)
    return sorted((first, last) for first, last in ranges if 0 < first <= last < MOST)


def _with_the_last_thrown_out(words: Sequence[int], struck: list[tuple[int, int]]) -> Sequence[int]:
    """Return *words* with the event counted that was struck, if the kill came before it was."""
    at = Words.of_queue(OF_QUEUE[-1])
    count, announced, _, last_seq, _, last_ns = map(_number, words[at : at + 6])
    seq = max((last for _, last in struck), default=0)
    if seq <= last_seq:
        return words
    first = words[at + 2], words[at + 4]
    if count == announced:
        first = seq, last_ns
    return [*words[:at], count + 1, announced, first[0], seq, first[1], last_ns, *words[at + 6 :]]


def _is_in(seq: int, ranges: list[tuple[int, int]]) -> bool:
    at = bisect_right(ranges, (seq, MOST)) - 1
    return at >= 0 and seq <= ranges[at][1]


def _windows(words: Sequence[int], owner: Owner) -> list[Unannounced]:
    places = [("queue", reason, Words.of_queue(reason)) for reason in OF_QUEUE]
    for index, name in enumerate(owner.sinks[:MAX_SINKS]):
        places += [(name, reason, Words.of_sink(index) + 2 + 6 * number) for number, reason in enumerate(OF_SINK)]
    windows = []
    for scope, reason, at in places:
        count, announced, *rest = map(_number, words[at : at + 6])
        if count > announced:
            windows.append(Unannounced(scope, reason, count - announced, *rest))
    return windows
