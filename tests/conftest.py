"""How many tests run at once."""

from __future__ import annotations

import os

import pytest


@pytest.hookimpl(optionalhook=True)  # also where pytest-xdist is switched off
def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores for ``-n auto``: most tests wait for processes of their own, which wait as well."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + max(1, cores // 2)
