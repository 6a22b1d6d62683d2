"""Gunicorn in a terminal, as a developer runs it: the console form, with the worker on every line."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.programs.running import PROGRAMS
from tests.programs.terminal import Terminal
from tests.servers.harness import GUNICORN, HERE, OUR_CONF, STEPS, UVICORN_WORKER, Server, app_for

if TYPE_CHECKING:
    from pathlib import Path

WORKERS = 2
REQUESTS = 60
COLOUR = re.compile(r"\x1b\[[0-9;]+m")
EVENT = re.compile(r"[0-9:]{8}\.[0-9]{3} (\w+) +(?:w([0-9]+) +)?(\S+)(.*)")


class GunicornOn(Server):
    """Gunicorn with its standard output on *terminal*, and nothing else of it there."""

    def __init__(self, terminal: Terminal, folder: Path, kind: str, *arguments: str, **settings: str) -> None:
        command = [str(PROGRAMS / "terminal.py"), terminal.path, GUNICORN, "-w", str(WORKERS), "-k", kind, "--chdir", str(HERE)]
        command += ["--keep-alive", "60", "--graceful-timeout", "15", "--worker-tmp-dir", str(folder), *arguments]
        settings = {"FAPILOG_SINKS": "stdout", "TERM": "xterm", "NO_COLOR": "", "FORCE_COLOR": "", **settings}
        super().__init__(command, folder, settings, WORKERS, lambda fd, _: ["-b", f"fd://{fd}", f"apps:{app_for(kind)}"])


def served(folder: Path, kind: str, *arguments: str, **settings: str) -> tuple[str, Counter[int], Counter[int]]:
    """Serve `REQUESTS`; return what the terminal got, and how many ``/who`` and ``/work`` requests each process answered."""
    with Terminal() as terminal:
        with GunicornOn(terminal, folder, kind, *arguments, **settings) as server:
            load = server.wait_for_workers()
            load.send(REQUESTS)
            code = server.stop()
            load.close()
        text = terminal.end()
    assert code == 0
    assert sum(load.work.values()) == REQUESTS
    return text, load.who, load.work


def events_of(text: str) -> list[tuple[str, str, str]]:
    """Return (worker, event, rest) of every line, each of which must be an event."""
    lines = text.splitlines()
    matches = [match for match in map(EVENT.fullmatch, lines) if match is not None]
    assert len(matches) == len(lines), [line for line in lines if not EVENT.fullmatch(line)]
    return [(match[2] or "", match[3], match[4]) for match in matches]


@pytest.mark.matrix
@pytest.mark.parametrize("kind", [UVICORN_WORKER, "gthread"])
def test_two_workers_on_one_terminal(tmp_path, kind) -> None:
    """Every event is one whole line, once, with the number of its process, worker 1 and the master too; it ends with 0."""
    text, who, work = served(tmp_path, kind, *OUR_CONF, FAPILOG_TEST_SETUP="plain")
    assert "\x1b[32minfo\x1b[0m" in text
    events = events_of(COLOUR.sub("", text))

    assert {worker for worker, _, _ in events} == {"0", "1", "2"}
    counts = Counter((worker, event) for worker, event, _ in events)
    assert sorted(counts[n, "work"] for n in "12") == sorted(STEPS * work[pid] for pid in who)
    assert sorted(counts[n, "who"] for n in "12") == sorted(who.values())
    assert sorted(counts[n, "request"] for n in "12") == sorted(who[pid] + work[pid] for pid in who)
    assert [counts[n, "fapilog.closed"] for n in "012"] == [1, 1, 1]
    steps = Counter(re.findall(r" n=([0-9]+) step=([0-9]+) ", "\n".join(rest for _, event, rest in events if event == "work")))
    assert steps == {(str(n), str(step)): 1 for n in range(REQUESTS) for step in range(STEPS)}
    assert [worker for worker, event, _ in events if event == "Starting"] == ["0"]


@pytest.mark.matrix
@pytest.mark.parametrize("preload", [False, True], ids=["no_preload", "preload"])
def test_a_gunicorn_that_knows_nothing_of_us(tmp_path, preload) -> None:
    """Each worker's events have its number, of worker 1 too, without any hook of ours."""
    text, who, work = served(tmp_path, "gthread", *["--preload"] * preload, NO_COLOR="1")
    assert "\x1b" not in text
    counts = Counter((worker, event) for worker, event, _ in events_of(text))

    assert {worker for worker, _ in counts} == {"1", "2"}
    assert sorted(counts[n, "work"] for n in "12") == sorted(STEPS * work[pid] for pid in who)
    assert sorted(counts[n, "who"] for n in "12") == sorted(who.values())
