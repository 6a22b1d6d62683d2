"""
``fapilog top``: a look at all workers, again and again.

Invariants:

1. The terminal is as it was when this ends or is stopped, however that comes about but by SIGKILL: no signal handler raises, so
   nothing interrupts the way out.
2. A board that is empty, goes away or cannot be read is shown as that; the next look may find it again.
3. A look is taken every interval, whatever is typed and however often the terminal changes its size: rates are over whole
   intervals.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import termios
import time
import tty
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import orjson
from rich.console import Console
from rich.live import Live

from fapilog._internal import controls
from fapilog._internal.native import close_fd
from fapilog._internal.overview import overview
from fapilog.cli.level import described
from fapilog.cli.screen import Frame, History, message, screen
from fapilog.cli.shown import BARS, PLAIN_BARS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.text import Text

    from fapilog.results import ServiceStatistics

PLAIN = Frame(width=200, height=10_000)
DUMB = frozenset(("", "dumb", "unknown"))  # values of TERM
QUIT = frozenset(b"qQ")
#: Signals that end it, with the exit code: 0 for those that are asked of it in the ordinary way, as for `fapilog metrics`.
ENDINGS = {signal.SIGINT: 0, signal.SIGTERM: 0, signal.SIGHUP: 128 + signal.SIGHUP, signal.SIGQUIT: 128 + signal.SIGQUIT}
PAUSES = (signal.SIGTSTP, signal.SIGCONT)


def watch(run_dir: Path, interval: float, looks: int, *, as_json: bool = False) -> None:
    """
    Show the board in *run_dir* every *interval* seconds, *looks* times or (0) until somebody leaves.

    Raises:
        SystemExit: A signal has ended it that says more than that somebody has seen enough.
    """
    on_terminal = sys.stdout.isatty() and sys.stdin.isatty() and os.environ.get("TERM", "") not in DUMB
    if on_terminal and not as_json:
        code = _live(View(run_dir), interval, looks)
        if code:
            raise SystemExit(code)
        return
    try:
        _snapshots(View(run_dir), interval, looks, as_json=as_json)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # whoever read it has seen enough; the interpreter must not find that out once more at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class View:
    """
    What is to be seen of a service.

    Args:
        run_dir: Where it meets.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._history = History()
        self._found: ServiceStatistics | None = None
        self._asked: list[str] = []
        self._wrong = ""
        self._clock = ""

    def look(self) -> None:
        """See how things stand."""
        self._clock = time.strftime("%H:%M:%S")
        try:
            self._found = overview(self._run_dir)
            self._asked = [described(each) for each in controls.asked_for(self._run_dir)]
        except OSError as error:
            self._found, self._wrong = None, f"{self._run_dir} cannot be read: {error.strerror or error}"
        else:
            self._history.add(self._found, time.monotonic())

    def drawn(self, frame: Frame) -> Text:
        """Return what the last look has shown."""
        frame = replace(frame, clock=self._clock)
        return message(self._wrong, frame) if self._found is None else screen(self._found, self._history, frame, self._asked)

    def document(self) -> str:
        """Return the same as JSON; ``null`` where nothing could be read."""
        return orjson.dumps(self._found, default=str).decode()


def _snapshots(view: View, interval: float, looks: int, *, as_json: bool) -> None:
    frame = replace(PLAIN, bars=_bars(sys.stdout.encoding))
    view.look()  # what rates are measured from
    for _ in _numbers(looks):
        time.sleep(interval)
        view.look()
        print(view.document() if as_json else view.drawn(frame).plain + "\n", flush=True)


def _numbers(looks: int) -> Iterator[int]:
    number = 0
    while not looks or number < looks:
        yield number
        number += 1


def _bars(encoding: str) -> str:
    return BARS if encoding.lower().startswith("utf") else PLAIN_BARS


def _live(view: View, interval: float, looks: int) -> int:
    """Show *view* until it is over; return the exit code."""
    numbers = _numbers(looks)
    while True:
        # Rich asks variables of the environment whether this is a terminal; it is one.
        console = Console(force_terminal=True, highlight=False, markup=False, emoji=False)
        terminal = Terminal()
        try:
            with terminal, Live(console=console, screen=True, auto_refresh=False) as live:
                why = _shown(view, terminal, live, interval, numbers)
                terminal.pauses = why in PAUSES
        except (OSError, termios.error):  # the terminal is gone
            why = signal.SIGHUP
        if why in PAUSES:
            why = next((each for each in terminal.missed if each in ENDINGS), why)
        if why not in PAUSES:
            return ENDINGS.get(signal.Signals(why), 0) if why else 0
        if why == signal.SIGTSTP:
            signal.raise_signal(signal.SIGTSTP)  # the terminal is as it was: the shell may have it; goes on here afterwards


def _shown(view: View, terminal: Terminal, live: Live, interval: float, numbers: Iterator[int]) -> int:
    """Show *view*, look by look; return the signal that ended it, 0 if none did."""
    for _ in numbers:
        view.look()
        due = time.monotonic() + interval
        while True:
            if terminal.takes_more():
                size = terminal.size()
                live.console.size = size
                frame = Frame(*size, bars=_bars(live.console.encoding), hint="q quits")
                live.update(view.drawn(frame), refresh=True)
            came = terminal.what_came(due - time.monotonic())
            if came is None:
                break
            if came != signal.SIGWINCH:
                return came
    return 0


class Terminal:
    """
    The terminal, giving each key as it is pressed and showing none; a context manager that puts everything back.

    Attributes:
        pauses: Whether it will be used again. If not, signals that would end the process are ignored from the end on: a second
            Ctrl-C must not spoil what the first one has begun.
        missed: Signals that came and that nobody has asked for, known at the end.
    """

    pauses = False
    missed = b""

    def __enter__(self) -> Self:
        self._keys, self._screen = sys.stdin.fileno(), sys.stdout.fileno()
        self._before = termios.tcgetattr(self._keys)
        # The interpreter writes the number of each signal into the pipe: what has come is found there, in its order.
        self._signals, self._wake = os.pipe()
        for end in (self._signals, self._wake):
            os.set_blocking(end, False)
        self._wake_before = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        noticed = (*ENDINGS, *PAUSES, signal.SIGWINCH)
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in noticed}
        with contextlib.suppress(termios.error):  # a terminal that is gone ends the first look
            tty.setcbreak(self._keys)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._keys, termios.TCSANOW, self._before)  # TCSADRAIN would wait for one that is stopped
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_IGN if number in ENDINGS and not self.pauses else handler)
        signal.set_wakeup_fd(self._wake_before)
        with contextlib.suppress(BlockingIOError):
            self.missed = os.read(self._signals, 64)
        close_fd(self._signals)
        close_fd(self._wake)

    def size(self) -> tuple[int, int]:
        """Return its columns and lines; 80x24 if it does not know."""
        columns, lines = os.get_terminal_size(self._screen)
        return columns or 80, lines or 24

    def takes_more(self) -> bool:
        """Whether it is not held up (Ctrl-S, a connection that hangs): writing would wait, and `q` would find nobody."""
        return bool(select.select([], [self._screen], [], 0)[1])

    def what_came(self, seconds: float) -> int | None:
        """
        Wait at most so long for something to happen.

        Returns:
            The number of the signal that came, 0 for a key that quits, *None* for nothing.

        Raises:
            OSError: The terminal is gone.
        """
        end = time.monotonic() + seconds
        while True:
            ready, _, _ = select.select([self._signals, self._keys], [], [], max(0.0, end - time.monotonic()))
            if self._signals in ready:
                return os.read(self._signals, 1)[0]
            if not ready:
                return None
            typed = os.read(self._keys, 64)
            if not typed:
                raise OSError(errno.EIO, "no more keys")
            if QUIT.intersection(typed):
                return 0
            if time.monotonic() > end:  # somebody leans on a key
                return None
