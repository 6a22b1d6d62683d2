"""The console form on a real terminal: colours, the worker column, and what never gets there."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests._support import ran_well, rest_in_matrix, run_script, strict
from tests.programs import terminal
from tests.programs.running import LIMIT_S, environment

if TYPE_CHECKING:
    from pathlib import Path

LOGS = r"""
import fapilog
fapilog.get_logger("app").info("hello", a="x\x1b[2Jy", number=17)
try:
    raise ValueError("bad\nthing")
except ValueError:
    fapilog.get_logger("app").exception("failed")
fapilog.shutdown_logging()
"""
COLOUR = re.compile(r"\x1b\[[0-9;]+m")
EVENT = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3} (?:info |error)    (?:(w[0-9]+) +)?(\S+)")


def on_terminal(folder: Path, code: str = LOGS, **env: str) -> str:
    """Return what a script writes to a terminal."""
    clean = {name: value for name, value in environment(folder).items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    settings = {"FAPILOG_SINKS": "stdout", "TERM": "xterm-256color", "TZ": "UTC", **env}
    return terminal.run(textwrap.dedent(code), folder, {**clean, **settings})


def named(text: str) -> list[tuple[str, str]]:
    """Return (worker, event) of each event in *text*; the worker is empty where there is no such column."""
    found = [EVENT.match(line) for line in COLOUR.sub("", text).splitlines() if not line.startswith(" ")]
    return [(match[1] or "", match[2]) for match in found if match is not None]


COLOURED = [{}, {"NO_COLOR": ""}, {"FORCE_COLOR": "1"}, {"FORCE_COLOR": "1", "TERM": "dumb"}, {"FAPILOG_FORMAT": "console"}]
PLAIN = [{"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, {"TERM": "dumb"}, {"FORCE_COLOR": "0"}]


@pytest.mark.parametrize("env", rest_in_matrix(2, COLOURED), ids=str)
def test_with_colours(tmp_path, env: dict[str, str]) -> None:
    """The events are coloured, and nothing else is an escape sequence (O-SEC-1)."""
    text = on_terminal(tmp_path, **env)

    assert "\x1b[32minfo\x1b[0m     \x1b[1mhello\x1b[0m " in text
    assert "\x1b" not in COLOUR.sub("", text)
    assert r"a\x1b[0m" not in text
    assert r'="x\x1b[2Jy"' in text
    assert named(text)[:2] == [("", "hello"), ("", "failed")]


@pytest.mark.parametrize("env", rest_in_matrix(1, PLAIN), ids=str)
def test_without_colours(tmp_path, env: dict[str, str]) -> None:
    """There is no escape sequence at all."""
    text = on_terminal(tmp_path, **env)

    assert "\x1b" not in text
    line = r'[0-9:.]{12} info     hello {24}a="x\\x1b\[2Jy" number=17 \[app\]'
    assert re.fullmatch(line, text.splitlines()[0])


def test_json_on_a_terminal(tmp_path) -> None:
    """Each line decodes to what was logged, and none has a raw control character (O-SEC-1)."""
    code = r"""
    import fapilog
    fapilog.get_logger("app").info("hello", value="a\x1b[2J\x9b1m\u202e\u2028\x7f\U000e0041\u0085b")
    """
    hello, closed = on_terminal(tmp_path, code, FAPILOG_FORMAT="json").split("\n")[:-1]

    assert hello.isascii()
    assert hello.isprintable()
    assert strict(hello)["value"] == "a\x1b[2J\x9b1m\u202e\u2028\x7f\U000e0041\u0085b"
    assert strict(closed)["event"] == "fapilog.closed"


def test_auto_on_a_pipe(tmp_path) -> None:
    """JSON lines, whatever the variables for colours say."""
    printed = ran_well(run_script(LOGS, tmp_path, env={"FORCE_COLOR": "1"}))
    assert [strict(line)["event"] for line in printed.splitlines()] == ["hello", "failed", "fapilog.closed"]


@pytest.mark.parametrize(("force", "coloured"), [("", False), ("1", True)])
def test_console_on_a_pipe(tmp_path, force: str, coloured: bool) -> None:
    """The console form; colours only where they are forced."""
    printed = ran_well(run_script(LOGS, tmp_path, env={"FAPILOG_FORMAT": "console", "FORCE_COLOR": force, "NO_COLOR": ""}))

    assert ("\x1b" in printed) is coloured
    assert [event for _, event in named(printed)] == ["hello", "failed", "fapilog.closed"]


def test_a_console_that_is_ascii(tmp_path) -> None:
    """What it cannot show is an escape, and the file has the character (O-IO-3)."""
    code = "import fapilog; fapilog.get_logger('app').info('hello', mood='\U0001f600\u00e9')"
    text = on_terminal(tmp_path, code, PYTHONIOENCODING="ascii", FAPILOG_SINKS="stdout,file", NO_COLOR="1")

    assert text.isascii()
    assert r"mood=\U0001f600\xe9 " in text
    assert strict((tmp_path / "app.1.jsonl").read_text().splitlines()[0])["mood"] == "\U0001f600\u00e9"


def test_json_on_a_terminal_that_is_ascii(tmp_path) -> None:
    """It is ASCII, and says the same (O-IO-3)."""
    code = "import fapilog; fapilog.get_logger('app').info('hello', mood='\U0001f600\u00e9')"
    hello, _ = on_terminal(tmp_path, code, PYTHONIOENCODING="ascii", FAPILOG_FORMAT="json").split("\n")[:-1]

    assert hello.isascii()
    assert strict(hello)["mood"] == "\U0001f600\u00e9"


SURROGATES = r"""
import fapilog
bad = "a\ud800b"
fapilog.bind_contextvars(bound=bad)
for number in range(100):
    log = fapilog.get_logger("app" if number != 50 else bad)
    if number == 49:
        try:
            raise ValueError(bad)
        except ValueError:
            log.exception("raised")
    elif number == 50:
        log.info(bad, **{bad: 1, "value": bad})
    else:
        log.info("number", n=number)
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_lone_surrogates(tmp_path, form: str) -> None:
    """In the middle of a batch, wherever they stand, they are shown escaped and no event is lost (O-VAL-2)."""
    text = on_terminal(tmp_path, SURROGATES, FAPILOG_FORMAT=form, NO_COLOR="1", FAPILOG_QUEUE_OVERFLOW="block")
    lines = [line for line in text.splitlines() if not line.startswith(" ")]

    assert len(lines) == 101
    assert all("bound" in line and r"\ud800" in line for line in lines[:-1])
    text.encode()
    if form == "json":
        odd = strict(lines[50])
        assert odd["event"] == odd["value"] == odd["logger"] == r"a\ud800b"
    else:
        assert lines[50].count(r"a\ud800b") == 5


def test_a_script_by_itself(tmp_path) -> None:
    """It has no column for the worker: there is but one."""
    assert named(on_terminal(tmp_path)) == [("", "hello"), ("", "failed"), ("", "fapilog.closed")]


def test_a_script_by_itself_whose_worker_number_is_its_pid(tmp_path) -> None:
    """Without a run directory neither: the number says nothing."""
    (tmp_path / "run").write_text("no directory")
    code = LOGS.replace("fapilog.shutdown_logging()", "import os; os.close(2)")
    with terminal.Terminal() as one:
        env = environment(tmp_path, FAPILOG_SINKS="stdout")
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=env,
            stdout=one.fd,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
            check=False,
        )
        text = one.end()

    assert b"worker numbers are pids" in result.stderr
    assert [worker for worker, _ in named(text)] == ["", "", ""]


def test_two_programs_of_one_service(tmp_path) -> None:
    """The second one says who it is: the first holds the number 1."""
    waits = "import fapilog, sys; fapilog.get_logger().info('first'); fapilog.flush(); print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", waits], cwd=tmp_path, env=environment(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"up\n"
        text = on_terminal(tmp_path)
        first.communicate(timeout=LIMIT_S)

    assert named(text) == [("w2", "hello"), ("w2", "failed"), ("w2", "fapilog.closed")]


FORKS = """
import os, fapilog
log = fapilog.get_logger("app")
log.info("before")
fapilog.flush()
if os.fork() == 0:
    log.info("in_child")
    fapilog.shutdown_logging()
    os._exit(0)
os.wait()
log.info("after")
"""


def test_a_program_that_forks(tmp_path) -> None:
    """From its fork on it says who it is, as its child does from the start."""
    assert named(on_terminal(tmp_path, FORKS)) == [
        ("", "before"),
        ("w2", "in_child"),
        ("w2", "fapilog.closed"),
        ("w1", "after"),
        ("w1", "fapilog.closed"),
    ]


def test_a_forked_child_that_is_worker_1(tmp_path) -> None:
    """It says so: its number does not tell it from a script by itself, its origin does."""
    code = FORKS.replace('log.info("before")', "").replace('log.info("after")', "")
    assert named(on_terminal(tmp_path, code)) == [("w1", "in_child"), ("w1", "fapilog.closed")]


POOL = """
import multiprocessing
import fapilog

def work(number):
    fapilog.get_logger("app").info("work", number=number)

if __name__ == "__main__":
    context = multiprocessing.get_context("METHOD")
    if PARENT_LOGS:
        work(-2)
        fapilog.flush()
    processes = [context.Process(target=work, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    if PARENT_LOGS:
        work(-1)
    for process in processes:
        process.join()
        assert process.exitcode == 0
"""


@pytest.mark.matrix
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing(tmp_path, method: str) -> None:
    """All say who they are, the one that is worker 1 too, however they were started."""
    found = named(on_terminal(tmp_path, POOL.replace("METHOD", method).replace("PARENT_LOGS", "False")))

    assert sorted(event for _, event in found) == ["fapilog.closed"] * 2 + ["work"] * 2
    assert {worker for worker, _ in found} <= {"w1", "w2"}


@pytest.mark.parametrize("method", rest_in_matrix(1, ["fork", "spawn", "forkserver"]))
def test_the_parent_of_processes_of_multiprocessing(tmp_path, method: str) -> None:
    """It says who it is as soon as it has started one, and not because it has loaded multiprocessing."""
    found = named(on_terminal(tmp_path, POOL.replace("METHOD", method).replace("PARENT_LOGS", "True")))
    workers = [worker for worker, event in found if event == "work"]

    assert workers[0] == ""
    assert "w1" in workers[1:]
    assert len(workers) == 4
    assert "" not in workers[1:]


def test_source_lines_of_a_program_that_ends_at_once(tmp_path) -> None:
    """The traceback has the program's own code, though Python forgets the program's file at its end."""
    code = """
    import fapilog, sys
    frame = {"file": __file__, "line": 3, "function": "<module>"}
    fapilog.get_logger("app").error("failed", exception={"type": "ValueError", "message": "m", "frames": [frame]})
    """
    text = on_terminal(tmp_path, code, NO_COLOR="1")

    assert text.splitlines()[1:5] == [
        "    Traceback (most recent call last):",
        f'      File "{tmp_path / "program.py"}", line 3, in <module>',
        '        frame = {"file": __file__, "line": 3, "function": "<module>"}',
        "    ValueError: m",
    ]


def test_a_program_whose_output_goes_elsewhere_later(tmp_path) -> None:
    """The form follows the stream: console on the terminal, JSON in the file that takes its place."""
    code = """
    import os, sys
    import fapilog
    log = fapilog.get_logger("app")
    log.info("seen")
    fapilog.flush()
    os.dup2(os.open("later", os.O_CREAT | os.O_WRONLY), 1)
    log.info("stored")
    """
    text = on_terminal(tmp_path, code)

    assert [event for _, event in named(text)] == ["seen"]
    assert [strict(line)["event"] for line in (tmp_path / "later").read_text().splitlines()] == ["stored", "fapilog.closed"]


def test_the_local_time(tmp_path) -> None:
    """It differs from the line's by the offset of the zone."""
    text = on_terminal(tmp_path, TZ="XYZ-05:45", FAPILOG_SINKS="stdout,file", NO_COLOR="1")
    line = strict((tmp_path / "app.1.jsonl").read_text().splitlines()[0])
    hour, minute = map(int, line["timestamp"][11:16].split(":"))
    local = (hour * 60 + minute + 5 * 60 + 45) % (24 * 60)

    assert text.startswith(f"{local // 60:02}:{local % 60:02}{line['timestamp'][16:23]} info ")


def test_writes_of_several_processes_at_once(tmp_path) -> None:
    """No line and no traceback is torn by another process: a terminal takes each write in one piece."""
    code = """
    import os, fapilog
    log = fapilog.get_logger("app")
    for _ in range(3):
        if os.fork() == 0:
            break
    frames = [{"file": "a.py", "line": line, "function": "f", "code": "x = 1"} for line in range(10)]
    error = {"type": "ValueError", "module": "builtins", "message": "x" * 500, "frames": frames}
    for number in range(200):
        log.error("failed", number=number, exception=error)
    fapilog.shutdown_logging(20)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            os._exit(0)
    """
    text = on_terminal(tmp_path, code, NO_COLOR="1", FAPILOG_QUEUE_OVERFLOW="block", FAPILOG_QUEUE_BLOCK_TIMEOUT="30")
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if not line.startswith(" ")]
    seen = named(text)

    assert len(seen) == len(starts)
    assert Counter(seen) == {
        (f"w{n}", event): count for n in (1, 2, 3, 4) for event, count in [("failed", 200), ("fapilog.closed", 1)]
    }
    blocks = {tuple(lines[start + 1 : end]) for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)}
    assert sorted(map(len, blocks)) == [0, 22]
