"""The lock of a file: one holder, free once that is gone, never a parent's in a child."""

from __future__ import annotations

import errno
import fcntl
import gc
import os

import pytest

from fapilog._internal import filelock, notes
from fapilog._internal.filelock import FileLock
from fapilog.sinks import FileSink
from fapilog.sinks.home import _can_rotate, numbered
from tests.rotated import batch, names, numbers, run


@pytest.fixture(autouse=True)
def _notes_anew() -> None:
    """Let each test see its own notes, which are rate-limited."""
    notes.forget()


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "deep" / ".app.lock")


def test_one_holder(path) -> None:
    """A second one is refused at once; after the release it is free, and its file is gone."""
    lock = FileLock.take(path)
    assert lock is not None
    assert lock.holds()
    assert FileLock.take(path) is None
    lock.release()
    lock.release()
    assert not lock.holds()
    assert not os.path.exists(path)
    again = FileLock.take(path)
    assert again is not None
    again.release()


def test_a_lock_that_is_forgotten(path) -> None:
    """It is free once nothing refers to it."""
    lock = FileLock.take(path)
    assert lock is not None
    del lock
    gc.collect()
    again = FileLock.take(path)
    assert again is not None
    again.release()


def test_a_lock_file_that_somebody_removed(path) -> None:
    """It is not held any more, and its old holder does not remove the new one."""
    lock = FileLock.take(path)
    assert lock is not None
    os.unlink(path)
    assert not lock.holds()
    other = FileLock.take(path)
    assert other is not None
    lock.release()
    assert other.holds()
    other.release()


def test_a_descriptor_that_is_somebody_elses_by_now(path, tmp_path) -> None:
    """A program that closes all descriptors and opens others keeps them."""
    lock = FileLock.take(path)
    assert lock is not None
    fd = lock._fd
    os.close(fd)
    mine = os.open(tmp_path / "mine", os.O_WRONLY | os.O_CREAT)
    if mine != fd:
        os.dup2(mine, fd)
        os.close(mine)
    lock.release()
    assert os.write(fd, b"still open") == 10
    os.close(fd)


def test_locks_in_a_forked_child(path) -> None:
    """The child closes its copies, and cannot release what the parent holds."""
    lock = FileLock.take(path)
    assert lock is not None
    pid = os.fork()
    if pid == 0:
        ok = not lock.holds() and not filelock._held
        lock.release()
        os._exit(0 if ok and os.path.exists(path) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert lock.holds()
    lock.release()


def test_a_file_system_without_locks(tmp_path, monkeypatch, capfd) -> None:
    """The file is written to and not rotated, and one note says so."""

    def flock(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    path = tmp_path / "app.1.jsonl"
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    run(FileSink(path, max_bytes=500), *(batch([n], 400) for n in range(3)))
    assert numbers(path) == [0, 1, 2]
    assert not [name for name in names(tmp_path) if name.startswith("app.1.jsonl.")]
    assert capfd.readouterr().err.count("is not rotated") == 1
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_numbers_of_further_owners() -> None:
    """They stand before the extension, so that patterns for the files still find them."""
    assert numbered("/var/log/app.1.jsonl", 1) == "/var/log/app.1.jsonl"
    assert numbered("/var/log/app.1.jsonl", 2) == "/var/log/app.1.2.jsonl"
    assert numbered("/var/log.d/app", 3) == "/var/log.d/app.3"


@pytest.mark.parametrize(("path", "right"), [("/dev/stdout", False), ("/proc/self/fd/1", False), ("/dev/null", False)])
def test_what_is_no_file(path: str, right: bool) -> None:
    """Devices and what stands for descriptors are not rotated."""
    assert _can_rotate(path) is right
