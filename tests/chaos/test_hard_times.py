"""Kills beside other trouble: a full disk, a clock that is set, many short lives, a sink that hangs, files that rotate."""

from __future__ import annotations

import random
import shlex
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.chaos.harness import (
    LATE,
    LOGGING,
    NEXT,
    ROTATING,
    STAYING,
    all_is_well,
    around,
    ended,
    killed_at,
    meddled,
    named,
    program,
    run,
)
from tests.chaos.oracle import returned, verified
from tests.test_file_processes import can_mount

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.matrix  # `make soak` runs them, in its short form too


EVERY_10_KB = {"file_max_bytes": 10_000, "file_keep": 10_000}
ROTATIONS = [pytest.param({}, id="one-file"), pytest.param(EVERY_10_KB, id="rotating", marks=pytest.mark.soak)]
FILLING = """
import chaos_app
while os.statvfs("disk").f_bavail:
    chaos_app.burst(20)
    fapilog.flush(0.05)
chaos_app.burst(50)
os.kill(os.getpid(), 9)
"""
ENDING = "import chaos_app\nchaos_app.burst(10)\nfapilog.shutdown_logging(0.3)"


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_a_disk_that_is_full_while_processes_are_killed(tmp_path: Path, rotation: dict[str, Any]) -> None:
    """What the dead have left is owed until there is room, whoever ends or is killed meanwhile; then all is there once."""
    if not can_mount(tmp_path):
        pytest.skip("no rights to mount a small file system")
    (tmp_path / "disk").mkdir()
    settings = rotation | {"file_path": "disk/app.{worker}.jsonl"}
    filling, ending, after = (shlex.join(program(script, **settings)) for script in (FILLING, ENDING, STAYING))
    steps = [
        "mount -t tmpfs -o size=256k none disk || exit 9",
        f"{filling}; [ $? = 137 ] || exit 10",
        f"{filling}; [ $? = 137 ] || exit 11",
        f"{ending} || exit 12",
        "ls run/journal-* || exit 13",
        "mount -o remount,size=16m disk || exit 14",
        f"{after} || exit 15",
        "cp -a disk/. .",
    ]
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", "; ".join(steps)]
    code, out, err = ended(command, tmp_path, around(tmp_path))
    assert code == 0, err
    assert len(out.split()) == 3  # of the two that were killed, and of the one that could deliver nothing
    assert all_is_well(tmp_path, 0, **rotation) > 400


CLOCKED = """
import chaos_app
for seconds in sys.argv[1:]:
    chaos_app.burst(60)
    fapilog.flush(20)
    time.step(float(seconds))
chaos_app.burst(60)
fapilog.flush(20)
"""


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize(
    ("wrong_by", "steps", "then"),
    [
        (3600, (-3600,), 0),
        (-3600, (3600,), 0),
        pytest.param(0, (-3600, 3600), 3600, marks=pytest.mark.soak),
        pytest.param(0, (3600, -3600), -3600, marks=pytest.mark.soak),
    ],
    ids=["back", "forward", "back-and-forward", "forward-and-back"],
)
def test_a_clock_that_is_set_before_a_kill(
    tmp_path: Path, wrong_by: int, steps: tuple[int, ...], then: int, rotation: dict[str, Any]
) -> None:
    """What is in the files already is found there, whatever time it says: the kill came before the cursor was moved."""
    meddled(tmp_path)
    clock = {"CLOCK": str(wrong_by)}
    killed_at(tmp_path, "settle-between", 2 + len(steps), CLOCKED, *map(str, steps), around_it=clock, **LATE, **rotation)
    assert len(returned(tmp_path)) == 60 * (len(steps) + 1)
    run(tmp_path, NEXT, around_it={"CLOCK": str(then)}, **rotation)
    assert all_is_well(tmp_path, 0, **rotation) == 60 * (len(steps) + 1) + 2


STORM = """
import atexit, contextlib, pathlib, random, threading, chaos_app
bursts, crowd = 6, 10
pace = threading.Event()
rng = random.Random(5)
def live():
    while True:
        chaos_app.burst(5)
        pace.wait(0.02)
def be_born():
    chaos_app._random.seed()
    for _ in range(2):
        threading.Thread(target=live, daemon=True).start()
    live()
def left():
    found = []
    for path in pathlib.Path("run").glob("journal-*"):
        with contextlib.suppress(FileNotFoundError):
            found.append(path.stat().st_size)
    return len(found), sum(found)
seen = [(0, 0)]
children = []
atexit.register(lambda: [os.kill(pid, 9) for pid in children])  # of a parent that fails
for _ in range(bursts):
    for _ in range(crowd):
        pid = os.fork()
        if not pid:
            be_born()
        children.append(pid)
    chaos_app.burst(10)
    while children:
        pid = children.pop(rng.randrange(len(children)))
        time.sleep(rng.random() * 0.06)  # the moment of the kill
        os.kill(pid, 9)
        assert os.waitpid(pid, 0)[1] == 9
        seen.append(left())
print(max(seen)[0], max(size for _, size in seen))
"""


@pytest.mark.matrix
def test_a_storm_of_forks(tmp_path: Path) -> None:
    """Sixty children with three threads each are killed at any moment: all is there once, and the run directory stays small."""
    said = run(tmp_path, STORM, queue_size=100_000, journal_bytes=1 << 20)
    journals, size = map(int, said.split())
    assert 10 < journals <= 10 + 1 + 16 + 10  # those that live, and that are left to successors, and that have died just now
    assert size <= journals * ((1 << 20) + (64 << 10))
    assert all_is_well(tmp_path, 60 * 3) > 1000
    verified(tmp_path)
    assert sum(died["lost"] for died in named(tmp_path, "fapilog.worker_died")) == 0


BESIDE = """
import asyncio, chaos_app
class Slow:
    name = "slow"
    async def open(self, identity): pass
    async def close(self): pass
    async def write(self, events):
        if sys.argv[1] == "hangs":
            await asyncio.Event().wait()
        with open("slow.tmp", "ab") as file:
            file.writelines(event.line for event in events)
settings = dict(file_path="app.{worker}.jsonl", run_dir="run", journal="on", queue_batch_timeout=0.01)
fapilog.configure_logging(sinks=["file", Slow()], **settings)
for _ in range(int(sys.argv[2])):
    chaos_app.burst(10)
    fapilog.flush(0.05)
"""


@pytest.mark.parametrize("point", ["batch-half", pytest.param("settle-between", marks=pytest.mark.soak)])
def test_a_sink_that_hangs_beside_a_file(tmp_path: Path, point: str) -> None:
    """Killed again and again: the files have all once, and the sink, as soon as it takes events, the same bytes at least once."""
    for number in (3, 5):
        killed_at(tmp_path, point, number, BESIDE, "hangs", "30")
    run(tmp_path, BESIDE, "takes", "2")
    offered = returned(tmp_path)
    assert all_is_well(tmp_path, 2) > 40
    taken = set((tmp_path / "slow.tmp").read_bytes().splitlines())
    written = {line for path in tmp_path.glob("*.jsonl") for line in path.read_bytes().splitlines()}
    assert not taken - written
    assert offered - {orjson.loads(line).get("number") for line in taken} == set()


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.soak)])
def test_small_files_and_one_kill_after_another(tmp_path: Path, kills: int) -> None:
    """Files of ten kilobytes, compressed while others are rotated and recovered: all is there once."""
    rng = random.Random(11)
    points = ["batch-half", "batch-after", "settle-between", "rename-before", "rename-after", "header-half", "line-half"]
    for _ in range(kills):
        killed_at(tmp_path, rng.choice(points), rng.randrange(2, 12), LOGGING, "120", **ROTATING, file_compress="gzip")
    assert all_is_well(tmp_path, kills, **ROTATING) > kills * 2
