"""`fapilog verify`: files of real hubs, and files that somebody has worked on."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fapilog._internal import logfiles
from fapilog._internal.audit import Books
from fapilog._internal.findings import Findings, LifeFindings, findings
from fapilog._internal.logfiles import OVERLONG, find
from fapilog._internal.seqs import Seqs, size, unexplained
from fapilog.cli.verify import audited, exit_code, verdict
from fapilog.errors import ConfigurationError
from fapilog.identity import Identity
from fapilog.pipeline import own_head
from fapilog.sinks import FileSink
from fapilog.sinks.family import Family
from tests._support import NOT_MEASURED, ran_well, rest_in_matrix, run_script
from tests.rotated import batch, names, run, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT = str(Path(__file__).parents[1])
KEYS = ["balanced", "lines", "missing", "announced", "unexplained", "duplicates", "torn", "recovered", "trimmed"]


def who(number: int = 1, *, service: str = "shop", worker: int = 1) -> Identity:
    return Identity(service, "", "host", worker, 1000 + number, f"b{number:03}")


ME = who()


def line(seq: int, me: Identity = ME) -> bytes:
    return own_head("step", n=seq) + me.tail() % seq


def lines(seqs: Iterable[int], me: Identity = ME) -> list[bytes]:
    return [line(seq, me) for seq in seqs]


def said(seq: int, event: str, me: Identity = ME, **fields: Any) -> bytes:
    """Return a line of the hub's own."""
    return own_head(event, **fields) + me.tail() % seq


def closed(seq: int, me: Identity = ME) -> bytes:
    return said(seq, "fapilog.closed", me, last_seq=seq, logged=seq)


def dropped(seq: int, first: int, last: int, count: int, me: Identity = ME, scope: str = "queue", **more: Any) -> bytes:
    span = {"first_seq": first, "last_seq": last, "first_ns": seq, "last_ns": seq}
    return said(seq, "fapilog.dropped", me, **{"scope": scope, "reason": "queue_full", "count": count, **span, **more})


def died(seq: int, me: Identity, dead: Identity, last_seq: int) -> bytes:
    about = {"dead_worker": dead.worker, "dead_pid": dead.pid, "dead_boot": dead.boot, "signal": "SIGKILL", "exit_code": None}
    return said(seq, "fapilog.worker_died", me, **about, last_seq=last_seq, lost=0)


def recovered(seq: int, me: Identity, dead: Identity, first: int, last: int, count: int) -> bytes:
    about = {"dead_worker": dead.worker, "dead_pid": dead.pid, "dead_boot": dead.boot}
    return said(seq, "fapilog.recovered", me, **about, first_seq=first, last_seq=last, count=count)


def verified(*paths: Path | str, sink: str = "file") -> Findings:
    return audited(find([str(path) for path in paths]), sink)


def of(folder: Path, *content: bytes, sink: str = "file") -> Findings:
    """Verify one file with this content."""
    (folder / "shop.1.jsonl").write_bytes(b"".join(content))
    return verified(folder, sink=sink)


def only(found: Findings) -> LifeFindings:
    assert len(found.lives) == 1, found.lives
    return found.lives[0]


def numbers(found: Findings | LifeFindings) -> dict[str, int]:
    """Return the counts that are not 0."""
    return {key: getattr(found, key) for key in KEYS[1:] if getattr(found, key)}


def command(folder: Path, *arguments: str, through: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FAPILOG_")}
    return subprocess.run(
        [*through, sys.executable, "-W", "error", "-m", "fapilog", "verify", *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": ROOT, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def service(folder: Path, events: int = 300, end: str = "", **overrides: Any) -> None:
    """Let a process log, and end in order, unless *end* says how else."""
    ran_well(
        run_script(
            f"""
            import os, fapilog
            fapilog.configure_logging(sinks=["file"], service="shop", run_dir="run", **{overrides!r})
            log = fapilog.get_logger("shop")
            for n in range({events}):
                log.info("step", n=n, pad="x" * 40)
            {end}
            """,
            folder,
            env={"FAPILOG_QUEUE_OVERFLOW": "block", "FAPILOG_QUEUE_BLOCK_TIMEOUT": "20"},
        )
    )


def rotated(folder: Path, runs: int = 3, events: int = 300, **overrides: Any) -> list[str]:
    """Let lives follow one another in files that rotate; return all of them, oldest first."""
    for _ in range(runs):
        service(folder, events, **{"file_max_bytes": 20_000, "file_keep": 100, **overrides})
    return Family(str(folder / "logs/shop.1.jsonl")).paths()


# Files of real hubs


def test_a_clean_directory(tmp_path: Path) -> None:
    """Lives that ended in order, in rotated files, balance; the sentence says so, and the exit code."""
    files = rotated(tmp_path)
    assert len(files) > 5
    done = command(tmp_path, ".")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "balanced: 3 lives, 903 lines, 0 unexplained, 0 doubled"
    document = json.loads(command(tmp_path, ".", "--json").stdout)
    assert list(document)[: len(KEYS) + 1] == [*KEYS, "lives"]
    assert document["balanced"] is True
    assert [life["state"] for life in document["lives"]] == ["closed"] * 3
    assert [(life["lines"], life["first_seq"], life["last_seq"], life["worker"]) for life in document["lives"]] == [
        (301, 1, 301, 1)
    ] * 3
    assert set(KEYS) < set(document["lives"][0])


def test_compressed_files(tmp_path: Path) -> None:
    """They are read like the others."""
    files = rotated(tmp_path)
    for path in files[:-1]:
        Path(f"{path}.gz").write_bytes(gzip.compress(Path(path).read_bytes()))
        Path(path).unlink()
    found = verified(tmp_path)
    assert found.balanced
    assert (numbers(found), found.files) == ({"lines": 903}, len(files))
    Path(f"{files[2]}.gz").unlink()
    assert verified(tmp_path).missing_files == [files[2]]


def test_what_compression_leaves_for_a_moment(tmp_path: Path) -> None:
    """A file and its compressed form are one, whether they are found or named."""
    files = rotated(tmp_path)
    Path(f"{files[1]}.gz").write_bytes(gzip.compress(Path(files[1]).read_bytes()))
    assert numbers(verified(tmp_path)) == {"lines": 903}
    assert numbers(verified(*files, f"{files[1]}.gz", tmp_path)) == {"lines": 903}


def test_a_written_file_stands_for_its_rotated_ones(tmp_path: Path) -> None:
    """Named alone it is verified with them; a rotated one is verified alone, and what it follows is said to be unread."""
    files = rotated(tmp_path)
    assert verified(files[-1]).balanced
    found = verified(files[3])
    assert (found.files, found.missing_files, found.unread_files) == (1, [], [files[2]])
    assert exit_code(found, strict=False) == 1


@pytest.mark.matrix
@pytest.mark.parametrize("index", [0, 2, -2])
def test_a_rotated_file_that_somebody_removed(tmp_path: Path, index: int) -> None:
    """It is named, its events are missing, and the lives are named."""
    files = rotated(tmp_path)
    gone = Path(files[index])
    lost = sum(b'"seq":' in each for each in gone.read_bytes().splitlines())
    gone.unlink()
    found = verified(tmp_path)
    assert found.missing_files == [str(gone)]
    assert numbers(found) == {"lines": 903 - lost, "missing": lost, "unexplained": lost}
    done = command(tmp_path, "logs")
    assert done.returncode == 1
    assert "1 file missing; worker 1 of shop, boot " in done.stdout.splitlines()[-1]
    assert f"missing file: {gone}" in done.stdout


def test_files_that_retention_removed(tmp_path: Path) -> None:
    """Their events are trimmed, not missing, for each of the lives; lives of which nothing is left are no more spoken of."""
    files = rotated(tmp_path, 4, file_keep=3)
    assert len(files) == 4
    found = verified(tmp_path)
    assert found.balanced
    assert found.missing_files == []
    assert found.trimmed > 0
    assert len(found.lives) < 4
    assert numbers(found) == {"lines": found.lines, "trimmed": found.trimmed}
    assert [life.last_seq for life in found.lives] == [301] * len(found.lives)
    assert all(life.lines + life.trimmed == 301 for life in found.lives)


@pytest.mark.matrix
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_file_removed_by_somebody_behind_what_retention_removed(tmp_path: Path, index: int) -> None:
    """The two are told apart, also when it was the oldest that was left."""
    files = rotated(tmp_path, 2, file_keep=3)
    before = verified(tmp_path)
    gone = Path(files[index])
    lost = sum(b'"seq":' in each for each in gone.read_bytes().splitlines())
    gone.unlink()
    found = verified(tmp_path)
    assert found.missing_files == [str(gone)]
    assert numbers(found) == {**numbers(before), "lines": before.lines - lost, "missing": lost, "unexplained": lost}


def test_a_life_that_was_in_a_removed_file_alone(tmp_path: Path) -> None:
    """It is known from the first line of the next file, and is missing as a whole."""
    path = tmp_path / "shop.1.jsonl"
    for me in (who(1), who(2), who(3)):
        run(FileSink(str(path), max_bytes=300), [line(1, me), line(2, me), closed(3, me)], identity=me)
    files = Family(str(path)).paths()
    for each in files:
        if b"b002" in Path(each).read_bytes().splitlines()[-1]:
            Path(each).unlink()
    found = verified(tmp_path)
    life = next(life for life in found.lives if life.boot == "b002")
    assert (life.lines, life.unexplained, life.state, life.worker, life.first_seq) == (0, 3, "open", 1, None)
    assert "and no line of it at all" in verdict(found)


def test_a_file_cut_at_a_line_end_that_was_rotated_later(tmp_path: Path) -> None:
    """The first line of the next one says how it ended, also when the life did not go on."""
    path = tmp_path / "shop.1.jsonl"
    run(FileSink(str(path), max_bytes=700), lines(range(1, 4)), identity=ME)
    run(FileSink(str(path), max_bytes=700), lines(range(1, 5), who(2)), identity=who(2))
    first = Path(Family(str(path)).paths()[0])
    *kept, _ = first.read_bytes().splitlines(keepends=True)
    boot = orjson.loads(kept[-1])["boot"]
    before = {life.boot: life.lines for life in verified(tmp_path).lives}
    first.write_bytes(b"".join(kept))
    life = next(life for life in verified(tmp_path).lives if life.boot == boot)
    assert (life.lines, life.unexplained) == (before[boot] - 1, 1)


def test_announced_drops_of_a_real_queue(tmp_path: Path) -> None:
    """What a full queue has refused is missing, announced, and explained."""
    service(tmp_path, 5000, queue_size=100, queue_overflow="drop")
    found = verified(tmp_path)
    assert found.missing > 0
    assert found.missing == found.announced
    assert found.balanced
    done = command(tmp_path, "logs")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("balanced: 1 life, ")


def test_a_process_that_was_killed(tmp_path: Path) -> None:
    """Its successor tells of its death; until then it is open."""
    service(tmp_path, 50, "fapilog.flush(); os._exit(0)")
    found = verified(tmp_path)
    assert [life.state for life in found.lives] == ["open"]
    assert (found.balanced, exit_code(found, strict=False), exit_code(found, strict=True)) == (False, 0, 1)
    done = command(tmp_path, "logs")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == (
        "not balanced yet, for lack of an end: 1 life, 50 lines, 0 unexplained, 0 doubled, 1 open; nothing else is wrong"
    )
    assert command(tmp_path, "logs", "--strict").returncode == 1
    service(tmp_path, 50)
    found = verified(tmp_path)
    assert [life.state for life in found.lives] == ["died", "closed"]
    assert found.balanced


@pytest.mark.matrix
@pytest.mark.parametrize("compress", ["none", "gzip"])
def test_while_files_are_written_and_rotated(tmp_path: Path, compress: str) -> None:
    """What is read is what was there at one moment: nothing is missing, however often the files are rotated meanwhile."""
    path = tmp_path / "shop.1.jsonl"
    sink = FileSink(str(path), max_bytes=6000, keep=10_000, compress=compress)

    def batches() -> Iterator[list[bytes]]:
        for n in range(1, 6000, 10):
            time.sleep(0.002)
            yield lines(range(n, n + 10))

    async def write() -> None:
        await sink.open(ME)
        await written(sink, batches())
        await sink.close()

    writer = threading.Thread(target=lambda: asyncio.run(write()))
    writer.start()
    looks = []
    while writer.is_alive():
        if len(names(tmp_path)) > 2:
            looks.append(verified(tmp_path))
    writer.join()
    assert len(looks) > 3
    assert len({found.lines for found in looks}) > 3
    assert [(found.missing, found.duplicates, found.missing_files, found.damaged_files) for found in looks] == [
        (0, 0, [], {})
    ] * len(looks)
    assert verified(tmp_path).lines == 6000


@pytest.mark.parametrize("most", [0, 100])
def test_files_that_change_between_finding_and_reading(tmp_path: Path, monkeypatch, most: int) -> None:
    """They are found again, rotated or compressed; what was written to is held open, as long as there are not too many."""
    monkeypatch.setattr(logfiles, "MOST_HELD", most)
    stamp = "20261128T051729.123456Z"
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl", f"d.jsonl.{stamp}", f"e.jsonl.{stamp}")]
    for path in paths:
        path.write_bytes(b"".join(lines([1, 2], who(ord(path.name[0])))))
    files = find([str(tmp_path)])
    (tmp_path / "a.jsonl").rename(tmp_path / f"a.jsonl.{stamp}")
    (tmp_path / "a.jsonl").write_bytes(line(3))
    for index in (2, 3):
        Path(f"{paths[index]}.gz").write_bytes(gzip.compress(paths[index].read_bytes()))
    for index in (1, 2, 3, 4):
        paths[index].unlink()
    found = audited(files, "file")
    gone = [paths[4]] if most else [paths[1], paths[4]]
    assert [life.boot for life in found.lives] == ["b097", *(["b098"] if most else []), "b099", "b100"]
    assert [life.lines for life in found.lives] == [2] * len(found.lives)
    assert found.damaged_files == dict.fromkeys(map(str, gone), "it was gone before it could be read")


# What can be wrong with a file


def test_a_deleted_line(tmp_path: Path) -> None:
    """It is missing and unexplained, and its seq is named."""
    found = of(tmp_path, *lines([1, 2, 4, 5]), closed(6))
    assert numbers(found) == {"lines": 5, "missing": 1, "unexplained": 1}
    assert only(found).unexplained_at == [(3, 3)]
    assert verdict(found) == (
        "NOT balanced: 1 life, 5 lines, 1 unexplained, 0 doubled; worker 1 of shop, boot b001: 1 unexplained (seq 3)"
    )
    assert exit_code(found, strict=False) == 1


def test_a_doubled_line(tmp_path: Path) -> None:
    """It is counted, also far from the first one."""
    found = of(tmp_path, *lines([1, 2, 2, 3, 4, 1]), closed(5), closed(5))
    assert numbers(found) == {"lines": 8, "duplicates": 3}
    assert (found.balanced, exit_code(found, strict=False)) == (False, 1)
    assert verdict(found).endswith("worker 1 of shop, boot b001: 3 doubled")


def test_a_file_cut_in_the_middle_of_a_line(tmp_path: Path) -> None:
    """Half a line is torn; its event is missing if anything comes after it."""
    whole = b"".join(lines([1, 2, 3]))
    found = of(tmp_path, whole[:-30])
    assert numbers(found) == {"lines": 2, "torn": 1}
    assert only(found).state == "open"
    found = of(tmp_path, whole[:-30], b"\n", *lines([4]), closed(5))
    assert numbers(found) == {"lines": 4, "missing": 1, "unexplained": 1, "torn": 1}
    found = of(tmp_path, whole[:-30], *lines([4, 5]), closed(6))  # glued to the next line, which is lost, too
    assert numbers(found) == {"lines": 4, "missing": 2, "unexplained": 2, "torn": 1}
    found = of(tmp_path, line(1)[-40:], *lines([2, 3]), closed(4))  # the half that is left is the second one
    assert numbers(found) == {"lines": 3, "missing": 1, "unexplained": 1, "torn": 1}
    assert only(found).torn == 1
    found = of(tmp_path, whole[:-1])  # the newline alone is gone: the event is not
    assert numbers(found) == {"lines": 3}


def test_a_file_cut_at_a_line_end(tmp_path: Path) -> None:
    """What follows is missing as far as anybody speaks of it; else the life is open."""
    found = of(tmp_path, *lines([1, 2, 3]))
    assert (numbers(found), only(found).state) == ({"lines": 3}, "open")
    successor = who(2)
    found = of(tmp_path, *lines([1, 2, 3]), died(1, successor, ME, 7), closed(2, successor))
    assert [(life.state, life.unexplained, life.last_seq) for life in found.lives] == [("died", 4, 7), ("closed", 0, 2)]
    found = of(tmp_path, *lines([1, 2, 3]), recovered(1, successor, ME, 2, 5, 3), closed(2, successor))
    assert [(life.state, life.unexplained, life.recovered) for life in found.lives] == [("died", 2, 3), ("closed", 0, 0)]
    late = said(9, "fapilog.closed", last_seq=12)
    assert only(of(tmp_path, *lines(range(1, 9)), late)).unexplained_at == [(10, 12)]


def test_a_file_that_holds_its_first_line_only(tmp_path: Path) -> None:
    """All was removed by retention: nothing is wrong, and nothing is proved."""
    path = tmp_path / "shop.1.jsonl"
    run(FileSink(str(path), max_bytes=600, keep=0), lines(range(1, 9)))
    head, *_ = path.read_bytes().splitlines(keepends=True)
    found = of(tmp_path, head)
    assert (found.lives, found.balanced, exit_code(found, strict=False)) == ([], False, 0)
    assert verdict(found) == "nothing to balance: 0 lives, 0 lines, 0 unexplained, 0 doubled"


def test_a_life_of_which_there_is_no_line(tmp_path: Path) -> None:
    """Somebody speaks of its death: all its events are missing, unless it had none."""
    found = of(tmp_path, died(1, ME, who(2, worker=4), 8), died(2, ME, who(3), 0), closed(3))
    assert [(life.boot, life.worker, life.state, life.lines, life.unexplained) for life in found.lives] == [
        ("b001", 1, "closed", 3, 0),
        ("b002", 4, "died", 0, 8),
    ]
    assert not found.balanced


@pytest.mark.parametrize(
    ("notices", "explained"),
    [
        ([(5, 9, 5)], 5),
        ([(5, 9, 3)], 3),
        ([(1, 4, 5)], 0),  # not its range
        ([(20, 30, 5)], 0),
        ([(1, 7, 9)], 3),
        ([(5, 9, 2), (5, 9, 2)], 4),
        ([(5, 9, 4), (5, 9, 4)], 5),
        ([(5, 9, 2), (5, 6, 2)], 4),
        ([(5, 5, 1), (5, 5, 1), (9, 9, 1)], 2),
        ([(5, 20, 1), (5, 5, 1), (8, 9, 9)], 4),
        ([(5, 9, 0)], 0),
    ],
)
def test_what_notices_explain(tmp_path: Path, notices: Sequence[tuple[int, int, int]], explained: int) -> None:
    """Holes within their range, and not more than they count."""
    told = [dropped(40 + n, *notice) for n, notice in enumerate(notices)]
    found = of(tmp_path, *lines([*range(1, 5), *range(10, 40)]), *told, closed(40 + len(told)))
    assert (found.missing, found.missing - found.unexplained) == (5, explained)
    assert found.announced == sum(count for _, _, count in notices)


def test_which_notices_count(tmp_path: Path) -> None:
    """Those of the queue and of the sink that wrote the file; not another sink's, nor a user's event of that name."""
    users = own_head("fapilog.dropped", scope="queue", count=3, first_seq=3, last_seq=6).replace(
        b'"logger":"fapilog"', b'"logger":"me"'
    )
    start = [*lines([1, 2]), users + ME.tail() % 7, dropped(8, 3, 6, 1), dropped(9, 3, 6, 1, scope="file")]
    content = [*start, dropped(10, 3, 6, 1, scope="loki"), closed(11)]
    assert (only(of(tmp_path, *content)).announced, only(of(tmp_path, *content)).unexplained) == (2, 2)
    assert only(of(tmp_path, *content, sink="loki")).announced == 2
    assert only(of(tmp_path, *content, sink="audit")).announced == 1
    (tmp_path / "shop.1.jsonl").write_bytes(b"".join(content))
    assert json.loads(command(tmp_path, ".", "--json", "--sink", "audit").stdout)["announced"] == 1


def test_a_notice_that_is_there_twice(tmp_path: Path) -> None:
    """Its line is doubled; it explains nothing twice."""
    notice = dropped(9, 3, 8, 3)
    found = of(tmp_path, *lines([1, 2]), notice, notice, closed(10))
    assert numbers(found) == {"lines": 5, "missing": 6, "announced": 3, "unexplained": 3, "duplicates": 1}


def test_notices_for_the_dead(tmp_path: Path) -> None:
    """They count for the life that they name, and once, even if a second recoverer wrote them again."""
    dead, second, third = who(1), who(2), who(3)
    told = {"dead_boot": dead.boot}
    again = [dropped(1, 4, 5, 2, me, **told) for me in (second, third)]
    interrupted = [dropped(2, 9, 10, 1, me, reason="interrupted", **told) for me in (second, third)]
    ends = [recovered(3, me, dead, 6, 8, 2) for me in (second, third)]
    found = of(
        tmp_path,
        *lines([1, 2, 3, 6, 7, 8], dead),
        *(each for pair in zip(again, interrupted, ends, strict=True) for each in pair),
        died(4, third, dead, 10),
        closed(4, second),
        closed(5, third),
    )
    assert [numbers(life) for life in found.lives] == [
        {"lines": 6, "missing": 4, "announced": 3, "unexplained": 1, "recovered": 2},
        {"lines": 4},
        {"lines": 5},
    ]
    assert [life.state for life in found.lives] == ["died", "closed", "closed"]


def test_nobody_tells_of_the_own_death(tmp_path: Path) -> None:
    """Such a line is one like any other."""
    found = of(tmp_path, died(1, ME, ME, 99), recovered(2, ME, ME, 1, 99, 50), dropped(3, 90, 99, 9, dead_boot=ME.boot))
    assert (numbers(found), only(found).state) == ({"lines": 3}, "open")


def test_several_services_workers_and_lives(tmp_path: Path) -> None:
    """Each has its own books, in whatever files and order its lines are."""
    everybody = [who(n, service=name, worker=n) for name in ("shop", "till") for n in (2, 1)]
    content = [each for me in everybody for each in (*lines(range(1, 20), me), closed(20, me))]
    random.Random(7).shuffle(content)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a.jsonl").write_bytes(b"".join(content[:30]))
    (tmp_path / "deep" / "b.jsonl").write_bytes(b"".join(content[30:]))
    found = verified(tmp_path)
    assert found.balanced
    assert [(life.service, life.worker, life.lines) for life in found.lives] == [
        ("shop", 1, 20),
        ("shop", 2, 20),
        ("till", 1, 20),
        ("till", 2, 20),
    ]


def test_recovered_lines_of_a_life_whose_files_were_trimmed(tmp_path: Path) -> None:
    """What was put back behind the life of its successor is all that is left of it."""
    dead, next_ = who(1), who(2)
    head = own_head(
        "fapilog.rotated",
        previous="shop.1.jsonl.20261128T051729.123456Z",
        previous_boot=next_.boot,
        previous_last_seq=2,
        trimmed={"files": 2, "boot": next_.boot, "last_seq": 2},
    )
    head += b"," + orjson.dumps(next_.fields())[1:] + b"\n"
    told = [*lines([8, 9], dead), recovered(3, next_, dead, 7, 9, 2), died(4, next_, dead, 9), closed(5, next_)]
    found = of(tmp_path, head, *told)
    assert found.balanced
    assert [numbers(life) for life in found.lives] == [{"lines": 2, "trimmed": 7, "recovered": 2}, {"lines": 3, "trimmed": 2}]
    told.pop(0)
    told.insert(1, line(10, dead))
    assert only_missing(of(tmp_path, head, *told)) == {"b001": 0, "b002": 0}


def only_missing(found: Findings) -> dict[str, int]:
    return {life.boot: life.missing for life in found.lives}


# Lines and files that are not ours

HOSTILE = [
    b"",
    b"hello",
    b"[1,2]",
    b"null",
    b"17",
    b'"text"',
    b"{}",
    b'{"boot":"b001"}',
    b'{"seq":3}',
    b'{"boot":"b001","seq":"3"}',
    b'{"boot":"b001","seq":0}',
    b'{"boot":"b001","seq":-1}',
    b'{"boot":"b001","seq":1.0}',
    b'{"boot":"b001","seq":true}',
    b'{"boot":"","seq":1}',
    b'{"boot":["b001"],"seq":1}',
    b'{"boot":"b001","seq":99999999999999999999999999}',
    b'{"boot":"b001","seq":9223372036854775807}',
    b'{"boot":"b001","seq":{}}',
    b'{"event":"x","service":"shop","host":"host","worker":1,"pid":1,"boot":"b001","seq":null}',
    b'{"event":"x","service":"shop","host":"host","worker":1,"pid":1,"boot":"b001","seq":3.0}',
    b'{"event":"x","service":["shop"],"host":{},"worker":[1],"boot":{},"seq":[]}',
    b'{"event":"fapilog.rotated","logger":"me"}',
    b"\xff\xfe\x00\x01",
    b"\x1b[31mred",
    b"  \t ",
    b"[" * 5000,
]
ODD_CLAIMS = [
    {"event": "fapilog.rotated", "previous": ["x"], "previous_boot": 7, "previous_last_seq": "x", "trimmed": 3},
    {"event": "fapilog.rotated", "previous": "../../etc/passwd", "trimmed": {"files": -1, "boot": [], "last_seq": None}},
    {"event": "fapilog.rotated", "trimmed": {"files": 10**30, "boot": "b001", "last_seq": 5}},
    {"event": "fapilog.closed", "last_seq": "many"},
    {"event": "fapilog.closed", "last_seq": -5},
    {"event": "fapilog.dropped", "scope": ["queue"], "count": 1, "first_seq": 1, "last_seq": 2},
    {"event": "fapilog.dropped", "scope": "queue", "count": 10**30, "first_seq": 3, "last_seq": 3},
    {"event": "fapilog.dropped", "scope": "queue", "count": 1, "first_seq": 9, "last_seq": 3},
    {"event": "fapilog.dropped", "scope": "queue", "dead_boot": {"a": 1}},
    {"event": "fapilog.dropped", "scope": "queue", "dead_boot": ""},
    {"event": "fapilog.worker_died", "dead_boot": None},
    {"event": "fapilog.recovered", "dead_boot": 5, "count": 2},
    {"event": ["fapilog.closed"]},
    {"event": {"a": 1}},
]


def test_lines_that_are_not_ours(tmp_path: Path) -> None:
    """They are counted as foreign and change nothing else, wherever they stand."""
    content = [*lines([1, 2]), *(each + b"\n" for each in HOSTILE), *lines([3]), closed(4)]
    found = of(tmp_path, *content)
    assert (numbers(found), found.balanced) == ({"lines": 4}, True)
    assert found.foreign == len([each for each in HOSTILE if each.strip()])
    assert f"foreign: {found.foreign} lines, not of fapilog, passed over" in command(tmp_path, ".").stdout


@pytest.mark.parametrize("claim", ODD_CLAIMS)
def test_claims_that_mean_nothing(tmp_path: Path, claim: dict[str, Any]) -> None:
    """A line of ours with senseless fields is a line, and explains and removes nothing."""
    seqless = claim["event"] == "fapilog.rotated"
    odd = json.dumps({"logger": "fapilog", **claim}).encode()[:-1]
    tail = b"," + orjson.dumps(ME.fields())[1:] + b"\n" if seqless else ME.tail() % 4
    found = of(tmp_path, *lines([1, 2]), odd + tail, *lines([5] if not seqless else [4, 5]), closed(6))
    assert numbers(found) == {"lines": 5, "missing": 1, "unexplained": 1}, found
    assert found.missing_files == []


def test_lines_without_the_rest_of_an_identity(tmp_path: Path) -> None:
    """A boot and a seq make a life."""
    run(FileSink(str(tmp_path / "a.jsonl")), batch([1, 2, 4]))
    found = verified(tmp_path)
    assert (only(found).service, only(found).worker, only(found).boot, only(found).unexplained) == ("", None, "b00t", 1)
    done = command(tmp_path, ".")
    assert done.returncode == 1
    assert "worker ? of ?, boot b00t: 1 unexplained (seq 3)" in done.stdout


def test_names_that_would_command_a_terminal(tmp_path: Path) -> None:
    """They are shown as escapes."""
    me = Identity("\x1b[31m[bold]x", "", "\u202ehost", 1, 1, "b\x07")
    (tmp_path / "\x1b[2J.jsonl").write_bytes(b"".join(lines([1, 3], me)))
    done = command(tmp_path, ".")
    assert done.returncode == 1
    assert not any(each in done.stdout for each in "\x1b\x07\u202e")
    assert "\\x1b[31m[bold]x" in done.stdout


def test_a_line_without_an_end(tmp_path: Path, monkeypatch) -> None:
    """Over a certain length it is torn and takes no memory; what comes behind it counts."""
    monkeypatch.setattr(logfiles, "LONGEST", 3000)
    monkeypatch.setattr(logfiles, "BLOCK", 1000)
    long = b'{"event":"x","pad":"' + b"x" * 5000 + b'","boot":"b001","seq":3}\n'
    found = of(tmp_path, *lines([1, 2]), long, *lines([3]), closed(4), long, b'{"a":"' + b"y" * 8000)
    assert (numbers(found), found.foreign) == ({"lines": 4, "torn": 3}, 0)
    just = b'{"event":"x","pad":"' + b"x" * 2900 + b'","boot":"b009","seq":1}\n'
    assert numbers(of(tmp_path, just, just.replace(b'"seq":1', b'"seq":2'))) == {"lines": 2}
    assert OVERLONG == b"{"


@given(st.binary(max_size=60), st.lists(st.integers(1, 20), max_size=6), st.integers(1, 8))
def test_how_files_are_split(text: bytes, cuts: list[int], longest: int) -> None:
    """Whatever the blocks, the lines are the same, and too long ones are replaced."""
    text = text.replace(b"\x01", b"\n").replace(b"\x02", b"\n")
    blocks, at = [], 0
    for cut in [*cuts, 99]:
        blocks.append(text[at : at + cut])
        at += cut
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfiles, "LONGEST", longest)
        got = [each for some in logfiles._split(iter(filter(None, blocks))) for each in some]
    whole = text.split(b"\n")
    whole = whole if whole[-1] else whole[:-1]
    assert len(got) == len(whole)
    for mine, theirs in zip(got, whole, strict=True):
        assert mine == theirs or (mine == OVERLONG and len(theirs) > longest)


def test_gzip_in_several_members(tmp_path: Path) -> None:
    """All of them are read, padding is not; a lot of content from little is read in pieces."""
    members = [gzip.compress(b"".join(lines(seqs))) for seqs in (range(1, 50), range(50, 80))]
    pad = own_head("step", pad="x" * 1_000_000) + ME.tail() % 80
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(members) + gzip.compress(pad + closed(81)) + bytes(512))
    found = verified(tmp_path)
    assert (found.lines, found.balanced) == (81, True)


@pytest.mark.matrix
@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "other", "tail"])
def test_a_broken_compressed_file(tmp_path: Path, harm: str) -> None:
    """It is named with what is wrong; what could be read counts, and nothing is called balanced."""
    content = b"".join(lines(range(1, 3000)))
    whole = gzip.compress(content)
    flipped = bytes([*whole[: len(whole) // 2], whole[len(whole) // 2] ^ 0xFF, *whole[len(whole) // 2 + 1 :]])
    broken = {"cut": whole[:-100], "flip": flipped, "empty": b"", "other": b"what is this\n", "tail": whole + b"rubbish"}[harm]
    name = "shop.1.jsonl.20261128T051729.123456Z.gz"
    (tmp_path / name).write_bytes(broken)
    (tmp_path / "shop.1.jsonl").write_bytes(b"".join(lines(range(3000, 3010))) + closed(3010))
    done = command(tmp_path, ".")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count(f"damaged file: {name}: it" if harm == "x" else f"{name}: it") == 1
    assert "1 file damaged" in done.stdout.splitlines()[-1]
    found = json.loads(command(tmp_path, ".", "--json").stdout)
    assert found["balanced"] is False
    assert len(found["damaged_files"]) == 1
    assert found["lines"] + found["missing"] == 3010


def test_which_files_of_a_directory(tmp_path: Path) -> None:
    """Written, rotated and compressed ones, of logrotate too; no locks, no passing ones, no backups, no run directory."""
    ours = b"".join(lines([1]))
    taken = ["a.jsonl", "a.jsonl.20261128T051729.123456Z", "b.log", "b.log.1", "b.log-20261128", "c", "e.jsonl.1", "nested.txt"]
    for number, name in enumerate(taken):
        (tmp_path / name).write_bytes(ours.replace(b"b001", b"b%d" % number))
    (tmp_path / "d.log.2.gz").write_bytes(gzip.compress(ours.replace(b"b001", b"gz")))
    passed_over = [".a.jsonl.lock", ".a.jsonl.new", ".a.jsonl.20261128T051729.123456Z.00ff.tmp", "a.jsonl.bak", "a.jsonl~"]
    for name in passed_over:
        (tmp_path / name).write_bytes(ours)
    (tmp_path / "nginx.log").write_bytes(b"GET / HTTP/1.1\n")
    (tmp_path / "x.gz").write_bytes(b"\x1f\x8bno")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "board-1").write_bytes(b"")
    (tmp_path / "run" / "journal-1.b001.1").write_bytes(ours)
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    (tmp_path / "again").symlink_to(".")
    assert sorted(os.path.basename(file.path) for file in find([str(tmp_path)])) == sorted([*taken, "d.log.2.gz"])


# Wrong input


def refused(folder: Path, *arguments: str, through: Sequence[str] = ()) -> str:
    done = command(folder, *arguments, through=through)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fapilog: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_wrong_input(tmp_path: Path) -> None:
    """One line says why, with exit code 2."""
    os.mkfifo(tmp_path / "pipe")
    assert "PATH" in refused(tmp_path)
    assert "nothing" in refused(tmp_path, ".", "--nothing")
    assert refused(tmp_path, "nowhere", "--json") == "fapilog: there is no file or directory nowhere\n"
    assert refused(tmp_path, "pipe") == "fapilog: pipe is a FIFO, which is not read\n"


def test_what_cannot_be_verified(tmp_path: Path, monkeypatch) -> None:
    """The error says what it is, or that there is nothing of ours in it."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("rubbish").write_bytes(os.urandom(300_000))
    Path("nothing.jsonl").write_bytes(b"")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
    for paths, reason in (
        (["sock"], "sock is a socket, which is not read"),
        (["/dev/zero"], "/dev/zero is a device, which is not read"),
        (["rubbish/x"], "there is no file or directory rubbish/x"),
        (["empty"], "there is no log file of fapilog in empty"),
        (["rubbish"], "there is no line of fapilog in rubbish"),
        (["nothing.jsonl", "rubbish"], "there is no line of fapilog in nothing.jsonl and the others"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            verified(*paths)
        assert str(caught.value) == reason


def test_what_may_not_be_read(tmp_path: Path) -> None:
    """One line says so."""
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "a.jsonl").chmod(0)
    through = []
    if os.geteuid() == 0:  # who may read everything, but for these capabilities
        through = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if shutil.which("setpriv") is None:
            pytest.skip("root may read everything, and there is no setpriv to take that right away")
    assert "path 'a.jsonl' is not readable" in refused(tmp_path, "a.jsonl", through=through)
    assert "Permission denied: './a.jsonl'" in refused(tmp_path, ".", through=through)


def test_an_error_of_the_file_system(tmp_path: Path, monkeypatch) -> None:
    """It is not taken for an end of the file."""
    (tmp_path / "a.jsonl").write_bytes(line(1))

    def broken(fd: int, size: int) -> bytes:
        raise OSError(5, "Input/output error")

    files = find([str(tmp_path)])
    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(OSError, match="Input/output"):
        audited(files, "file")


@pytest.mark.matrix
def test_verify_into_a_pipe_that_closes(tmp_path: Path) -> None:
    """It ends in silence."""
    content = b"".join(line(1, who(n)) for n in range(3000))
    (tmp_path / "a.jsonl").write_bytes(content)
    environ = {**os.environ, "PYTHONPATH": ROOT}
    for option in ("", "--json"):
        bash = f"set -o pipefail; {sys.executable} -m fapilog verify . {option} | head -1"
        done = subprocess.run(
            ["bash", "-c", bash], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.stderr, done.returncode) == ("", 0)
        assert done.stdout.count("\n") == 1


def test_verify_on_a_terminal(tmp_path: Path) -> None:
    """The table fits 80 columns, and a bar goes to stderr."""
    (tmp_path / "a.jsonl").write_bytes(b"".join([*lines([1, 2, 4]), closed(5)]))
    script = "import pty,sys,os;os.environ.update(COLUMNS='80',TERM='xterm');sys.exit(pty.spawn(sys.argv[1:])>>8)"
    done = subprocess.run(
        [sys.executable, "-c", script, sys.executable, "-m", "fapilog", "verify", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "verifying" in done.stdout
    assert "b001 closed" in done.stdout
    assert "NOT balanced: 1 life, 4 lines, 1 unexplained" in done.stdout


def test_help_of_verify(tmp_path: Path) -> None:
    """It names the options."""
    done = command(tmp_path, "--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("--sink", "--strict", "--json", "PATH"))


# The sets behind it


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 60), max_size=80), st.integers(0, 70), st.integers(0, 70), st.integers(1, 9))
def test_seqs_against_a_set(seqs: list[int], last: int, after: int, patience: int) -> None:
    """Count, first, duplicates and holes are those of a plain set, in whatever order the seqs come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fapilog._internal.seqs.PATIENCE", patience)
        mine = Seqs()
        for seq in seqs:
            if seq == mine.next:
                mine.next += 1
            else:
                mine.add(seq)
        holes = [seq for first, end in mine.holes(last, after) for seq in range(first, end + 1)]
    assert holes == [seq for seq in range(after + 1, last + 1) if seq not in seqs]
    assert (mine.count(), mine.duplicates) == (len(set(seqs)), len(seqs) - len(set(seqs)))
    assert mine.first == min(seqs, default=None)


def most_explained(holes: list[int], notices: list[tuple[int, int, int]]) -> int:
    """Return the size of the largest matching of holes and what notices count, by augmenting paths."""
    units = [(first, last) for first, last, count in notices for _ in range(min(count, len(holes)))]
    taken: dict[int, int] = {}

    def find_place(hole: int, tried: set[int]) -> bool:
        for index, (first, last) in enumerate(units):
            if first <= hole <= last and index not in tried:
                tried.add(index)
                if index not in taken or find_place(taken[index], tried):
                    taken[index] = hole
                    return True
        return False

    return sum(find_place(hole, set()) for hole in holes)


NOTICES = st.lists(
    st.tuples(st.integers(1, 25), st.integers(0, 12), st.integers(0, 4)).map(lambda n: (n[0], n[0] + n[1], n[2])), max_size=6
)


@settings(max_examples=400, deadline=None)
@given(st.sets(st.integers(1, 30), max_size=14), NOTICES)
def test_notices_against_a_matching(missing: set[int], notices: list[tuple[int, int, int]]) -> None:
    """They explain as much as any assignment can, and each rest is a hole."""
    seqs = Seqs()
    for seq in set(range(1, 31)) - missing:
        seqs.add(seq)
    rest = list(unexplained(seqs.holes(30), notices))
    assert {seq for first, last in rest for seq in range(first, last + 1)} <= missing
    assert len(missing) - size(rest) == most_explained(sorted(missing), notices)


@st.composite
def scenes(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw some lives: how long, which events were dropped and said to be, what somebody deleted and doubled, how it ended."""
    lives = []
    for number in range(draw(st.integers(1, 4))):
        last = draw(st.integers(1, 25))
        drops = draw(st.lists(st.tuples(st.integers(1, 25), st.integers(0, 6)), max_size=3))
        lives.append(
            {
                "me": who(number, service=draw(st.sampled_from(["shop", "till"])), worker=draw(st.integers(0, 2))),
                "last": last,
                "drops": [(first, min(last, first + more)) for first, more in drops if first <= last],
                "deleted": draw(st.sets(st.integers(1, 30), max_size=4)),
                "doubled": draw(st.sets(st.integers(1, 30), max_size=4)),
                "end": draw(st.sampled_from(["closed", "open", "died"])),
            }
        )
    return lives


def written_of(life: dict[str, Any]) -> dict[int, bytes]:
    """Return the lines that a hub would have written: events, then notices, then the end."""
    gone = {seq for first, last in life["drops"] for seq in range(first, last + 1)}
    found = {seq: line(seq, life["me"]) for seq in range(1, life["last"] + 1) if seq not in gone}
    seq = life["last"]
    told: set[int] = set()
    for first, last in life["drops"]:
        fresh = set(range(first, last + 1)) - told
        told |= fresh
        seq += 1
        found[seq] = dropped(seq, first, last, len(fresh), life["me"])
    if life["end"] == "closed":
        found[seq + 1] = closed(seq + 1, life["me"])
    return found


@settings(max_examples=300, deadline=None)
@given(scenes(), st.randoms(use_true_random=False), st.integers(1, 3))
def test_the_books_against_an_oracle(scene: list[dict[str, Any]], rng: random.Random, files: int) -> None:
    """Whatever was deleted and doubled, in whatever order and files: lines, holes and doubles are those of a naive count."""
    undertaker = who(99, service="undertaker")
    content: list[bytes] = [closed(1 + sum(life["end"] == "died" for life in scene), undertaker)]
    wanted: dict[str, tuple[Any, ...]] = {}
    for life in scene:
        written = written_of(life)
        highest = max(written)
        kept = {seq: each for seq, each in written.items() if seq not in life["deleted"]}
        twice = [seq for seq in life["doubled"] if seq in kept]
        content += [*kept.values(), *(kept[seq] for seq in twice)]
        state = "open"
        last = max(kept, default=0)
        if life["end"] == "died":
            content.append(died(len([None for each in content if b"undertaker" in each]), undertaker, life["me"], highest))
            state, last = "died", highest
        elif life["end"] == "closed" and highest in kept:
            state = "closed"
        holes = [seq for seq in range(1, last + 1) if seq not in kept]
        notices = [orjson.loads(each) for each in kept.values() if b"fapilog.dropped" in each]
        spans = [(each["first_seq"], each["last_seq"], each["count"]) for each in notices]
        if last:
            rest = len(holes) - most_explained(holes, spans)
            wanted[life["me"].boot] = (len(kept) + len(twice), last, len(holes), rest, len(twice), state)
    rng.shuffle(content)
    books = Books()
    for number in range(files):
        books.begin(f"/logs/{number}.jsonl")
        books.feed([text.rstrip(b"\n") for text in content[number::files]])
    found = findings(books, set(), {}, lambda _: False)
    got = {
        life.boot: (life.lines, life.last_seq, life.missing, life.unexplained, life.duplicates, life.state)
        for life in found.lives
        if life.boot != undertaker.boot
    }
    assert got == {boot: each for boot, each in wanted.items() if each[0] or each[2]}
    assert found.lines == sum(life.lines for life in found.lives) == len(content)
    for each in found.lives:
        assert each.last_seq == each.lines - each.duplicates + each.missing + each.trimmed
        assert each.balanced == (not each.unexplained and not each.duplicates and each.state != "open")


# What it costs


def many(path: Path, count: int, *, kind: str) -> None:
    """Write a file of lines with ten fields."""
    fields = b'"a":1,"b":"some text here","c":2.5,"d":true,"e":null,"f":"more","g":7,"h":"/a/path","i":"x","n":%d'
    head = b'{"timestamp":"2026-01-15T10:30:00.123456Z","level":"info","event":"numbered","logger":"bench",' + fields
    tails = [who(n).tail() for n in range(4)]
    seqs = [0] * 4
    with path.open("wb") as file:
        for n in range(count):
            life = n % 4 if kind == "mixed" else 0
            seqs[life] += 3 if kind == "holes" else 1
            file.write(head % n + tails[life] % seqs[life])


@NOT_MEASURED
@pytest.mark.parametrize("kind", rest_in_matrix(1, ["mixed", "plain", "holes"]))
def test_the_time_it_takes(tmp_path: Path, kind: str) -> None:
    """At most 2.5 times that of a bare loop of `orjson.loads()` over the same lines."""
    path = tmp_path / "a.jsonl"
    many(path, 30_000, kind=kind)

    def bare() -> None:
        with path.open("rb") as file:
            for each in file:
                orjson.loads(each)

    ratios = []
    for _ in range(7):
        times = []
        for work in (bare, lambda: verified(path)):
            began = time.process_time()
            work()
            times.append(time.process_time() - began)
        ratios.append(times[1] / times[0])
    assert statistics.median(ratios) <= 2.5, ratios


@pytest.mark.matrix
def test_the_memory_it_takes(tmp_path: Path) -> None:
    """It does not grow with the files: not with many lines, nor with one of 300 MB."""
    many(tmp_path / "small.jsonl", 1000, kind="plain")
    many(tmp_path / "large.jsonl", 200_000, kind="plain")
    (tmp_path / "zeros.jsonl").write_bytes(line(1))
    os.truncate(tmp_path / "zeros.jsonl", 300 << 20)
    script = """
        import resource, sys
        from fapilog.cli.verify import audited
        from fapilog._internal.logfiles import find
        peaks = []
        for name in ("small", "large", "zeros"):
            audited(find([f"{name}.jsonl"]), "file")
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        print(*peaks)
    """
    small, large, zeros = map(int, ran_well(run_script(script, tmp_path)).split())
    unit = 1 if sys.platform == "linux" else 1024
    assert (large - small) / unit < 12_000
    assert (zeros - small) / unit < 100_000


def test_each_file_once(tmp_path: Path) -> None:
    """However it is named."""
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines([1, 2])))
    (tmp_path / "hard.jsonl").hardlink_to(tmp_path / "a.jsonl")
    found = verified(tmp_path, tmp_path / "a.jsonl", f"{tmp_path}/./hard.jsonl")
    assert numbers(found) == {"lines": 2}
    assert Counter(names(tmp_path)) == Counter(["a.jsonl", "hard.jsonl"])
