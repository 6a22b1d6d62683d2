"""A service whose processes are killed, programs that are, and what can be seen of them meanwhile and afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fapilog._internal.overview import overview
from tests.chaos.oracle import balanced, exactly_once, strangers, written
from tests.programs.running import living
from tests.servers.harness import OUR_CONF, UVICORN_WORKER, Gunicorn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WORKERS = 4
LIMIT_S = 100.0
HERE = Path(__file__).parent

START = """
import os, sys, time, fapilog
fapilog.configure_logging(**{**dict(sinks=["file"], file_path="app.{worker}.jsonl", run_dir="run", journal="on"), **SETTINGS})
log = fapilog.get_logger("a")
"""
# Rings of 68 KiB, and batches of ten events at most: nothing is overwritten that is not delivered.
SMALL: dict[str, Any] = {"max_event_bytes": 2048, "journal_bytes": 16_384}
ROTATING: dict[str, Any] = {**SMALL, "file_max_bytes": 10_000, "file_keep": 10_000}
LATE: dict[str, Any] = {"queue_batch_timeout": 60, "queue_batch_size": 100_000}
# Processes one after another, forked from one that has imported everything and logged nothing.
FORKING = """
import os, sys, fapilog
for argument in sys.argv[1:]:
    pid = os.fork()
    if not pid:
        sys.argv[1:] = [argument]
        exec(SCRIPT)
        sys.exit()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != CODE:
        sys.exit(f"{argument}: {code}")
"""
LOGGING = """
import chaos_app
for _ in range(int(sys.argv[1])):
    chaos_app.burst(10)
    fapilog.flush(20)
"""
NEXT = "import chaos_app\nchaos_app.burst(1)"
STAYING = f"""
{NEXT}
end = time.monotonic() + 10
while sum(name.startswith("journal-") for name in os.listdir("run")) > 1 and time.monotonic() < end:
    time.sleep(0.005)
"""


def chaos(folder: Path, *options: str, **settings: Any) -> Gunicorn:
    settings["FAPILOG_TEST_FOLDER"] = str(folder)
    here = ("--chdir", str(HERE))
    return Gunicorn(folder, *OUR_CONF, *here, *options, kind=UVICORN_WORKER, app="chaos_app:app", workers=WORKERS, **settings)


def victims(run_dir: Path) -> list[Any]:
    return [worker for worker in overview(run_dir).workers if worker.alive and worker.worker]


def size_of(run_dir: Path) -> int:
    total = 0
    for path in run_dir.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def is_gone(server: Gunicorn, pid: int) -> bool:
    return pid not in living(server.pid)


def all_are_held(folder: Path) -> bool:
    boots = {worker.identity.boot for worker in victims(folder / "run")}
    return {path.name.split(".")[1] for path in (folder / "run").glob("journal-*")} <= boots


def source(script: str, **settings: Any) -> str:
    """Return *script* behind `START`."""
    return START.replace("SETTINGS", repr(settings)) + script


def program(script: str, **settings: Any) -> list[str]:
    """Return the command line of *script* behind `START`."""
    return [sys.executable, "-c", source(script, **settings)]


def around(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a program in *folder*, which finds `chaos_app` and, if it is there, a `sitecustomize`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FAPILOG_")}
    return clean | {"PYTHONPATH": os.pathsep.join([str(folder / "site"), str(HERE)]), "FAPILOG_TEST_FOLDER": str(folder)} | more


def ended(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Return the exit code and the output of *command*, which leaves no process behind."""
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=LIMIT_S)
        assert not living(process.pid)
    finally:
        for pid in living(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate()
    return process.returncode, out, err


def run(
    folder: Path, script: str, *arguments: str, code: int = 0, around_it: Mapping[str, str] | None = None, **settings: Any
) -> str:
    """Run *script* behind `START` in *folder*; return its output."""
    found, out, err = ended([*program(script, **settings), *arguments], folder, around(folder, **(around_it or {})))
    assert found == code, (found, err)
    return out


def run_often(folder: Path, script: str, arguments: Iterable[object], code: int = 0, **settings: Any) -> None:
    """Do as `run()` does with each of *arguments*, in processes that need not import anything."""
    forking = FORKING.replace("SCRIPT", repr(source(script, **settings))).replace("CODE", str(code))
    found, _, err = ended([sys.executable, "-c", forking, *map(str, arguments)], folder, around(folder))
    assert found == 0, err


def meddled(folder: Path) -> None:
    """Let `crash_points` be the `sitecustomize` of what runs in *folder*."""
    (folder / "site").mkdir(exist_ok=True)
    shutil.copy(HERE / "crash_points.py", folder / "site" / "sitecustomize.py")


def killed_at(
    folder: Path,
    point: str,
    number: int,
    script: str,
    *arguments: str,
    around_it: Mapping[str, str] | None = None,
    **settings: Any,
) -> None:
    """Run *script*, which must die where *point* is reached for the *number*-th time, and of nothing else."""
    meddled(folder)
    mark = folder / "mark"
    fatal = {"CRASH_AT": f"{point} {number}", "CRASH_MARK": str(mark), **(around_it or {})}
    run(folder, script, *arguments, code=-9, around_it=fatal, **settings)
    assert mark.read_text() == "1"


def all_is_well(folder: Path, most: int, **settings: Any) -> int:
    """
    Start once more, and check everything that is there then; return how many events there are.

    *most* is how many log calls there were at most when their processes were killed.
    """
    run(folder, STAYING, **settings)
    count = exactly_once(folder)
    assert strangers(folder) <= most
    assert not list((folder / "run").glob("*journal-*"))
    balanced(folder)
    return count


def numbers(folder: Path) -> Counter[int]:
    return Counter(event["n"] for event in written(folder) if event["event"] == "e")


def named(folder: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in written(folder) if event["event"] == name]
