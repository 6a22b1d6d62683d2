"""Rotation under servers and load: fapilog's own, logrotate's rename with and without a signal, its copytruncate (O-FILE-3)."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter, defaultdict
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import pytest

from fapilog.sinks.rotation import HEADER
from tests._support import only_matrix
from tests.programs.running import living, wait_until
from tests.rotated import family_lines, lines_of
from tests.servers.harness import OUR_CONF, STEPS, UVICORN_WORKER, Gunicorn, Visits

if TYPE_CHECKING:
    from pathlib import Path

WORKERS = 4
WITHIN_S = 5.0
TURNS = 3


def active(folder: Path) -> list[Path]:
    return [folder / f"app.{worker}.jsonl" for worker in range(1, WORKERS + 1)]


def served(folder: Path, **settings: Any) -> Gunicorn:
    return Gunicorn(folder, *OUR_CONF, kind=UVICORN_WORKER, workers=WORKERS, **settings)


def check_all(lines: list[dict[str, Any]], *visits: Visits) -> None:
    """Check that every event of every visit is there once, and that no life has a gap or a double."""
    lines = [line for line in lines if line["event"] != HEADER]
    work = Counter((line["n"], line["step"]) for line in lines if line["event"] == "work")
    answers = [n for each in visits for n in each.answers]
    assert work == Counter(product(answers, range(STEPS)))
    seqs: dict[str, list[int]] = defaultdict(list)
    for line in lines:
        seqs[line["boot"]].append(line["seq"])
    assert all(sorted(found) == list(range(1, len(found) + 1)) for found in seqs.values())


def workers_of(server: Gunicorn) -> set[int]:
    return set(living(server.pid)) - {server.pid}


def writes_all(visits: Visits, paths: list[Path]) -> None:
    """Wait until all the files are there, and written to."""
    wait_until(lambda: all(path.exists() and path.stat().st_size for path in paths), f"all of {paths} are written to", WITHIN_S)


def test_workers_that_rotate_under_load(tmp_path) -> None:
    """Every event is there once over all files, and no worker is restarted (O-FILE-2)."""
    with served(tmp_path, FAPILOG_FILE_MAX_BYTES="10000", FAPILOG_FILE_KEEP="10000", FAPILOG_FILE_COMPRESS="gzip") as server:
        visits = server.meet_workers()
        before = workers_of(server)
        visits.send(300)
        assert workers_of(server) == before
        assert server.stop() == 0
        assert server.stderr.count("fapilog[") == 0, server.stderr
    paths = [tmp_path / "app.0.jsonl", *active(tmp_path)]
    lines = [line for path in paths if path.exists() for each in family_lines(path) for line in each]
    assert len([line for line in lines if line["event"] == HEADER]) > 10
    check_all(lines, visits)


@pytest.mark.matrix
@pytest.mark.parametrize("limit", ["0", "100000000"], ids=["no-rotation", "rotation"])
@pytest.mark.parametrize("signals", [True, False], ids=["sigusr1", "no-signal"])
def test_files_that_are_renamed_under_load(tmp_path, signals: bool, limit: str) -> None:
    """Within 5 s all workers write to new files; none is restarted, and no event is lost or doubled."""
    old = tmp_path / "old"
    old.mkdir()
    with served(tmp_path, FAPILOG_FILE_MAX_BYTES=limit) as server:
        visits = server.meet_workers()
        before = workers_of(server)
        with visits.steadily("hold"):
            wait_until(lambda: all(path.exists() for path in active(tmp_path)), "all workers have files")
            for path in active(tmp_path):
                path.rename(old / path.name)
            if signals:
                server.signal(signal.SIGUSR1)
            writes_all(visits, active(tmp_path))
        assert workers_of(server) == before
        assert server.stop() == 0
        assert server.stderr.count("fapilog[") == 0, server.stderr
    paths = [*old.iterdir(), *tmp_path.glob("app.*.jsonl")]
    check_all([line for path in paths for line in lines_of(path)], visits)
    for path in active(tmp_path):
        head = lines_of(path)[0]
        if limit != "0":
            assert (head["event"], head["previous"]) == (HEADER, None)
            assert head["previous_last_seq"] == lines_of(old / path.name)[-1]["seq"]
        else:
            assert head["event"] != HEADER


@pytest.mark.parametrize("limit", [only_matrix("0"), "100000000"], ids=["no-rotation", "rotation"])
def test_files_that_are_copied_and_truncated_under_load(tmp_path, limit: str) -> None:
    """No zero bytes, every line parses, lines are whole; what came between copy and truncation is lost, and nothing else."""
    copies = tmp_path / "copies"
    copies.mkdir()
    with served(tmp_path, FAPILOG_FILE_MAX_BYTES=limit) as server:
        visits = server.meet_workers()
        with visits.steadily("hold"):
            wait_until(lambda: all(path.exists() for path in active(tmp_path)), "all workers have files")
            for turn in range(TURNS):
                for path in active(tmp_path):
                    shutil.copyfile(path, copies / f"{path.name}.{turn}")
                    os.truncate(path, 0)
                writes_all(visits, active(tmp_path))
        assert server.stop() == 0
        assert server.stderr.count("fapilog[") == 0, server.stderr
    found: dict[str, list[int]] = defaultdict(list)
    for path in [*copies.iterdir(), *active(tmp_path)]:
        assert b"\0" not in path.read_bytes()
        whole = path.read_bytes().rpartition(b"\n")[0]
        path.write_bytes(whole + b"\n" if whole else b"")
        for line in lines_of(path):
            if line["event"] != HEADER:
                found[line["boot"]].append(line["seq"])
    assert len(found) == WORKERS
    assert all(len(seqs) == len(set(seqs)) for seqs in found.values())
    for seqs in found.values():  # each truncation makes one gap at the most
        gaps = [after for before, after in pairwise(sorted([0, *seqs])) if after != before + 1]
        assert len(gaps) <= TURNS
