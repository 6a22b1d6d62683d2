"""The server of metrics in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import TYPE_CHECKING

import httpx
import pytest

from fapilog._internal import ledger, rundir
from fapilog._internal.exposition import serve
from fapilog.identity import Identity
from tests.programs.running import LIMIT_S, STRICT, Running, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVE = """
import sys
from pathlib import Path
from fapilog._internal.exposition import serve
sys.exit(serve(Path(sys.argv[1]), *sys.argv[2:], ready=lambda url: print(url, flush=True)))
"""


def started(folder: Path, *arguments: str) -> Running:
    """Start a server on the board below *folder*."""
    return Running([*STRICT, "-c", SERVE, str(folder / "run"), *arguments], folder, environment(folder))


def url_of(server: Running) -> str:
    server.said("/metrics\n")
    return server.stdout.strip()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with started(tmp_path) as server:
        yield server


def begin(run_dir: Path) -> rundir.Slot:
    """Take a slot and show a row."""
    slot = rundir.take_slot(run_dir)
    row, _ = ledger.take_row(slot, Identity("app", "", "host", slot.number, os.getpid(), "b1"), "worker")
    assert row is not None
    return slot


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal(server: Running, number: int) -> None:
    """It ends with 0, at once and without a word, also while a client is connected that says nothing."""
    host, port = url_of(server).removeprefix("http://").removesuffix("/metrics").split(":")
    with socket.create_connection((host, int(port)), LIMIT_S):
        assert httpx.get(url_of(server), timeout=LIMIT_S).status_code == 200
        server.signal(number)
        assert server.ended(5.0) == 0
    assert server.stderr == ""


def test_what_it_serves_and_where(tmp_path: Path, server: Running) -> None:
    """The board in both formats, on 127.0.0.1; it takes no slot and writes nothing."""
    url = url_of(server)
    assert url.startswith("http://127.0.0.1:")
    assert "fapilog_worker_up{" not in httpx.get(url).text
    assert not (tmp_path / "run").exists()
    slot = begin(tmp_path / "run")
    files = sorted(os.listdir(tmp_path / "run"))
    assert 'fapilog_worker_up{worker="1"} 1.0' in httpx.get(url).text
    answer = httpx.get(url, headers={"accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    slot.release()
    assert 'fapilog_worker_up{worker="1"} 0.0' in httpx.get(url).text
    assert sorted(os.listdir(tmp_path / "run")) == files
    assert rundir.take_slot(tmp_path / "run").number == 1


def test_many_clients_that_say_nothing(server: Running) -> None:
    """The next one is served."""
    host, port = url_of(server).removeprefix("http://").removesuffix("/metrics").split(":")
    silent = [socket.create_connection((host, int(port)), LIMIT_S) for _ in range(50)]
    assert httpx.get(url_of(server), timeout=5.0).status_code == 200
    for each in silent:
        each.close()


def test_nonsense(server: Running) -> None:
    """A client that is no HTTP client, and one that goes away, are no news, and the next one is served."""
    host, port = url_of(server).removeprefix("http://").removesuffix("/metrics").split(":")
    for text in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/1.1\r\n\r\n"):
        with socket.create_connection((host, int(port)), LIMIT_S) as client:
            client.sendall(text)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    assert httpx.get(url_of(server), timeout=5.0).status_code == 200
    assert server.stderr == ""


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """It is an OSError, for the command line to report, and says nothing before."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            serve(tmp_path / "run", "127.0.0.1", taken.getsockname()[1], pytest.fail)


def test_ipv6(tmp_path: Path) -> None:
    """An address with colons is one too."""
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with started(tmp_path, "::1") as server:
        assert url_of(server).startswith("http://[::1]:")
        assert httpx.get(url_of(server), timeout=LIMIT_S).status_code == 200


def test_the_process_that_called_it(tmp_path: Path) -> None:
    """It has its signal mask back, and no thread or socket is left."""
    code = """
import json, os, signal, sys, threading
from pathlib import Path
from fapilog._internal.exposition import serve
before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
code = serve(Path("run"), ready=lambda url: os.kill(os.getpid(), signal.SIGTERM))
after = len(os.listdir("/proc/self/fd")) if before else 0
print(json.dumps([code, len(signal.pthread_sigmask(signal.SIG_BLOCK, ())), after - before]))
"""
    with Running([*STRICT, "-c", code], tmp_path, environment(tmp_path)) as caller:
        assert caller.ended() == 0
        assert json.loads(caller.stdout) == [0, 0, 0]
