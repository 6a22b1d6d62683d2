"""`fapilog top`: what is on the screen, and what is left of it afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import random
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyte
import pytest
from rich.cells import cell_len

from fapilog._internal import controls
from fapilog.cli.screen import WIDE, Frame, History, message, screen
from fapilog.identity import Identity
from fapilog.results import BUCKETS, ServiceStatistics, SinkTotals, WorkerStatistics
from tests.programs.running import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = str(Path(__file__).parents[1])
SIZES = [(80, 24), (200, 50)]
#: With this set the captures of docs/top.md are written anew.
RENEW = os.environ.get("FAPILOG_TEST_RENEW_DOCS") == "1"
DOCS = Path(__file__).parents[1] / "docs" / "top.md"


def sink(**more: Any) -> SinkTotals:
    fields: dict[str, Any] = {
        "accepted": 0,
        "delivered": 0,
        "dropped": {},
        "lost": 0,
        "in_flight": 0,
        "retries": 0,
        "took_seconds": 0.0,
    }
    fields |= {"took": (0,) * (len(BUCKETS) + 1), "backlog_bytes": 0, "up": True, "unprotected": 0}
    return SinkTotals(**{**fields, **more})


def worker(number: int, logged: int, **more: Any) -> WorkerStatistics:
    fields: dict[str, Any] = {
        "worker": number,
        "alive": True,
        "closed": False,
        "identity": Identity("shop", "prod", "host", number, 20_000 + number, f"b{number}"),
        "role": "worker",
        "started": 1_000_000.0,
        "updated": 1_003_725.0,
        "restarts": 3,
        "deaths": {"SIGKILL": 2, "exit": 1},
        "logged": logged,
        "accepted": logged,
        "refused": {"queue_full": 12_345, "sampled": 7},
        "filtered": 0,
        "levels": {"info": logged},
        "lost": 4,
        "recovered": 0,
        "queue_depth": 640,
        "queue_capacity": 1000,
        "queue_peak": 1100,
        "sinks": {
            "file": sink(delivered=logged),
            "loki": sink(delivered=logged // 2, dropped={"expired": 1_234, "rejected": 5}, backlog_bytes=30 << 20, up=False),
        },
    }
    return WorkerStatistics(**{**fields, **more})


def drawn(
    workers: list[WorkerStatistics], history: History, width: int, height: int, asked: Sequence[str] = (), hint: str = ""
) -> list[str]:
    """Return the lines of the screen."""
    seen = ServiceStatistics(Path("/run/shop"), tuple(workers), 0)
    return screen(seen, history, Frame(width, height, clock="12:00:00", hint=hint), asked).plain.splitlines()


def after(history: History, *looks: list[WorkerStatistics]) -> History:
    for number, workers in enumerate(looks):
        history.add(ServiceStatistics(None, tuple(workers), 0), float(number))
    return history


@pytest.mark.parametrize(("width", "height"), [*SIZES, (149, 30), (150, 30), (100, 24), (60, 12), (40, 5), (10, 3), (1, 1)])
@pytest.mark.parametrize("workers", [0, 1, 4, 64])
def test_the_screen_at_a_size(width: int, height: int, workers: int) -> None:
    """It fits, whatever the number of workers (invariant 1)."""
    seen = [worker(number, 1000 * number) for number in range(workers)]
    history = after(History(), seen, seen)
    lines = drawn(seen, history, width, height, ["default level, all workers: DEBUG for another 5m"] * 5, "q quits")
    assert len(lines) <= height
    assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize(("width", "height"), [*SIZES, (149, 24), (150, 24), (100, 24)])
def test_nothing_is_cut_inside_of_a_word(width: int, height: int) -> None:
    """Every word on the screen is one of a screen that has room for all, and every name has its number (invariant 1)."""
    reasons = {"retries_exhausted": 99_900, "stack_exhausted": 88_800, "queue_full": 77_700, "backlog_full": 66_600}
    sinks = {name: sink(up=False, backlog_bytes=(30 << 20) + at, dropped=reasons) for at, name in enumerate(["loki", "archive"])}
    seen = [worker(number, 999_999, refused=reasons, sinks=sinks, restarts=99_900) for number in (1, 10, 4096)]
    asked = [f"shop.orders.{name}, worker 2: ERROR until `fapilog level --reset`" for name in ("cart", "stock", "mail", "x")]
    history = after(History(), seen, seen)
    run_dir = Path("/a/rather/long/path/to/a/run/directory/of/a/service/that/has/a/long/name/shop-0b26fd1c047d")
    found = ServiceStatistics(run_dir, tuple(seen), 2)
    lines = screen(found, history, Frame(width, height, clock="12:00:00", hint="q quits"), asked).plain.splitlines()
    roomy = screen(found, history, Frame(width + 1000 * (width >= WIDE), 999), asked).plain
    assert [line for line in lines if "..." in line] == [line for line in lines if line.startswith(".../")]
    words = {word for line in lines[2:] for word in line.replace(",", " ").split()}
    known = {*roomy.replace(",", " ").split(), *" ".join(asked).replace(",", " ").split(), "2", "more", "levels"}
    assert {word for word in words - known if not re.fullmatch(r"\+[0-9]", word)} == set()
    for line in lines:
        assert not re.search(r"(retries_exhausted|stack_exhausted|queue_full|backlog_full)(?! [0-9.]+[kM]?\b)", line), line


def test_what_is_on_a_narrow_screen() -> None:
    """Rate, queue, peak, restarts, sinks up or down with their backlog, and what was dropped, for each worker and for all."""
    before = [worker(number, 1000 * number) for number in (1, 2)]
    now = [worker(1, 3500), worker(2, 2000)]
    lines = drawn(now, after(History(), before, now), 80, 24, ["shop.cart, all workers: DEBUG for another 5s"], hint="q quits")
    assert lines[:3] == [
        "fapilog top  shop  2 of 2 live  /run/shop  12:00:00  q quits",
        "asked for: shop.cart, all workers: DEBUG for another 5s",
        "",
    ]
    assert lines[3].split() == ["w", "state", "ev/s", "rate", "queue", "peak", "rst", "sinks", "drops"]
    assert re.fullmatch(r" +1 live +2\.5k +█ +640 1\.1k +3 loki! 30\.0M, file +queue_full 12\.3k \+3", lines[4]), lines[4]
    assert re.fullmatch(r" +2 live +0 +640 1\.1k +3 loki! 30\.0M, file +queue_full 12\.3k \+3", lines[5]), lines[5]
    assert re.fullmatch(r"all +2\.5k +█ +1\.3k +6 loki! 60\.0M, file +queue_full 24\.7k \+3", lines[6]), lines[6]
    assert lines[8:] == [
        "refused: queue_full 24.7k, sampled 14",
        "file: 5.5k delivered, dropped: none",
        "loki: DOWN in 2 of 2, 2.8k delivered, dropped: expired 2.5k, rejected 10",
    ]


def test_what_is_on_a_wide_screen() -> None:
    """The same, and since when, how much in all, by which signals workers died, what was lost, and each reason."""
    before, now = [worker(1, 1000)], [worker(1, 3500)]
    lines = drawn(now, after(History(), before, now), 200, 50)
    assert lines[2].split() == [
        *("worker", "state", "pid", "up", "logged", "ev/s", "rate", "queue", "peak"),
        *("restarts", "deaths", "lost", "sinks", "drops"),
    ]
    assert "1h2m" in lines[3]
    assert "640/1.0k" in lines[3]
    assert "SIGKILL 2, exit 1" in lines[3]
    assert lines[3].endswith("loki DOWN 30.0 MiB, file  queue_full 12.3k, expired 1.2k, sampled 7, rejected 5"), lines[3]
    assert lines[4].startswith("   all ")


def test_a_directory_with_a_long_path() -> None:
    """Its last parts are on a line of their own."""
    found = ServiceStatistics(Path("/" + "a/" * 50 + "shop-0b26fd1c047d"), (worker(1, 1),), 0)
    lines = screen(found, History(), Frame(80, 24, clock="12:00:00", hint="q quits")).plain.splitlines()
    assert lines[0] == "fapilog top  shop  1 of 1 live  12:00:00  q quits"
    assert re.fullmatch(r"\.\.\./(a/)+shop-0b26fd1c047d", lines[1])


def test_colours() -> None:
    """A sink that is down is red, a worker that is gone is dim, and what was dropped is yellow."""
    found = ServiceStatistics(None, (worker(1, 1), worker(2, 1, alive=False)), 0)
    text = screen(found, History(), Frame(200, 50))
    styles = {(text.plain[span.start : span.end].strip(), str(span.style)) for span in text.spans}
    assert ("loki DOWN 30.0 MiB, file", "bold red") in styles
    assert ("queue_full 12.3k, expired 1.2k, sampled 7, rejected 5", "yellow") in styles
    assert {style for line, style in styles if line.startswith("2  died")} == {"dim"}


def test_a_board_that_cannot_be_read() -> None:
    """One line says so, in no more than the width, and one how to leave."""
    frame = Frame(40, 24, clock="12:00:00", hint="q quits")
    lines = message("/run/x\x1b cannot be read: Permission denied", frame).plain.splitlines()
    assert lines == ["fapilog top  /run/x\\x1b cannot be...", "12:00:00  q quits"]


def test_names_that_a_terminal_must_not_get() -> None:
    """They are shown as escapes, and mean nothing to whatever draws the screen (invariant 3)."""
    sinks = {"[/bold]\x1b[31m": sink()}
    bad = {"identity": Identity("a\x1bb", "", "h", 1, 1, "b"), "refused": {"r\x1b[2J": 1}, "deaths": {"\n\x9b": 1}}
    text = "\n".join(drawn([worker(1, 10, sinks=sinks, **bad)], History(), 200, 50, ["x\x1b[2J: DEBUG"]))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert "[/bold]\\x1b[31m" in text
    assert "fapilog top  a\\x1bb" in text


def test_names_of_wide_characters() -> None:
    """They are measured in columns."""
    wide = {"identity": Identity("\u5e97" * 60, "", "h", 1, 1, "b"), "refused": {"\u4e00" * 9: 5}}
    sinks = {"\u8a18\u9332": sink(), "file": sink(up=False)}
    lines = drawn([worker(1, 10, sinks=sinks, **wide), worker(2, 10)], History(), 80, 24, hint="q quits")
    assert all(cell_len(line) <= 80 for line in lines)
    at = [cell_len(line[: line.index("file!")]) for line in lines if "file!" in line]
    assert len(set(at)) == 1, lines


def test_a_worker_that_is_gone() -> None:
    """It says how it ended, and has no gauges."""
    gone = {"alive": False, "queue_depth": None, "queue_peak": None, "queue_capacity": None}
    sinks = {"file": sink(backlog_bytes=None, up=None)}
    lines = drawn([worker(1, 10, **gone, sinks=sinks), worker(2, 10, **gone, closed=True, sinks=sinks)], History(), 80, 24)
    assert lines[3].split()[:2] == ["1", "died"]
    assert lines[4].split()[:2] == ["2", "closed"]
    assert "file" not in lines[3]


def test_more_workers_than_lines() -> None:
    """The busiest are shown, the busiest first, and the others are counted (invariant 1)."""
    before = [worker(number, 0) for number in range(64)]
    now = [worker(number, number * 10) for number in range(64)]
    lines = drawn(now, after(History(), before, now), 80, 24)
    shown = [int(line.split()[0]) for line in lines if re.match(r" *[0-9]+ live", line)]
    assert shown == list(range(63, 63 - len(shown), -1))
    assert len(shown) > 10
    assert len(lines) == 24
    assert f"{64 - len(shown)} workers that log less are not shown" in lines


def test_rates() -> None:
    """They are what a counter has grown by, however far apart the looks are; a worker that is new has none (invariant 2)."""
    history = History()
    for at, logged in ((0.0, 0), (2.0, 100), (2.5, 100), (4.5, 1100)):
        history.add(ServiceStatistics(None, (worker(1, logged),), 0), at)
    assert list(history.rates[1]) == [50.0, 0.0, 500.0]
    assert history.rate(1) == 500.0
    assert history.rate(2) == 0.0


def test_the_rate_of_a_row_that_could_not_be_read_for_a_while() -> None:
    """It is over the time since it was last seen; a counter that falls is a new board's, and no rate is below 0 (invariant 2)."""
    history = History()
    for at, workers in ((0.0, (worker(1, 0),)), (1.0, ()), (4.0, (worker(1, 400),)), (5.0, (worker(1, 10),))):
        history.add(ServiceStatistics(None, workers, 0), at)
    assert list(history.rates[1]) == [100.0, 0.0]
    assert list(history.total) == [100.0, 0.0]


# On a terminal

PROGRAM = """
import os, signal, socket, time, fapilog
nobody = socket.socket()
nobody.bind(("127.0.0.1", 0))  # and does not listen
fapilog.configure_logging(
    sinks=["file", "loki"], file_path="{service}.{worker}.jsonl", service="shop", run_dir="run", queue_size=400,
    loki_url=f"http://127.0.0.1:{nobody.getsockname()[1]}", loki_backlog_bytes=300_000,
)
parent = os.getpid()

def orders(number, until=float("inf")):
    log = fapilog.get_logger("shop")
    while time.monotonic() < until and (os.getpid() == parent or os.getppid() == parent):
        for n in range((6, 18, 36, 500)[number]):
            log.info("order placed", n=n)
        time.sleep(0.02 if number < 3 else 0.5)

def child(number):
    pid = os.fork()
    if pid == 0:
        orders(number)
        os._exit(0)
    return pid

first = [child(number) for number in (1, 2, 3)][0]
orders(0, time.monotonic() + 1.5)
os.kill(first, signal.SIGKILL)
os.waitpid(first, 0)
child(1)
open("ready", "w").close()
orders(0)
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Path]:
    """Run a service of four processes, one of which took the place of one that was killed, with a sink that is down."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL, process_group=0
    )
    wait_until((tmp_path / "ready").exists, "four processes log")
    yield tmp_path
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


def environment(**more: str) -> dict[str, str]:
    names = ("FAPILOG_", "COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    return {**clean, "PYTHONPATH": ROOT, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **more}


#: Starts a command with standard input as its controlling terminal, as a shell's commands have it.
LOGIN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
TOP = (sys.executable, "-W", "error", "-m", "fapilog", "top", "--run-dir", "run", "--interval")


class Terminal:
    """
    `fapilog top` on a terminal.

    Args:
        folder: With a run directory `run`.
        width: Columns.
        height: Lines.
        command: Another one.
        more: Environment.
    """

    def __init__(self, folder: Path, width: int, height: int, command: Sequence[str] = (*TOP, "0.3"), **more: str) -> None:
        self.screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.fd, self._inner = pty.openpty()
        self.resize(width, height)
        self.before = termios.tcgetattr(self._inner)
        self.stderr = folder / "stderr"
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LOGIN, *command],
                cwd=folder,
                env=environment(**more),
                stdin=self._inner,
                stdout=self._inner,
                stderr=stderr,
                start_new_session=True,
            )

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.screen.resize(height, width)

    def read(self, seconds: float) -> bytes:
        """Take in what it prints, for so long; return all that it ever printed."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:
                    break
                self.raw += data
                self._stream.feed(data)
        return self.raw

    def shows(self, text: str) -> bool:
        self.read(0.2)
        return any(re.search(text, line) for line in self.screen.display)

    def ended(self) -> int:
        """Wait for its end; return the exit code."""
        code = None
        end = time.monotonic() + 20
        while (code := self.process.poll()) is None and time.monotonic() < end:
            self.read(0.1)
        assert code is not None
        self.read(0.1)
        assert self.stderr.read_text() == ""
        return code

    def is_as_before(self) -> bool:
        """Whether its modes are as before, the other screen has been left and the cursor is shown."""
        shown = self.raw.rfind(b"\x1b[?1049l") > self.raw.rfind(b"\x1b[?1049h") > -1 < self.raw.rfind(b"\x1b[?25h")
        return shown and termios.tcgetattr(self._inner) == self.before

    def hang_up(self) -> None:
        os.close(self.fd)
        os.close(self._inner)
        self.fd = self._inner = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in (self.fd, self._inner) if self.fd >= 0 else ():
            os.close(fd)


@contextlib.contextmanager
def top(folder: Path, width: int = 80, height: int = 24, *command: str, **more: str) -> Iterator[Terminal]:
    terminal = Terminal(folder, width, height, command or (*TOP, "0.3"), **more)
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.mark.matrix
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_top_on_a_terminal(service: Path, width: int, height: int) -> None:
    """
    All workers are there with rates, sinks, drops and restarts, in whole lines; `q` ends it with code 0, and the terminal is as
    before (Show 5).
    """
    controls.ask(service / "run", 10, logger="shop.cart", seconds=600)
    with top(service, width, height) as terminal:
        wait_until(lambda: terminal.shows(r"4 of 4 live"), "it shows four workers")
        wait_until(lambda: terminal.shows(r"^ *all .*[1-9][0-9.]*k? .*loki.*backlog_full"), "there are rates and drops")
        terminal.read(4.0 if RENEW else 0.7)
        lines = [line.rstrip() for line in terminal.screen.display]
        assert re.match(r"fapilog top  shop  4 of 4 live  run  [0-9:]{8}  q quits$", lines[0])
        assert re.match(r"asked for: shop\.cart, all workers: DEBUG for another (10m|9m[0-9]+s)$", lines[1])
        rows = [line for line in lines if re.match(r" *[1-4] +live ", line)]
        assert [row.split()[0] for row in rows] == ["1", "2", "3", "4"]
        assert all(re.search(r"loki( DOWN|!) [0-9.]+ ?[KM]", row) for row in rows), rows
        assert any("queue_full" in line for line in lines if line.startswith("refused: "))
        assert sum(bool(re.search(r"[▁▂▃▄▅▆▇█] +[0-9.]+k?(/400)? +[0-9.]+k? +1 ", row)) for row in rows) == 1
        assert not any("..." in line for line in lines)
        assert termios.tcgetattr(terminal.fd)[3] & (termios.ECHO | termios.ICANON) == 0
        os.write(terminal.fd, b"xq")
        assert terminal.ended() == 0
        assert terminal.is_as_before()
    if RENEW:
        renew(width, height, lines)


def renew(width: int, height: int, lines: list[str]) -> None:
    """Put what was on the screen into the documentation."""
    text = DOCS.read_text()
    title = f"### {width}x{height}\n"
    head, _, rest = text.partition(title)
    _, _, rest = rest.partition("```\n")[2].partition("```\n")
    shown = "\n".join(lines).rstrip()
    DOCS.write_text(f"{head}{title}\n```\n{shown}\n```\n{rest}")


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)]
)
def test_top_that_is_ended_by_a_signal(service: Path, number: int, code: int) -> None:
    """The terminal is as before, also if the signal comes more than once (invariant 1)."""
    with top(service) as terminal:
        wait_until(lambda: terminal.shows("4 of 4 live"), "it shows four workers")
        for _ in range(3):
            terminal.process.send_signal(number)
        assert terminal.ended() == code
        assert terminal.is_as_before()


@pytest.mark.matrix
@pytest.mark.parametrize("moment", [pytest.param(n, marks=pytest.mark.soak if n % 3 else ()) for n in range(8)])
def test_top_that_is_ended_at_any_moment(service: Path, moment: int) -> None:
    """The terminal has its modes, and the first screen, once there is anything to be seen (invariant 1)."""
    with top(service, 80, 24, *TOP, "0.1") as terminal:
        wait_until(lambda: terminal.read(0.01), "it begins", 20)
        terminal.read(0.02 * moment)
        os.write(terminal.fd, b"\x03" * 3)
        assert terminal.ended() == 0
        assert terminal.is_as_before()


def test_a_terminal_that_hangs_up(service: Path) -> None:
    """The command ends, and says nothing (invariant 1)."""
    with top(service) as terminal:
        wait_until(lambda: terminal.shows("4 of 4 live"), "it shows four workers")
        terminal.hang_up()
        assert terminal.process.wait(20) == 129
        assert terminal.stderr.read_text() == ""


def test_a_terminal_that_is_held_up(service: Path) -> None:
    """After Ctrl-S keys are still heard, and the terminal is as before when it goes on (invariant 1)."""
    with top(service, 80, 24, *TOP, "0.1") as terminal:
        wait_until(lambda: terminal.shows("4 of 4 live"), "it shows four workers")
        os.write(terminal.fd, b"\x13")
        terminal.read(0.5)
        os.write(terminal.fd, b"q\x11")
        assert terminal.ended() == 0
        assert terminal.is_as_before()


@pytest.mark.matrix
def test_top_that_is_stopped_and_goes_on(service: Path) -> None:
    """Ctrl-Z gives the shell its terminal as it was, `fg` shows the workers again, and `q` still quits (invariant 1)."""
    with top(service, 80, 24, "sh", "-c", "exec sh -i 2>&1", PS1="PROMPT ", ENV="") as terminal:
        wait_until(lambda: terminal.shows("PROMPT"), "the shell is there")
        os.write(terminal.fd, shlex.join((*TOP, "0.3")).encode() + b"\n")
        wait_until(lambda: terminal.shows("4 of 4 live"), "it shows four workers")
        os.write(terminal.fd, b"\x1a")
        wait_until(lambda: terminal.shows("PROMPT") and terminal.raw.rstrip().endswith(b"PROMPT"), "the shell is there again")
        os.write(terminal.fd, b"stty -a; echo stopp''ed\n")
        wait_until(lambda: b"stopped" in terminal.read(0.1), "the shell has said how the terminal is", 20)
        modes = terminal.raw.rpartition(b"\x1b[?1049l")[2].split()
        assert b"icanon" in modes
        assert b"-icanon" not in modes
        terminal.screen.reset()
        os.write(terminal.fd, b"fg\n")
        wait_until(lambda: terminal.shows("4 of 4 live"), "it shows four workers again")
        os.write(terminal.fd, b"q")
        wait_until(lambda: terminal.read(0.1).rstrip().endswith(b"PROMPT"), "it has ended", 20)
        os.write(terminal.fd, b"echo code $?\n")
        wait_until(lambda: terminal.shows("code 0"), "it has ended well")


@pytest.mark.matrix
def test_a_terminal_that_changes_its_size(service: Path) -> None:
    """It is drawn anew at once, and the rates are still over whole intervals (invariant 3)."""
    with top(service, 80, 24, *TOP, "8", COLUMNS="120", LINES="9") as terminal:
        wait_until(lambda: terminal.shows("rst"), "it shows the narrow form")
        began = time.monotonic()
        for _ in range(3):
            terminal.resize(200, 50)
            wait_until(lambda: terminal.shows("restarts"), "it shows the wide form")
            terminal.resize(80, 24)
            wait_until(lambda: terminal.shows("rst"), "it shows the narrow form")
        assert time.monotonic() < began + 8
        assert terminal.shows(r"^all +0 ")


@pytest.mark.matrix
def test_a_board_that_goes_away(service: Path) -> None:
    """It is shown as empty, one that may not be read as that, and again when it is back (invariant 2)."""
    with top(service) as terminal:
        wait_until(lambda: terminal.shows("4 of 4 live"), "it shows four workers")
        (service / "run").rename(service / "away")
        wait_until(lambda: terminal.shows("0 of 0 live"), "it shows none")
        (service / "away").rename(service / "run")
        (service / "run").chmod(0o777)
        wait_until(lambda: terminal.shows("run cannot be read: it belongs to somebody else or"), "it says so")
        (service / "run").chmod(0o700)
        wait_until(lambda: terminal.shows("4 of 4 live"), "it shows four workers again")


@pytest.mark.matrix
def test_a_board_that_is_damaged_again_and_again(service: Path) -> None:
    """What can be read is shown, nothing ends the command, and the processes are all there when it is over (invariant 2)."""
    board = service / "run" / "board-1"
    chance = random.Random(5)
    with top(service, 80, 24, *TOP, "0.1") as terminal:
        wait_until(lambda: terminal.shows("4 of 4 live"), "it shows four workers")
        for _ in range(20):
            with board.open("r+b") as file:
                for _ in range(200):
                    file.seek(chance.randrange(board.stat().st_size))
                    file.write(chance.randbytes(4))
            terminal.read(0.1)
            assert terminal.process.poll() is None
        board.unlink()
        wait_until(lambda: terminal.shows("4 of 4 live"), "it shows four workers again")
        os.write(terminal.fd, b"q")
        assert terminal.ended() == 0


def test_a_board_without_workers(tmp_path: Path) -> None:
    """There are a header, titles and totals of nothing, and the first worker that comes is shown."""
    (tmp_path / "run").mkdir(mode=0o700)
    controls.ask(tmp_path / "run", 10)
    with top(tmp_path) as terminal:
        wait_until(lambda: terminal.shows("0 of 0 live  run"), "it shows none")
        wait_until(lambda: terminal.shows("^all +0"), "it shows totals")


def test_a_terminal_that_can_do_nothing(service: Path) -> None:
    """It gets snapshots."""
    with top(service, 80, 24, *TOP, "0.2", "--count", "2", TERM="dumb", FORCE_COLOR="1") as terminal:
        assert terminal.ended() == 0
        assert terminal.raw.count(b"4 of 4 live") == 2
        assert b"\x1b" not in terminal.raw


def test_variables_that_say_it_is_no_terminal(service: Path) -> None:
    """It is one all the same."""
    with top(service, 80, 24, *TOP, "0.2", "--count", "2", TTY_COMPATIBLE="0", NO_COLOR="1") as terminal:
        assert terminal.ended() == 0
        assert terminal.is_as_before()
        assert b"\x1b[31m" not in terminal.raw


@pytest.mark.matrix
def test_a_terminal_that_knows_ascii_only(service: Path) -> None:
    """Sparklines are made of signs that it knows."""
    with top(service, PYTHONIOENCODING="ascii") as terminal:
        wait_until(lambda: terminal.shows(r"live +[0-9.k]+ +[.:=+*#@-]{3,}"), "it shows rates")
        os.write(terminal.fd, b"q")
        assert terminal.ended() == 0
        assert terminal.raw.isascii()


@pytest.mark.matrix
def test_top_as_json(service: Path) -> None:
    """Each look is a line, which is what `fapilog stats --json` says."""
    command = (*TOP, "1", "--count", "3", "--json")  # two publications of each worker lie between two looks
    done = subprocess.run(command, cwd=service, env=environment(), capture_output=True, text=True, timeout=30, check=True)
    looks = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(look["workers"]) for look in looks] == [4, 4, 4]
    logged = [sum(worker["logged"] for worker in look["workers"]) for look in looks]
    assert logged[0] < logged[2]


def test_top_without_a_terminal(service: Path) -> None:
    """One snapshot follows the other, without control characters; `--count` ends it."""
    done = subprocess.run(
        (*TOP, "0.3", "--count", "3"), cwd=service, env=environment(), capture_output=True, text=True, timeout=30, check=True
    )
    assert "\x1b" not in done.stdout
    assert done.stdout.count("fapilog top  shop  4 of 4 live  run") == 3
    assert done.stdout.count("refused: ") == 3
    assert len(re.findall(r"^ +all +[0-9.]+[kM]? +[1-9]", done.stdout, re.MULTILINE)) == 3
    assert done.stderr == ""


def test_a_reader_that_has_seen_enough(service: Path) -> None:
    """The command ends with code 0 and says nothing (O-CLI-2)."""
    with subprocess.Popen(
        (*TOP, "0.1"), cwd=service, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"fapilog top")
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == b""
