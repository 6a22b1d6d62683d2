"""The harness itself: what it makes of connections that end early."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.servers.harness import BROKEN, Load, Visits, ask


class Listening:
    """Stands in for a server of which only the port is asked."""

    port = 9
    pid = 0


@pytest.fixture
def connecting(monkeypatch):
    """Let each attempt to connect end in the error that is given."""

    def ends_in(error: type[OSError]) -> None:
        def create(*_: Any, **__: Any) -> socket.socket:
            raise error

        monkeypatch.setattr(socket, "create_connection", create)

    return ends_in


@pytest.mark.parametrize("error", BROKEN)
def test_a_connection_that_breaks_before_it_stands(connecting, error: type[OSError]) -> None:
    """It was waiting when the listener closed: the visit was asked and had no answer."""
    connecting(error)
    visits: Any = Visits(Listening())  # type: ignore[arg-type]
    assert ask(9, "/work/0") is None
    assert not visits._one("work", 0)
    assert (visits.asked, visits.broken) == ({0: "work"}, {0})


def test_a_connection_that_is_refused(connecting) -> None:
    """Nobody has seen the request: the visit was never asked."""
    connecting(ConnectionRefusedError)
    visits: Any = Visits(Listening())  # type: ignore[arg-type]
    assert not visits._one("work", 0)
    assert visits.asked == {}


@pytest.mark.parametrize("error", [*BROKEN, ConnectionRefusedError])
def test_a_kept_connection_that_does_not_come_about(connecting, error: type[OSError]) -> None:
    """It is no connection, and another one is tried."""
    connecting(error)
    assert Load(9, 1)._connect(0) is None
