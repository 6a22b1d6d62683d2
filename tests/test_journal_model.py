"""The ring of a journal beside a simple list: what it holds at any moment, and what is found when its process dies in a write."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fapilog._internal import remains
from fapilog._internal.accounting import Reason, SinkBooks
from fapilog._internal.event_queue import EventQueue
from fapilog._internal.journal import RING_AT, Journal
from fapilog._internal.protection import Protection
from fapilog.identity import Identity
from tests.programs.running import FULL

RING = 4096
# Of any size, or of few: then lines stand where others stood before, and two halves are likely to make a whole one.
SIZES = st.one_of(st.integers(0, 700), st.sampled_from([150, 150, 150, 300, 1200, RING - 250]))
STAMP = b'{"timestamp":"2026-11-28T00:00:00.000000Z","level":"info","event":"'
LETTERS = b"abcdefghijklmnopqrstuvwxyz"
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("log"), SIZES),
        st.tuples(st.just("say"), SIZES),
        st.tuples(st.just("refuse"), st.just(0)),
        st.tuples(st.just("take"), st.just(0)),
        st.tuples(st.just("deliver"), st.integers(1, 4)),
    ),
    min_size=1,
    max_size=80,
)


class Model:
    """
    What a journal must hold.

    Attributes:
        there: Beginning, end and seq of the lines that nothing has been written over, in the ring.
        lines: By seq.
        thrown: The seqs that `drop_oldest` has thrown out.
        own: Those of the hub's own events, which it spares.
    """

    def __init__(self) -> None:
        self.at = 0
        self.laps = 0
        self.there: list[tuple[int, int, int]] = []
        self.lines: dict[int, bytes] = {}
        self.thrown: set[int] = set()
        self.own: set[int] = set()
        self.waits: list[int] = []
        self.taken: list[list[int]] = []
        self.newest = 0

    def log(self, line: bytes, seq: int, limit: int) -> tuple[int, int]:
        """Enter a line; return its place."""
        while len(self.waits) >= limit and not self.own.issuperset(self.waits):
            self.thrown.add(next(each for each in self.waits if each not in self.own))
            self.waits = [each for each in self.waits if each not in self.thrown]
        if self.at + len(line) > RING:
            self.at, self.laps = 0, self.laps + 1
        begin, end = self.at, self.at + len(line)
        self.there = [each for each in self.there if each[1] <= begin or each[0] >= end] + [(begin, end, seq)]
        self.at = end
        self.lines[seq] = line
        self.waits.append(seq)
        self.newest = seq
        return begin, end

    def sure(self) -> set[int]:
        """Return the seqs that must be found: but for the one that is next to be overwritten, once the ring has come round."""
        return {seq for begin, _, seq in self.there if begin != self.at or not self.laps} - self.thrown


def file_of(journal: Journal) -> bytes:
    return journal.path.read_bytes()


def found_in(data: bytes) -> remains.Remains:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        left = remains.read(file.fileno())
    assert left is not None
    return left


def agree(model: Model, left: remains.Remains) -> None:
    """Check that what must be there is, and that nothing else is."""
    cursor = left.cursors["file"]
    found = set(left.after(cursor))
    assert {seq for seq in model.sure() if seq > cursor} <= found <= {seq for _, _, seq in model.there} - model.thrown
    assert list(left.lines) == sorted(left.lines)
    for seq in found:
        assert left.lines[seq] == model.lines[seq]


def agree_torn(model: Model, left: remains.Remains, *, whole: bool) -> None:
    """Check what is found when the last line is there in part: all that it does not stand on, and no line that is made of two."""
    cursor, new = left.cursors["file"], model.newest
    assert {seq for seq in model.sure() if seq > cursor and (whole or seq != new)} <= set(left.lines)
    for seq, line in left.after(cursor).items():
        assert line == model.lines[seq]
    assert not whole or new in left.lines or new in model.thrown


@settings(max_examples=5_000 if FULL else 300, deadline=None)
@given(steps=STEPS, limit=st.integers(1, 8))
@example(steps=[("log", 150)] * 33, limit=8)  # half of 33 on half of 20 says 30
@example(steps=[("log", 150)] * 27, limit=8)  # the first one of a lap
@example(steps=[*[("log", 150)] * 12, ("log", 1200), *[("log", 150)] * 5, ("log", 1200), *[("log", 150)] * 2], limit=8)
@example(steps=[("log", 1200)] * 9, limit=8)  # a lap between two looks of the worker's
@example(  # what the next line stands on is newer than that look, and what is left of two laps ago is older
    steps=[
        *[("log", n) for n in (0, 84, 700, 150, 1200, 0, 285, 421, 0, 0, 0, 458)],
        ("take", 0),
        *[("log", n) for n in (0, 0, 596, 1200, 153)],
    ],
    limit=5,
)
def test_what_is_found_after_a_crash(steps: list[tuple[str, int]], limit: int) -> None:
    """Every event whose log call returned, unless it was delivered, thrown out or overwritten; and nothing else (Show 7)."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        run_dir.mkdir(mode=0o700)
        identity = Identity("s", "", "h", 1, 7, "ab" * 8)
        queue = EventQueue(limit, overflow="drop_oldest", reserve=0.0, identity=identity)
        journal = Journal.make(run_dir, identity, ["file"], "", RING)
        books = SinkBooks("file")
        protection = Protection(journal, queue, [books])
        queue.protect(journal)
        model = Model()
        position = 0
        before, place = file_of(journal), (0, 0)
        for step, number in steps:
            before, place = file_of(journal), (0, 0)
            if step == "log":
                letter = LETTERS[queue.last_seq % 26 :][:1]
                head = STAMP + letter * number + b'"'
                queue.accept(20, head)
                place = model.log(head + identity.tail() % queue.last_seq, queue.last_seq, limit)
            elif step == "say":
                line = queue.admit(STAMP + b"!" * number + b'"')
                model.own.add(queue.last_seq)
                place = model.log(line, queue.last_seq, 1 << 30)
            elif step == "refuse":
                queue.refuse(Reason.SAMPLED)
            elif step == "take":
                lines, _ = queue.take()
                assert lines == [model.lines[seq] for seq in model.waits]
                if lines:
                    position += len(lines)
                    protection.passages[0].took(position, 0, *protection.took())
                    model.taken.append(model.waits)
                model.waits = []
                protection.look()
            elif model.taken:
                del model.taken[:number]
                protection.passages[0].reached(position - sum(map(len, model.taken)))
            left = found_in(file_of(journal))
            agree(model, left)
            assert left.last_seq == queue.last_seq
            assert left.interrupted == 0
            gone = {seq for seq in model.lines if seq > left.cursors["file"]} - model.thrown - left.lines.keys()
            assert left.lost["file"] <= len(gone)
            if not model.thrown or not any(
                each == "refuse" for each, _ in steps
            ):  # else a range thrown out may hold refused ones
                assert left.lost["file"] == len(gone)
        after = file_of(journal)
        begin, end = place
        for at in cuts(begin, end):  # killed in the middle of the last copy: of its bytes only the first ones are there
            torn = after[: RING_AT + at] + before[RING_AT + at :]
            if at == end or not is_beyond_telling(torn[RING_AT + begin :], model):
                agree_torn(model, found_in(torn), whole=at == end)
        journal.close(done=True)


def cuts(begin: int, end: int) -> list[int]:
    """Return where a line may be cut: here and there, and at every byte of its seq."""
    return sorted({*range(begin, end, max(1, (end - begin) // 16)), *range(max(begin, end - 6), end + 1)}) if end else []


def is_beyond_telling(begins: bytes, model: Model) -> bool:
    """
    Whether the first digits of a seq and the last of another one, where that stood in the same place, are a third one that no
    line in the ring has: the only thing that nobody can know.
    """
    digits = begins[: begins.find(b"\n")].removesuffix(b"}").rpartition(b":")[2]
    there = {seq for _, _, seq in model.there}
    return begins.startswith(STAMP) and digits.isdigit() and int(digits) not in there and int(digits) > min(there)


def test_a_line_that_fits_nowhere(tmp_path: Path) -> None:
    """It is counted, and the log call goes on."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    identity = Identity("s", "", "h", 1, 7, "ab" * 8)
    queue = EventQueue(10, identity=identity)
    journal = Journal.make(run_dir, identity, ["file"], "", RING)
    queue.protect(journal)
    assert queue.accept(20, b'{"timestamp":"x","event":"%b"' % (b"y" * RING))
    assert journal.unprotected == 1
    assert queue.accept(20, b'{"timestamp":"x","event":"small"')
    assert list(found_in(file_of(journal)).lines) == [2]
    journal.close(done=True)
    assert list(run_dir.iterdir()) == []


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for the whole ring is an error at set-up; nothing stays behind, and nobody else's room was taken for a moment."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: pytest.fail("it was tried"))
    with pytest.raises(OSError, match="No space left"):
        Journal.make(run_dir, Identity("s", "", "h", 1, 7, "ab" * 8), ["file"], "", (1 << 40) - 1)
    assert list(run_dir.iterdir()) == []
