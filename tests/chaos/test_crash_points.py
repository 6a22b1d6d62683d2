"""Kills at named points, inside writes and renames: whatever was half done, each event whose call returned is there once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.harness import LATE, LOGGING, NEXT, ROTATING, SMALL, STAYING, all_is_well, killed_at, named, run
from tests.chaos.oracle import balanced, exactly_once, once_at_most

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.matrix  # `make soak` runs them, in its short form too


# Processes, as many as it is told and one, die at once, with all of their events in their journals alone.
DYING = """
import signal, chaos_app
log.info("first")
fapilog.flush(20)
heard, said = os.pipe()
children = []
for _ in range(int(sys.argv[1])):
    children.append(os.fork())
    if not children[-1]:
        chaos_app._random.seed()
        chaos_app.burst(30)
        os.write(said, b"!")
        signal.pause()
chaos_app.burst(30)
for _ in children:
    assert os.read(heard, 1) == b"!"
for child in children:
    os.kill(child, 9)
    assert os.waitpid(child, 0)[1] == 9
os.kill(os.getpid(), 9)
"""

CROWDED = LOGGING.replace("10", "100").replace("sys.argv[1]", "20")

# The points of `crash_points`, and the how-manieth time that each of them is fatal.
WHILE_LOGGING = {
    "line": {"line-before": (1, 37, 250), "line-half": (100, 2, 251), "line-after": (300, 1, 55)},
    "lap": {"lap-unsaid": (1, 3, 6), "lap-begun": (2, 1, 5), "lap-uncounted": (3, 1, 6), "lap-unsought": (1, 2, 6)},
    "mark": {"mark-before": (1, 2, 20), "mark-torn": (21, 2, 3), "mark-unchosen": (4, 1, 22), "mark-after": (2, 5, 24)},
    "settle": {"settle-before": (2, 3, 20), "settle-between": (21, 2, 5), "settle-after": (7, 2, 22)},
    "batch": {"batch-before": (1, 2, 20), "batch-half": (25, 1, 6), "batch-after": (8, 1, 27)},
}
WHILE_ROTATING = {
    "header": {"header-before": (1, 2, 7), "header-half": (6, 1, 3), "header-after": (1, 4, 8)},
    "rename": {"rename-before": (1, 3, 13), "rename-between": (6, 2, 4), "rename-after": (2, 4, 14)},
    "compressed": {"compressed-before": (1, 2, 5), "compressed-after": (3, 1, 4), "uncompressed-after": (1, 2, 3)},
    "long": {"batch-half": (9, 2, 40), "settle-between": (3, 10, 30)},
}
WHILE_RECOVERING: dict[str, dict[str, tuple[int, ...]]] = {
    "put-back": {"put-back-half": (2, 1, 3), "put-back-before": (1, 2, 3), "put-back-after": (1, 2, 3)},
    "said": {"cursor-after": (2, 1, 3), "cursor-before": (1, 2, 3), "told-before": (1, 2, 3), "told-after": (1, 2, 3)},
    "removal": {"removal-before": (2, 1, 3), "removal-after": (1, 2, 3)},
    "own": {
        "room-before": (1,),
        "room-after": (1,),
        "head-after": (1,),
        "line-before": (1,),
        "batch-half": (1,),
        "settle-between": (2, 1),
    },
}
WHILE_REFUSING = {
    "refused": {"kept-before": (9, 20, 100), "kept-after": (100, 9, 10), "mark-unchosen": (2, 3, 5)},
    "thrown-out": {"struck-before": (1, 2, 50), "struck-after": (50, 1, 3), "kept-after": (20, 9, 100), "mark-torn": (3, 2, 5)},
}
HALVES = ("put-back-half", "put-back-after", "cursor-after", "told-before", "told-after", "removal-before")


def stories(groups: Mapping[str, Mapping[str, tuple[int, ...]]], *front: Any) -> list[Any]:
    """Return each group as one story of a kill at each of its points; for `make soak`, each time of each as one of its own."""
    matrix, soak = pytest.mark.matrix, pytest.mark.soak
    cases = []
    for name, points in groups.items():
        story = [(point, times[0]) for point, times in points.items()]
        cases.append(pytest.param(*front, story, id=name, marks=matrix if name.startswith("long") else []))
        for point, times in points.items():
            cases += [pytest.param(*front, [(point, time)], id=f"{name}:{point}-{time}", marks=soak) for time in times]
    return cases


def killed_in_turn(folder: Path, story: list[tuple[str, int]], script: str, *arguments: str, **settings: Any) -> None:
    for point, number in story:
        killed_at(folder, point, number, script, *arguments, **settings)


@pytest.mark.matrix
@pytest.mark.parametrize("story", stories(WHILE_LOGGING))
def test_kills_while_events_are_logged(tmp_path: Path, story: list[tuple[str, int]]) -> None:
    """Each life takes up what the one before has left, and is killed in its turn; in the end all is there once."""
    killed_in_turn(tmp_path, story, LOGGING, "1000", **SMALL)
    all_is_well(tmp_path, len(story), **SMALL)


@pytest.mark.matrix
@pytest.mark.parametrize("story", stories(WHILE_ROTATING))
def test_kills_while_files_are_rotated(tmp_path: Path, story: list[tuple[str, int]]) -> None:
    """What was renamed or compressed by half is put in order, and looked through."""
    compress = "gzip" if "compressed" in story[0][0] else "none"
    killed_in_turn(tmp_path, story, LOGGING, "1000", **ROTATING, file_compress=compress)
    all_is_well(tmp_path, len(story), **ROTATING)


@pytest.mark.parametrize(
    ("policy", "story"),
    [
        *stories({"refused": WHILE_REFUSING["refused"]}, "drop"),
        *stories({"thrown-out": WHILE_REFUSING["thrown-out"]}, "drop_oldest"),
    ],
)
def test_kills_while_events_find_no_room(tmp_path: Path, policy: str, story: list[tuple[str, int]]) -> None:
    """Whatever was counted or struck by half: what is not in the files is announced, and nothing comes twice."""
    full: dict[str, Any] = {"queue_size": 10, "queue_reserve": 0.0, "queue_overflow": policy}
    killed_in_turn(tmp_path, story, CROWDED, **full)
    run(tmp_path, STAYING, **full)
    assert once_at_most(tmp_path) >= 2
    assert not list((tmp_path / "run").glob("*journal-*"))
    balanced(tmp_path)


def test_kills_while_a_journal_is_made(tmp_path: Path) -> None:
    """There is nothing in it, and it goes, whether it has no room yet, no head, or both and no line."""
    for point in ("room-before", "room-after", "head-after"):
        killed_at(tmp_path, point, 1, NEXT)
        assert list((tmp_path / "run").glob("journal-*"))
    assert all_is_well(tmp_path, 3) == 1


def test_kills_while_a_life_ends_in_order(tmp_path: Path) -> None:
    """Its journal, removed or not yet, holds nothing that is not in the files: nothing comes twice."""
    killed_at(tmp_path, "removal-before", 1, LOGGING, "3")
    killed_at(tmp_path, "removal-after", 2, LOGGING, "3")  # the first one removed is the one of the life before
    assert all_is_well(tmp_path, 0) == 61


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("settings", "story"), [*stories(WHILE_RECOVERING, {}), *stories({"rotating": WHILE_RECOVERING["put-back"]}, ROTATING)]
)
def test_kills_while_others_are_recovered(tmp_path: Path, settings: dict[str, Any], story: list[tuple[str, int]]) -> None:
    """Of three dead processes, each is recovered by who comes next and comes so far, and so is he."""
    run(tmp_path, DYING, "2", code=-9, **LATE, **settings)
    killed_in_turn(tmp_path, story, STAYING, **settings)
    assert all_is_well(tmp_path, len(story), **settings) >= 91


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(first, second, marks=[] if HALVES.index(second) == (n + 1) % len(HALVES) else pytest.mark.soak)
        for n, first in enumerate(HALVES)
        for second in HALVES
    ],
)
def test_kills_of_who_recovers_the_recoverer(tmp_path: Path, first: str, second: str) -> None:
    """The dead, and who was killed over them, and who was killed over him: all is there once."""
    run(tmp_path, DYING, "2", code=-9, **LATE, **ROTATING)
    killed_in_turn(tmp_path, [(first, 1), (second, 1), (first, 1)], STAYING, **ROTATING)
    assert all_is_well(tmp_path, 3, **ROTATING) >= 91


@pytest.mark.parametrize("kills", [pytest.param(25, marks=pytest.mark.soak)])
def test_a_crowd_of_recoverers(tmp_path: Path, kills: int) -> None:
    """One after another is killed before it is done with anything: the next one takes care of all of them first."""
    run(tmp_path, DYING, "2", code=-9, **LATE)
    killed_in_turn(tmp_path, [("cursor-before", 1)] * kills, STAYING)
    assert all_is_well(tmp_path, kills) >= 91


@pytest.mark.parametrize("attempts", [2, pytest.param(40, marks=pytest.mark.soak)])
def test_a_life_that_ends_before_it_has_begun_to_recover(tmp_path: Path, attempts: int) -> None:
    """It has a look at everything that others have left all the same, and stays until that is done."""
    for attempt in range(attempts):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        run(folder, DYING, "2", code=-9, **LATE)
        run(folder, NEXT)
        assert not list((folder / "run").glob("*journal-*"))
        assert exactly_once(folder) == 91
        balanced(folder)


def test_a_kill_between_the_crowd_and_the_own_journal(tmp_path: Path) -> None:
    """Who takes care of more than twenty dead first, and dies before it has a journal, leaves what it had to say of them."""
    run(tmp_path, DYING, "20", code=-9, **LATE)
    killed_at(tmp_path, "room-before", 1, NEXT)
    assert all_is_well(tmp_path, 1) >= 21 * 30


# The queue is full whenever there is something to tell of the dead, and the worker has no time to take anything from it.
CROWD = f"""
import threading
from fapilog._internal import recovery
from fapilog._internal.worker import QueueWorker
take, told = QueueWorker._take, threading.Event()
def crowded(head):
    def full(*arguments):
        for _ in range(50):
            log.warning("crowd")
        return head(*arguments)
    return full
def patient(*arguments):
    if told.is_set():
        take(*arguments)
recovery.recovered_head, recovery.told_of = crowded(recovery.recovered_head), crowded(recovery.told_of)
QueueWorker._take = patient
threading.Timer(1, told.set).start()
{STAYING}
"""


@pytest.mark.matrix
@pytest.mark.parametrize("policy", ["drop", "drop_oldest"])
def test_a_queue_that_is_full_when_a_death_is_told_of(tmp_path: Path, policy: str) -> None:
    """What has to be said of the dead is said all the same, then or later: no life stays without an end."""
    run(tmp_path, DYING, "2", code=-9, **LATE)
    run(tmp_path, CROWD, queue_size=20, queue_overflow=policy)
    run(tmp_path, STAYING)
    assert len(named(tmp_path, "fapilog.worker_died")) == 3
    assert once_at_most(tmp_path) >= (91 if policy == "drop_oldest" else 92)  # the crowd may throw out its own first event
    balanced(tmp_path)


# Until its first look is over, and its event written, somebody asks whether the journal is held, as every process does at times.
ASKED = f"""
import fcntl, glob
file = open(*glob.glob("run/journal-*"))
fcntl.flock(file, fcntl.LOCK_SH)
{NEXT}
fapilog.flush(20)
file.close()
"""


def test_a_journal_that_cannot_be_had_for_a_moment(tmp_path: Path) -> None:
    """Its process is told of once, when it has been read, and nothing is called lost that it holds."""
    run(tmp_path, DYING, "0", code=-9, **LATE)
    run(tmp_path, ASKED)
    assert all_is_well(tmp_path, 0) == 32
    (died,) = named(tmp_path, "fapilog.worker_died")
    assert (died["recovered"], died["lost"]) == (30, 0)


def test_a_call_that_others_have_overtaken(tmp_path: Path) -> None:
    """It has taken its seq and did not come as far as the ring: it is announced as interrupted, and nothing else lacks."""
    script = """
import threading, chaos_app
chaos_app.burst(3)
threading.Thread(target=chaos_app.burst, args=(10**9,), daemon=True).start()
chaos_app.burst(10**9)
"""
    killed_at(tmp_path, "line-overtaken", 40, script, queue_size=1_000_000, **LATE)
    assert all_is_well(tmp_path, 1) >= 40
    (dropped,) = named(tmp_path, "fapilog.dropped")
    assert (dropped["reason"], dropped["count"]) == ("interrupted", 1)


def test_a_call_whose_event_the_worker_has_taken_already(tmp_path: Path) -> None:
    """It did not come as far as the ring, and is in no file when the process dies: it is announced, and nothing else lacks."""
    killed_at(tmp_path, "line-taken", 25, "import chaos_app\nchaos_app.burst(100)")
    assert all_is_well(tmp_path, 1) == 25
    (dropped,) = named(tmp_path, "fapilog.dropped")
    assert (dropped["reason"], dropped["count"]) == ("interrupted", 1)
