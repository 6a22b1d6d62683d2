"""
A stand-in Loki for tests: the protocol, the exact answers and limits of a real one, and a script of what can go wrong.

Exact answers are those of Loki v3.7.6. Standard library only; on 127.0.0.1, in threads of the test's process::

    from tests.loki import NO_RATES, Dedupe, Limits, StandIn, faults

    with StandIn() as loki:             # ephemeral port; .url (base), .push_url, .port
        ...push...
        entries = loki.wait_entries(10) # Entry(tenant, labels, ts, line, metadata, request, peer_port); .key is hashable
        loki.requests()                 # Request(number, at, method, path, headers, peer_port, fault, size, body, status,
                                        # answered_at); .header(name)

Servers: ``StandIn(limits=Limits(max_line_size=1000), dedupe=Dedupe.OFF | LINE | METADATA, auth=True, basic_auth=("u", "p"),
bearer="token", tls=authority.server(), host="localhost", prefix="/gateway", keep_bodies=False, clock=...)``. The limits are
Loki's defaults, rates included (4 MB/s): ``limits=NO_RATES`` for floods. `Limits.proxy_max_size` makes a proxy's 413. They may be
replaced at any time (``loki.limits = ...``).

Script: one behaviour is consumed by each push request, or by each connection for those that act on one::

    loki.script(faults.failure(500), faults.too_many("1"), faults.cut(), faults.refuse(until=tried), then=None)
    loki.wait_reached()                 # until every behaviour was consumed
    loki.assert_reached()               # fails and names those that were not; reached(), left(): their names
    loki.script(then=faults.hang())     # for ever; loki.script() ends it, loki.release() lets go what hangs now

`faults` makes them: ok, ok_then_close, status, proxy, blocked (260), redirect, bad_request, partial (old, behind, rate),
too_many, unavailable, failure, hang, stop_reading, black_hole, slow, slow_head, slow_body, endless_body, cut, reset, garbage,
refuse; `faults.http_date(seconds)` for Retry-After. `faults.CATALOGUE` is one maker of each behaviour by name; a fault's
``stored`` (all, some, none) says what the server keeps, ``at`` what consumes it. An answer that a connection's behaviour follows
says ``Connection: close``, so that the client comes back with a new connection. Of several clients, those that hold a connection
are answered as usual while a connection's behaviour waits for the next new one.

Life: ``stop()`` closes everything and keeps state and port, ``start()`` goes on; ``with`` does both, ``close()`` is for good.
`clear()` forgets entries and requests. ``tls_failures`` are the handshakes that broke (a moment after the client knows),
`connections()` counts all that were accepted, `open_connections()` those now, `deduplicated()` is what came twice,
`wait_for(condition, what)` waits for anything. `entries` and `wait_entries` take labels to choose by:
``loki.entries(worker="1")``.

TLS: ``authority = certificates.authority(folder)`` (skips the test where there is no openssl command); ``authority.ca_file``,
``authority.server()``, ``.server(expired=True)``, ``.server(name="other.test")``: contexts for ``tls=``.

Requests for tests of a server itself: `encode`. The same read side for real servers: `tests.real`.
"""

from __future__ import annotations

from tests.loki import certificates, encode, faults
from tests.loki.exchange import Request
from tests.loki.limits import NO_RATES, Dedupe, Limits
from tests.loki.standin import StandIn
from tests.loki.store import Entry

__all__ = ["NO_RATES", "Dedupe", "Entry", "Limits", "Request", "StandIn", "certificates", "encode", "faults"]
