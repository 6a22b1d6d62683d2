"""What is in none of a dead process's files is put there, once."""

from __future__ import annotations

import gzip
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from fapilog._internal.filelock import FileLock
from fapilog.identity import Identity
from fapilog.sinks import put_back as module
from fapilog.sinks import written
from fapilog.sinks.family import Family
from fapilog.sinks.put_back import put_back

DEAD = Identity("s", "", "h", 1, 7, "ab" * 8)
OTHER = Identity("s", "", "h", 1, 8, "cd" * 8)


def line(seq: int, identity: Identity = DEAD, stamp: str = "2026-11-28T10:00:00.000000Z", text: str = "") -> bytes:
    return b'{"timestamp":"%b","level":"info","event":"e","text":"%b"' % (stamp.encode(), text.encode()) + identity.tail() % seq


def lines(*seqs: int) -> dict[int, bytes]:
    return {seq: line(seq) for seq in seqs}


def seqs_in(path: Path, boot: str = DEAD.boot) -> list[int]:
    return [event["seq"] for event in map(orjson.loads, path.read_bytes().splitlines()) if event["boot"] == boot]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.1.jsonl"


def put(path: Path, what: dict[int, bytes], since: float = 0.0, *, locked: bool = False) -> int | None:
    return put_back(str(path), DEAD, what, since, locked=locked)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of what is read from now on."""
    read: list[int] = []
    pread = os.pread

    def noted(fd: int, size: int, at: int) -> bytes:
        read.append(size)
        return pread(fd, size, at)

    monkeypatch.setattr(os, "pread", noted)
    return read


def test_a_file_that_is_not_there(path: Path) -> None:
    """It is made."""
    assert put(path, lines(1, 2)) == 2
    assert seqs_in(path) == [1, 2]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """It is made too."""
    assert put(tmp_path / "a" / "b" / "app.1.jsonl", lines(1)) == 1
    assert seqs_in(tmp_path / "a" / "b" / "app.1.jsonl") == [1]


def test_again_and_again(path: Path) -> None:
    """What is there is not written again."""
    path.write_bytes(line(1) + line(3))
    assert put(path, lines(1, 2, 3, 4)) == 2
    assert put(path, lines(1, 2, 3, 4)) == 0
    assert sorted(seqs_in(path)) == [1, 2, 3, 4]


def test_half_a_line_at_the_end(path: Path) -> None:
    """It is closed, and the whole line comes behind it."""
    path.write_bytes(line(1) + line(2)[:-9])
    assert put(path, lines(1, 2)) == 1
    assert path.read_bytes() == line(1) + line(2)[:-9] + b"\n" + line(2)


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_somebody_who_was_killed_half_way(path: Path, kept: int) -> None:
    """The next one writes what is missing, and nothing twice."""
    whole = line(1) + line(2) + line(3)
    path.write_bytes(whole[:kept])
    put(path, lines(1, 2, 3))
    found = [each for each in path.read_bytes().splitlines() if each.endswith(b"}")]
    assert sorted(orjson.loads(each)["seq"] for each in found) == [1, 2, 3]


def test_lines_of_others_in_between(path: Path) -> None:
    """They are passed over, however many bytes they have."""
    many = b"".join(line(n, OTHER, text="x" * 500) for n in range(1, 6000))
    path.write_bytes(line(1) + many + line(2) + many)
    assert put(path, lines(1, 2, 3)) == 1
    assert seqs_in(path) == [1, 2, 3]


def test_rotated_and_compressed_files(path: Path) -> None:
    """They are looked through too, whatever form they have."""
    Path(f"{path}.20261128T051729.000001Z.gz").write_bytes(gzip.compress(line(1) + line(2)))
    Path(f"{path}.20261128T051730.000001Z").write_bytes(line(3))
    path.write_bytes(line(4))
    assert put(path, lines(1, 2, 3, 4, 5), locked=True) == 1
    assert seqs_in(path) == [4, 5]
    assert not Path(Family(str(path)).lock).exists()


def test_a_broken_compressed_file(path: Path) -> None:
    """It holds nothing: the lines are written rather twice than never."""
    Path(f"{path}.20261128T051729.000001Z.gz").write_bytes(gzip.compress(line(1))[:-12])
    path.write_bytes(line(2))
    assert put(path, lines(1, 2)) == 1


def test_the_files_of_a_process_that_found_its_name_taken(path: Path) -> None:
    """Its lines go on where they are."""
    path.write_bytes(line(1, OTHER))
    second = path.with_name("app.1.2.jsonl")
    second.write_bytes(line(1))
    assert put(path, lines(1, 2)) == 1
    assert seqs_in(second) == [1, 2]
    assert seqs_in(path) == []


def test_files_that_somebody_has(path: Path) -> None:
    """They are written to all the same, at their end, as by any process that appends."""
    path.write_bytes(line(1, OTHER))
    held = FileLock.take(Family(str(path)).lock)
    assert held is not None
    assert put(path, lines(1), locked=True) == 1
    assert seqs_in(path) == [1]
    held.release()


def test_what_is_no_regular_file(path: Path) -> None:
    """Nothing is looked for in it, and nothing waits."""
    os.mkfifo(path)
    assert put(path, lines(1)) is None


def test_a_long_file_of_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads it to its beginning: what is older than the process, for long enough, is not searched."""
    monkeypatch.setattr(module, "OLDER_BYTES", 10_000)
    path.write_bytes(b"".join(line(n, OTHER, "2026-11-27T10:00:00.000000Z") for n in range(1, 20_000)))
    read = counted(monkeypatch)
    monkeypatch.setattr(module, "BLOCK_BYTES", 16_384)
    assert put(path, lines(1), since=time.mktime((2026, 11, 28, 9, 0, 0, 0, 0, 0))) == 1
    assert sum(read) < 200_000


def test_lines_that_only_look_like_the_ones_wanted(path: Path) -> None:
    """The end of a line counts, not what a field of it says."""
    tail = (DEAD.tail() % 7).decode().strip().replace('"', '\\"')
    path.write_bytes(line(1, OTHER, text=tail) + line(2, OTHER))
    assert put(path, lines(7)) == 1
    assert seqs_in(path) == [7]


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """It is an error, to be tried again later, and nothing is lost."""
    (tmp_path / "app.1.jsonl").mkdir()
    assert put(tmp_path / "app.1.jsonl", lines(1)) is None
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"[Nn]ot a directory"):
        put(tmp_path / "file" / "app.1.jsonl", lines(1))


def test_somebody_who_was_killed_at_any_byte(tmp_path: Path) -> None:
    """Wherever the writing was cut off, the next one makes it whole, and the one after him has nothing to do."""
    whole = line(1) + line(2)
    for kept in range(len(whole) + 1):
        path = tmp_path / f"{kept}" / "app.1.jsonl"
        path.parent.mkdir()
        path.write_bytes(line(9, OTHER) + whole[:kept])
        put(path, lines(1, 2))
        assert put(path, lines(1, 2)) == 0
        found = [each for each in path.read_bytes().splitlines() if each.endswith(b"}")]
        assert sorted(found) == sorted([line(9, OTHER)[:-1], line(1)[:-1], line(2)[:-1]])


def test_a_file_that_was_being_rotated(path: Path) -> None:
    """Its process was killed between two renames: what it has written is in the rotated file alone, and is found there."""
    Path(f"{path}.20261128T051730.000001Z").write_bytes(line(1) + line(2))
    Path(Family(str(path)).successor).write_bytes(b'{"event":"fapilog.rotated"}\n')
    assert put(path, lines(1, 2, 3), locked=True) == 1
    assert seqs_in(path) == [3]


@pytest.mark.parametrize("suffix", [".1", "-20261128", ".1.gz"])
def test_a_file_that_somebody_has_renamed(path: Path, suffix: str) -> None:
    """logrotate came between the kill and now: what is in that file is there."""
    renamed = path.with_name(path.name + suffix)
    text = line(1) + line(2)
    renamed.write_bytes(gzip.compress(text) if suffix.endswith(".gz") else text)
    path.with_name(path.name + ".d").mkdir()
    os.mkfifo(path.with_name(path.name + ".2"))
    assert put(path, lines(1, 2, 3)) == 1
    assert seqs_in(path) == [3]


def test_a_rotated_file_from_before_the_process(path: Path) -> None:
    """It is not read."""
    old = Path(f"{path}.20261128T051729.000001Z.gz")
    old.write_bytes(gzip.compress(line(1)))
    os.utime(old, (1000, 1000))
    assert put(path, lines(1), since=200_000.0) == 1


def test_a_clock_that_was_set_back(path: Path) -> None:
    """A rotated file that seems to be an hour older than the process is looked in all the same."""
    old = path.with_name(path.name + ".20261128T050000.000000Z")
    old.write_bytes(line(1))
    now = time.time()
    os.utime(old, (now, now - 3600))
    assert put(path, lines(1), since=now) == 0


def test_a_file_that_is_called_compressed_and_is_not(path: Path) -> None:
    """It holds nothing that is known."""
    Path(f"{path}.20261128T051729.000001Z.gz").write_bytes(b"no gzip at all")
    assert put(path, lines(1)) == 1


def test_a_numbered_file_that_was_being_rotated(path: Path) -> None:
    """Its rotated files are found too."""
    path.write_bytes(line(1, OTHER))
    path.with_name("app.1.2.jsonl.20261128T051730.000001Z").write_bytes(line(1))
    assert put(path, lines(1, 2), locked=True) == 1
    assert seqs_in(path.with_name("app.1.2.jsonl")) == [2]


def test_a_written_file_that_somebody_took_away(path: Path) -> None:
    """The files of those who came later are found all the same."""
    path.with_name("app.1.2.jsonl").write_bytes(line(1))
    assert put(path, lines(1, 2)) == 1
    assert seqs_in(path.with_name("app.1.2.jsonl")) == [1, 2]


def test_three_that_wanted_one_file(path: Path) -> None:
    """The lines go to the file that has the others of their process."""
    path.write_bytes(line(1, OTHER))
    path.with_name("app.1.2.jsonl").write_bytes(line(1))
    path.with_name("app.1.3.jsonl").write_bytes(line(2, OTHER))
    assert put(path, lines(1, 2)) == 1
    assert seqs_in(path.with_name("app.1.2.jsonl")) == [1, 2]


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    """It is made anew, with the lines in it."""
    path = tmp_path / "logs" / "app.1.jsonl"
    assert put(path, lines(1), locked=True) == 1
    assert seqs_in(path) == [1]


@pytest.mark.parametrize("damaged", [b"no gzip", b"\x1f\x8b\x08\x00", b"checksum"])
def test_a_compressed_file_that_is_none(path: Path, damaged: bytes) -> None:
    """It holds nothing, and does not keep the lines from being written for ever."""
    if damaged == b"checksum":
        whole = gzip.compress(line(1))
        damaged = whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]
    Path(f"{path}.20261128T051729.000001Z.gz").write_bytes(damaged)
    path.write_bytes(line(2))
    assert put(path, lines(1, 2)) == 1
    assert sorted(seqs_in(path)) == [1, 2]


def test_both_forms_of_a_rotated_file(path: Path) -> None:
    """Whoever compressed it was killed before he removed the other one: its lines are there once."""
    stamp = "20261128T051729.000001Z"
    Path(f"{path}.{stamp}").write_bytes(line(1))
    Path(f"{path}.{stamp}.gz").write_bytes(gzip.compress(line(1)))
    path.write_bytes(line(2))
    assert put(path, lines(1, 2, 3)) == 1
    assert seqs_in(path) == [2, 3]


def test_a_line_behind_half_a_line_of_another_process(path: Path) -> None:
    """Nobody can read it where it stands, so it is written again."""
    path.write_bytes(line(1) + line(7, OTHER)[:40] + line(2))
    assert put(path, lines(1, 2)) == 1
    assert path.read_bytes().endswith(b"\n" + line(2))
    assert put(path, lines(1, 2)) == 0


def test_half_a_line_of_the_dead_before_one_of_another_process(path: Path) -> None:
    """It is not there, whoever has written behind it."""
    path.write_bytes(line(1) + line(2)[:-30] + line(8, OTHER))
    assert put(path, lines(1, 2)) == 1
    assert path.read_bytes().endswith(b"\n" + line(2))


def test_a_seq_without_end(path: Path) -> None:
    """A file may hold anything: what is no number of ours is passed over."""
    path.write_bytes(line(1)[:-3] + b"1" * 5000 + b"}\n" + line(2))
    assert put(path, lines(2, 3)) == 1
    assert path.read_bytes().endswith(line(3))


def test_a_line_of_another_thread_that_is_half_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for: no newline comes behind its first half, nor an empty line behind the whole."""
    path.write_bytes(line(1)[:20])
    fd = os.open(path, os.O_RDWR | os.O_APPEND)

    def goes_on(seconds: float) -> None:
        if seconds and path.stat().st_size < len(line(1)):
            os.write(fd, line(1)[20:])

    monkeypatch.setattr(written, "nap", goes_on)
    assert written.ends_torn(str(path), fd) is False
    os.write(fd, line(2)[:20])
    monkeypatch.setattr(written, "nap", lambda _: None)
    assert written.ends_torn(str(path), fd) is True
    os.close(fd)


def test_lines_of_any_length(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are found wherever the blocks begin that the file is read by."""
    all_lines = {seq: line(seq, text="x" * (seq * 37 % 101)) for seq in range(1, 40)}
    path.write_bytes(b"\n".join([b"".join(all_lines.values()), line(3, OTHER)]))
    before = path.read_bytes()
    for size in (1, 2, 3, 7, 64, 143, 4096):
        monkeypatch.setattr(module, "BLOCK_BYTES", size)
        assert put(path, all_lines) == 0
    assert path.read_bytes() == before


def test_the_search_ends_at_an_earlier_line_of_the_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its cursor has passed stands before all that is looked for, so nobody reads on."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 4096)
    path.write_bytes(b"".join(line(seq) for seq in range(1, 5000)))
    read = counted(monkeypatch)
    assert put(path, lines(4999, 5000)) == 1
    assert sum(read) < 6 * 4096


def test_nothing_is_missing(path: Path) -> None:
    """Nothing is opened or made."""
    assert put(path, {}, locked=True) == 0
    assert list(path.parent.iterdir()) == []


def test_a_link_to_what_is_no_regular_file(path: Path) -> None:
    """It is what it leads to."""
    os.mkfifo(path.with_name("fifo"))
    path.symlink_to(path.with_name("fifo"))
    assert put(path, lines(1)) is None


def test_a_long_file_of_others_beside_the_right_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To give up the one is not to give up the other."""
    monkeypatch.setattr(module, "OLDER_BYTES", 10_000)
    old = "2026-11-27T10:00:00.000000Z"
    path.write_bytes(b"".join(line(n, OTHER, old) for n in range(1, 200)))
    path.with_name("app.1.2.jsonl").write_bytes(line(1) + line(999, OTHER, old))
    assert put(path, lines(1, 2), since=datetime(2026, 11, 28, 9, tzinfo=UTC).timestamp()) == 1
