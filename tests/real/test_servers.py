"""The adapters of real servers: what they are trusted with by the tests of the sink."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.loki import StandIn
from tests.loki.encode import JSON, push_json
from tests.real.servers import UsersLoki


def push(server, *lines, **labels):
    """Send lines a nanosecond apart; return the status."""
    at = time.time_ns()
    body = push_json((labels, [(at + n, line) for n, line in enumerate(lines)]))
    return httpx.post(server.push_url, content=body, headers=JSON, timeout=10).status_code


@pytest.mark.real
def test_a_restart_on_the_same_data(victoria_logs) -> None:
    """While it is stopped connections are refused; then it is at the same port with all it had."""
    assert push(victoria_logs, "a", "b", worker="1") == 204
    victoria_logs.stop()
    with pytest.raises(httpx.ConnectError):
        push(victoria_logs, "c", worker="1")
    victoria_logs.start()
    assert push(victoria_logs, "c", worker="2") == 204
    assert sorted(entry.line for entry in victoria_logs.entries()) == ["a", "b", "c"]
    assert [entry.line for entry in victoria_logs.entries(worker="2")] == ["c"]
    assert (victoria_logs.count(), victoria_logs.count(worker="1")) == (3, 2)
    assert sorted(labels["worker"] for labels in victoria_logs.streams()) == ["1", "2"]


@pytest.mark.real
def test_a_server_that_hangs(victoria_logs) -> None:
    """Connections are taken and nothing is answered, until it goes on."""
    victoria_logs.pause()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(victoria_logs.push_url, content=push_json(), headers=JSON, timeout=0.3)
    with ThreadPoolExecutor(1) as pool:
        pushed = pool.submit(push, victoria_logs, "x", worker="1")
        victoria_logs.go_on()
        assert pushed.result(10) == 204
    assert victoria_logs.count(worker="1") == 1


@pytest.mark.real
def test_many_entries(victoria_logs) -> None:
    """All of 20,000 are counted and read."""
    for n in range(4):
        assert push(victoria_logs, *map(str, range(5000)), worker=str(n)) == 204
    assert victoria_logs.count() == 20_000
    assert len({entry.key for entry in victoria_logs.entries()}) == 20_000


def test_what_reads_a_users_loki_back() -> None:
    """It finds the tenant's entries in the stand-in's answers, as they are, metadata apart."""
    at = time.time_ns()
    body = push_json(({"run": "1"}, [(at, "x", {"pid": "1"}), (at + 1, "y")]), ({"run": "2"}, [(at, "other")]))
    with StandIn(auth=True) as standin:
        one, two = UsersLoki(standin.push_url, "one"), UsersLoki(standin.url, "two")
        assert one.push_url == two.push_url == standin.push_url
        assert httpx.post(one.push_url, content=body, headers={**JSON, **one.headers}).status_code == 204
        found = one.wait_entries(2, run="1")
        assert sorted(entry.key for entry in found) == [entry.key for entry in standin.entries(run="1")]
        assert two.entries(run="1") == []
