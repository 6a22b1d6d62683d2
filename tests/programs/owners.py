"""A root process that makes files for user 65534, in the working directory. `python owners.py WAY`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import telling  # type: ignore[import-not-found]

import fapilog
from fapilog._internal import owner, rundir
from fapilog.coordinator import coordinator

NOBODY = 65534
say = telling.say


def rights() -> dict[str, object]:
    return {"uids": os.getresuid(), "gids": os.getresgid(), "groups": sorted(os.getgroups())}


def restored() -> None:
    """The rights inside, after an error, and after all."""
    os.setgroups([4, 24])
    say("before", **rights())
    with owner.owners_rights():
        say("unasked", **rights())
    owner.work_for(NOBODY, NOBODY)
    with contextlib.suppress(ZeroDivisionError), owner.owners_rights():
        say("inside", **rights())
        raise ZeroDivisionError
    say("after", **rights())
    owner.work_for_oneself()
    with owner.owners_rights():
        say("oneself", **rights())


def refused() -> None:
    """The kernel grants the group but not the user, as in a namespace that does not know him."""
    take_on = os.seteuid

    def seteuid(uid: int) -> None:
        if uid == NOBODY:
            raise PermissionError
        take_on(uid)

    os.setgroups([4, 24])
    owner.work_for(NOBODY, NOBODY)
    os.seteuid = seteuid
    with contextlib.suppress(PermissionError), owner.owners_rights():
        say("inside")
    say("after", **rights())


def root_for_root() -> None:
    """There is nobody else to work for."""
    owner.work_for(0, 0)
    with owner.owners_rights():
        say("inside", **rights())


def directories() -> None:
    """Directories are made where that user may make them and where only root may."""
    owner.work_for(NOBODY, NOBODY)
    owner.make_directory(Path("open/a/b"))
    owner.make_directory(Path("roots/a/b"), 0o700)
    slot = rundir.take_slot(Path("roots/run").absolute())
    say("slot", number=slot.number)


def master() -> None:
    """A master logs, and its file is made."""
    coordinator.become_master(NOBODY, NOBODY)
    telling.tick("master", 3)
    say("books", **telling.books())
    say("after", **rights())


def master_reopens() -> None:
    """A master's file is moved away and opened again."""
    coordinator.become_master(NOBODY, NOBODY)
    telling.tick("master", 3)
    path = Path(os.environ["FAPILOG_FILE_PATH"].format(service="app", worker=0))
    path.rename(path.with_name("moved"))
    coordinator.reopen()
    telling.tick("master", 3, first=3)


def child_of_a_master() -> None:
    """A child of a master that works for somebody else makes its files for itself."""
    coordinator.become_master(NOBODY, NOBODY)
    telling.tick("master", 3)
    telling.joined(telling.forked(lambda: telling.tick("child", 3)))


def user() -> None:
    """Whoever it is that runs this."""
    fapilog.configure_logging()
    telling.tick("user", 100)
    assert coordinator.state.slot is not None
    run_dir = coordinator.state.slot.run_dir
    state = run_dir.stat()
    say("user", worker=telling.books()["worker"], run_dir=str(run_dir), uid=state.st_uid, mode=state.st_mode & 0o777)


if __name__ == "__main__":
    telling.run(globals())
