"""Takes out one protection after the other: ``python -m tests.protections [ID...]``."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tests.protections.table import PROTECTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.protections.table import Change, Protection

ROOT = Path(__file__).parents[2]
COPIED = (
    "fapilog",
    "tests",
    "examples",
    "benchmarks",
    "docs",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "Makefile",
    "LICENSE",
)
LIMIT_S = 900
FAILED = 1  # pytest's exit code for tests that ran and failed
_marks = itertools.count(1_000_000_000)


def copied(folder: Path) -> Path:
    """Return a copy of the project without what was compiled."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def change(tree: Path, changes: Sequence[Change]) -> dict[Path, str]:
    """
    Apply *changes*; return what was there.

    Raises:
        ValueError: One does not stand exactly once in its file.
    """
    before: dict[Path, str] = {}
    for each in changes:
        path = tree / "fapilog" / each.file
        text = path.read_text()
        before.setdefault(path, text)
        if text.count(each.old) != 1:
            raise ValueError(f"{each.file} holds {text.count(each.old)} times, and not once:\n{each.old}")
        put(path, text.replace(each.old, each.new))
    return before


def put(path: Path, text: str) -> None:
    """Write a source with a time that it never had, so that nothing compiled from another text passes for it."""
    path.write_text(text)
    mark = next(_marks)
    os.utime(path, (mark, mark))


def tested(tree: Path, tests: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run tests of the copy."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FAPILOG_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider", "-p", "no:xdist", *options, *tests]
    with tempfile.TemporaryDirectory(prefix="fapilog-protections-") as place:
        return subprocess.run(
            [*command, "--basetemp", f"{place}/tests"],
            cwd=tree,
            env={**environ, "PYTHONPATH": str(tree), "TMPDIR": place},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )


def is_what_runs(tree: Path) -> bool:
    """Whether programs that tests of the copy start get the copy, not what is installed."""
    command = [sys.executable, "-c", "import fapilog; print(fapilog.__file__)"]
    environ = {**os.environ, "PYTHONPATH": str(tree)}
    found = subprocess.run(command, cwd=tree.parent, env=environ, capture_output=True, text=True, check=True).stdout
    return Path(found.strip()).is_relative_to(tree)


def verdict(tree: Path, each: Protection) -> str:
    """Return what is wrong with the tests of a protection; nothing if one of them fails without it."""
    before = change(tree, each.changes)
    try:
        done = tested(tree, each.tests, "-x")
    except subprocess.TimeoutExpired:
        return "the tests did not end"
    finally:
        for path, text in before.items():
            put(path, text)
    if done.returncode == FAILED:
        return ""
    return "the tests pass without it" if not done.returncode else f"exit code {done.returncode}: {done.stdout[-1500:]}"


def main(ids: Sequence[str]) -> int:
    """Print a line for each protection; return 1 if one of them is missed by no test."""
    wanted = [each for each in PROTECTIONS if not ids or each.case in ids]
    with tempfile.TemporaryDirectory(prefix="fapilog-protections-") as folder:
        trees = [copied(Path(folder) / str(number)) for number in range(2)]
        assert all(map(is_what_runs, trees)), "something else than the copy would be tested"
        tests = sorted({test for each in wanted for test in each.tests})
        with ThreadPoolExecutor(len(trees)) as pool:
            done = list(pool.map(tested, trees, filter(None, [tests[::2], tests[1::2]])))
        if any(each.returncode for each in done):
            print("the tests fail as it is:", *(each.stdout[-4000:] for each in done), sep="\n")
            return 1
        free, lock = trees[:], threading.Lock()

        def judged(each: Protection) -> bool:
            with lock:
                tree = free.pop()
            began = time.monotonic()
            wrong = verdict(tree, each)
            with lock:
                free.append(tree)
                print(
                    f"{each.case:<10} {'missed: ' + wrong if wrong else 'held'}  {each.what} ({time.monotonic() - began:.0f} s)",
                    flush=True,
                )
            return not wrong

        with ThreadPoolExecutor(len(trees)) as pool:
            held = list(pool.map(judged, wanted))
    print(f"{sum(held)} of {len(held)} protections are missed by a test when they are gone")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
