"""The journal of a process: its file and its lock, what threads and signal handlers put into it, and whatever is read back."""

from __future__ import annotations

import errno
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fapilog
from fapilog._internal import remains, rundir
from fapilog._internal.accounting import DropWindow, Reason, SinkBooks
from fapilog._internal.event_queue import EventQueue
from fapilog._internal.filelock import FileLock
from fapilog._internal.journal import (
    HEAD_BYTES,
    LIVE_AT,
    LIVE_BYTES,
    MAGIC,
    MAX_SINKS,
    NAME,
    RING_AT,
    WORD,
    Journal,
    Words,
    has_journal,
    journals,
    owner_in,
)
from fapilog._internal.notices import dropped_head
from fapilog._internal.protection import Protection
from fapilog._internal.sealed import seal
from fapilog.identity import Identity, seq_of
from tests._support import ran_well, run_script, strict
from tests.hostile import CATALOGUE, caught_heads
from tests.programs.running import FULL, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RING = 4096
OWN = Identity("s", "", "h", 1, 7, "ab" * 8)
BEGIN = b'{"timestamp":"2026-11-28T00:00:00.000000Z","level":"info","event":"'


def made(run_dir: Path, ring: int = RING, identity: Identity = OWN, sinks: tuple[str, ...] = ("file",)) -> Journal:
    return Journal.make(run_dir, identity, sinks, "t", ring)


def line(seq: int, text: bytes = b"", identity: Identity = OWN) -> bytes:
    return BEGIN + text + b'"' + identity.tail() % seq


def read(path: Path) -> remains.Remains | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return remains.read(fd)
    finally:
        os.close(fd)


def found(path: Path) -> dict[int, bytes]:
    left = read(path)
    assert left is not None
    return left.lines


# The file


def test_its_file(run_dir: Path) -> None:
    """It says what it is, whose it is and in which version, and is as large as it will ever be, for its owner alone."""
    journal = made(run_dir)
    data = journal.path.read_bytes()
    assert data.startswith(b"fapilog journal 1\n")
    assert owner_in(data[:HEAD_BYTES]) == journal.owner
    assert (journal.owner.identity, journal.owner.sinks, journal.owner.targets) == (OWN, ["file"], "t")
    assert journal.path.name == f"journal-1.{OWN.boot}.0"
    assert NAME.fullmatch(journal.path.name)
    state = journal.path.stat()
    assert stat.S_IMODE(state.st_mode) == 0o600
    assert state.st_size == RING_AT + RING == len(data)
    assert state.st_blocks * 512 >= state.st_size
    journal.close(done=True)


def test_a_system_that_cannot_allocate(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written whole instead."""
    monkeypatch.delattr(os, "posix_fallocate")
    journal = made(run_dir, 3 << 20)
    assert journal.path.stat().st_size == RING_AT + (3 << 20)
    assert journal.path.stat().st_blocks * 512 >= RING_AT + (3 << 20)
    journal.append(line(1))
    assert found(journal.path) == {1: line(1)}
    journal.close(done=True)


def test_a_second_hub_of_one_life(run_dir: Path) -> None:
    """It gets a journal of its own, and both are found."""
    first, second = made(run_dir), made(run_dir)
    (run_dir / "journal-2.ab.0").touch()
    (run_dir / "journal-1.ab").touch()
    assert journals(run_dir) == [first.path.name, second.path.name]
    assert has_journal(run_dir, OWN.boot)
    assert not has_journal(run_dir, OWN.boot[:-1])
    first.close(done=True)
    assert journals(run_dir) == [second.path.name]
    second.close(done=True)


@pytest.mark.parametrize(
    "identity",
    [
        Identity("100 %", "%d %%s", "h", 1, 7, "ab"),
        Identity("sérvice ☃", 'a "quoted" \\ env\n\x00', "höst", 0, 7, "ab"),
        Identity("s", "e" * 4096, "h" * 256, 1 << 30, 1 << 30, "a" * 64),
    ],
    ids=["percent", "odd", "long"],
)
def test_any_identity(run_dir: Path, identity: Identity) -> None:
    """Its lines are found."""
    journal = made(run_dir, 1 << 16, identity)
    journal.append(line(1, b"x", identity))
    assert found(journal.path) == {1: line(1, b"x", identity)}
    journal.close(done=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"identity": Identity("s", "e" * 5000, "h", 1, 7, "ab")},
        {"identity": Identity("s" * 5000, "", "h", 1, 7, "ab")},
        {"identity": Identity("s", "", "h/x", 1, 7, "ab")},
        {"sinks": ("a",) * (MAX_SINKS + 1)},
        {"sinks": ("a" * HEAD_BYTES,)},
    ],
    ids=["env", "service", "host", "sinks", "names"],
)
def test_what_nobody_could_read_back(run_dir: Path, wrong: dict[str, Any]) -> None:
    """It is an error at set-up, not a journal that is found to be none when its process is dead."""
    with pytest.raises(ValueError):
        made(run_dir, **wrong)
    assert list(run_dir.iterdir()) == []


# No room for it


def test_no_room_on_the_file_system(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error at set-up, and nothing stays behind, neither file nor lock nor descriptor."""

    def full(*_args: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    before = os.listdir("/dev/fd")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="no space left"):
        made(run_dir)
    assert list(run_dir.iterdir()) == []
    assert len(os.listdir("/dev/fd")) == len(before)


def test_a_limit_of_the_kernel(run_dir: Path, tmp_path: Path) -> None:
    """A file that may not grow so far is an error at set-up, and nothing stays behind."""
    result = run_script(
        f"""
        import resource
        from pathlib import Path
        from fapilog._internal.journal import Journal
        from fapilog.identity import Identity, seq_of
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            Journal.make(Path({str(run_dir)!r}), Identity("s", "", "h", 1, 7, "ab"), ["file"], "", 2 << 20)
        except OSError as error:
            print("refused")
        """,
        tmp_path,
    )
    assert ran_well(result) == "refused\n"
    assert list(run_dir.iterdir()) == []


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """It is made for the owner alone, or else it is an error at set-up."""
    journal = made(tmp_path / "new")
    assert found(journal.path) == {}
    journal.close(done=True)
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        made(tmp_path / "file" / "run")


# The lock


def test_the_lock_of_a_live_process(run_dir: Path) -> None:
    """Nobody else gets it, and whoever asks does not disturb."""
    journal = made(run_dir)
    assert rundir.is_locked(run_dir, journal.path.name)
    assert FileLock.take(str(journal.path)) is None
    journal.close(done=True)


def test_a_journal_that_is_done(run_dir: Path) -> None:
    """It is gone, and to close it once more changes nothing, whatever has its name then."""
    journal = made(run_dir)
    journal.close(done=True)
    assert list(run_dir.iterdir()) == []
    other = made(run_dir)
    journal.close(done=True)
    assert rundir.is_locked(run_dir, other.path.name)
    other.close(done=True)


def test_a_journal_that_is_left(run_dir: Path) -> None:
    """It stays with all that it holds, and whoever finds it gets the lock."""
    journal = made(run_dir)
    journal.append(line(1))
    journal.close(done=False)
    assert not rundir.is_locked(run_dir, journal.path.name)
    lock = FileLock.take(str(journal.path))
    assert lock is not None
    assert found(journal.path) == {1: line(1)}
    lock.release()


@pytest.mark.parametrize("done", [True, False])
def test_a_log_call_that_comes_after_the_end(run_dir: Path, done: bool) -> None:
    """It goes on without an error."""
    journal = made(run_dir)
    journal.close(done=done)
    for seq in range(1, 100):
        journal.append(line(seq))
        journal.keep(Words.of_queue(Reason.QUEUE_FULL), DropWindow())
    assert journal.laps


HOLDER = """
import os, sys, time
from pathlib import Path
import fapilog
from fapilog._internal.journal import Journal
from fapilog.identity import Identity, seq_of
own = Identity("s", "", "h", 1, 7, "ab" * 8)
journal = Journal.make(Path(sys.argv[1]), own, ["file"], "t", 4096)
head = b'{"timestamp":"2026-11-28T00:00:00.000000Z","level":"info","event":"'
for seq in range(1, 100):
    journal.append(head + b"x" * (seq % 50) + b'"' + own.tail() % seq)
"""


def held_by(code: str, run_dir: Path) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", HOLDER + code, str(run_dir)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def test_a_process_that_is_killed(run_dir: Path) -> None:
    """Its lock is free at once, and what it has put down last is there."""
    child = held_by("print('ready', flush=True); time.sleep(60)", run_dir)
    (name,) = journals(run_dir)
    assert rundir.is_locked(run_dir, name)
    child.kill()
    child.communicate()
    lock = FileLock.take(str(run_dir / name))
    assert lock is not None
    lines = found(run_dir / name)
    assert max(lines) == 99
    assert len(lines) > 15
    assert all(each == line(seq, b"x" * (seq % 50)) for seq, each in lines.items())
    lock.release()


def test_a_forked_child_that_outlives_its_parent(run_dir: Path) -> None:
    """It has let go of the lock: whoever finds the parent's journal gets it while the child lives."""
    code = """
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    journal.close(done=True)  # without effect on the parent's
    os.write(w, b"x")
    time.sleep(60)
    os._exit(0)
os.read(r, 1)
print("ready", flush=True)
print(pid, flush=True)
time.sleep(60)
"""
    child = held_by(code, run_dir)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    try:
        (name,) = journals(run_dir)
        assert rundir.is_locked(run_dir, name)
        child.kill()
        child.wait()
        os.kill(grandchild, 0)
        lock = wait_until(lambda: FileLock.take(str(run_dir / name)), "the lock is free")
        assert max(found(run_dir / name)) == 99
        lock.release()
    finally:
        os.kill(grandchild, signal.SIGKILL)
        child.communicate()


# What does not fit


def test_lines_of_the_size_of_the_ring(run_dir: Path) -> None:
    """One that fills it is protected; one with a byte more is counted instead, and leaves alone what is there."""
    journal = made(run_dir)
    room = RING - len(line(1))
    journal.append(line(1, b"x" * room))
    assert found(journal.path) == {1: line(1, b"x" * room)}
    journal.append(line(2, b"x" * (room + 1)))
    assert journal.unprotected == 1
    assert found(journal.path) == {1: line(1, b"x" * room)}
    journal.append(line(3, b"y" * room))
    assert found(journal.path) == {3: line(3, b"y" * room)}
    assert journal.unprotected == 1
    journal.close(done=True)


# Threads and signal handlers


class Watched:
    """A queue with a journal, looked at again and again while others log."""

    def __init__(self, run_dir: Path, ring: int) -> None:
        self.queue = EventQueue(10_000, identity=OWN)
        self.journal = made(run_dir, ring)
        self.queue.protect(self.journal)
        self._ring = ring
        self._lines: dict[int, bytes] = {}
        self._used = 0

    def check(self, late: int) -> None:
        """Check that every line of the ring is as it was logged, that the newest are there, and that no lap was counted twice."""
        for each in self.queue.take()[0]:
            self._lines[seq_of(each)] = each
            self._used += len(each)
        newest = self.queue.last_seq
        self._lines = {seq: each for seq, each in self._lines.items() if seq > newest - 1000}
        there = found(self.journal.path)
        assert there.items() <= self._lines.items()
        longest = max(map(len, self._lines.values()))
        sure = (self._ring - 2 * longest) // longest - late
        assert sure > 5
        assert set(range(max(1, newest - sure), newest + 1)) <= set(there)
        assert self.journal.laps * (self._ring - longest) <= self._used <= (self.journal.laps + 1) * self._ring

    def end(self, logged: int) -> None:
        """Check that nothing was refused, and that the ring has come round often."""
        assert self.queue.put_events == self.queue.last_seq == logged
        assert self.journal.laps > 100
        self.journal.close(done=True)


def test_many_threads_at_the_end_of_the_ring(run_dir: Path) -> None:
    """No line is damaged by another one, none of the newest is missing, and of those that find the end one begins anew."""
    watched = Watched(run_dir, 8 * RING)  # two rounds fit into it: no thread is late by more than half a lap
    threads, each_time = 4, 15
    rounds = 2_000 if FULL else 300
    interval = sys.getswitchinterval()
    meet = threading.Barrier(threads + 1, timeout=40)

    def logs(number: int) -> None:
        for times in range(rounds):
            meet.wait()
            for each in range(each_time):
                watched.queue.accept(20, BEGIN + b"%d" % number * ((times + each) * (number + 1) % 60) + b'"')
            meet.wait()

    sys.setswitchinterval(1e-6)
    crowd = [threading.Thread(target=logs, args=(number,), daemon=True) for number in range(threads)]
    try:
        for each in crowd:
            each.start()
        for _ in range(rounds):
            meet.wait()
            meet.wait()
            watched.check(late=threads)
    except BaseException:
        meet.abort()  # not otherwise: it would break who is on his way out of his last wait
        raise
    finally:
        sys.setswitchinterval(interval)
    for each in crowd:
        each.join()
    watched.end(threads * each_time * rounds)


def test_another_line_between_the_end_of_the_ring_and_its_beginning(run_dir: Path) -> None:
    """Whoever has found the end, and was overtaken by one who found it too, goes on behind him."""
    journal = made(run_dir)
    seq = 1
    while journal._map.size() - journal._map.tell() >= len(line(100)):
        journal.append(line(seq))
        seq += 1
    write = journal.write

    def overtaken(data: bytes) -> int:
        try:
            return write(data)
        except ValueError:
            journal.write = write
            journal.append(line(101))  # as another thread would, or a signal handler
            raise

    journal.write = overtaken  # type: ignore[assignment]
    journal.append(line(100))
    assert journal.laps == 1
    assert journal.content()[RING_AT:].startswith(line(101) + line(100))
    assert {100, 101} <= set(found(journal.path))
    journal.close(done=True)


def test_a_signal_handler_that_logs_at_any_moment(run_dir: Path) -> None:
    """What it interrupts is whole, and so is what it logs."""
    watched = Watched(run_dir, RING)
    came, logged, quiet = 0, 0, False

    def logs(*_: object) -> None:
        nonlocal came
        if not quiet:
            came += 1
            watched.queue.accept(20, BEGIN + b"signal %d" % came + b'"')

    before = signal.signal(signal.SIGALRM, logs)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    try:
        while came < (5_000 if FULL else 500):
            for number in range(60):
                watched.queue.accept(20, BEGIN + b"y" * number + b'"')
            logged += 60
            quiet = True
            watched.check(late=1)
            quiet = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    watched.end(logged + came)


# Whatever is read


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[int, bytes]]:
    """The bytes of a journal that has come round, with losses of all kinds; and all lines that were logged, by seq."""
    run_dir = tmp_path_factory.mktemp("sample") / "run"
    run_dir.mkdir(mode=0o700)
    queue = EventQueue(4, overflow="drop_oldest", reserve=0.0, identity=OWN)
    journal = made(run_dir, sinks=("file", "loki"))
    books = [SinkBooks("file"), SinkBooks("loki")]
    protection = Protection(journal, queue, books)
    queue.protect(journal)
    lines = {}
    position = 0
    for number in range(120):
        queue.accept(20, BEGIN + b"%d" % number * (number % 9) + b'"')
        lines[queue.last_seq] = BEGIN + b"%d" % number * (number % 9) + b'"' + OWN.tail() % queue.last_seq
        if number % 5 == 0:
            queue.refuse(Reason.SAMPLED)
        if number % 7 == 0:
            position += len(queue.take()[0])
            for passage in protection.passages:
                passage.took(position, position - 30, *protection.took())
    data = journal.path.read_bytes()
    journal.close(done=True)
    return data, lines


def told(path: Path, data: bytes) -> remains.Remains | None:
    path.write_bytes(data)
    left = read(path)
    if left is not None:  # whoever recovers can say all of it
        for each in left.unannounced:
            window = (each.count, each.first_seq, each.last_seq, each.first_ns, each.last_ns)
            strict(dropped_head(each.scope, each.reason, *window, dead_boot=left.owner.boot) + b"}")
    return left


CORRUPTED = settings(
    max_examples=3_000 if FULL else 200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1), st.sampled_from([2**63, 2**62, 2**62 - 1, 2**64 - 1, 0]))


def test_the_sample(sample: tuple[bytes, dict[int, bytes]], tmp_path: Path) -> None:
    """What the next tests spoil is worth it: the ring has come round, and there are losses that nobody has announced."""
    data, lines = sample
    left = told(tmp_path / "x", data)
    assert left is not None
    assert 10 < len(left.lines) < 40
    assert left.lines.items() <= lines.items()
    assert {each.reason for each in left.unannounced} == {Reason.SAMPLED, Reason.DROP_OLDEST}
    assert (left.last_seq, left.interrupted) == (144, 0)


@CORRUPTED
@given(changes=st.lists(st.tuples(st.integers(0, LIVE_BYTES // WORD - 1), NUMBERS), max_size=40))
def test_words_that_were_changed(sample: tuple[bytes, dict[int, bytes]], tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    """Nothing is raised, and every line that comes back is one that was logged."""
    data, lines = bytearray(sample[0]), sample[1]
    for at, number in changes:
        struct.pack_into("=Q", data, LIVE_AT + at * WORD, number)
    left = told(tmp_path / "x", bytes(data))
    assert left is not None
    assert left.lines.items() <= lines.items()
    assert list(left.lines) == sorted(left.lines)
    assert min(left.last_seq, left.interrupted, *left.lost.values(), *left.cursors.values()) >= 0


@CORRUPTED
@given(begin=st.integers(0, LIVE_BYTES - 1), noise=st.binary(min_size=1, max_size=LIVE_BYTES))
def test_noise_in_the_words(sample: tuple[bytes, dict[int, bytes]], tmp_path: Path, begin: int, noise: bytes) -> None:
    """The same."""
    data, lines = sample
    noise = noise[: LIVE_BYTES - begin]
    left = told(tmp_path / "x", data[: LIVE_AT + begin] + noise + data[LIVE_AT + begin + len(noise) :])
    assert left is not None
    assert left.lines.items() <= lines.items()


@CORRUPTED
@given(at=st.integers(0, LIVE_AT - 1), noise=st.binary(min_size=1, max_size=300))
def test_noise_in_the_head(sample: tuple[bytes, dict[int, bytes]], tmp_path: Path, at: int, noise: bytes) -> None:
    """It is no journal any more, or nothing that counts was changed."""
    data, lines = sample
    left = told(tmp_path / "x", data[:at] + noise[: LIVE_AT - at] + data[min(LIVE_AT, at + len(noise)) :])
    assert left is None or left.lines.items() <= lines.items()


@CORRUPTED
@given(changes=st.lists(st.tuples(st.integers(0, RING - 1), st.binary(min_size=1, max_size=60)), min_size=1, max_size=20))
def test_noise_in_the_ring(sample: tuple[bytes, dict[int, bytes]], tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    """Nothing is raised, and what comes back are whole lines, in the order of their seqs."""
    data = bytearray(sample[0])
    for at, noise in changes:
        end = min(RING, at + len(noise))
        data[RING_AT + at : RING_AT + end] = noise[: end - at]
    left = told(tmp_path / "x", bytes(data))
    assert left is not None
    assert all(orjson.loads(each)["seq"] == seq for seq, each in left.lines.items())
    assert all(
        each.startswith(remains.BEGINS) and each.endswith(b"}\n") and each.count(b"\n") == 1 for each in left.lines.values()
    )
    assert list(left.lines) == sorted(left.lines)


@CORRUPTED
@given(size=st.integers(0, RING_AT + RING))
def test_a_file_that_was_cut(sample: tuple[bytes, dict[int, bytes]], tmp_path: Path, size: int) -> None:
    """It is no journal, unless all of it is there."""
    left = told(tmp_path / "x", sample[0][:size])
    assert (left is None) == (size < RING_AT + RING)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@CORRUPTED
@given(data=st.data())
def test_a_sealed_head_that_says_anything(sample: tuple[bytes, dict[int, bytes]], tmp_path: Path, data: st.DataObject) -> None:
    """Somebody wrote it on purpose: its fields have the types and the bounds that they must have, or it is no journal."""
    whole = sample[0]
    owner = owner_in(whole[:HEAD_BYTES])
    assert owner is not None
    fields = {name: getattr(owner, name) for name in owner.__slots__}
    for name in data.draw(st.lists(st.sampled_from(list(fields)), max_size=3)):
        fields[name] = data.draw(JSON)
    try:
        text = orjson.dumps(fields)
    except TypeError:  # an integer that is too large, or half a character
        return
    left = told(tmp_path / "x", (MAGIC + seal(0, 1, text)).ljust(LIVE_AT, b"\0") + whole[LIVE_AT:])
    if left is not None:
        assert left.owner.identity.tail() % 1
        assert 0 <= left.owner.started < 1e11


@pytest.mark.parametrize("text", [b"[" * 9000, b'{"service":"\\ud800"}', b"\xff", b"", b"null", b'{"started":NaN}'])
def test_a_sealed_head_that_is_no_owner(sample: tuple[bytes, dict[int, bytes]], tmp_path: Path, text: bytes) -> None:
    """It is no journal."""
    assert told(tmp_path / "x", (MAGIC + seal(0, 1, text)).ljust(LIVE_AT, b"\0") + sample[0][LIVE_AT:]) is None


@pytest.mark.parametrize("begins", [b"fapilog journal 2\n", b"fapilog journal 10\n", b"fapilog board 1\n", b""])
def test_another_version(sample: tuple[bytes, dict[int, bytes]], tmp_path: Path, begins: bytes) -> None:
    """It is none of ours."""
    assert told(tmp_path / "x", begins.ljust(len(MAGIC), b"\0") + sample[0][len(MAGIC) :]) is None


def test_a_seq_without_end(run_dir: Path) -> None:
    """It is none."""
    journal = made(run_dir, 1 << 16)
    journal.append(line(1)[:-3] + b"1" * 5000 + b"}\n")
    journal.append(line(2))
    assert found(journal.path) == {2: line(2)}
    journal.close(done=True)


# Lines that look like others


TAIL = (OWN.tail() % 99).decode().strip()
HOSTILE: dict[str, Callable[[], Any]] = {
    "a tail": lambda: TAIL,
    "a whole line": lambda: line(99).decode(),
    "lines": lambda: "\n" + line(98).decode() + line(99).decode() + "\n",
    "zeros": lambda: "\0\0" + line(99).decode() + "\0",
    "closed": lambda: '"event":"fapilog.closed","logger":"fapilog","last_seq":',
    "the fields of an identity": lambda: {"timestamp": "x", **OWN.fields(), "seq": 99},
    "a list of events": lambda: [{"timestamp": "2026", "event": "e", **OWN.fields(), "seq": 99}],
    "bytes": lambda: line(99),
    "a key": lambda: {TAIL: 1, line(99).decode(): 2},
    "brackets": lambda: "}" * 50 + "{" * 50,
}


def heads_of(*values: dict[str, Any]) -> list[bytes]:
    """Return the heads of the lines of events with these fields, and of events whose names they are."""
    with caught_heads() as heads:
        for fields in values:
            fapilog.get_logger().info("e" * (len(heads) % 7), **fields)
        return [head[:-1] for head in heads]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_field_that_looks_like_a_line(run_dir: Path, name: str) -> None:
    """Nothing but the lines that were logged comes back, also where others have been written over half of them."""
    heads = heads_of(*({"before": HOSTILE[name](), "after": HOSTILE[name]()} for _ in range(60)))
    queue = EventQueue(1000, identity=OWN)
    journal = made(run_dir)
    queue.protect(journal)
    for head in heads:
        queue.accept(20, head)
        left = read(journal.path)
        assert left is not None
        assert set(left.lines.values()) <= set(queue._buffer)
        assert max(left.lines) == queue.last_seq
        assert not left.closed
    assert journal.laps
    journal.close(done=True)


@pytest.mark.matrix
@pytest.mark.parametrize("name", HOSTILE)
def test_a_copy_that_was_cut_anywhere_in_such_a_field(run_dir: Path, name: str) -> None:
    """No mixture of two such lines comes back."""
    first, second = heads_of({"a": HOSTILE[name](), "b": "xxxxxxx"}, {"b": "yyy", "a": HOSTILE[name]()})
    old, new = first + OWN.tail() % 1, second + OWN.tail() % 2
    ring = max(len(old), len(new)) + 10
    journal = made(run_dir, ring)
    journal.append(old)
    before = journal.path.read_bytes()
    journal.append(new)
    after = journal.path.read_bytes()
    for at in range(len(new) + 1):
        left = told(run_dir / "torn", after[: RING_AT + at] + before[RING_AT + at :])
        assert left is not None
        assert set(left.lines.values()) <= {new}
    journal.close(done=True)


def test_lines_with_any_values(run_dir: Path) -> None:
    """Each is found as it was logged, whatever its values."""
    journal = made(run_dir)
    names = ("value", "timestamp", "level", "service", "seq", "boot")
    heads = heads_of(*({name: make() for name in names} for make in CATALOGUE.values()))
    assert len(heads) == len(CATALOGUE)
    for seq, head in enumerate(heads, 1):
        whole = head + OWN.tail() % seq
        assert [each.line for each in remains.lines_in(whole, journal.owner)] == [whole]
    journal.close(done=True)
