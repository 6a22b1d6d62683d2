"""The OTLP sink against a stand-in Collector: every behaviour with its counts, headers, TLS, sizes of requests."""

from __future__ import annotations

import asyncio
import gzip
import random
import ssl
import time
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse

from fapilog._internal import notes
from fapilog._internal.parsing import HiddenUrl
from fapilog.errors import ConfigurationError
from fapilog.sinks.answers import Answer, Fate
from fapilog.sinks.otlp import OtlpSink
from fapilog.sinks.otlp_answers import judged
from tests._support import rest_in_matrix
from tests.loki import NO_RATES, Limits, certificates, faults
from tests.loki.lines import delivering as delivering_to
from tests.loki.lines import fates, line, lines, offered, once, run
from tests.otlp import Collector

TEN = {"delivered": 10}
PROTOBUF = {"content-type": "application/x-protobuf"}
#: By the name of the behaviour: the fates of ten events that meet it once, and the records stored of them in the end.
EXPECTED: dict[str, tuple[dict[str, int], int]] = {
    "204": (TEN, 10),
    "204, then an unannounced close": (TEN, 10),
    **dict.fromkeys(("200", "202", "260"), (TEN, 0)),
    **dict.fromkeys(("301", "302", "307", "308", "400", "401", "403", "404", "408", "422"), ({"rejected": 10}, 0)),
    **dict.fromkeys(
        ("500", "501", "slow body", "endless body", "unreadable body", "body shorter than said"), ({"rejected": 10}, 0)
    ),
    "500 after storing": ({"rejected": 10}, 10),
    **dict.fromkeys(("400 partial, old", "400 partial, behind", "429 partial"), ({"delivered": 9, "rejected": 1}, 9)),
    "413": (TEN, 10),
}
#: Where the protocol's answers are its own; what it shares with Loki is the other tests'.
OWN = [
    "200", "308", "404", "408", "413", "429", "429 partial", "400 partial, old", "500", "500 after storing", "502", "503", "504",
    "reset", "cut after storing", "hang", "slow body", "unreadable body",
]  # fmt: skip
SLOW = {"hang", "hang after storing", "black hole", "stop reading", "slow head"}
STORED_FIRST = {"hang after storing", "cut after storing", "reset after storing", "cut in the answer", "garbage for an answer"}


def server(**options: Any) -> Collector:
    return Collector(limits=NO_RATES, **options)


def delivering(url: str, **options: Any) -> Any:
    return delivering_to(url, kind=OtlpSink, **options)


@pytest.mark.parametrize("name", rest_in_matrix(len(OWN), [*OWN, *(name for name in faults.CATALOGUE if name not in OWN)]))
def test_a_server_that_behaves_so_once(name: str) -> None:
    """The ten events have the fates that the answer means, and what is sent again is the same to the byte."""
    expected, stored = EXPECTED.get(name, (TEN, 20 if name in STORED_FIRST | {"slow head"} else 10))

    async def main(collector: Collector) -> None:
        async with delivering(collector.url, timeout=0.5 if name in SLOW else 5.0, retry_cap=0.5) as delivery:
            collector.script(once(name, delivery))
            await offered(delivery, lines(1, 10))
            assert fates(delivery) == expected
            await asyncio.to_thread(collector.wait_reached)
            assert (delivery.books.retries > 0) == (name not in EXPECTED)
            await offered(delivery, lines(11, 5))
            assert delivery.books.delivered == expected.get("delivered", 0) + 5
            assert delivery.books.up

    with server() as collector:
        run(main(collector))
        assert len(collector.records()) == stored + 5
        again = [each.record.SerializeToString() for each in collector.records()]
        assert len(set(again)) == len(again) - (10 if stored == 20 else 0)
        collector.assert_reached()


def test_a_request_that_is_too_large() -> None:
    """It is sent in parts, each event once; one that is too large by itself is counted, and the others arrive."""

    async def main(collector: Collector) -> dict[str, int]:
        async with delivering(collector.url) as delivery:
            noise = random.Random(7)
            batch = [line(seq, f"{noise.getrandbits(4000):x}") for seq in range(1, 41)]
            batch.insert(20, line(999, f"{noise.getrandbits(40_000):x}"))
            await offered(delivery, batch)
            return fates(delivery)

    with Collector(limits=Limits(proxy_max_size=8_000)) as collector:
        assert run(main(collector)) == {"delivered": 40, "rejected": 1}
        assert sorted(each.seq for each in collector.records()) == list(range(1, 41))


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_the_size_of_a_request(compression: str) -> None:
    """Before compression it is at most that of the setting, in however few bytes the lines said more; the order is kept."""
    many = b'"many":[' + b",".join([b"1"] * 1000) + b"]"

    async def main(collector: Collector) -> None:
        async with delivering(collector.url, batch_bytes=30_000, compression=compression) as delivery:
            await offered(delivery, [line(seq)[:-1].replace(b'"event"', many + b',"event"') + b"\n" for seq in range(1, 101)])
            assert fates(delivery) == {"delivered": 100}

    with server() as collector:
        run(main(collector))
        encodings = {request.header("Content-Encoding") for request in collector.requests()}
        assert encodings == {None if compression == "none" else "gzip"}
        sizes = [len(gzip.decompress(each.body) if compression == "gzip" else each.body) for each in collector.requests()]
        assert max(sizes) <= 30_000
        assert [each.seq for each in collector.records()] == list(range(1, 101))


def test_a_partial_success(capfd) -> None:
    """What is rejected is counted so and not sent again, the server's reason is on stderr once."""
    notes.forget()

    async def main(collector: Collector) -> dict[str, int]:
        async with delivering(collector.url) as delivery:
            collector.script(faults.partial(3), faults.partial(2))
            for first in (1, 11, 21):
                await offered(delivery, lines(first, 10))
            return fates(delivery)

    with server() as collector:
        assert run(main(collector)) == {"delivered": 25, "rejected": 5}
        assert [each.seq for each in collector.records()] == [*range(4, 11), *range(13, 31)]
    assert capfd.readouterr().err.count("sink 'otlp' refused 3 events for good: these are too old") == 1


def test_a_success_with_a_warning(capfd) -> None:
    """All is delivered; the server's text is on stderr once, without our credentials."""
    notes.forget()
    warning = ExportLogsServiceResponse(partial_success=ExportLogsPartialSuccess(error_message="api/v0 s3cret goes away\n"))

    async def main(collector: Collector) -> dict[str, int]:
        async with delivering(collector.url, headers="api-key=s3cret") as delivery:
            collector.script(then=faults.status(200, warning.SerializeToString()))
            for first in (1, 11):
                await offered(delivery, lines(first, 10))
            return fates(delivery)

    with server() as collector:
        assert run(main(collector)) == {"delivered": 20}
    assert capfd.readouterr().err.count("sink 'otlp' was warned by its server: api/v0 *** goes away\n") == 1


@pytest.mark.parametrize(
    ("status", "headers", "body", "answer"),
    [
        (200, {}, b"\xff\xff\xff", Answer(Fate.STORED)),
        (200, PROTOBUF, b"\xff\xff\xff", Answer(Fate.STORED)),
        (200, PROTOBUF, b"", Answer(Fate.STORED)),
        (200, PROTOBUF, bytes([10, 2, 8, 99]), Answer(Fate.REFUSED, 10, "partial success")),
        (200, PROTOBUF, bytes([10, 11, 8, *[255] * 9, 1]), Answer(Fate.STORED)),
        (
            200,
            {"content-type": "application/json"},
            b'{"partialSuccess":{"rejectedLogRecords":"2"}}',
            Answer(Fate.REFUSED, 2, "partial success"),
        ),
        (200, {"content-type": "application/json"}, b'{"partialSuccess":{}}', Answer(Fate.STORED)),
        (200, {"content-type": "application/json"}, b'{"partialSuccess":[]}', Answer(Fate.STORED)),
        (200, {"content-type": "application/json"}, b"[1", Answer(Fate.STORED)),
        (200, {"content-type": "text/html; charset=utf-8"}, b"<p>hi", Answer(Fate.REFUSED, 10, "answer 200: <p>hi")),
        (400, PROTOBUF, b"\x08\x03\x12\x03bad\x1a\x00", Answer(Fate.REFUSED, 10, "answer 400: bad")),
        (400, PROTOBUF, b"\xff", Answer(Fate.REFUSED, 10, "answer 400")),
        (503, {"retry-after": "7"}, b"busy", Answer(Fate.AGAIN, 0, "answer 503: busy", 7.0)),
        (413, {}, b"", Answer(Fate.TOO_MUCH, 10, "answer 413")),
        (501, {}, b"no", Answer(Fate.REFUSED, 10, "answer 501: no")),
    ],
)
def test_answers(status: int, headers: dict[str, str], body: bytes, answer: Answer) -> None:
    """They mean what the specification says, whatever stands in them."""
    assert judged(status, headers, body, 10) == answer


def test_waits_that_a_server_asks_for() -> None:
    """429 and 503 with `Retry-After`, in both its forms: all arrive, after the waits that were asked for."""

    async def main(collector: Collector) -> float:
        async with delivering(collector.url, retry_cap=0.3, rng=lambda: 0.0) as delivery:
            collector.script(faults.too_many("1"), faults.unavailable(faults.http_date(100)), faults.unavailable("soon"))
            began = time.monotonic()
            await offered(delivery, lines(1, 10))
            assert fates(delivery) == TEN
            assert delivery.books.retries == 3
            return time.monotonic() - began

    with server() as collector:
        assert run(main(collector)) >= 0.6
        collector.assert_reached()


def test_an_outage_that_lasts() -> None:
    """What could not be sent in its time is counted expired, and what comes later arrives."""

    async def main(collector: Collector) -> dict[str, int]:
        async with delivering(collector.url, max_elapsed=0.4, retry_cap=0.1) as delivery:
            collector.script(then=faults.reset())
            await offered(delivery, lines(1, 10))
            collector.script()
            await offered(delivery, lines(11, 10))
            return fates(delivery)

    with server() as collector:
        assert run(main(collector)) == {"delivered": 10, "expired": 10}


def test_headers(capfd) -> None:
    """Those that were given are in each request, decoded; nothing shows their values."""
    notes.forget()

    async def main(collector: Collector) -> None:
        async with delivering(collector.url, headers="api-key=s3cret%2C1 , X-Team = core ") as delivery:
            collector.script(faults.status(403, "no s3cret,1 or s3cret%2C1"))
            await offered(delivery, lines(1, 10))
            assert "s3cret" not in repr(vars(delivery.sink)["sink"])

    with server() as collector:
        run(main(collector))
        (request,) = collector.requests()
        assert (request.header("api-key"), request.header("x-team")) == ("s3cret,1", "core")
        assert request.header("Content-Type") == "application/x-protobuf"
        assert request.header("Accept-Encoding") == "identity"  # what comes back is read as it is
    said = capfd.readouterr().err
    assert "answer 403: no *** or ***" in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"url": "ann:s3c%2Fret@"}, {"basic_auth": ("ann", "s3c/ret")}),
        ({"headers": "Authorization=Bearer%20s3cret"}, {"bearer": "s3cret"}),
        ({"url": "ann:other@", "headers": {"authorization": "Bearer s3cret"}}, {"bearer": "s3cret"}),
    ],
    ids=["url", "header", "both"],
)
def test_credentials(given: dict[str, Any], options: dict[str, Any], capfd) -> None:
    """They are sent as they are, those of a header before those of the URL; with wrong ones the events are rejected."""
    notes.forget()

    async def main(url: str, **more: Any) -> dict[str, int]:
        async with delivering(url, **more) as delivery:
            await offered(delivery, lines(1, 10))
            return fates(delivery)

    with server(**options) as collector:
        url = collector.url.replace("http://", f"http://{given.pop('url', '')}")
        assert run(main(url, **given)) == TEN
        assert run(main(collector.url, headers="Authorization=Bearer%20wr0ng")) == {"rejected": 10}
    said = capfd.readouterr().err
    assert "401" in said
    assert "s3c" not in said
    assert "wr0ng" not in said


@pytest.mark.parametrize(
    ("url", "exact", "endpoint"),
    [
        ("", False, "http://localhost:4318/v1/logs"),
        ("http://collector:4318", False, "http://collector:4318/v1/logs"),
        ("http://collector:4318/", False, "http://collector:4318/v1/logs"),
        ("https://h/otlp/", False, "https://h/otlp/v1/logs"),
        ("https://h/otlp/v1/logs", False, "https://h/otlp/v1/logs"),
        ("https://h/own/", True, "https://h/own/"),
        ("https://h", True, "https://h/"),
        ("http://ann:S3CRET@h", False, "http://h/v1/logs"),
        ("http://h/?key=S3CRET", False, "http://h/v1/logs?key=***"),
    ],
)
def test_the_endpoint(url: str, exact: bool, endpoint: str) -> None:
    """A base gets the path of logs, one that is exact is taken as it is; credentials are not in what is shown."""
    sink = OtlpSink(url, endpoint_exact=exact)
    assert (sink.url, sink.target) == (endpoint, endpoint)
    assert "S3CRET" not in repr(sink) + repr(HiddenUrl(url))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"endpoint": "collector:4318"}, "must be the URL of a server, such as http://localhost:4318"),
        ({"headers": "a"}, "the headers must be key=value pairs with commas between them"),
        ({"headers": "a b=c"}, "the headers must have names that headers can have"),
        ({"headers": "a=%ff"}, "the headers must be percent-encoded UTF-8"),
        ({"headers": "a=%0a1"}, None),
        ({"headers": "a=1%0a2"}, "a must be printable ASCII"),
        ({"headers": "content-type=x"}, "the header content-type is fapilog's own"),
        ({"compression": "zstd"}, "the compression must be gzip or none"),
        ({"ca_file": "/nowhere.pem"}, "/nowhere.pem has no certificates"),
        ({"client_certificate": "/nowhere.pem"}, "/nowhere.pem and its key cannot be used as a client's certificate"),
        ({"client_key": "/nowhere.pem"}, "/nowhere.pem is the key to a client's certificate, which is missing"),
    ],
)
def test_arguments_that_cannot_be_used(arguments: dict[str, Any], message: str | None) -> None:
    """They are errors where the sink is made."""
    if message is None:
        OtlpSink(**arguments)
        return
    with pytest.raises(ConfigurationError, match=message):
        OtlpSink(**arguments)


def test_certificates(tmp_path) -> None:
    """A private authority is trusted when it is given; a server that wants one gets the client's certificate."""
    authority = certificates.authority(tmp_path)

    async def main(collector: Collector, **options: Any) -> dict[str, int]:
        async with delivering(collector.url, max_elapsed=0.5, **options) as delivery:
            await offered(delivery, lines(1, 10))
            return fates(delivery)

    trusted = {"ca_file": authority.ca_file}
    with server(tls=authority.server(), host="localhost") as collector:
        assert run(main(collector, **trusted)) == TEN
        assert run(main(collector)) == {"expired": 10}
    wanting = authority.server()
    wanting.load_verify_locations(authority.ca_file)
    wanting.verify_mode = ssl.CERT_REQUIRED
    own = certificate_for_client(authority)
    with server(tls=wanting, host="localhost") as collector:
        assert run(main(collector, **trusted, **own)) == TEN
        assert run(main(collector, **trusted)) == {"expired": 10}


def certificate_for_client(authority: certificates.Authority) -> dict[str, Any]:
    authority.client("worker")
    return {"client_certificate": authority.folder / "worker.pem", "client_key": authority.folder / "worker.key"}
