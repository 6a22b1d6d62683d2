"""`fapilog doctor` on directories: rights, room, file systems; with real mounts where this user may make some."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fapilog.cli.checks.filesystems import FileSystem, kind_of
from fapilog.cli.checks.places import check_files, check_room, check_run_dir, check_user, unwritable, user_name
from tests.doctoring import SERVER, environment, made_up, seen, told, traces, write

ROOT = str(Path(__file__).parents[1])
NOBODY = 65534
NOBODY_USER, ROOT_USER = user_name(NOBODY), user_name(0)
FILES = {"FAPILOG_SINKS": "file"}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as others")


@functools.cache
def mounts_can_be_made() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, timeout=20, check=False
    )
    return tried.returncode == 0


def with_mounts(folder: Path, *mounts: str, **environ: str) -> dict[str, list[str]]:
    """Run the doctor where something is mounted that only it sees; return its findings, severity and text, by check."""
    if not mounts_can_be_made():
        pytest.skip("this user may not mount")
    command = shlex.join([sys.executable, "-m", "fapilog", "doctor", "--json"])
    script = " && ".join([*(f"mount -t tmpfs {mount}" for mount in mounts), f"exec {command}"])
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        cwd=folder,
        env={**environment(folder, PYTHONPATH=ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    found: dict[str, list[str]] = {}
    for each in json.loads(done.stdout)["findings"]:
        found.setdefault(each["check"], []).append(f"{each['severity']}: {each['found']} -> {each['change']}")
    return found


def on(monkeypatch, folder: Path, *mounts: tuple[str, Path | str]) -> None:
    """Let the kernel's list of mounts have these, kind and place, beside a root."""
    lines = [f"{number} 1 0:{number} / {place} rw shared:1 - {kind} source rw" for number, (kind, place) in enumerate(mounts, 30)]
    (folder / "mountinfo").write_text("\n".join(["1 0 8:1 / / rw - ext4 /dev/a rw", *lines, ""]))
    monkeypatch.setattr("fapilog.cli.checks.filesystems.MOUNTS", folder / "mountinfo")


# Files


def test_a_directory_that_can_be_written(tmp_path: Path) -> None:
    """It is right, also if it is not there yet; and it is not made."""
    case = made_up(tmp_path, environ=FILES)
    before = traces(tmp_path)
    assert told(check_files, case) == {"ok": f"{tmp_path}/logs/{{service}}.{{worker}}.jsonl can be written. -> "}
    assert traces(tmp_path) == before
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "fapilog.1.jsonl").write_text("as it was\n")
    assert told(check_files, case).keys() == {"ok"}
    assert (tmp_path / "logs" / "fapilog.1.jsonl").read_text() == "as it was\n"


def test_directories_that_cannot(tmp_path: Path) -> None:
    """Below a file there is none; a directory in the place of the file is no file."""
    (tmp_path / "logs").write_text("a file")
    found = told(check_files, made_up(tmp_path, environ=FILES))["error"]
    assert f"The sink file cannot write into {tmp_path}/logs: {tmp_path}/logs is no directory." in found
    (tmp_path / "fapilog.1").mkdir()
    found = told(check_files, made_up(tmp_path, environ={**FILES, "FAPILOG_FILE_PATH": "{service}.{worker}"}))["error"]
    assert f"{tmp_path}/fapilog.1: it is a directory." in found


def test_a_strict_sink(tmp_path: Path) -> None:
    """`FAPILOG_FILE_STRICT`, which makes directories at set-up, makes none here."""
    assert told(check_files, made_up(tmp_path, environ={**FILES, "FAPILOG_FILE_STRICT": "true"})).keys() == {"ok"}
    assert traces(tmp_path) == set()


def test_a_read_only_file_system(tmp_path: Path) -> None:
    """Root cannot write there either."""
    (tmp_path / "logs").mkdir()
    found = with_mounts(tmp_path, f"-o ro none {shlex.quote(str(tmp_path / 'logs'))}", **FILES)["files"]
    assert found[0].startswith(f"error: The sink file cannot write into {tmp_path}/logs: {tmp_path}/logs: read-only file system.")


def test_a_full_file_system(tmp_path: Path) -> None:
    """Rights are not all."""
    (tmp_path / "logs").mkdir()
    place = shlex.quote(str(tmp_path / "logs"))
    found = with_mounts(tmp_path, f"-o size=64k none {place} && cat /dev/zero 2>/dev/null >{place}/x; true", **FILES)["files"]
    assert "no space left on device" in found[0]


@as_root
def test_workers_that_run_as_somebody_else() -> None:
    """Their rights count, and the finding says who owns the place, and who may not write."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are root's alone
        Path(folder).chmod(0o755)
        _look_as_somebody_else(Path(folder))
    assert (os.geteuid(), os.getegid()) == (0, 0)


def _look_as_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir(0o755)
    server = replace(SERVER, uid=NOBODY, gid=NOBODY)
    case = made_up(tmp_path, environ=FILES, server=server)
    found = told(check_files, case)["error"]
    assert f"{tmp_path}/logs belongs to {ROOT_USER}, mode 0755, and {NOBODY_USER} may not write to it." in found
    assert f"Let {NOBODY_USER} write there" in found
    os.chown(tmp_path / "logs", NOBODY, NOBODY)
    assert told(check_files, case).keys() == {"ok"}
    (tmp_path / "logs" / "fapilog.3.jsonl").write_text("of an earlier run as root")
    assert f"fapilog.3.jsonl belongs to {ROOT_USER}, mode 06" in told(check_files, case)["error"]
    assert str(made_up(tmp_path, environ={"FAPILOG_RUN_DIR": ""}, server=server).run_dir.parent.name) == f"fapilog-{NOBODY}"


def test_looking_as_another_user_than_the_workers(tmp_path: Path, monkeypatch) -> None:
    """It is a warning, unless it is root who looks."""
    assert told(check_user, made_up(tmp_path, server=SERVER)) == {}
    other = made_up(tmp_path, server=replace(SERVER, uid=4242))
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert f"The workers run as {user_name(4242)}, this as {NOBODY_USER}" in told(check_user, other)["warning"]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert told(check_user, other) == {}


def test_a_file_for_all_workers(tmp_path: Path) -> None:
    """Several workers that want one file: a warning says what comes of it. With a number, or one worker, it is right."""
    single = {**FILES, "FAPILOG_FILE_PATH": "all.jsonl"}
    found = told(check_files, made_up(tmp_path, environ=single))
    assert found.keys() == {"warning", "ok"}
    assert "a line is whole on a local disk" in found["warning"]
    assert "(.2, .3)" in told(check_files, made_up(tmp_path, environ={**single, "FAPILOG_FILE_MAX_BYTES": "1MiB"}))["warning"]
    assert told(check_files, made_up(tmp_path, environ={**single, "WEB_CONCURRENCY": "1"})).keys() == {"ok"}
    assert told(check_files, made_up(tmp_path, environ={**FILES, "FAPILOG_FILE_PATH": "{pid}.jsonl"})).keys() == {"ok"}


def test_files_on_a_network_file_system(tmp_path: Path, monkeypatch) -> None:
    """Machines may share them: a warning, unless their names have the host; one file for all workers there is an error."""
    on(monkeypatch, tmp_path, ("nfs4", tmp_path / "logs"))
    found = told(check_files, made_up(tmp_path, environ=FILES))["warning"]
    assert f"is on a network file system (nfs4 at {tmp_path}/logs)" in found
    path = "logs/{host}.{worker}.jsonl"
    assert told(check_files, made_up(tmp_path, environ={**FILES, "FAPILOG_FILE_PATH": path})).keys() == {"ok"}
    path = "logs/{host}.jsonl"
    assert told(check_files, made_up(tmp_path, environ={**FILES, "FAPILOG_FILE_PATH": path})).keys() == {"error"}


def test_files_of_a_program(tmp_path: Path) -> None:
    """Sinks that a program makes by itself are looked at, too."""
    (tmp_path / "there").write_text("a file")
    app = "from fapilog.sinks import FileSink\nfapilog.configure_logging(sinks=[FileSink('there/{worker}', name='mine')])\n"
    case = seen(write(tmp_path, app=f"import fapilog\n{app}app = print"), "app:app")
    assert f"The sink mine cannot write into {tmp_path}/there" in told(check_files, case)["error"]


def test_a_fifo_in_the_place_of_a_file(tmp_path: Path) -> None:
    """Nobody waits for its reader."""
    os.mkfifo(tmp_path / "x.1")
    assert told(check_files, made_up(tmp_path, environ={**FILES, "FAPILOG_FILE_PATH": "x.{worker}"})).keys() == {"ok"}


def test_file_systems_without_nameless_files(tmp_path: Path, monkeypatch) -> None:
    """There the kernel is asked for the rights instead."""
    real = os.open

    def refused(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & getattr(os, "O_TMPFILE", 0) == getattr(os, "O_TMPFILE", 1):
            raise OSError(95, "Operation not supported")
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refused)
    assert unwritable(tmp_path) == ""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert "may not write to it" in unwritable(tmp_path)


# The run directory


def test_a_run_directory_that_can_be_used(tmp_path: Path) -> None:
    """It is right, there or not, and is not made."""
    case = made_up(tmp_path)
    assert told(check_run_dir, case)["ok"] == f"{tmp_path}/run can be used. -> "
    assert traces(tmp_path) == set()
    (tmp_path / "run").mkdir(0o700)
    assert told(check_run_dir, case).keys() == {"ok"}


def test_run_directories_that_cannot(tmp_path: Path) -> None:
    """Others may write to it, it is a link, a file, or below one."""
    place = tmp_path / "run"
    place.mkdir()
    place.chmod(0o777)
    found = told(check_run_dir, made_up(tmp_path))["error"]
    assert f"Others may write to {place} (mode 0777): worker numbers are pids, there is no journal" in found
    place.rmdir()
    (tmp_path / "real").mkdir(0o700)
    place.symlink_to("real")
    assert f"{place} is no directory" in told(check_run_dir, made_up(tmp_path))["error"]
    place.unlink()
    place.write_text("")
    findings = list(check_run_dir(made_up(tmp_path)))
    assert {each.severity for each in findings} == {"error"}
    below = made_up(tmp_path, environ={"FAPILOG_RUN_DIR": str(place / "below")})
    assert f"cannot be written: {place} is no directory" in told(check_run_dir, below)["error"]


@as_root
def test_a_run_directory_of_somebody_else(tmp_path: Path) -> None:
    """The finding says whose it is."""
    (tmp_path / "run").mkdir(0o700)
    os.chown(tmp_path / "run", NOBODY, NOBODY)
    found = told(check_run_dir, made_up(tmp_path))["error"]
    assert f"{tmp_path}/run belongs to {NOBODY_USER}, not to {ROOT_USER}" in found


def test_a_default_run_directory_below_one_that_others_may_write_to(tmp_path: Path, monkeypatch) -> None:
    """The parent of the default ones is ours alone, too."""
    parent = tmp_path / f"fapilog-{os.geteuid()}"
    parent.mkdir()
    parent.chmod(0o777)
    case = replace(made_up(tmp_path), run_dir=parent / "shop-0123456789ab")
    assert f"Others may write to {parent}" in told(check_run_dir, case)["error"]
    parent.chmod(0o700)
    assert told(check_run_dir, case).keys() == {"ok"}


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "9p", "fuse.sshfs", "virtiofs", "ceph"])
def test_a_run_directory_on_a_network_file_system(tmp_path: Path, monkeypatch, kind: str) -> None:
    """Locks and mapped files do not hold there: an error."""
    on(monkeypatch, tmp_path, (kind, tmp_path))
    found = told(check_run_dir, made_up(tmp_path))["error"]
    assert f"The run directory {tmp_path}/run is on a network file system ({kind} at {tmp_path})" in found


@pytest.mark.parametrize("kind", ["ext4", "tmpfs", "overlay", "xfs", "fuse.fuse-overlayfs", "fuseblk"])
def test_a_run_directory_on_a_local_one(tmp_path: Path, monkeypatch, kind: str) -> None:
    """It is right."""
    on(monkeypatch, tmp_path, (kind, tmp_path))
    assert told(check_run_dir, made_up(tmp_path)).keys() == {"ok"}


def test_which_file_system_a_path_is_on(tmp_path: Path, monkeypatch) -> None:
    """The innermost mount, of two in one place the later one; names with spaces; links lead where they lead."""
    space = tmp_path / "a b"
    (space / "in").mkdir(parents=True)
    (tmp_path / "link").symlink_to(space)
    on(
        monkeypatch,
        tmp_path,
        ("nfs", tmp_path),
        ("xfs", tmp_path),
        ("9p", str(space).replace(" ", "\\040")),
        ("cifs", f"{tmp_path}/a"),
    )
    assert kind_of(tmp_path / "x" / "y") == FileSystem("xfs", str(tmp_path))
    assert kind_of(space / "in" / "x") == FileSystem("9p", str(space))
    assert kind_of(tmp_path / "link" / "in") == FileSystem("9p", str(space))
    assert kind_of(tmp_path / "ab") == FileSystem("xfs", str(tmp_path))
    assert kind_of(Path("/")) == FileSystem("ext4", "/")
    monkeypatch.setattr("fapilog.cli.checks.filesystems.MOUNTS", tmp_path / "nowhere")
    assert kind_of(tmp_path) is None


def test_the_file_systems_of_this_machine() -> None:
    """The kernel's own list can be read."""
    if sys.platform == "linux":
        assert kind_of(Path("/proc/self")) == FileSystem("proc", "/proc")


# Room for journals


@pytest.mark.matrix
def test_a_small_shared_memory(tmp_path: Path) -> None:
    """A container has 64 MiB of it: room for seven journals, too little for eight workers, and for the reload of four."""
    small = "-o size=64m,mode=1777 none /dev/shm"
    for workers, severity in (("8", "error"), ("4", "warning"), ("3", "ok")):
        found = with_mounts(tmp_path, small, FAPILOG_RUN_DIR="/dev/shm/run", WEB_CONCURRENCY=workers)["room"]
        assert found[0].startswith(f"{severity}: /dev/shm has room for 7 journals of 8.0 MiB"), found
    found = with_mounts(tmp_path, small, FAPILOG_RUN_DIR="/dev/shm/run", WEB_CONCURRENCY="8", FAPILOG_JOURNAL_BYTES="1MiB")[
        "room"
    ]
    assert found[0].startswith("ok: ")
    assert "room" not in with_mounts(tmp_path, small, FAPILOG_RUN_DIR="/dev/shm/run", WEB_CONCURRENCY="8", FAPILOG_JOURNAL="off")


def test_a_shared_memory_that_is_too_small_to_be_used(tmp_path: Path) -> None:
    """The run directory is elsewhere then: a warning says where."""
    found = with_mounts(tmp_path, "-o size=20m,mode=1777 none /dev/shm", FAPILOG_RUN_DIR="", TMPDIR=str(tmp_path))["room"]
    assert found[-1].startswith(f"warning: /dev/shm has less than 64.0 MiB left, so the run directory is {tmp_path}/fapilog-")


def test_room_that_journals_take_already(tmp_path: Path) -> None:
    """Those of a service that runs are not counted against it."""
    run = tmp_path / "run"
    run.mkdir(0o700)
    (run / "small").mkdir()
    place = shlex.quote(str(run))
    mount = f"-o size=24m,mode=700 none {place} && head -c 20000000 /dev/zero >{place}/journal-1.abc.1; true"
    found = with_mounts(tmp_path, mount, WEB_CONCURRENCY="1")["room"]
    assert "has room for 2 journals" in found[0]


def test_room_of_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """What there is of its path is looked at."""
    assert told(check_room, made_up(tmp_path, environ={"FAPILOG_RUN_DIR": str(tmp_path / "a" / "b")})).keys() == {"ok"}
