"""How many tests run at once, what their modules must not do, and what several of them begin with."""

from __future__ import annotations

import compileall
import importlib.util
import os
import sys
from pathlib import Path

import pytest


@pytest.hookimpl(optionalhook=True)  # also where pytest-xdist is switched off
def pytest_xdist_auto_num_workers() -> int:
    """Twice as many as there are cores for ``-n auto``: most tests wait for processes of their own, which wait as well."""
    return 2 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_sessionstart(session: pytest.Session) -> None:
    """
    Compile the package and what the tests start once, for thousands of processes.

    Where ``PYTHONDONTWRITEBYTECODE`` is set, as in many containers, each of them would do it anew: half of what an import takes.
    """
    if not hasattr(session.config, "workerinput"):
        package = importlib.util.find_spec("fapilog")
        for folder in [*(package.submodule_search_locations or [] if package else []), str(Path(__file__).parent)]:
            compileall.compile_dir(folder, quiet=2)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail if the import of a test has set up logging in this process, which every test in it would meet."""
    coordinator = sys.modules.get("fapilog.coordinator")
    if coordinator is not None and coordinator.coordinator.spec is not None:
        raise pytest.UsageError("a test's module, or one that it imports, calls configure_logging(): it has to be done in a test")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Return a run directory with nothing in it; where fapilog is to make it, a module has a fixture of its own."""
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    return path
