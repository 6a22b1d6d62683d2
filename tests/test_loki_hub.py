"""The Loki sink in whole programs: by environment, over forks, beside a file, and when the program ends during an outage."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

import fapilog
from fapilog.errors import ConfigurationError
from tests._support import LAST_WORD, ended_within, only_matrix, process_restored, ran_well, read_lines, run_script
from tests.loki import NO_RATES, Dedupe, StandIn, certificates, faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def loki() -> Iterator[StandIn]:
    with StandIn(limits=NO_RATES, dedupe=Dedupe.OFF) as server:
        yield server
        server.script()
        server.release()


def env(loki: StandIn, **more: str) -> dict[str, str]:
    """Return an environment with a file and Loki, and a service to be told by."""
    return {"FAPILOG_SINKS": "file,loki", "FAPILOG_SERVICE": "shop", "FAPILOG_LOKI_URL": loki.url, **more}


def own(loki: StandIn) -> list[dict[str, Any]]:
    """Return the events that are not the hub's."""
    events = [json.loads(entry.line) for entry in loki.entries()]
    return [event for event in events if not event["event"].startswith("fapilog.")]


def test_a_script_by_environment_alone(loki: StandIn, tmp_path: Path) -> None:
    """All events are in the file and at the server when it has ended, the last partial batch too, line for line."""
    script = """
        import fapilog
        for number in range(500):
            fapilog.get_logger("a").info("e", n=number, text="é\\n")
    """
    more = {"FAPILOG_LOKI_LABELS": "team=core", "FAPILOG_LABELS": "zone=z1,team=other", "FAPILOG_LOKI_BATCH_TIMEOUT": "60"}
    result = run_script(script, tmp_path, env=env(loki, **more))
    assert (ran_well(result), result.stderr) == ("", "")
    (path,) = (tmp_path / "logs").iterdir()
    assert [entry.line for entry in loki.entries()] == path.read_text("utf-8").splitlines()
    assert len(loki.entries()) == 501
    (labels,) = {tuple(sorted(entry.labels.items())) for entry in loki.entries()}
    assert {"service": "shop", "worker": "1", "team": "core", "zone": "z1"}.items() <= dict(labels).items()
    assert {"pid", "boot", "seq"}.isdisjoint(dict(labels))


def test_forked_children(loki: StandIn, tmp_path: Path) -> None:
    """Each has a client and a stream of its own; every event arrives once, the parent's too (O-MET-2)."""
    script = """
        import os, fapilog
        log = fapilog.get_logger("a")
        for number in range(100):
            log.info("parent", n=number)
        assert fapilog.flush(10).complete
        children = []
        for child in range(4):
            pid = os.fork()
            if not pid:
                for number in range(100):
                    log.info("child", n=number, child=child)
                fapilog.shutdown_logging()
                os._exit(0)
            children.append(pid)
        for number in range(100, 200):
            log.info("parent", n=number)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    """
    result = run_script(script, tmp_path, env=env(loki))
    assert (ran_well(result), result.stderr) == ("", "")
    found = sorted((event["event"], event.get("child", -1), event["n"]) for event in own(loki))
    assert found == sorted([("parent", -1, n) for n in range(200)] + [("child", c, n) for c in range(4) for n in range(100)])
    assert len({entry.labels["worker"] for entry in loki.entries()}) == 5
    assert len({entry.metadata["pid"] for entry in loki.entries()}) == 5


HANGING = {
    "answers nothing": faults.hang,
    "takes no connection": faults.black_hole,
    "reads nothing": faults.stop_reading,
    "answers slowly": faults.slow_head,
}


@pytest.fixture
def full() -> Iterator[str]:
    """The URL of a server that accepts nothing and whose backlog is full: the kernel drops who comes next."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(16):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            if waiting.connect_ex(listener.getsockname()):
                break
        else:
            pytest.skip("this kernel takes any number of connections")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.matrix
@pytest.mark.parametrize("how", [*HANGING, "drops packets", "has no address", "is looked up for ever"])
def test_a_program_that_ends_while_the_server_hangs(loki: StandIn, full: str, tmp_path: Path, how: str) -> None:
    """It ends within the drain limit and a second, says how many events were not delivered, and the file has all (O-HANG-1)."""
    if how in HANGING:
        loki.script(then=HANGING[how]())
    script = f"""
        {LAST_WORD}
        import socket, fapilog
        if {how == "is looked up for ever"}:
            socket.getaddrinfo = lambda *args, **kwargs: time.sleep(3600)
        log = fapilog.get_logger("a")
        for number in range(10_000):
            log.info("e", n=number)
        print(time.time())
    """
    more = {"FAPILOG_QUEUE_OVERFLOW": "block", "FAPILOG_DRAIN_TIMEOUT": "1.0", "FAPILOG_QUEUE_BLOCK_TIMEOUT": "5"}
    if how not in HANGING:
        more["FAPILOG_LOKI_URL"] = full if how == "drops packets" else "http://loki.invalid:3100"
    result = run_script(script, tmp_path, env=env(loki, **more))
    ended_within(1.0 + 1.0, result)
    assert "10001 events were not delivered to sink 'loki' (after_close)" in result.stderr
    (path,) = (tmp_path / "logs").iterdir()
    assert len(read_lines(path)) == 10_001


def test_an_outage_in_the_middle(loki: StandIn, tmp_path: Path) -> None:
    """Without a restart all events arrive once the server is back, and nothing is lost in the file meanwhile."""
    script = """
        import sys, fapilog
        log = fapilog.get_logger("a")
        for number in range(1000):
            log.info("before", n=number)
        assert fapilog.flush(10).complete
        print("down", flush=True); input()
        for number in range(1000):
            log.info("during", n=number)
        assert not fapilog.flush(1).complete
        up = fapilog.statistics().sinks
        print("up", up["loki"].up, up["file"].up, flush=True); input()
        result = fapilog.flush(30)
        print(result.complete, fapilog.statistics().sinks["loki"].up, flush=True)
    """
    more = {
        **env(loki),
        "FAPILOG_QUEUE_OVERFLOW": "block",
        "FAPILOG_QUEUE_BLOCK_TIMEOUT": "5",
        "FAPILOG_RUN_DIR": str(tmp_path / "run"),
    }
    program = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **more},
    )
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline() == "down\n"
        loki.stop()
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.stdout.readline() == "up False True\n"
        loki.start()
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.stdout.readline() == "True True\n"
        errors = program.stderr.read()
        assert program.wait(20) == 0
    assert errors.count("sink 'loki' takes no events") == 1
    assert len(own(loki)) == len({(event["event"], event["n"]) for event in own(loki)}) == 2000
    (path,) = (tmp_path / "logs").iterdir()
    assert len(read_lines(path)) == 2001


def test_a_client_of_the_same_library(loki: StandIn, tmp_path: Path) -> None:
    """The application's records of its own requests arrive, those of the sink's do not come back to it (O-RE-3)."""
    script = f"""
        import logging, time, fapilog, httpx
        fapilog.configure_logging(level="DEBUG", loki_batch_timeout=0.05)
        logging.getLogger().setLevel(logging.DEBUG)
        for number in range(10):
            fapilog.get_logger("a").info("e", n=number)
        for number in range(5):
            httpx.get("{loki.url}/ready", trust_env=False)
        assert fapilog.flush(10).complete
        time.sleep(0.5)
        before = fapilog.statistics().logged
        time.sleep(1.5)
        print(fapilog.statistics().logged - before)
    """
    result = run_script(script, tmp_path, env=env(loki))
    assert ran_well(result) == "0\n"
    events = own(loki)
    assert sum(event["event"] == "e" for event in events) == 10
    assert sum(event["logger"] == "httpx" and "/ready" in str(event) for event in events) == 5
    assert not any("push" in str(event) for event in events)


def test_other_handlers_of_the_program(loki: StandIn, tmp_path: Path) -> None:
    """They get no record about our pushes, and those about the program's own requests with the same library."""
    script = f"""
        import logging, sys, fapilog, httpx
        logging.basicConfig(level="DEBUG", stream=sys.stdout, format="%(name)s %(message)s")
        fapilog.configure_logging(loki_batch_timeout=0.05)
        for number in range(3):
            fapilog.get_logger("a").info("e", n=number)
            assert fapilog.flush(10).complete
        httpx.get("{loki.url}/ready", trust_env=False)
        fapilog.shutdown_logging()
    """
    printed = ran_well(run_script(script, tmp_path, env=env(loki)))
    assert "push" not in printed
    assert printed.count("httpx HTTP Request: GET") == 1
    assert printed.count("httpcore.connection connect_tcp.started") == 1


@pytest.mark.parametrize("tls", [only_matrix(False), True], ids=["http", "https"])
def test_what_a_push_imports(loki: StandIn, tmp_path: Path, tls: bool) -> None:
    """Nothing: a child that is forked in the midst of an import on another thread would never get the rest of the module."""
    script = """
        import sys, fapilog
        fapilog.configure_logging(loki_batch_timeout=0.05)
        before = set(sys.modules)
        fapilog.get_logger("a").info("e")
        assert fapilog.flush(10).complete
        print(*sorted(set(sys.modules) - before))
    """
    if not tls:
        url = loki.url.replace("127.0.0.1", "localhost")
        assert ran_well(run_script(script, tmp_path, env=env(loki, FAPILOG_SINKS="loki", FAPILOG_LOKI_URL=url))) == "\n"
        return
    authority = certificates.authority(tmp_path)
    with StandIn(limits=NO_RATES, tls=authority.server(), host="localhost") as server:
        more = {"FAPILOG_SINKS": "loki", "FAPILOG_LOKI_CA_FILE": str(authority.ca_file)}
        assert ran_well(run_script(script, tmp_path, env=env(server, **more))) == "\n"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, "FAPILOG_LOKI_URL: the sink loki needs the URL of a server"),
        ({"loki_url": "loki:3100"}, "FAPILOG_LOKI_.*must be the URL of a server"),
        ({"loki_url": "http://h", "loki_token": "hunter2", "loki_password": "hunter2"}, "exclude each other"),
        ({"loki_url": "http://h", "queue_enabled": False}, "writes synchronously, and sink 'loki' has no write_now"),
    ],
)
def test_settings_that_cannot_be(overrides: dict[str, Any], message: str) -> None:
    """They are errors at set-up that show no secret."""
    with process_restored(), pytest.raises(ConfigurationError, match=message) as caught:
        fapilog.configure_logging(sinks=["loki"], **overrides)
    assert "hunter2" not in str(caught.value)


def test_the_same_settings_again(loki: StandIn, tmp_path: Path, monkeypatch) -> None:
    """They change nothing; another password does."""
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {"sinks": ["loki"], "loki_url": loki.url, "run_dir": str(tmp_path / "run")}
    with process_restored():
        hub = fapilog.configure_logging(**given, loki_password="a")
        assert fapilog.configure_logging(**given, loki_password="a") is hub
        fapilog.get_logger("a").info("e")
        boot = fapilog.statistics().identity.boot
        fapilog.configure_logging(**given, loki_password="b")
        fapilog.get_logger("a").info("e")
        assert fapilog.flush(10).complete
        assert fapilog.statistics().identity.boot == boot
        assert len({request.header("Authorization") for request in loki.requests()}) == 2
