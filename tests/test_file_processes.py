"""Files that rotate, as real processes meet them: many workers, two owners, deaths, full disks, missing rights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from fapilog.sinks.family import Family
from tests._support import NOT_MEASURED, only_matrix
from tests.programs.running import FULL, PROGRAMS, STRICT, environment, start, wait_until
from tests.rotated import content, family_lines, headers, names, numbers

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="takes the rights of root to take on others")


def said(program) -> list[dict]:
    return [json.loads(line) for line in program.stdout.splitlines()]


def families(folder: Path) -> list[Path]:
    return sorted(folder.glob("app.*.jsonl"))


def chained(path: Path) -> None:
    """Check that each first line of ours names the file before it and the last line in that."""
    files = Family(str(path)).paths()
    lines = family_lines(path)
    for (before, old), (_, new) in pairwise(zip(files, lines, strict=True)):
        head = new[0]
        assert head["event"] == "fapilog.rotated"
        assert head["previous"] == os.path.basename(before).removesuffix(".gz")
        assert (head["previous_boot"], head["previous_last_seq"]) == (old[-1]["boot"], old[-1].get("seq"))


# ---- many workers


@pytest.mark.parametrize(
    ("workers", "events", "limit", "keep"),
    [only_matrix(8, 8_000, 10_000, 10_000), (4, 100_000 if FULL else 12_000, 50_000, 50 if not FULL else 10_000)],
    ids=["8-at-10KB", "4-at-50KB"],
)
def test_workers_forked_after_set_up(tmp_path, workers: int, events: int, limit: int, keep: int) -> None:
    """Every number once over all files, every line parses, no rotated file is larger than or much below the limit (O-FILE-2)."""
    settings = {"FAPILOG_FILE_MAX_BYTES": str(limit), "FAPILOG_FILE_KEEP": str(keep)}
    with start(tmp_path, "rotating", "fork", str(workers), str(events), **settings) as program:
        assert program.ended(300 if FULL else 45) == 0, program.stderr
    assert 1 < len(families(tmp_path)) <= workers  # one that begins when another has ended takes over its number
    found = Counter(n for path in families(tmp_path) for n in numbers(path))
    assert found == Counter(range(events))
    for path in families(tmp_path):
        chained(path)
        boots = {line["boot"] for lines in family_lines(path) for line in lines}
        assert len(boots) < workers
        sizes = [len(content(each)) for each in Family(str(path)).paths()]
        assert len(sizes) > 5
        assert max(sizes) <= limit
        assert min(sizes[:-1]) > limit - 1000
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_workers_and_retention(tmp_path) -> None:
    """Each keeps its own newest files, and its first lines explain every number that is missing (O-FILE-2)."""
    settings = {"FAPILOG_FILE_MAX_BYTES": "10000", "FAPILOG_FILE_KEEP": "3"}
    with start(tmp_path, "rotating", "fork", "4", "4000", **settings) as program:
        assert program.ended() == 0, program.stderr
    for path in families(tmp_path):
        seqs = sorted(line["seq"] for lines in family_lines(path) for line in lines if "seq" in line)
        trimmed = headers(path)[-1]["trimmed"]
        assert len(Family(str(path)).stamps()) == 3
        assert seqs == list(range(trimmed["last_seq"] + 1, seqs[-1] + 1))


# ---- two owners


def running_pair(tmp_path, *, second_run_dir: str):
    settings = {"FAPILOG_FILE_MAX_BYTES": "3000", "FAPILOG_FILE_KEEP": "1000"}
    one = start(tmp_path, "rotating", "live", "0", "100", "stop1", **settings)
    one.said('"boot"')
    two = start(tmp_path, "rotating", "live", "1000", "100", "stop2", FAPILOG_RUN_DIR=second_run_dir, **settings)
    two.said('"boot"')
    return one, two


def test_two_live_processes_with_one_worker_number(tmp_path) -> None:
    """As in two containers on one volume: they never mix in one rotating file, and one note says where the second writes."""
    one, two = running_pair(tmp_path, second_run_dir=str(tmp_path / "other_run"))
    with one, two:
        assert [said(each)[0]["worker"] for each in (one, two)] == [1, 1]
        (tmp_path / "stop1").touch()
        (tmp_path / "stop2").touch()
        assert (one.ended(), two.ended()) == (0, 0), one.stderr + two.stderr
        assert two.stderr.count("belongs to another process") == 1
        assert one.stderr == ""
    assert numbers(tmp_path / "app.1.jsonl") == list(range(101))
    assert numbers(tmp_path / "app.1.2.jsonl") == list(range(1000, 1101))
    for path, program in ((tmp_path / "app.1.jsonl", one), (tmp_path / "app.1.2.jsonl", two)):
        assert {line["boot"] for lines in family_lines(path) for line in lines} == {said(program)[0]["boot"]}
        chained(path)


def test_the_file_of_a_dead_owner(tmp_path) -> None:
    """It is taken over and continued, however its owner went."""
    one, two = running_pair(tmp_path, second_run_dir=str(tmp_path / "other_run"))
    with one, two:
        one.signal(signal.SIGKILL)
        one.ended()
        (tmp_path / "stop3").touch()
        settings = {"FAPILOG_FILE_MAX_BYTES": "3000", "FAPILOG_FILE_KEEP": "1000", "FAPILOG_RUN_DIR": str(tmp_path / "third")}
        with start(tmp_path, "rotating", "live", "100", "100", "stop3", **settings) as three:
            assert three.ended() == 0, three.stderr
        (tmp_path / "stop2").touch()
        assert two.ended() == 0
    assert numbers(tmp_path / "app.1.jsonl") == list(range(201))
    chained(tmp_path / "app.1.jsonl")
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_child_that_outlives_the_owner(tmp_path) -> None:
    """It does not hold the dead parent's lock."""
    settings = {"FAPILOG_FILE_MAX_BYTES": "3000"}
    with start(tmp_path, "rotating", "survived", **settings) as program:
        program.said("parent")
        program.said("child")
        parent = next(each["parent"] for each in said(program) if "parent" in each)
        os.kill(parent, signal.SIGKILL)
        program.ended()
        (tmp_path / "stop3").touch()
        with start(tmp_path, "rotating", "live", "10", "10", "stop3", **settings) as heir:
            assert heir.ended() == 0, heir.stderr
        (tmp_path / "stop").touch()
    assert numbers(tmp_path / "app.1.jsonl") == list(range(21))
    assert families(tmp_path) == [tmp_path / "app.1.jsonl"]


def test_a_shared_file_without_rotation(tmp_path) -> None:
    """It is not locked: several processes append whole lines to it."""
    settings = {"FAPILOG_FILE_PATH": str(tmp_path / "app.jsonl")}
    with start(tmp_path, "rotating", "fork", "4", "4000", **settings) as program:
        assert program.ended() == 0, program.stderr
    assert sorted(numbers(tmp_path / "app.jsonl")) == list(range(4000))
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_shared_path_with_rotation(tmp_path) -> None:
    """Each process gets a file of its own beside it, and nothing is lost or doubled (O-FILE-2)."""
    settings = {"FAPILOG_FILE_PATH": str(tmp_path / "app.jsonl"), "FAPILOG_FILE_MAX_BYTES": "10000", "FAPILOG_FILE_KEEP": "1000"}
    with start(tmp_path, "rotating", "fork", "4", "4000", **settings) as program:
        assert program.ended() == 0, program.stderr
    paths = [tmp_path / "app.jsonl", *families(tmp_path)]
    assert Counter(n for path in paths for n in numbers(path)) == Counter(range(4000))
    for path in paths:
        chained(path)


# ---- deaths

CRASHES = [
    *[("rename", number, when) for number in (1, 2, 3, 4) for when in ("before", "after")],
    *[("unlink", number, when) for number in (1, 2) for when in ("before", "after")],
    *[("fsync", 1, when) for when in ("before", "after")],
    *[("fchmod", 1, "before"), ("ftruncate", 2, "after"), ("write", 40, "before"), ("write", 41, "after")],
]


@pytest.mark.matrix
@pytest.mark.parametrize(("call", "number", "when"), CRASHES)
def test_sigkill_at_a_system_call(tmp_path, call: str, number: int, when: str) -> None:
    """In the midst of rotation, compression, a write: after a restart every line is there once, and nothing is left over."""
    with start(tmp_path, "rotating", "acks", "0", "100", call, str(number), when) as program:
        assert program.ended() == -signal.SIGKILL, program.stderr
        acknowledged = [each["n"] for each in said(program)]
    continued(tmp_path, acknowledged)


@pytest.mark.matrix
@pytest.mark.parametrize("after", [7, 23, 61])
def test_sigkill_at_any_moment(tmp_path, after: int) -> None:
    """The same, whatever the moment."""
    with start(tmp_path, "rotating", "acks", "0", "100000") as program:
        program.said("\n", after)
        program.signal(signal.SIGKILL)
        program.ended()
        acknowledged = [each["n"] for each in said(program)]
    continued(tmp_path, acknowledged)


def continued(folder: Path, acknowledged: list[int]) -> None:
    """Start again behind what was acknowledged; then each number is there once, but for one that was written and not said."""
    path = folder / "app.1.jsonl"
    following = len(acknowledged)
    with start(folder, "rotating", "acks", str(following), "30") as program:
        assert program.ended() == 0, program.stderr
    found = Counter(numbers(path))
    found[following] -= max(0, found[following] - 1)  # written, and not said because the process died
    assert found == Counter(range(following + 30))
    chained(path)
    left = [name for name in names(folder) if name.startswith(".")]
    assert left == []
    stamps = [name.removesuffix(".gz") for name in names(folder) if name.startswith("app.1.jsonl.")]
    assert len(stamps) == len(set(stamps)), "both forms of one file"


# ---- full disks


def test_a_limit_for_the_size_of_files(tmp_path) -> None:
    """EFBIG: no error in the application, a few notes, every line whole and once after the limit is lifted (O-IO-1)."""
    with start(tmp_path, "rotating", "limited") as program:
        assert program.ended() == 0, program.stderr
        before, after = said(program)
        assert 1 <= len(program.stderr.splitlines()) <= 3, program.stderr
        assert str(tmp_path / "app.1.jsonl") in program.stderr
    assert before["size"] == 1 << 20
    assert before["accepted"] == before["delivered"] + sum(before["dropped"].values()) + before["in_flight"]
    assert before["in_flight"] > 0
    assert after["complete"]
    assert numbers(tmp_path / "app.1.jsonl") == list(range(5100))


def test_a_rotation_that_keeps_files_below_the_limit(tmp_path) -> None:
    """Files that are rotated in time never meet the limit."""
    env = environment(tmp_path, FAPILOG_FILE_MAX_BYTES="500000", FAPILOG_FILE_KEEP="100", FAPILOG_JOURNAL="off")
    code = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))"
    code += f"; sys.argv = ['', 'fork', '1', '4000']; runpy.run_path({str(PROGRAMS / 'rotating.py')!r}, run_name='__main__')"
    result = subprocess.run(
        [sys.executable, *STRICT, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert numbers(tmp_path / "app.1.jsonl") == list(range(4000))


def small_disk(folder: Path, program: list[str], env: dict[str, str], way: str) -> subprocess.Popen[str]:
    """
    Start *program* in a mount namespace of its own, where *folder*/disk is a file system of one megabyte.

    Once there is a file *free* it gets larger; first the log is moved away, if that is the *way*.
    """
    disk = folder / "disk"
    disk.mkdir()
    steps = [
        f"mount -t tmpfs -o size=1m none {disk} || exit 9",
        f"(while [ ! -e {folder}/free ]; do sleep 0.02; done",
        f"mv {disk}/app.1.jsonl {folder}/result/moved" if way == "moved" else ":",
        f'mount -o remount,size=16m {disk}; touch {folder}/freed) & "$@"',
        f"code=$?; wait; cp -a {disk}/. {folder}/result; exit $code",
    ]
    script = "; ".join(steps)
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", sys.executable, *program]
    (folder / "result").mkdir()
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None or not ROOT:
        return False
    (folder / "try").mkdir()
    command = ["unshare", "-m", "--propagation", "private", "mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder / "try")]
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


@pytest.mark.matrix
@pytest.mark.parametrize("way", ["one-file", "rotating", "moved"])
def test_a_disk_that_is_full_and_freed(tmp_path, way: str) -> None:
    """The application sees no error, there are few notes, and once there is room, all is written, each line once (O-IO-1)."""
    if not can_mount(tmp_path):
        pytest.skip("no rights to mount a small file system")
    env = environment(
        tmp_path,
        FAPILOG_FILE_PATH=str(tmp_path / "disk" / "app.1.jsonl"),
        FAPILOG_FILE_MAX_BYTES="100000" if way == "rotating" else "0",
        FAPILOG_FILE_KEEP="1000",
    )
    process = small_disk(tmp_path, [*STRICT, str(PROGRAMS / "rotating.py"), "filled"], env, way)
    try:
        assert process.stdout is not None
        before = json.loads(process.stdout.readline())
        assert before["in_flight"] > 0
        assert before["accepted"] == before["delivered"] + sum(before["dropped"].values()) + before["in_flight"]
        (tmp_path / "free").touch()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, err
    assert 1 <= len(err.splitlines()) <= 3, err
    assert json.loads(out)["complete"]
    found = numbers(tmp_path / "result" / "app.1.jsonl")
    if way == "moved":  # with half a line at its end, which is whole in the file after it
        *whole, half = (tmp_path / "result" / "moved").read_bytes().split(b"\n")
        assert half
        found = [json.loads(line)["n"] for line in whole] + found
    assert found == list(range(5100))


# ---- rights and directories


@pytest.fixture
def folder():
    """A directory that any user can reach, which pytest's own are not, and may write to."""
    made = Path(tempfile.mkdtemp(prefix="fapilog-rotating-"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@NOT_MEASURED
@needs_root
@pytest.mark.parametrize("limit", ["0", "500"], ids=["no-rotation", "rotation"])
def test_a_directory_without_rights(folder, limit: str) -> None:
    """The application starts, one message names the path, events wait, and all are written once the rights are there (O-IO-2)."""
    logs = folder / "logs"
    logs.mkdir(mode=0o755)
    path = logs / "app.1.jsonl"
    settings = {"FAPILOG_FILE_PATH": str(path), "FAPILOG_FILE_MAX_BYTES": limit, "FAPILOG_FILE_KEEP": "100"}
    with start(folder, "rotating", "nobody", **settings) as program:
        program.said("in_flight")
        assert not path.exists()
        os.chown(logs, 65534, 65534)
        (folder / "granted").touch()
        assert program.ended() == 0, program.stderr
        before, after = said(program)
        assert len([each for each in program.stderr.splitlines() if "takes no events" in each]) == 1
        assert len(program.stderr.splitlines()) <= 2, program.stderr
        assert str(path) in program.stderr
    assert (before["delivered"], before["in_flight"], after["complete"]) == (0, 5, True)
    assert numbers(path) == list(range(10))


@needs_root
def test_a_file_that_can_be_written_in_a_directory_that_cannot(folder) -> None:
    """It is written to and not rotated, and one note says so (O-IO-2)."""
    logs = folder / "logs"
    logs.mkdir(mode=0o755)
    path = logs / "app.1.jsonl"
    path.touch()
    os.chown(path, 65534, 65534)
    (folder / "granted").touch()
    with start(folder, "rotating", "nobody", FAPILOG_FILE_PATH=str(path), FAPILOG_FILE_MAX_BYTES="500") as program:
        assert program.ended() == 0, program.stderr
        assert program.stderr.count("is not rotated") == 1
    assert numbers(path) == list(range(10))
    assert names(logs) == ["app.1.jsonl"]


@needs_root
def test_strict_without_rights(folder) -> None:
    """Set-up fails and names the path (O-IO-2)."""
    logs = folder / "logs"
    logs.mkdir(mode=0o755)
    with start(folder, "rotating", "strict_nobody", FAPILOG_FILE_PATH=str(logs / "app.1.jsonl")) as program:
        assert program.ended() == 1
        assert "ConfigurationError" in program.stderr
        assert str(logs) in program.stderr


@pytest.mark.parametrize("limit", ["0", "100000"], ids=["no-rotation", "rotation"])
def test_a_directory_that_is_removed_and_made_anew(tmp_path, limit: str) -> None:
    """It is made again for the next event, without a restart (O-IO-2)."""
    path = tmp_path / "deep" / "logs" / "app.1.jsonl"
    with start(tmp_path, "rotating", "removed", FAPILOG_FILE_PATH=str(path), FAPILOG_FILE_MAX_BYTES=limit) as program:
        program.said("first")
        shutil.rmtree(tmp_path / "deep")
        (tmp_path / "removed").touch()
        assert program.ended() == 0, program.stderr
        assert said(program)[1] == {"complete": True}
    assert numbers(path) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("limit", ["0", "500"], ids=["no-rotation", "rotation"])
def test_a_directory_in_whose_place_a_file_stands(tmp_path, limit: str) -> None:
    """Events wait until there is a directory, and nothing that was accepted before is counted as written (O-IO-2)."""
    logs = tmp_path / "logs"
    path = logs / "app.1.jsonl"
    settings = {"FAPILOG_FILE_PATH": str(path), "FAPILOG_FILE_MAX_BYTES": limit, "FAPILOG_FILE_KEEP": "100"}
    with start(tmp_path, "rotating", "removed", **settings) as program:
        program.said("first")
        shutil.rmtree(logs)
        logs.touch()
        (tmp_path / "removed").touch()
        wait_until(lambda: "takes no events" in program.stderr, "a note says that the file is down")
        logs.unlink()
        assert program.ended() == 0, program.stderr
        assert said(program)[1] == {"complete": True}
        assert len(program.stderr.splitlines()) == 1
    assert numbers(path) == [5, 6, 7, 8, 9]


@needs_root
def test_a_root_master_whose_files_rotate(folder) -> None:
    """All files are those of the user its workers run as, before and after rotation; nobody else can write to them (O-IO-2)."""
    settings = {"FAPILOG_FILE_MAX_BYTES": "2000", "FAPILOG_FILE_KEEP": "100", "FAPILOG_RUN_DIR": str(folder / "run")}
    with start(folder, "rotating", "master", **settings) as program:
        assert program.ended() == 0, program.stderr
        assert said(program) == [{"uids": [0, 0, 0]}]
        assert program.stderr == ""
    made = [path for path in folder.iterdir() if path.name.startswith("app.")]
    assert len(made) > 6
    assert {(path.stat().st_uid, stat.S_IMODE(path.stat().st_mode) & 0o022) for path in made} == {(65534, 0)}
    assert numbers(folder / "app.0.jsonl") == list(range(40))
    assert numbers(folder / "app.1.jsonl") == list(range(100, 140))


# ---- a FIFO


@pytest.mark.matrix
def test_a_fifo_whose_reader_has_stopped(tmp_path) -> None:
    """
    The loop lags less than 100 ms, 99 of 100 log calls take less than 1 ms, and all events come with the reader (O-LOOP-2).
    """
    path = tmp_path / "app.1.jsonl"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    got: list[bytes] = []
    try:
        with start(tmp_path, "rotating", "fifo", "40" if FULL else "4", FAPILOG_FILE_MAX_BYTES="1000") as program:
            program.said("lags")
            os.set_blocking(reader, True)
            thread = threading.Thread(target=lambda: got.extend(iter(lambda: os.read(reader, 65536), b"")))
            thread.start()
            (tmp_path / "reads").touch()
            assert program.ended() == 0, program.stderr
            thread.join(30)
            first, last = said(program)
    finally:
        os.close(reader)
    # Other programs on the machine disturb some of the stretches. What would stand in a write would do so in each of them.
    assert min(first["lags"]) < 0.1, first
    assert min(first["calls"]) < 0.001, first
    assert first["in_flight"] > 0
    assert last["complete"]
    found = [json.loads(line) for line in b"".join(got).splitlines()]
    assert [line["n"] for line in found if "n" in line] == list(range(last["events"]))
