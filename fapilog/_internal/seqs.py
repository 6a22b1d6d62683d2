"""
Which seqs of one life were seen, which were not, and which of those a notice explains. Pure.

Invariants:

1. What is remembered is one interval for each run of seqs without a hole, 16 bytes, however many lines there are.
2. Seqs may come in any order. `duplicates` counts those that had come before, once `settle()` was called.
3. `unexplained()` lets a notice explain holes inside its own range only, never more of them than it counts, and finds the most
   that all notices together can explain.
"""

from __future__ import annotations

import heapq
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST = 1 << 62  # no seq is higher
PATIENCE = 1 << 16  # seqs that came out of order are sorted in when there are so many

#: The first and the last seq of a range.
Range = tuple[int, int]
#: The range of a notice, and how many of the events in it it tells of.
Notice = tuple[int, int, int]


class Seqs:
    """
    A set of seqs, as intervals.

    Attributes:
        next: The one behind the highest of all. Whoever sees just this one may count it up and spare the call of `add()`.
        duplicates: How many were given again.
    """

    __slots__ = ("_begins", "_ends", "_late", "duplicates", "next")

    def __init__(self) -> None:
        self.next = 1
        self.duplicates = 0
        self._begins = array("q", [1])  # the first interval may be empty, and the last one ends before `next`
        self._ends = array("q")
        self._late = array("q")

    def add(self, seq: int) -> None:
        """Take a seq, from 1 to `MOST`."""
        if seq > self.next:
            self._ends.append(self.next - 1)
            self._begins.append(seq)
            self.next = seq + 1
        elif seq == self.next:
            self.next += 1
        else:
            self._late.append(seq)
            if len(self._late) >= max(PATIENCE, len(self._begins)):
                self.settle()

    def settle(self) -> None:
        """Sort in what came out of order."""
        if not self._late:
            return
        begins, ends = array("q"), array("q")
        for begin, end in heapq.merge(self._intervals(), self._fresh()):
            if ends and begin == ends[-1] + 1:
                ends[-1] = end
            elif begin <= end:
                begins.append(begin)
                ends.append(end)
        ends.pop()  # the highest one is that of `next`, as before: nothing late is higher
        self._begins, self._ends, self._late = begins, ends, array("q")

    def _fresh(self) -> Iterator[Range]:
        """Yield each late seq that is new, in order; count the others."""
        intervals = self._intervals()
        begin, end = next(intervals)
        last = 0
        for seq in sorted(self._late):
            while end < seq:  # the last end is not lower than any of them
                begin, end = next(intervals)
            if seq == last or begin <= seq:
                self.duplicates += 1
            else:
                yield seq, seq
            last = seq

    @property
    def first(self) -> int | None:
        """The lowest of all; *None* while there is none."""
        self.settle()
        return next((begin for begin, end in self._intervals() if begin <= end), None)

    def count(self) -> int:
        """Return how many different ones there are."""
        self.settle()
        return sum(self._ends) + self.next - 1 - sum(self._begins) + len(self._begins)

    def holes(self, last: int, after: int = 0) -> Iterator[Range]:
        """Yield what is missing of *after* + 1 to *last*, in order."""
        self.settle()
        at = after + 1
        for begin, end in self._intervals():
            if begin > last:
                break
            if at < begin:
                yield at, begin - 1
            if at <= end:
                at = end + 1
        if at <= last:
            yield at, last

    def _intervals(self) -> Iterator[Range]:
        yield from zip(self._begins, self._ends, strict=False)
        yield self._begins[-1], self.next - 1


def size(ranges: Iterable[Range]) -> int:
    """Return how many seqs there are in all."""
    return sum(last - first + 1 for first, last in ranges)


def unexplained(holes: Iterable[Range], notices: Iterable[Notice]) -> Iterator[Range]:
    """
    Yield the holes that no notice explains, in order.

    Each hole goes to the notice that holds for it and ends first, which leaves the most for the others.
    """
    coming = sorted(notices, reverse=True)
    if not coming:
        yield from holes
        return
    open_: list[list[int]] = []  # [last, how many it can still explain], the one that ends first at the top
    for first, last in holes:
        at = first
        while at <= last:
            while coming and coming[-1][0] <= at:
                _, end, count = coming.pop()
                heapq.heappush(open_, [end, count])
            while open_ and (open_[0][0] < at or not open_[0][1]):
                heapq.heappop(open_)
            until = min(last, coming[-1][0] - 1) if coming else last
            if open_:
                until = min(until, open_[0][0], at + open_[0][1] - 1)
                open_[0][1] -= until - at + 1
            else:
                yield at, until
            at = until + 1
