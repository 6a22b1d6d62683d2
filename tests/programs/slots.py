"""Processes that take worker slots. `python slots.py WAY RUN_DIR [NUMBER]`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import telling  # type: ignore[import-not-found]

from fapilog._internal.rundir import take_slot

say, until = telling.say, telling.until
PROGRAM = [sys.executable, "-c", "import time; time.sleep(3600)"]
beside: list[object] = []


def at_once(run_dir: str, number: str) -> None:
    """Many processes take a slot at the same moment, and keep it until all have one."""
    gate, key = os.pipe()
    children = []
    for _ in range(int(number)):
        pid = os.fork()
        if not pid:
            os.close(key)
            os.read(gate, 1)  # returns when the parent closes the other end
            slot = take_slot(Path(run_dir))
            say("slot", number=slot.number)
            until(lambda: os.path.exists("go"))
            os._exit(0)
        children.append(pid)
    os.close(key)
    for pid in children:
        telling.joined(pid, telling.LIMIT_S)


def holder(company: str) -> None:
    """Hold a slot by logging, with a program beside that lives on, until killed."""
    telling.tick("parent", 1)
    if company == "in a shell":
        os.system("sleep 3600 &")
    elif company == "with all descriptors":
        beside.append(subprocess.Popen(PROGRAM, close_fds=False))
    elif company == "with a preexec_fn":
        beside.append(subprocess.Popen(PROGRAM, preexec_fn=os.getpid))  # noqa: PLW1509 - the situation: it runs the at-fork hooks
    say("ready", worker=telling.books()["worker"])
    until(lambda: False, 3600)


def one_after_another(run_dir: str) -> None:
    """What a process gets before and after somebody removes the lock files, and the whole directory."""
    directory = Path(run_dir)
    held = [take_slot(directory)]
    (directory / "slot-1.lock").unlink()
    held += [take_slot(directory), take_slot(directory)]
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    held.append(take_slot(directory))
    numbers = [slot.number for slot in held]
    held[2].release()
    held[3].release()
    say("numbers", numbers=numbers, again=take_slot(directory).number)


if __name__ == "__main__":
    telling.run(globals())
