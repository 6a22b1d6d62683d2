"""
Whether this process is one of several of its program, so that what people read should name the worker.

The worker number alone cannot say it: a script by itself is worker 1, and so is the first of four workers. What can is where the
process comes from and what it has done. Any of these is enough, and it stays:

- it forks, or was forked (`declare()`, called just before a fork, so both sides know);
- it runs under gunicorn, hooks of ours or not: only gunicorn's own start loads `gunicorn.arbiter`;
- it was started by `multiprocessing`, or has started a process by it.

Nothing is imported, asked of the kernel or locked here: the answer may be wanted at any moment.
"""

from __future__ import annotations

import sys

_NONE = "count(1)"
_several = False


def declare() -> None:
    """Say that there is, or is about to be, another process of this program; any moment, at-fork hooks too."""
    global _several
    _several = True


def several() -> bool:
    """Whether this process is known to be one of several; any thread."""
    if not _several and ("gunicorn.arbiter" in sys.modules or _multiprocessing()):
        declare()
    return _several


def is_child() -> bool:
    """Whether `multiprocessing` has started this process; any thread."""
    parent = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)  # the import may be under way
    return parent is not None and parent() is not None


def _multiprocessing() -> bool:
    process = sys.modules.get("multiprocessing.process")
    # `active_children()` would be the public way, but it waits for those that have ended, which is the program's to do, and knows
    # nothing of those that have ended already. The counter that names processes knows all that were ever made here.
    return is_child() or str(getattr(process, "_process_counter", _NONE)) != _NONE
