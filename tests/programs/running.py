"""Real processes for tests: started in a session of their own, waited for with limits, looked through afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Self

PROGRAMS = Path(__file__).parent
LIMIT_S = 45.0  # a process that runs longer hangs; the machine may be slow and full
FULL = os.environ.get("FAPILOG_TEST_FULL") == "1"

# What a program may not do on the quiet. Python 3.12+ warns at a fork beside a thread; surviving that is what fapilog is for.
STRICT = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")

# A shell's job in the background is born with SIGINT ignored, and hands that on to everything that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_until(condition: Callable[[], Any], what: str, limit: float = LIMIT_S) -> Any:
    """Return the first true value of *condition*; fail after *limit* seconds, saying *what* did not come true."""
    end = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {limit:g} s: {what}"
        time.sleep(0.01)
    return value


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Return an environment without inherited settings: a file sink into *folder*, a run directory of its own."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FAPILOG_", "OTEL_", "GUNICORN_", "PYTEST_", "COV_"))}
    env.pop("WEB_CONCURRENCY", None)
    paths = [str(PROGRAMS / "dump"), *filter(None, [env.get("PYTHONPATH")])]
    return (
        env
        | {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_RUNTIME_DIR": str(folder),  # gunicorn's control socket
            "FAPILOG_SERVICE": "app",
            "FAPILOG_SINKS": "file",
            "FAPILOG_FILE_PATH": str(folder / "{service}.{worker}.jsonl"),
            "FAPILOG_RUN_DIR": str(folder / "run"),
        }
        | settings
    )


def living(group: int) -> list[int]:
    """Return the processes of a process group that run; a dead one that nobody has waited for does not."""
    if not os.path.isdir("/proc/self"):
        table = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
        rows = [row.split() for row in table.splitlines()]
        return [int(pid) for pid, pgid, state, *_ in rows if int(pgid) == group and not state.startswith("Z")]
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            state, _, pgid, session = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:4]
            if group in {int(pgid), int(session)} and state not in "ZX":
                found.append(int(entry))
    return found


class Running:
    """
    A program under test, with all it forks, in a session of its own; a context manager that leaves no process behind.

    Args:
        command: Its command line.
        folder: Where its output goes, and its working directory.
        env: All of its environment.
        pass_fds: Descriptors that it inherits.
    """

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str], pass_fds: Iterable[int] = ()) -> None:
        name = f"{time.monotonic_ns()}"
        self.folder = folder
        self.out = folder / f"{name}.out"
        self.err = folder / f"{name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=tuple(pass_fds),
                start_new_session=True,
            )
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.dump_stacks()
            print(f"---- stdout\n{self.stdout[-3000:]}\n---- the end of stderr\n{self.stderr[-12000:]}")
        self.kill()

    @property
    def stdout(self) -> str:
        return self.out.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self.err.read_text(errors="replace")

    def said(self, text: str, count: int = 1) -> None:
        """Wait until it has printed *text*, *count* times."""

        def heard() -> bool:
            ended = self.process.poll() is not None
            if self.stdout.count(text) >= count:
                return True
            assert not ended, f"ended with {self.process.returncode} before it said {text!r}"
            return False

        wait_until(heard, f"it says {text!r}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, limit: float = LIMIT_S) -> int:
        """Wait for its end and return the exit code; a signal counts negative."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.process.args!r} still runs after {limit:g} s") from None

    def nothing_left(self, limit: float = 5.0) -> None:
        """Check that no process of the session runs any more."""
        wait_until(lambda: not living(self.pid), f"no process left, but {living(self.pid)}", limit)

    def dump_stacks(self) -> None:
        """Let what still runs print its stacks to stderr."""
        left = living(self.pid)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGVTALRM)
        if left:
            time.sleep(0.5)

    def kill(self) -> None:
        """End whatever is left of the session."""
        for pid in living(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def start(folder: Path, program: str, *arguments: str, options: Sequence[str] = STRICT, **settings: str) -> Running:
    """Start a script of this directory, with `FAPILOG_*` *settings*."""
    command = [*options, str(PROGRAMS / f"{program}.py"), *arguments]
    return Running(command, folder, environment(folder, **settings))


LEDGER = ("fapilog.worker_died", "fapilog.worker_started", "fapilog.recovered")


@dataclass
class Life:
    """The lines of one process life in one file."""

    path: Path
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seqs(self) -> list[int]:
        return sorted(line["seq"] for line in self.lines)

    @property
    def worker(self) -> int:
        return int(self.lines[0]["worker"])

    @property
    def pid(self) -> int:
        return int(self.lines[0]["pid"])

    @property
    def first(self) -> dict[str, Any]:
        """The first line but for those about the processes that held the slot before."""
        return next(line for line in self.lines if line["event"] not in LEDGER)

    def named(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def whole(self, *, closed: bool | None = True) -> Life:
        """Check that it was closed once, not at all, or (None) as may be, that nothing was dropped, no seq missing or doubled."""
        assert self.seqs == list(range(1, len(self.lines) + 1))
        assert closed is None or len(self.named("fapilog.closed")) == closed
        assert not self.named("fapilog.dropped")
        return self


def lives_in(data: bytes, path: Path) -> list[Life]:
    """Return the lives whose lines are in *data*, in the order of their first lines; every line must be whole."""
    assert data.endswith(b"\n") or not data, f"{path}: the last line is cut off"
    found: dict[str, Life] = defaultdict(lambda: Life(path))
    for raw in data.splitlines():
        line = orjson.loads(raw)
        found[line["boot"]].lines.append(line)
    for life in found.values():
        assert {(line["pid"], line["worker"]) for line in life.lines} == {(life.pid, life.worker)}
    return list(found.values())


def lives(folder: Path, service: str = "app") -> list[Life]:
    """Return every life in the files of *service*; a file's name must say whose lines are in it."""
    found = [life for path in sorted(folder.glob(f"{service}.*.jsonl")) for life in lives_in(path.read_bytes(), path)]
    assert all(life.path.name == f"{service}.{life.worker}.jsonl" for life in found)
    return found


def only_life(folder: Path) -> Life:
    """Return the one life that there must be."""
    (life,) = lives(folder)
    return life
