"""The command line, as real processes against boards of real and of made-up services."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from fapilog._internal import controls, ledger, rundir
from fapilog._internal.overview import overview
from fapilog._internal.records import Counts, Gauges, SinkCounts
from fapilog.cli.level import seconds_in
from fapilog.cli.shown import count, duration, size, sparkline
from fapilog.cli.stats import WIDE, as_tables
from fapilog.errors import ConfigurationError
from fapilog.identity import Identity
from tests._support import ran_well, rest_in_matrix, run_script
from tests.programs.running import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = str(Path(__file__).parents[1])
PROGRAM = """
import sys, time, fapilog
fapilog.configure_logging(sinks=["file"], file_path="{{service}}.{{worker}}.jsonl", service="shop", run_dir="run")
log = fapilog.get_logger("shop.cart")
print("ready", flush=True)
while True:
    log.debug("detail")
    log.info("step")
    time.sleep(0.01)
"""


def fapilog(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FAPILOG_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "fapilog", *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": ROOT, "TMPDIR": str(folder), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(folder: Path, *arguments: str, **environ: str) -> str:
    done = fapilog(folder, *arguments, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(folder: Path, *arguments: str, **environ: str) -> str:
    """Run a command that cannot do what it is asked for; return what it says."""
    done = fapilog(folder, *arguments, **environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    return done.stderr


def board(run_dir: Path, workers: int = 4, *, alive: bool = False) -> list[rundir.Slot]:
    """Make a board with rows of so many workers; return their slots, held if they shall live."""
    slots = []
    for number in range(1, workers + 1):
        slot = rundir.take_slot(run_dir)
        row, _ = ledger.take_row(slot, Identity("shop", "", "host", slot.number, 1000 + number, f"b{number}"), "worker")
        assert row is not None
        assert row.record is not None
        loki = SinkCounts(accepted=5000, delivered=4000, dropped={"expired": 700, "rejected": 1})
        file = SinkCounts(accepted=5000, delivered=4990, retries=3)
        life = Counts(5010, 5000, {"queue_full": 7, "sampled": 3}, 0, {"info": 5000}, sinks={"file": file, "loki": loki})
        gauges = Gauges(10, 1000, 640, {"file": 1800, "loki": 300_000}, {"file": True, "loki": False})
        row.put(replace(row.record, life=life, gauges=gauges, closed=not alive))
        slots.append(slot)
    for slot in slots if not alive else ():
        slot.release()
    return slots


@contextlib.contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "PYTHONPATH": ROOT}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("{{", "{").replace("}}", "}")],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def levels(folder: Path) -> list[str]:
    """Return the levels in the file so far."""
    lines = (folder / "shop.1.jsonl").read_bytes().splitlines()
    return [json.loads(line)["level"] for line in lines if line.endswith(b"}") and b'"shop.cart"' in line]


# stats


def test_stats_of_workers(tmp_path: Path) -> None:
    """A table has each worker and each sink with what was refused and dropped, and the sums."""
    slots = board(tmp_path / "run", alive=True)
    printed = said(tmp_path, "stats", "--run-dir", "run", COLUMNS="160")
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert re.sub(r" [0-9]+s ", " 0s ", lines[4]) == "1 live 1001 5.0k 5.0k 10/1.0k 0s 640 0 queue_full 7"
    at = lines.index("2 loki DOWN 4.0k 299 293 KiB 0 expired 700")
    assert (lines[5], lines[at + 1]) == ("sampled 3", "rejected 1")
    assert "all 20.0k 20.0k 0 queue_full 28" in lines
    assert "all loki 16.0k 1.2k 1.1 MiB 0 expired 2.8k" in lines
    assert not any("\x1b" in line for line in lines)
    for slot in slots:
        slot.release()


@pytest.mark.parametrize("width", [80, WIDE])
def test_stats_on_narrow_screens(tmp_path: Path, width: int) -> None:
    """No word is broken and no number is cut off, whatever is dropped, and names are no markup."""
    slot = rundir.take_slot(tmp_path / "run")
    row, _ = ledger.take_row(slot, Identity("shop", "", "host", 1, 4_194_303, "b"), "worker")
    assert row is not None
    assert row.record is not None
    refusals = ("stack_exhausted", "after_close", "queue_full")
    drops = ("retries_exhausted", "backlog_full", "drop_oldest")
    sinks = {"[/bold]x\x1b": SinkCounts(dropped=dict.fromkeys(drops, 12_345))}
    life = Counts(9_999_999, 9_999_999, dict.fromkeys(refusals, 12_345), deaths={"SIGKILL": 12_345}, sinks=sinks)
    began = time.time() - 13 * 86_400 - 12 * 3600
    row.put(replace(row.record, lives=12_346, started=began, life=life, gauges=Gauges(999_999, 999_999, 999_999, {}, {})))
    console = Console(width=width, color_system=None, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(as_tables(overview(tmp_path / "run"), time.time(), width))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    assert {"4194303", "10.0M", "1.0M/1.0M", "[/bold]x\\x1b"} <= {word for line in lines for word in line.split()}
    for told in (*refusals, *drops, "SIGKILL", "restarts"):
        assert any(f"{told} 12.3k" in line for line in lines), told
    slot.release()


def test_stats_as_json(tmp_path: Path) -> None:
    """The document is what `service_statistics()` returns, key by key."""
    board(tmp_path / "run")
    document = json.loads(said(tmp_path, "stats", "--run-dir", "run", "--json"))
    seen = overview(tmp_path / "run")
    assert document.keys() == {"run_dir", "workers", "damaged"}
    for told, worker in zip(document["workers"], seen.workers, strict=True):
        assert told["worker"] == worker.worker
        assert told["alive"] is False
        assert told["closed"] is True
        assert told["refused"] == worker.refused
        assert told["sinks"]["loki"]["dropped"] == {"expired": 700, "rejected": 1}
        assert told["identity"]["service"] == "shop"
        assert told["queue_depth"] is None


def test_stats_of_a_service_that_runs(tmp_path: Path) -> None:
    """The numbers are those of its file."""
    with running(tmp_path):
        wait_until(lambda: (tmp_path / "shop.1.jsonl").exists() and len(levels(tmp_path)) > 20, "it logs")
        assert json.loads(said(tmp_path, "stats", "--run-dir", "run", "--json"))["workers"][0]["alive"] is True
    (worker,) = json.loads(said(tmp_path, "stats", "--run-dir", "run", "--json"))["workers"]
    lines = len((tmp_path / "shop.1.jsonl").read_bytes().splitlines())
    assert (worker["alive"], worker["closed"], worker["accepted"]) == (False, True, lines)
    assert worker["sinks"]["file"]["delivered"] == lines


# Which run directory


def place(folder: Path, name: str) -> Path:
    """Return where a default run directory below the temporary directory would be."""
    return folder / f"fapilog-{os.geteuid()}" / f"{name}-0123456789ab"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch) -> Path:
    """Skip where services of this user really run, which the commands would find."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_service_by_its_name(alone: Path) -> None:
    """Its only run directory is found; one of two is not guessed, unless only one of them has processes."""
    first, second = place(alone, "test-of-names"), place(alone, "test-of-names").with_name("test-of-names-ba9876543210")
    board(first)
    assert str(first) in said(alone, "stats", "--service", "test-of-names")
    board(second)
    message = refused(alone, "stats", "--service", "test-of-names")
    assert message.startswith("fapilog: there are 2 run directories; choose with --run-dir DIRECTORY or --service NAME:")
    assert str(first) in message
    assert str(second) in message
    assert message.count("nobody lives, last written") == 2
    board(place(alone, "test-of-names-of-another"))
    slots = board(second, 1, alive=True)
    assert str(second) in said(alone, "stats", "--service", "test-of-names")
    slots[0].release()


def test_no_board(tmp_path: Path) -> None:
    """The message says what was looked for, and how to choose."""
    assert "there is no board in run: no process of fapilog has run there" in refused(tmp_path, "stats", "--run-dir", "run")
    assert "there is no board in elsewhere" in refused(tmp_path, "stats", FAPILOG_RUN_DIR="elsewhere")
    name = "no-such-service-at-all"
    message = refused(tmp_path, "stats", "--service", name)
    assert message == (
        f"fapilog: found no run directory of a service {name!r} of this user; choose with --run-dir DIRECTORY or --service NAME\n"
    )


def test_the_run_directory_of_the_environment(tmp_path: Path) -> None:
    """It is taken where none is given."""
    board(tmp_path / "run")
    assert "shop" in said(tmp_path, "stats", "--json", FAPILOG_RUN_DIR=str(tmp_path / "run"))


def test_a_run_directory_that_may_not_be_read(tmp_path: Path) -> None:
    """One line says so."""
    board(tmp_path / "run")
    (tmp_path / "run").chmod(0o777)
    assert "others may write to it" in refused(tmp_path, "stats", "--run-dir", "run")


# level


def test_a_level_for_a_while(tmp_path: Path) -> None:
    """A process that runs obeys within a second, and goes back by itself."""
    with running(tmp_path):
        wait_until(lambda: (tmp_path / "shop.1.jsonl").exists() and len(levels(tmp_path)) > 5, "it logs")
        assert "debug" not in levels(tmp_path)
        printed = said(tmp_path, "level", "debug", "--for", "8s", "--logger", "shop", "--run-dir", "run")
        assert printed == "shop, all workers: DEBUG for 8s\n"
        wait_until(lambda: "debug" in levels(tmp_path), "it logs DEBUG", 6)
        assert re.match(r"shop, all workers: DEBUG for another [0-8]s\n", said(tmp_path, "level", "--show", "--run-dir", "run"))
        wait_until(lambda: "debug" not in levels(tmp_path)[-10:], "it has stopped")
    assert said(tmp_path, "level", "--show", "--run-dir", "run") == "nothing is asked for: every process logs as it was set up\n"


@pytest.mark.matrix
def test_levels_that_are_asked_for(tmp_path: Path) -> None:
    """They are shown, as JSON too, and taken back one by one or all at once."""
    board(tmp_path / "run")
    at = ("--run-dir", "run")
    said(tmp_path, "level", "ERROR", "--worker", "2", *at)
    said(tmp_path, "level", "DEBUG", "--for", "1h30m", *at)
    said(tmp_path, "level", "WARNING", "--logger", "noisy", *at)
    shown = json.loads(said(tmp_path, "level", "--show", "--json", *at))
    assert [(each["level"], each["logger"], each["worker"]) for each in shown] == [
        ("ERROR", "", 2),
        ("DEBUG", "", None),
        ("WARNING", "noisy", None),
    ]
    for chosen, level in ((("--logger", "noisy"), "WARNING"), (("--worker", "2"), "ERROR")):
        assert [each["level"] for each in json.loads(said(tmp_path, "level", "--show", "--json", *chosen, *at))] == [level]
    assert said(tmp_path, "level", "--show", "--logger", "quiet", *at) == "nothing is asked for of quiet, all workers\n"
    assert shown[0]["until"] is None
    assert 5300 < shown[1]["until"] - time.time() <= 5400
    assert said(tmp_path, "level", "--reset", "--worker", "2", *at) == "default level, worker 2: ERROR is taken back\n"
    assert said(tmp_path, "level", "--reset", "--logger", "noisy", *at) == "noisy, all workers: WARNING is taken back\n"
    assert [each.level for each in controls.asked_for(tmp_path / "run")] == [10]
    said(tmp_path, "level", "--reset", *at)
    assert controls.asked_for(tmp_path / "run") == []
    assert said(tmp_path, "level", "--reset", *at) == "nothing was asked for\n"


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a level"),
        (["DEBUG", "--show"], "give a level"),
        (["--show", "--reset"], "give a level"),
        (["LOUD"], "'LOUD' is not a level; levels are DEBUG"),
        (["DEBUG", "--for", "soon"], "--for soon: must be a duration such as 30s, 10m or 1h30m"),
        (["DEBUG", "--for", "0s"], "--for 0s: must be a duration"),
        (["--show", "--for", "5s"], "--for goes with a level"),
        (["DEBUG", "--json"], "--json goes with --show"),
        (["DEBUG", "--worker", "x"], "--worker"),
    ],
)
def test_a_level_that_is_not_said_well(tmp_path: Path, arguments: list[str], message: str) -> None:
    """The error names what is wrong and what would be right."""
    board(tmp_path / "run")
    assert message in refused(tmp_path, "level", *arguments, "--run-dir", "run")


@pytest.mark.parametrize(
    ("text", "seconds"), [("", None), ("5s", 5), ("10m", 600), ("1h30m", 5400), ("2h5s", 7205), ("90m", 5400), ("1d1s", 86401)]
)
def test_durations(text: str, seconds: float | None) -> None:
    """They are read in days, hours, minutes and seconds."""
    assert seconds_in(text) == seconds


@pytest.mark.parametrize("text", ["5", "s", "-5s", "1.5h", "5s1h", "1w", "5 s", "0m", "1h 5m"])
def test_what_is_no_duration(text: str) -> None:
    """The error shows what it would look like."""
    with pytest.raises(ConfigurationError, match="such as 30s, 10m or 1h30m"):
        seconds_in(text)


# metrics


def test_metrics_from_a_process_of_its_own(tmp_path: Path) -> None:
    """It says where it listens, serves the board, and ends at SIGTERM with code 0."""
    slots = board(tmp_path / "run", alive=True)
    environ = {**os.environ, "PYTHONPATH": ROOT}
    command = [sys.executable, "-m", "fapilog", "metrics", "--port", "0", "--run-dir", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"metrics of run on (http://127\.0\.0\.1:[0-9]+\S*)\n", line)
    assert found, line
    with urllib.request.urlopen(found[1], timeout=20) as answer:
        text = answer.read().decode()
    assert 'fapilog_sink_delivered_total{sink="file",worker="3"} 4990.0' in text
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    process.stdout.close()
    for slot in slots:
        slot.release()


# The rest


def test_without_the_packages(tmp_path: Path) -> None:
    """One line says what to install; `import fapilog` does without them."""
    script = """
        import sys
        sys.modules["typer"] = None
        import fapilog
        from fapilog.cli import main
        try:
            main()
        except SystemExit as end:
            print(end.code)
    """
    result = run_script(script, tmp_path)
    assert ran_well(result) == "2\n"
    assert result.stderr == "fapilog: the command line needs another package: pip install typer\n"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """The error names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused(tmp_path, "metrics", "--port", str(port), "--run-dir", str(tmp_path))
    assert message == f"fapilog: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize(
    "arguments",
    rest_in_matrix(
        2,
        [["stats", "--nothing"], ["level", "DEBUG", "--worker", "-1"], [], ["metrics"], ["nothing"], ["top", "--interval", "0"]],
    ),
)
def test_a_command_that_is_not_said_well(tmp_path: Path, arguments: list[str]) -> None:
    """One line says what is wrong."""
    message = refused(tmp_path, *arguments)
    assert message.startswith("fapilog: ")
    assert message.count("\n") == 1


@pytest.mark.matrix
def test_help(tmp_path: Path) -> None:
    """Each command has one."""
    assert all(name in said(tmp_path, "--help") for name in ("stats", "top", "level", "metrics"))
    for name in ("stats", "top", "level", "metrics"):
        assert "--run-dir" in said(tmp_path, name, "--help")


def test_numbers() -> None:
    """They are short and never rounded up to another unit's place."""
    assert [count(number) for number in (0, 7, 999, 999.7, 1000, 12_345, 999_499, 1e6, 4_510_000, 2.5e9)] == [
        *("0", "7", "999", "1.0k", "1.0k", "12.3k", "999k", "1.0M", "4.5M", "2.5G"),
    ]
    assert [size(number) for number in (0, 1023, 1024, 1536, 150_000, 5 << 20)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "146 KiB",
        "5.0 MiB",
    ]
    assert [duration(seconds) for seconds in (0, 59.9, 60, 3600, 3725, 90_000, 200_000)] == [
        "0s",
        "59s",
        "1m",
        "1h",
        "1h2m",
        "1d1h",
        "2d7h",
    ]
    assert [sparkline(values, 4) for values in ([], [0, 0], [1, 2, 4, 8, 16])] == ["    ", "    ", "▁▂▄█"]


@pytest.mark.parametrize(
    ("command", "code"),
    rest_in_matrix(2, [("top --interval 0.1", 0), ("stats --json", 1), ("verify a.jsonl", 0), ("stats", 1), ("level --show", 1)]),
)
def test_what_it_prints_to_a_pipe_that_closes(tmp_path: Path, command: str, code: int) -> None:
    """It ends, without a word."""
    board(tmp_path / "run")
    (tmp_path / "a.jsonl").write_text('{"event":"a","boot":"b","seq":1}\n')
    place = "" if command.startswith("verify") else "--run-dir run"
    line = f"{sys.executable} -m fapilog {command} {place} | true; exit ${{PIPESTATUS[0]}}"
    environ = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environ, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")
