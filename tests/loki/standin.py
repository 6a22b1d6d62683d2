"""The stand-in Loki: listens, runs its script, keeps what it is given."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from tests.loki.exchange import PUSH_PATH, Connection, Request, basic
from tests.loki.faults import HTML
from tests.loki.limits import Dedupe, Limits
from tests.loki.ports import Listener, ReservedPort
from tests.loki.store import Entry, Store
from tests.loki.wire import Refused, decode

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable
    from email.message import Message
    from typing import Self

    from tests.loki.exchange import Exchange
    from tests.loki.faults import Fault
    from tests.loki.store import Failures

LIMIT_S = 15.0
_STOP_LIMIT_S = 10.0
_LOOK_S = 0.01


class StandIn:
    """
    A Loki on 127.0.0.1, in threads of this process; a context manager. See `tests.loki` for how to use it.

    Invariants:
        1. What a client was answered is in `entries()` and `requests()` before it can know the answer.
        2. The script's behaviours are consumed in order, each by one push request or one connection, never by reads.
        3. State (entries, requests, script, port) outlives `stop()` and `start()`; connections do not.
        4. `stop()` returns with no thread of the stand-in left, whatever hangs, and raises what went wrong inside it.

    Args:
        limits: What it refuses; Loki's defaults.
        dedupe: Which entries of a stream it keeps once.
        auth: Whether a tenant must be named; otherwise the header is ignored and the tenant is ``fake``.
        basic_auth: User and password that a proxy in front demands.
        bearer: Token that it demands.
        tls: The server's context (`tests.loki.certificates`); none: plain HTTP.
        host: How `url` names the server: ``127.0.0.1`` or ``localhost``.
        prefix: Path before Loki's own, as behind a gateway; part of `url`.
        keep_bodies: Whether `Request.body` holds the bytes as sent.
        clock: Its time, seconds since 1970.
    """

    name = "stand-in"
    path = PUSH_PATH

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        dedupe: Dedupe = Dedupe.METADATA,
        auth: bool = False,
        basic_auth: tuple[str, str] | None = None,
        bearer: str | None = None,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        prefix: str = "",
        keep_bodies: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = Store(limits or Limits(), dedupe, clock)
        self.auth = auth
        self.credentials = basic(*basic_auth) if basic_auth else f"Bearer {bearer}" if bearer else None
        self.tls = tls
        self.keep_bodies = keep_bodies
        self.tls_failures: list[str] = []
        self.errors: list[Exception] = []
        self.released = threading.Event()
        self._port = ReservedPort()
        self.port = self._port.number
        self.prefix = prefix
        self.push_path = prefix + self.path
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}{prefix}"
        self.push_url = self.url + self.path
        self._state = threading.Condition(threading.RLock())
        self._requests: list[Request] = []
        self._connections: set[Connection] = set()
        self._accepted = 0
        self._script: deque[Fault] = deque()
        self._then: Fault | None = None
        self._reached: list[str] = []
        self._listener: Listener | None = None
        self._refusing: threading.Thread | None = None
        self._running = False

    # Life

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop for good; the port is given back."""
        try:
            self.stop()
        finally:
            self._port.close()

    def start(self) -> Self:
        """Listen, on the same port as before."""
        with self._state:
            assert not self._running, "it runs already"
            self._running = True
            self.released = threading.Event()
            self._turn()
            if self._refusing is None:
                self._listen()
        return self

    def stop(self) -> None:
        """Close the listener and all connections, let go what hangs, wait for the threads; the state stays."""
        with self._state:
            self._running = False
            self.released.set()
            threads = [self._deafen(), self._refusing, *(connection.thread for connection in self._connections)]
            for connection in self._connections:
                connection.close()
        for thread in filter(None, threads):
            thread.join(_STOP_LIMIT_S)
            assert not thread.is_alive(), f"{thread.name} hangs"
        if self.errors:
            raise self.errors.pop()

    def release(self) -> None:
        """Let go all that hangs or drips now; what comes later may hang again."""
        with self._state:
            self.released.set()
            if self._running:
                self.released = threading.Event()

    def _listen(self) -> None:
        self._listener = Listener(self._port.listen(), self._accept)

    def _deafen(self) -> threading.Thread | None:
        listener, self._listener = self._listener, None
        return listener.close() if listener is not None else None

    def _accept(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        connection = Connection(self, sock, peer)
        with self._state:
            if self._listener is None:  # it was accepted as the listener was closed
                connection.reset()
                return
            self._accepted += 1
            self._connections.add(connection)
            connection.thread.start()
            self._state.notify_all()

    def turn_to(self, connection: Connection, *, busy: bool) -> None:
        """
        Let a connection begin or end a request.

        Under the lock, and with a look at whether anybody still listens: so that a connection between two requests, which `_turn`
        closes, can neither slip through as busy nor begin a request that nobody will see answered.
        """
        with self._state:
            if self._listener is None:
                raise ConnectionResetError("nobody listens any more")
            connection.busy = busy

    def forget(self, connection: Connection) -> None:
        with self._state:
            self._connections.discard(connection)
            self._state.notify_all()

    # Script

    def script(self, *faults: Fault, then: Fault | None = None) -> None:
        """Behave so, one by one, in place of what was left of the script before; afterwards like *then*, or as Loki does."""
        with self._state:
            self._script = deque(faults)
            self._then = then
            self._reached = []
            self._turn()

    def reached(self) -> list[str]:
        """Return the names of the scripted behaviours that were consumed, in order."""
        with self._state:
            return list(self._reached)

    def left(self) -> list[str]:
        """Return the names of those that were not."""
        with self._state:
            return [fault.name for fault in self._script]

    def assert_reached(self) -> None:
        """Fail unless every scripted behaviour was reached."""
        assert not self.left(), f"never reached: {self.left()}, after {self.reached()}"

    def wait_reached(self, seconds: float = LIMIT_S) -> None:
        """Wait until every scripted behaviour was reached."""
        self.wait_for(lambda: not self._script, "every scripted behaviour is reached", seconds)

    def next_fault(self, at: Literal["request", "connection"], connection: Connection) -> Fault | None:
        """Consume the next behaviour if it is one for *at*; the standing one (`then`) is never used up."""
        with self._state:
            connection.released = self.released  # of now: who waits for it must not miss a release that is quicker
            fault = self._script[0] if self._script else self._then
            if fault is None or fault.at != at:
                return None
            self._reached.append(fault.name)
            if self._script:
                self._script.popleft()
                self._turn()
            self._state.notify_all()
            return fault

    def closes_connections(self) -> bool:
        """Whether what comes next needs a new connection, so that answers must announce the end of theirs."""
        with self._state:
            fault = self._script[0] if self._script else self._then
            return not self._running or (fault is not None and fault.at != "request")

    def _turn(self) -> None:
        """Where the next behaviour is to refuse connections, begin at once: nobody can come and consume it."""
        fault = self._script[0] if self._script else self._then
        if fault is None or fault.at != "listen" or not self._running or self._refusing is not None:
            return
        self._deafen()
        for connection in self._connections:
            if not connection.busy:
                connection.close()
        self._refusing = threading.Thread(target=self._refuse, args=(fault,), name="loki-stand-in-refuses", daemon=True)
        self._refusing.start()

    def _refuse(self, fault: Fault) -> None:
        end, over = time.monotonic() + fault.seconds, fault.until or (lambda: True)
        while self._current() is fault and not (time.monotonic() >= end and fault is not self._then and over()):
            time.sleep(_LOOK_S)
        with self._state:
            self._refusing = None
            if self._script and self._script[0] is fault and self._running:
                self._script.popleft()
                self._reached.append(fault.name)
            self._turn()
            if self._running and self._refusing is None:
                self._listen()
            self._state.notify_all()

    def _current(self) -> Fault | None:
        with self._state:
            if not self._running:
                return None
            return self._script[0] if self._script else self._then

    # Checks for requests

    @property
    def limits(self) -> Limits:
        """What it refuses; may be replaced while it runs."""
        return self.store.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self.store.limits = limits

    def take(self, exchange: Exchange, body: bytes, failures: Failures) -> tuple[int, str | bytes]:
        """Store what is valid of a request; return the answer that is due, or raise it as `Refused`."""
        headers, limits = exchange.handler.headers, self.limits
        tenant = self.tenant_of(headers)
        streams = decode(headers, body, max_bytes=limits.max_recv_size, max_decompressed=limits.max_decompressed_size)
        self.store.push(tenant, streams, exchange.request.number, exchange.request.peer_port, failures)
        return 204, ""

    def check(self, headers: Message) -> None:
        """Raise `Refused` where the credentials that a proxy demands are not there."""
        if self.credentials is not None and headers.get("Authorization") != self.credentials:
            raise Refused(401, HTML.format("401 Authorization Required"))

    def tenant_of(self, headers: Message) -> str:
        """Return whose the request is."""
        tenant = headers.get("X-Scope-OrgID")
        if not self.auth:
            return "fake"
        if not tenant:
            raise Refused(401, "no org id")
        return tenant

    def record(self, make: Callable[[int], Request]) -> Request:
        with self._state:
            self._requests.append(make(len(self._requests) + 1))
            self._state.notify_all()
            return self._requests[-1]

    def changed(self) -> None:
        with self._state:
            self._state.notify_all()

    # Read side

    def ready(self) -> bool:
        """Whether it listens."""
        return self._listener is not None

    def entries(self, **labels: str) -> list[Entry]:
        """Return what it stored in streams with these labels, in the order of its coming."""
        wanted, entries = labels.items(), self.store.entries.copy()
        return [entry for entry in entries if wanted <= entry.labels.items()] if wanted else entries

    def deduplicated(self) -> list[Entry]:
        """Return what came again and was not stored again."""
        return list(self.store.deduplicated)

    def requests(self) -> list[Request]:
        """Return all pushes, in the order of their heads' coming; the records go on changing until they are answered."""
        with self._state:
            return list(self._requests)

    def connections(self) -> int:
        """Return how many connections were ever accepted."""
        return self._accepted

    def open_connections(self) -> int:
        """Return how many there are now."""
        return len(self._connections)

    def clear(self) -> None:
        """Forget entries, streams, rates and requests; not the script."""
        with self._state:
            self.store = Store(self.store.limits, self.store.dedupe, self.store.clock)
            self._requests = []

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float = LIMIT_S) -> Any:
        """Return the first true value of *condition*, looked at as something changes; fail after *seconds*."""
        end = time.monotonic() + seconds
        with self._state:
            while not (value := condition()):
                left = end - time.monotonic()
                assert left > 0, f"not within {seconds:g} s: {what} (script left: {self.left()}, {len(self._requests)} requests)"
                self._state.wait(min(left, 0.05))
            return value

    def wait_entries(self, count: int, seconds: float = LIMIT_S, **labels: str) -> list[Entry]:
        """Wait until at least *count* entries are stored in streams with these labels; return all of them."""
        self.wait_for(lambda: len(self.entries(**labels)) >= count, f"{count} entries", seconds)
        return self.entries(**labels)

    def wait_requests(self, count: int, seconds: float = LIMIT_S) -> list[Request]:
        """Wait until at least *count* pushes have come; return all."""
        self.wait_for(lambda: len(self._requests) >= count, f"{count} requests", seconds)
        return self.requests()
