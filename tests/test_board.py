"""The board: what one process shows, another reads, whatever state the file is in."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fapilog
from fapilog._internal import controls, ledger, notes, records, rundir, sealed
from fapilog._internal.board import FIRST_ROW, MAX_ASIDE, NAME, Row, open_board, read_board
from fapilog._internal.deaths import Death, death_of, leave_note, take_note
from fapilog._internal.overview import overview
from fapilog._internal.publishing import Publisher
from fapilog._internal.records import Counts, Gauges, Record, SinkCounts
from fapilog.errors import ConfigurationError
from fapilog.identity import Identity
from tests._support import process_restored, ran_well, read_lines, run_script
from tests.programs.running import wait_until
from tests.recording import RecordingSink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLACE = 7
TEXTS = st.binary(max_size=200)


def identity(slot: rundir.Slot, boot: str = "b00700") -> Identity:
    return Identity("app", "", "host", slot.number, os.getpid(), boot)


def life(number: int) -> Counts:
    books = SinkCounts(accepted=number, delivered=number - 1, dropped={"rejected": 1})
    return Counts(logged=number + 2, accepted=number, refused={"queue_full": 2}, levels={"info": number}, sinks={"file": books})


@pytest.fixture(autouse=True)
def fresh_notes() -> None:
    """Let each test see what is said once."""
    notes.forget()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def begun(run_dir: Path, boot: str = "b00700", number: int = 1) -> tuple[rundir.Slot, Row]:
    """Return a slot and the row of a process that has begun in it."""
    slot = rundir.take_slot(run_dir, number)
    row, _ = ledger.take_row(slot, identity(slot, boot), "worker")
    assert row is not None
    return slot, row


def show(row: Row, counts: Counts, *, closed: bool = False) -> None:
    assert row.record is not None
    row.put(replace(row.record, life=counts, gauges=Gauges(1, 100, 9, {"file": 10}, {"file": True}), closed=closed))


# Blocks


@given(st.integers(1, 1 << 60), TEXTS)
def test_a_sealed_half(number: int, text: bytes) -> None:
    """It is read as it was written, with anything behind it, and counts in no other place."""
    half = sealed.seal(PLACE, number, text)
    assert sealed.unseal(PLACE, half + b"rest") == (number, text)
    assert sealed.unseal(PLACE + 1, half) is None


@given(TEXTS, st.data())
def test_a_half_with_a_changed_byte(text: bytes, data: st.DataObject) -> None:
    """It does not count."""
    half = bytearray(sealed.seal(PLACE, 5, text))
    half[data.draw(st.integers(0, len(half) - 1))] ^= data.draw(st.integers(1, 255))
    assert sealed.unseal(PLACE, bytes(half)) is None


@given(TEXTS, st.data())
def test_a_half_that_was_cut(text: bytes, data: st.DataObject) -> None:
    """It does not count."""
    half = sealed.seal(PLACE, 5, text)
    assert sealed.unseal(PLACE, half[: data.draw(st.integers(0, len(half) - 1))]) is None


def test_a_write_that_was_cut_short(run_dir: Path) -> None:
    """What was published before it is still there."""
    fd = rundir.open_file(run_dir, "blocks", os.O_RDWR | os.O_CREAT)
    sealed.write_block(fd, 1, b"one")
    sealed.write_block(fd, 1, b"two")
    half = sealed.seal(1, 3, b"three")
    for length in range(len(half)):
        os.pwrite(fd, half[:length], sealed.BLOCK_BYTES + sealed.HALF_BYTES)
        assert sealed.read_block(fd, 1) == (b"two", False)
    os.pwrite(fd, half, sealed.BLOCK_BYTES + sealed.HALF_BYTES)
    assert sealed.read_block(fd, 1) == (b"three", False)
    os.close(fd)


def test_a_text_that_is_too_large(run_dir: Path) -> None:
    """It is refused, and what was published before stays."""
    fd = rundir.open_file(run_dir, "blocks", os.O_RDWR | os.O_CREAT)
    sealed.write_block(fd, 1, b"one")
    with pytest.raises(sealed.TooLargeError):
        sealed.write_block(fd, 1, bytes(sealed.ROOM_BYTES + 1))
    assert sealed.read_block(fd, 1) == (b"one", False)
    sealed.write_block(fd, 1, bytes(sealed.ROOM_BYTES))
    assert sealed.read_block(fd, 1) == (bytes(sealed.ROOM_BYTES), False)
    os.close(fd)


def test_reading_while_another_thread_publishes(run_dir: Path) -> None:
    """Every reading is one of the texts, whole, and never an older one than the last."""
    fd = rundir.open_file(run_dir, "blocks", os.O_RDWR | os.O_CREAT)
    sealed.write_block(fd, 1, b"0" + b"x" * 9000)
    stop = threading.Event()

    def publish() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            sealed.write_block(fd, 1, b"%d" % number + b"x" * 9000)

    thread = threading.Thread(target=publish)
    thread.start()
    last = 0
    try:
        for _ in range(2000):
            text, _ = sealed.read_block(fd, 1)
            if not text:  # both halves were written over while it was read
                continue
            assert len(text.lstrip(b"0123456789")) == 9000
            number = int(text.rstrip(b"x"))
            assert number >= last
            last = number
    finally:
        stop.set()
        thread.join()
    assert last
    os.close(fd)


# Records

COUNTS = st.integers(0, 1 << 40)
SINKS = st.builds(SinkCounts, COUNTS, COUNTS, st.dictionaries(st.sampled_from(["rejected", "expired"]), COUNTS), COUNTS, COUNTS)
LIVES = st.builds(
    Counts,
    COUNTS,
    COUNTS,
    st.dictionaries(st.sampled_from(["sampled"]), COUNTS),
    COUNTS,
    st.dictionaries(st.sampled_from(["info"]), COUNTS),
    COUNTS,
    COUNTS,
    st.dictionaries(st.sampled_from(["SIGKILL", "exit"]), COUNTS),
    st.dictionaries(st.sampled_from(["file", "loki"]), SINKS),
)


@given(LIVES, LIVES, st.text(max_size=20))
def test_a_record(earlier: Counts, now: Counts, service: str) -> None:
    """It comes back as it was, and its totals are the sums."""
    record = Record(1, 2, "b", service.encode("utf-8", "replace").decode(), "", "h", "", 1.5, 2.5, earlier=earlier, life=now)
    assert records.parse(records.encode(record)) == record
    assert record.totals.logged == earlier.logged + now.logged
    names = earlier.sinks.keys() | now.sinks.keys()
    assert {name: books.delivered for name, books in record.totals.sinks.items()} == {
        name: sum(counts.sinks[name].delivered for counts in (earlier, now) if name in counts.sinks) for name in names
    }


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{}", b"[]", b"null", b"1", b"{", b"\xff", b"[" * 100_000, b'{"worker":1}'),
        b'{"worker":-1,"pid":1,"boot":"b","service":"s","env":"","host":"h","role":"","started":1,"updated":1}',
        b'{"worker":true,"pid":1,"boot":"b","service":"s","env":"","host":"h","role":"","started":1,"updated":1}',
        b'{"worker":1,"pid":1e300,"boot":"b","service":"s","env":"","host":"h","role":"","started":1,"updated":1}',
        b'{"worker":1,"pid":1,"boot":"b","service":"s","env":"","host":"h","role":"","started":1e999,"updated":1}',
        b'{"worker":1,"pid":1,"boot":"b","service":"s","env":"","host":"h","role":"","started":1,"updated":1,"life":{"sinks":{"f":{"took":[1]}}}}',
    ],
)
def test_what_is_no_record(text: bytes) -> None:
    """It is none; nothing raises."""
    assert records.parse(text) is None


# Rows


def test_the_row_of_a_process(run_dir: Path) -> None:
    """Others see its counters and its gauges, and that it lives."""
    slot, row = begun(run_dir)
    show(row, life(10))
    (worker,) = overview(run_dir).workers
    assert (worker.worker, worker.alive, worker.restarts, worker.logged, worker.accepted) == (slot.number, True, 0, 12, 10)
    assert (worker.refused, worker.levels) == ({"queue_full": 2}, {"info": 10})
    assert (worker.queue_depth, worker.queue_capacity, worker.queue_peak) == (1, 100, 9)
    sink = worker.sinks["file"]
    assert (sink.accepted, sink.delivered, sink.dropped, sink.in_flight) == (10, 9, {"rejected": 1}, 0)
    assert (sink.backlog_bytes, sink.up) == (10, True)
    slot.release()


def test_a_process_that_is_gone(run_dir: Path) -> None:
    """Its counters stay, its gauges do not (O-MET-3)."""
    slot, row = begun(run_dir)
    show(row, life(10), closed=True)
    slot.release()
    (worker,) = overview(run_dir).workers
    assert (worker.alive, worker.closed, worker.accepted) == (False, True, 10)
    assert (worker.queue_depth, worker.queue_capacity, worker.queue_peak) == (None, None, None)
    assert (worker.sinks["file"].backlog_bytes, worker.sinks["file"].up) == (None, None)


def test_the_next_process_in_a_slot(run_dir: Path) -> None:
    """Counters go on from the last one's: they never fall."""
    before = 0
    for number in range(1, 6):
        slot, row = begun(run_dir, f"b{number}")
        assert overview(run_dir).workers[0].accepted == before
        show(row, life(10 * number), closed=True)
        before += 10 * number
        slot.release()
        (worker,) = overview(run_dir).workers
        assert (worker.accepted, worker.restarts, worker.sinks["file"].delivered) == (before, number - 1, before - number)


def test_a_death_without_a_witness(run_dir: Path) -> None:
    """The next process in the slot enters it once: what was under way is lost, and the books of the slot balance."""
    slot, row = begun(run_dir, "dead")
    counts = life(10)
    counts.sinks["file"].delivered = 5
    show(row, counts)
    slot.release()

    slot = rundir.take_slot(run_dir)
    _, told = ledger.take_row(slot, identity(slot, "b2"), "worker")
    (worker,) = overview(run_dir).workers
    assert (worker.deaths, worker.lost, worker.sinks["file"].lost) == ({"unknown": 1}, 4, 4)
    sink = worker.sinks["file"]
    assert sink.accepted == sink.delivered + sum(sink.dropped.values()) + sink.lost + sink.in_flight
    (dead,) = told
    level, head = ledger.told_of(dead)
    assert level == 40
    assert b'"event":"fapilog.worker_died"' in head
    assert b'"dead_worker":1' in head
    assert b'"dead_boot":"dead"' in head
    assert b'"signal":null,"exit_code":null' in head
    assert b'"last_seq":12,"recovered":0,"lost":4' in head
    slot.release()
    slot = rundir.take_slot(run_dir)
    _, told = ledger.take_row(slot, identity(slot, "b2"), "worker")
    assert told == []
    slot.release()


@pytest.mark.parametrize(
    ("status", "signal", "exit_code", "cause"),
    [
        (9, "SIGKILL", None, "SIGKILL"),
        (11 | 128, "SIGSEGV", None, "SIGSEGV"),
        (3 << 8, None, 3, "exit"),
        (45, "SIG45", None, "SIG45"),
    ],
)
def test_a_death_with_a_witness(run_dir: Path, status: int, signal: str | None, exit_code: int | None, cause: str) -> None:
    """Whoever waited for the process leaves a note, and it is used once."""
    slot, row = begun(run_dir, "dead")
    show(row, life(10))
    slot.release()
    ledger.leave_note(run_dir, os.getpid(), status)
    assert sorted(path.name for path in run_dir.iterdir()) == ["board-1", "board.lock", "died-dead", "slot-1.lock"]

    told: list[Any] = []
    ledger.bury(run_dir, lambda level, head: told.append((level, head)))
    (worker,) = overview(run_dir).workers
    assert (worker.deaths, worker.closed, worker.alive) == ({cause: 1}, False, False)
    ((_, head),) = told
    assert (b'"signal":"%s"' % signal.encode() if signal else b'"exit_code":%d' % (exit_code or 0)) in head
    assert sorted(path.name for path in run_dir.iterdir()) == ["board-1", "board.lock", "slot-1.lock"]
    ledger.bury(run_dir, lambda level, head: told.append((level, head)))
    slot, row = begun(run_dir, "next")
    assert len(told) == 1
    assert overview(run_dir).workers[0].deaths == {cause: 1}
    slot.release()


def test_a_witness_who_comes_late(run_dir: Path) -> None:
    """The server had started the next process already: that waits for the note, and shows no gauge of the dead meanwhile."""
    slot, row = begun(run_dir, "dead")
    show(row, life(10))
    slot.release()
    slot = rundir.take_slot(run_dir)
    seen: list[Any] = []

    def witness() -> None:
        wait_until(lambda: read_board(run_dir)[0][0].record.died, "the next process has begun")
        seen.extend(overview(run_dir).workers)
        ledger.leave_note(run_dir, os.getpid(), 9)

    thread = threading.Thread(target=witness)
    thread.start()
    _, told = ledger.take_row(slot, identity(slot, "b2"), "worker")
    thread.join()
    (worker,) = overview(run_dir).workers
    assert worker.deaths == {"SIGKILL": 1}
    assert [dead.death.signal for dead in told] == ["SIGKILL"]
    assert (seen[0].queue_depth, seen[0].deaths) == (0, {})
    slot.release()


def test_a_note_for_a_process_that_has_closed(run_dir: Path) -> None:
    """There is none: it did not die."""
    slot, row = begun(run_dir, "b1")
    show(row, life(10), closed=True)
    slot.release()
    ledger.leave_note(run_dir, os.getpid(), 0)
    assert not list(run_dir.glob("died-*"))


@pytest.mark.parametrize("boot", ["../../etc/x", "a/b", "", "B", "x" * 65, "a\0"])
def test_a_boot_id_that_is_none(run_dir: Path, boot: str) -> None:
    """No path is made of it."""
    run_dir.mkdir(mode=0o700)
    leave_note(run_dir, boot, Death())
    assert take_note(run_dir, boot) == Death()
    assert list(run_dir.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"signal":5}', b'{"signal":"%s"}' % (b"x" * 5000)])
def test_a_note_that_is_none(run_dir: Path, content: bytes) -> None:
    """It says nothing, and is gone afterwards."""
    run_dir.mkdir(mode=0o700)
    (run_dir / "died-b1").write_bytes(content)
    assert take_note(run_dir, "b1") == Death()
    assert list(run_dir.iterdir()) == []


def test_how_a_process_ended() -> None:
    """The status that a parent gets is read as the system means it."""
    child = subprocess.Popen([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGABRT)"])
    _, status = os.waitpid(child.pid, 0)
    child.returncode = 0
    assert death_of(status, 1.0) == Death("SIGABRT", None, 1.0)


# Files


def put_foreign(path: Path, kind: str) -> None:
    """Put something in the place of the board."""
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(path.parent / "elsewhere")
    else:
        path.write_bytes(
            {
                "empty": b"",
                "text": b"hello\n" * 1000,
                "zeros": bytes(3 * sealed.BLOCK_BYTES),
                "older": b"fapilog board 0\n" + bytes(sealed.BLOCK_BYTES),
                "noise": random.Random(7).randbytes(5 * sealed.BLOCK_BYTES),
                "short": sealed.MAGIC,
                "odd": sealed.MAGIC + bytes(sealed.BLOCK_BYTES + 1234),
                "noise behind the mark": sealed.MAGIC + random.Random(7).randbytes(5 * sealed.BLOCK_BYTES),
            }[kind]
        )


@pytest.mark.parametrize("kind", ["empty", "zeros", "short", "odd", "noise behind the mark"])
def test_a_file_that_can_become_the_board(run_dir: Path, kind: str) -> None:
    """It does, with what cannot be read left out and counted."""
    run_dir.mkdir(mode=0o700)
    put_foreign(run_dir / NAME, kind)
    slot, row = begun(run_dir)
    show(row, life(10))
    seen = overview(run_dir)
    assert [worker.accepted for worker in seen.workers] == [10]
    assert (seen.damaged > 0) == (kind == "noise behind the mark")
    assert sorted(path.name for path in run_dir.iterdir()) == ["board-1", "board.lock", "slot-1.lock"]
    slot.release()


@pytest.mark.parametrize("kind", ["text", "older", "noise"])
def test_a_file_that_is_none_of_ours(run_dir: Path, kind: str, capfd) -> None:
    """It is moved aside, which is said, and at most four such files are kept."""
    run_dir.mkdir(mode=0o700)
    for number in range(MAX_ASIDE + 2):
        (run_dir / NAME).unlink(missing_ok=True)
        put_foreign(run_dir / NAME, kind)
        slot, row = begun(run_dir, f"b{number}")
        show(row, life(10))
        assert [worker.accepted for worker in overview(run_dir).workers] == [10]
        slot.release()
    assert len(list(run_dir.glob(f"{NAME}.aside-*"))) == MAX_ASIDE
    assert "is not a board of this version" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_what_is_no_file(run_dir: Path, kind: str, capfd) -> None:
    """There is no board then, which is said once; events are written all the same, and reading it raises an `OSError`."""
    run_dir.mkdir(mode=0o700)
    put_foreign(run_dir / NAME, kind)
    with process_restored():
        sink = RecordingSink()
        fapilog.configure_logging(sinks=[sink], run_dir=str(run_dir))
        fapilog.get_logger().info("e")
        assert fapilog.flush(10).complete
        fapilog.shutdown_logging()
    assert [event["event"] for event in sink.own()] == ["e"]
    assert capfd.readouterr().err.count("the board in") == 1
    with pytest.raises(OSError):
        read_board(run_dir)


def test_a_full_file_system(run_dir: Path, monkeypatch, capfd) -> None:
    """There is no board, which is said; events are written all the same."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with process_restored():
        sink = RecordingSink()
        fapilog.configure_logging(sinks=[sink], run_dir=str(run_dir))
        fapilog.get_logger().info("e")
        assert fapilog.flush(10).complete
        fapilog.shutdown_logging()
    assert [event["event"] for event in sink.own()] == ["e"]
    assert "No space left on device" in capfd.readouterr().err


def test_a_board_that_is_truncated_while_a_process_writes(run_dir: Path) -> None:
    """The process lives on (a mapping would end it by SIGBUS), and the next look puts everything back."""
    slot, row = begun(run_dir)
    show(row, life(10))
    os.truncate(run_dir / NAME, 5)
    assert overview(run_dir).workers == ()
    row.look()
    show(row, life(20))
    assert [worker.accepted for worker in overview(run_dir).workers] == [20]
    slot.release()


def test_a_program_that_closes_all_descriptors(tmp_path: Path) -> None:
    """The board keeps none, so none of the program's own is closed or written to in its place."""
    script = """
        import gc, os, fapilog
        fapilog.configure_logging(sinks=["file"], file_path="a.{worker}.jsonl", run_dir="run")
        log = fapilog.get_logger("a")
        log.info("one")
        fapilog.flush(10)
        before = set(os.listdir("/proc/self/fd"))
        assert not any("board" in os.readlink(f"/proc/self/fd/{fd}") for fd in before if os.path.exists(f"/proc/self/fd/{fd}"))
        print("ok")
    """
    assert ran_well(run_script(script, tmp_path)) == "ok\n"


@pytest.mark.parametrize("mark", [b"", sealed.MAGIC, b"something else"])
def test_a_sparse_file_of_a_tebibyte(run_dir: Path, mark: bytes) -> None:
    """It is read in no time: its holes are passed over, and there are no more rows than slots."""
    run_dir.mkdir(mode=0o700)
    (run_dir / NAME).write_bytes(mark)
    os.truncate(run_dir / NAME, 1 << 40)
    began = time.monotonic()
    slot, row = begun(run_dir)
    show(row, life(10))
    assert [worker.accepted for worker in overview(run_dir).workers] == [10]
    assert time.monotonic() - began < 5
    slot.release()


def test_a_number_at_the_end_of_its_range(run_dir: Path) -> None:
    """Such a half does not count: there is one after every number."""
    slot, row = begun(run_dir)
    place = FIRST_ROW + slot.number
    fd = os.open(run_dir / NAME, os.O_RDWR)
    for number in (sealed.MOST, (1 << 64) - 1):
        os.pwrite(fd, sealed.seal(place, number, b"{}"), place * sealed.BLOCK_BYTES)
        os.pwrite(fd, sealed.seal(place, number, b"{}"), place * sealed.BLOCK_BYTES + sealed.HALF_BYTES)
        show(row, life(number % 7 + 10))
        assert [worker.accepted for worker in overview(run_dir).workers] == [number % 7 + 10]
    os.close(fd)
    slot.release()


def test_more_sinks_than_have_room(run_dir: Path) -> None:
    """Those of earlier lives are one then, how long they took is left out, and the sums are right; a life that closes says so."""
    total = 0
    for number in range(4):
        slot, row = begun(run_dir, f"b{number}")
        counts = life(10)
        counts.sinks = {f"sink {number} {each}": SinkCounts(accepted=5, delivered=5) for each in range(30)}
        total += 150
        show(row, counts, closed=True)
        slot.release()
        (worker,) = overview(run_dir).workers
        assert (worker.closed, worker.deaths, worker.accepted) == (True, {}, 10 * (number + 1))
        assert sum(sink.delivered for sink in worker.sinks.values()) == total


@pytest.mark.parametrize("name", ["x" * 5000, "\udc80", "\x00", "a\nb"])
def test_an_odd_name(tmp_path: Path, name: str) -> None:
    """Of a service or a sink: it is shown as well as can be, and a process that closes has not died."""

    class Name(str):
        __slots__ = ()

    for _ in range(2):
        with process_restored():
            sink = RecordingSink(Name(name))
            service = name if len(name) > 1000 else "app"
            fapilog.configure_logging(sinks=[sink], service=service, run_dir=str(tmp_path / "run"))
            fapilog.get_logger().info("e")
            assert fapilog.flush(10).complete
            fapilog.shutdown_logging()
        assert [event["event"] for event in sink.own()] == ["e"]
    (worker,) = overview(tmp_path / "run").workers
    assert (worker.closed, worker.restarts, worker.deaths) == (True, 1, {})
    assert sum(sink.delivered for sink in worker.sinks.values()) == 4


def test_a_board_that_was_moved_away(run_dir: Path) -> None:
    """A process that writes goes on in the file that is there now, from its own totals."""
    slot, row = begun(run_dir)
    show(row, life(10))
    (run_dir / NAME).rename(run_dir / "away")
    assert overview(run_dir).workers == ()
    row.look()
    assert [worker.accepted for worker in overview(run_dir).workers] == [10]
    show(row, life(20))
    assert [worker.accepted for worker in overview(run_dir).workers] == [20]
    slot.release()


def test_a_run_directory_that_is_gone(run_dir: Path) -> None:
    """It is not made anew: another process may hold the slot in a new one. When it is back, so are the numbers."""
    slot, row = begun(run_dir)
    show(row, life(10))
    run_dir.rename(run_dir.with_name("away"))
    show(row, life(20))
    assert not run_dir.exists()
    run_dir.with_name("away").rename(run_dir)
    row.look()
    assert [worker.accepted for worker in overview(run_dir).workers] == [20]
    slot.release()


def test_no_board(tmp_path: Path) -> None:
    """It is an empty one, and reading makes nothing."""
    assert overview(tmp_path / "run").workers == ()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_asks_while_a_slot_is_taken(run_dir: Path) -> None:
    """It takes the slot from nobody: whoever comes gets the lowest free one, always."""
    stop = threading.Event()
    rundir.take_slot(run_dir).release()

    def ask() -> None:
        while not stop.is_set():
            rundir.is_held(run_dir, 1)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            slot = rundir.take_slot(run_dir)
            assert slot.number == 1
            assert rundir.is_held(run_dir, 1)
            slot.release()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_fork_while_a_reader_asks(run_dir: Path) -> None:
    """The child has the reader's descriptor and not its lock: the slot can be taken."""
    slot = rundir.take_slot(run_dir)
    slot.release()
    real = fcntl.flock
    children: list[subprocess.Popen[bytes]] = []

    def forking(fd: int, operation: int) -> None:
        real(fd, operation)
        if operation & fcntl.LOCK_SH and not children:
            children.append(subprocess.Popen(["sleep", "60"], pass_fds=[fd]))

    fcntl.flock = forking  # type: ignore[assignment]
    try:
        assert not rundir.is_held(run_dir, 1)
    finally:
        fcntl.flock = real
    try:
        assert rundir.take_slot(run_dir).number == 1
    finally:
        children[0].kill()
        children[0].wait()


def test_a_lock_of_the_board_that_somebody_holds(run_dir: Path, capfd) -> None:
    """A process goes without a board after half a second, and says so; its events are written."""
    slot, _ = begun(run_dir)
    fd = os.open(run_dir / "board.lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    began = time.monotonic()
    with process_restored():
        sink = RecordingSink()
        fapilog.configure_logging(sinks=[sink], run_dir=str(run_dir))
        fapilog.get_logger().info("e")
        assert fapilog.flush(10).complete
    assert time.monotonic() - began < 5
    assert [event["event"] for event in sink.own()] == ["e"]
    assert "another process holds the lock" in capfd.readouterr().err
    os.close(fd)
    slot.release()


def test_many_processes_at_once(tmp_path: Path) -> None:
    """Each has its row, and the totals are the sums (O-MET-1)."""
    script = """
        import multiprocessing, fapilog
        def child(number):
            log = fapilog.get_logger("child")
            for n in range(number):
                log.info("e", n=n)
            fapilog.flush(10)
        if __name__ == "__main__":
            fapilog.configure_logging(sinks=["file"], file_path="{service}.{worker}.jsonl", level="INFO", queue_overflow="block")
            children = [multiprocessing.get_context("fork").Process(target=child, args=(100 * n,)) for n in range(1, 9)]
            for each in children: each.start()
            for each in children: each.join()
    """
    ran_well(run_script(script, tmp_path))
    workers = overview(tmp_path / "run").workers
    assert all(not worker.alive and worker.closed for worker in workers)
    written = sum(len(read_lines(path)) for path in tmp_path.glob("fapilog.*.jsonl"))
    assert sum(worker.sinks["file"].delivered for worker in workers) == written
    assert sum(worker.accepted for worker in workers) == written
    assert sum(sum(worker.levels.values()) for worker in workers) == written
    assert written >= 3600


# Flips, under load


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """Run a program whose two processes log all the time; return its run directory."""
    folder = tmp_path_factory.mktemp("flips")
    code = f"""
import os, sys, time, fapilog
fapilog.configure_logging(sinks=["file"], file_path={str(folder / "{service}.{worker}.jsonl")!r}, run_dir={str(folder / "run")!r})
os.fork()
log = fapilog.get_logger("flips")
while os.getppid() != 1:
    for n in range(20):
        log.info("e", n=n)
    time.sleep(0.002)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while len(overview(folder / "run").workers) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    yield folder / "run", process
    assert process.poll() is None
    process.kill()
    process.wait()


LAST: dict[int, int] = {}


@pytest.mark.matrix
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(
        st.tuples(st.integers(0, (FIRST_ROW + 4) * sealed.BLOCK_BYTES - 1), st.integers(1, 255)), min_size=1, max_size=8
    )
)
def test_bytes_that_change_by_themselves(loaded, flips: list[tuple[int, int]]) -> None:
    """Nothing raises; a row that is read is right: its books balance and its counters do not fall."""
    run_dir, process = loaded
    fd = os.open(run_dir / NAME, os.O_RDWR)
    try:
        size = os.fstat(fd).st_size
        for at, change in flips:
            if at < size:
                os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ change]), at)
        rows, _ = read_board(run_dir)
        controls.asked_for(run_dir)
    finally:
        os.close(fd)
    assert process.poll() is None
    for seen in rows:
        record = seen.record
        assert record.service == "fapilog"
        assert record.life.logged == record.life.accepted + sum(record.life.refused.values())
        for books in record.life.sinks.values():
            assert books.accepted == record.life.accepted
            assert books.accepted - books.delivered - sum(books.dropped.values()) >= 0


def test_rows_after_many_flips(loaded) -> None:
    """They heal by themselves within a second or so: processes that live are seen again."""
    run_dir, _ = loaded
    end = time.monotonic() + 10
    while sum(worker.alive for worker in overview(run_dir).workers) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    assert sum(worker.alive for worker in overview(run_dir).workers) == 2


# Controls


def test_a_level_that_is_asked_for(run_dir: Path) -> None:
    """It is there for all, or for one worker, until its time is over or it is taken back; a newer one takes its place."""
    controls.ask(run_dir, 10, seconds=60)
    controls.ask(run_dir, 30, logger="x", worker=2)
    controls.ask(run_dir, 20, seconds=60)
    assert [(each.level, each.logger, each.worker) for each in controls.asked_for(run_dir)] == [(30, "x", 2), (20, "", None)]
    controls.withdraw(run_dir)
    controls.ask(run_dir, 10, seconds=0)
    assert [(each.level, each.logger, each.worker) for each in controls.asked_for(run_dir)] == [(30, "x", 2)]


def test_more_controls_than_are_kept(run_dir: Path) -> None:
    """The newest stay."""
    for number in range(controls.MAX_CONTROLS + 5):
        controls.ask(run_dir, 10, logger=f"l{number}")
    assert [each.logger for each in controls.asked_for(run_dir)] == [
        f"l{number}" for number in range(5, controls.MAX_CONTROLS + 5)
    ]


@pytest.mark.parametrize(("clock", "ahead"), [("time", 61), ("monotonic", 61)])
def test_a_control_whose_time_is_over_by_one_clock(run_dir: Path, clock: str, ahead: float, monkeypatch) -> None:
    """It is over: neither a reboot nor a clock that is set back keeps it."""
    controls.ask(run_dir, 10, seconds=60)
    now = getattr(time, clock)
    monkeypatch.setattr(f"fapilog._internal.controls.time.{clock}", lambda: now() + ahead)
    assert controls.asked_for(run_dir) == []


@pytest.mark.parametrize("text", [b"{", b"1", b"[1]", b'[{"level":"x"}]', b'[{"level":99999}]', b"[" * 100_000])
def test_what_is_no_control(text: bytes) -> None:
    """It asks for nothing."""
    assert controls.parse(text) == []


def test_a_control_beside_one_that_is_none() -> None:
    """It holds."""
    assert [each.level for each in controls.parse(b'[{"level":"x"},{"level":10},7,{"level":30,"until":1e300}]')] == [10]


def test_a_control_at_its_limits(run_dir: Path) -> None:
    """A duration without end is for ever; as many names of the greatest length as are kept fit; others are refused."""
    controls.ask(run_dir, 10, seconds=1e15)
    for number in range(controls.MAX_CONTROLS - 1):
        controls.ask(run_dir, 10, logger=f"{number:02}" + '"' * (controls.MAX_LOGGER_BYTES - 2))
    assert len(controls.asked_for(run_dir)) == controls.MAX_CONTROLS
    for logger in ("x" * 257, "\u20ac" * 86, "a\n", "\udc80"):
        with pytest.raises(ConfigurationError, match="printable and have at most 256 bytes"):
            controls.ask(run_dir, 10, logger=logger)


def test_a_process_does_what_it_is_asked_for(run_dir: Path) -> None:
    """Within a second, until the time is over, in an idle process too, and for the logger and those below it."""
    with process_restored():
        sink = RecordingSink()
        fapilog.configure_logging(sinks=[sink], run_dir=str(run_dir), capture_stdlib=True, level="INFO,noisy.part=ERROR")
        log = fapilog.get_logger("shop.cart")
        log.debug("before")
        log.info("begin")
        assert fapilog.flush(10).complete
        controls.ask(run_dir, 10, seconds=1.5)
        controls.ask(run_dir, 50, logger="noisy")
        controls.ask(run_dir, 50, worker=77)
        end = time.monotonic() + 5
        while not log.isEnabledFor(10) and time.monotonic() < end:
            time.sleep(0.02)
        assert log.isEnabledFor(10)
        log.debug("during")
        fapilog.get_logger("noisy").error("not at all")
        fapilog.get_logger("noisy.part").error("by the rule of its own")
        while log.isEnabledFor(10) and time.monotonic() < end:
            time.sleep(0.02)
        log.debug("after")
        log.info("end")
        controls.withdraw(run_dir, logger="noisy")
        while not fapilog.get_logger("noisy").isEnabledFor(40) and time.monotonic() < end:
            time.sleep(0.02)
        fapilog.get_logger("noisy").error("again")
        assert fapilog.flush(10).complete
    events = [event["event"] for event in sink.own()]
    assert events == ["begin", "during", "by the rule of its own", "end", "again"]


@pytest.mark.matrix
@pytest.mark.parametrize("way", ["synchronous", "shut down", "forked", "moved"])
def test_a_level_that_nobody_could_take_back(tmp_path: Path, way: str) -> None:
    """It does not hold where nothing looks at the clock: ERROR is logged although CRITICAL is asked for."""
    script = f"""
        import os, time, fapilog
        from fapilog._internal import controls
        from fapilog._internal.gates import gates
        from pathlib import Path
        fapilog.configure_logging(sinks=["file"], file_path="a.jsonl", run_dir="run", queue_enabled={way != "synchronous"})
        log = fapilog.get_logger("a")
        log.info("first")
        controls.ask(Path("run"), 50, seconds=600)
        end = time.monotonic() + 3
        while log.isEnabledFor(40) and time.monotonic() < end:
            time.sleep(0.02)
        assert log.isEnabledFor(40) == {way == "synchronous"}
        if {way == "shut down"}:
            fapilog.shutdown_logging()
        if {way == "moved"}:
            fapilog.configure_logging(sinks=["file"], file_path="a.jsonl", run_dir="other")
        if {way == "forked"}:
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                os._exit(0)
        log.error("second")
        fapilog.shutdown_logging()
        os._exit(0)
    """
    ran_well(run_script(script, tmp_path))
    assert [line["event"] for line in read_lines(tmp_path / "a.jsonl") if line["logger"] == "a"] == ["first", "second"]


@pytest.mark.parametrize("between", [False, True], ids=["slot untouched", "slot used meanwhile"])
def test_a_process_that_moves_and_comes_back(tmp_path: Path, between: bool) -> None:
    """What it counted in one run directory is not counted in another, nor twice where it was before."""
    script = f"""
        import os, subprocess, sys, fapilog
        log = fapilog.get_logger("a")
        for number, place in enumerate(["one", "two", "one"]):
            fapilog.configure_logging(sinks=["file"], file_path=f"{{place}}.jsonl", run_dir=place)
            for n in range(100):
                log.info("e", n=n)
            assert fapilog.flush(10).complete
            if number == 1 and {between}:
                code = "import fapilog; fapilog.get_logger('b').info('e')"
                env = {{**os.environ, "FAPILOG_RUN_DIR": "one", "FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "one.jsonl"}}
                subprocess.run([sys.executable, "-c", code], env=env, check=True)
        fapilog.shutdown_logging()
    """
    ran_well(run_script(script, tmp_path))
    for place in ("one", "two"):
        workers = overview(tmp_path / place).workers
        written = len((tmp_path / f"{place}.jsonl").read_bytes().splitlines())
        assert sum(worker.accepted for worker in workers) == written
        assert sum(worker.sinks["file"].delivered for worker in workers) == written
        assert sum(sum(worker.levels.values()) for worker in workers) == written
        assert all(worker.logged == worker.accepted for worker in workers)


def test_what_a_signal_handler_publishes(run_dir: Path) -> None:
    """It is not undone by the earlier moment of what it has interrupted, and a hub that has closed is seen to have."""
    slot, row = begun(run_dir)
    queue = fapilog.EventQueue(10, identity=identity(slot))
    publisher = Publisher(row, queue, {}, ())
    put = row.put
    interrupted: list[int] = []

    def late(record: Record) -> None:
        if not interrupted:
            interrupted.append(1)
            queue.accept(20, b'{"event":"x"')
            publisher.publish(0, closed=True, obey=False)
        put(record)

    row.put = late  # type: ignore[method-assign]
    queue.accept(20, b'{"event":"x"')
    publisher.publish(0)
    slot.release()
    (worker,) = overview(run_dir).workers
    assert (worker.accepted, worker.closed) == (2, True)


def test_a_process_with_nothing_new_to_say(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows that it runs every few seconds, and writes nothing in between; one that is not called again shows nothing."""
    slot, row = begun(run_dir)
    publisher = Publisher(row, fapilog.EventQueue(10, identity=identity(slot)), {}, ())
    clock = [100.0, 5000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "time", lambda: clock[1])

    def beat(after: float, **how: bool) -> float | None:
        clock[:] = [moment + after for moment in clock]
        publisher.publish(0, **how)
        (worker,) = overview(run_dir).workers
        return worker.heartbeat

    assert [beat(after) for after in (0.0, 4.5, 0.75, 4.5, 60.0)] == [5000.0, 5000.0, 5005.25, 5005.25, 5069.75]
    assert beat(0.5, obey=False) is None
    updated = overview(run_dir).workers[0].updated
    assert beat(60.0, obey=False) is None
    assert overview(run_dir).workers[0].updated == updated
    assert beat(0.0, closed=True) is None


def test_opening_at_once(run_dir: Path) -> None:
    """Of threads that find a foreign file, one moves it aside, and all get the same new board."""
    run_dir.mkdir(mode=0o700)
    put_foreign(run_dir / NAME, "text")
    found: list[int] = []

    def opened() -> None:
        fd = open_board(run_dir)
        found.append(os.fstat(fd).st_ino)
        os.close(fd)

    threads = [threading.Thread(target=opened) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(list(run_dir.glob(f"{NAME}.aside-*"))) == 1
