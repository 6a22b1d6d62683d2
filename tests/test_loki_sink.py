"""The Loki sink against a stand-in server: every behaviour with its counts, credentials, TLS, the end in mid-request."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from typing import Any

import pytest

from fapilog._internal import notes
from fapilog._internal.parsing import HiddenUrl
from fapilog.errors import ConfigurationError
from fapilog.identity import Identity
from fapilog.redaction import Redactor, redaction
from fapilog.sinks.loki import LokiSink, push_url
from tests.loki import NO_RATES, Dedupe, Limits, StandIn, certificates, faults
from tests.loki.lines import ME, delivering, fates, line, lines, offered, once, run

TEN = {"delivered": 10}
#: By the name of the behaviour: the fates of ten events that meet it once, and the entries stored of them in the end.
EXPECTED: dict[str, tuple[dict[str, int], int]] = {
    **dict.fromkeys(("204", "204, then an unannounced close"), (TEN, 10)),
    **dict.fromkeys(("200", "202", "260", "301", "302", "307", "308", "400", "401", "403", "404", "422"), ({"rejected": 10}, 0)),
    **dict.fromkeys(("400 partial, old", "400 partial, behind"), ({"delivered": 9, "rejected": 1}, 9)),
    "413": (TEN, 10),
}
AGAIN = (TEN, 10)
SLOW = {"hang", "hang after storing", "black hole", "stop reading", "slow head"}


def server(**options: Any) -> StandIn:
    return StandIn(limits=NO_RATES, dedupe=Dedupe.LINE, **options)


@pytest.mark.matrix
@pytest.mark.parametrize("name", list(faults.CATALOGUE))
def test_a_server_that_behaves_so_once(name: str) -> None:
    """The ten events have the fates that the answer means, and the server has each once, whatever it stored before it failed."""
    expected, stored = EXPECTED.get(name, AGAIN)

    async def main(loki: StandIn) -> None:
        timeout = 0.5 if name in SLOW else 5.0
        async with delivering(loki.url, timeout=timeout, retry_cap=0.5) as delivery:
            loki.script(once(name, delivery))
            await offered(delivery, lines(1, 10))
            assert fates(delivery) == expected
            await asyncio.to_thread(loki.wait_reached)
            assert (delivery.books.retries > 0) == (name not in EXPECTED)
            await offered(delivery, lines(11, 5))
            assert delivery.books.delivered == expected.get("delivered", 0) + 5
            assert delivery.books.up

    with server() as loki:
        run(main(loki))
        assert len(loki.entries()) == stored + 5
        loki.assert_reached()


def test_a_day_of_trouble() -> None:
    """All behaviours one after another, many times over: each event is stored once or counted, and each behaviour was met."""
    makers = [make for name, make in faults.CATALOGUE.items() if name not in SLOW | {"slow body", "endless body", "refuse"}]

    async def main(loki: StandIn) -> dict[str, int]:
        async with delivering(loki.url, timeout=2.0, retry_cap=0.05) as delivery:
            loki.script(*(make() for make in makers))
            for first in range(1, 2000, 10):
                await offered(delivery, lines(first, 10))
            return fates(delivery)

    with server() as loki:
        found = run(main(loki))
        loki.assert_reached()
        assert sum(found.values()) == 2000
        stored = {entry.metadata["seq"] for entry in loki.entries()}
        assert len(stored) == len(loki.entries()) == found["delivered"]


def test_a_request_that_is_too_large() -> None:
    """It is sent in parts, each event once; one that is too large by itself is counted, and the others arrive."""

    async def main(loki: StandIn) -> dict[str, int]:
        async with delivering(loki.url) as delivery:
            noise = random.Random(7)
            batch = [line(seq, f"{noise.getrandbits(4000):x}") for seq in range(1, 41)]
            batch.insert(20, line(999, f"{noise.getrandbits(40_000):x}"))
            await offered(delivery, batch)
            return fates(delivery)

    with StandIn(limits=Limits(proxy_max_size=4_000), dedupe=Dedupe.OFF) as loki:
        assert run(main(loki)) == {"delivered": 40, "rejected": 1}
        assert sorted(int(entry.metadata["seq"]) for entry in loki.entries()) == list(range(1, 41))
        assert len(loki.requests()) < 60


def test_a_failure_between_the_parts() -> None:
    """What was acknowledged is not sent again, even to a server that drops nothing."""

    async def main(loki: StandIn) -> dict[str, int]:
        async with delivering(loki.url) as delivery:
            loki.script(faults.CATALOGUE["413"](), faults.ok(), faults.failure(500), faults.cut(stored=False))
            await offered(delivery, lines(1, 10))
            return fates(delivery)

    with StandIn(limits=NO_RATES, dedupe=Dedupe.OFF) as loki:
        assert run(main(loki)) == TEN
        assert [int(entry.metadata["seq"]) for entry in loki.entries()] == list(range(1, 11))


def test_an_answer_that_lists_much() -> None:
    """The number of what was refused, which stands at its end, is read."""
    why = f"entry with timestamp 2026 ignored, reason: 'too far behind' for stream: {{a=\"{'x' * 2_000}\"}},\n"

    async def main(loki: StandIn) -> dict[str, int]:
        async with delivering(loki.url) as delivery:
            loki.script(faults.status(400, 10 * why + "user 'fake', total ignored: 11 out of 40 for stream: {a=\"x\"}"))
            await offered(delivery, lines(1, 40))
            return fates(delivery)

    with server() as loki:
        assert run(main(loki)) == {"delivered": 29, "rejected": 11}


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("script", "expected", "wanted"),
    [
        (["413", "204"], {"delivered": 5, "expired": 5}, [1, 2, 3, 4, 5]),
        (["413", "400 partial, old"], {"delivered": 4, "rejected": 1, "expired": 5}, [2, 3, 4, 5]),
        (["413", "413", "204", "403"], {"delivered": 2, "rejected": 3, "expired": 5}, [1, 2]),
        (["413", "413", "204", "204", "413", "413", "413"], {"delivered": 5, "rejected": 1, "expired": 4}, [1, 2, 3, 4, 5]),
        (["413", "403"], {"rejected": 5, "expired": 5}, []),
        ([], {"expired": 10}, []),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, list) and value and isinstance(value[0], str) else None,
)
@pytest.mark.parametrize("end", ["500", "hang", "reset"])
def test_a_batch_that_is_given_up_half_way(script: list[str], expected: dict[str, int], wanted: list[int], end: str) -> None:
    """Of what was sent in parts each event is counted as what became of it: stored, refused, or never taken."""

    async def main(loki: StandIn) -> None:
        async with delivering(loki.url, max_elapsed=0.6, timeout=0.2, retry_cap=0.1) as delivery:
            loki.script(*(faults.CATALOGUE[name]() for name in script), then=faults.CATALOGUE[end]())
            await offered(delivery, lines(1, 10))
            loki.assert_reached()
            assert fates(delivery) == expected

    with StandIn(limits=NO_RATES, dedupe=Dedupe.OFF) as loki:
        run(main(loki))
        assert [int(entry.metadata["seq"]) for entry in loki.entries()] == wanted
        loki.release()


def test_a_poisoned_batch() -> None:
    """It is not sent again, what was refused is counted, and the ten batches behind it arrive (O-LOKI-1)."""

    async def main(loki: StandIn) -> dict[str, int]:
        async with delivering(loki.url) as delivery:
            old = line(1, stamp="2020-01-01T00:00:00.000000Z")
            for first in range(11):
                await offered(delivery, [*([old] if not first else []), *lines(10 * first + 2, 9)])
            return fates(delivery)

    with server() as loki:
        assert run(main(loki)) == {"delivered": 99, "rejected": 1}
        assert len(loki.requests()) == 11
        assert len(loki.entries()) == 99


def test_the_same_text_from_four_processes_at_one_moment() -> None:
    """A server that drops equal entries keeps all 400, also after it has stored a batch and failed (O-LOKI-3)."""
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())}.000000Z"

    async def main(loki: StandIn) -> None:
        for worker in range(1, 5):
            identity = Identity("shop", "prod", "h1", worker, 100 + worker, f"boot{worker}")
            async with delivering(loki.url, identity=identity) as delivery:
                loki.script(faults.failure(500, stored=True))
                head = b'{"timestamp":"%b","level":"info","event":"same"' % stamp.encode()
                await offered(delivery, [head + identity.tail() % seq for seq in range(1, 101)])
                assert fates(delivery) == {"delivered": 100}
                loki.assert_reached()

    with server() as loki:
        run(main(loki))
        assert len(loki.entries()) == 400
        assert len(loki.deduplicated()) == 400
        assert len({tuple(sorted(entry.labels.items())) for entry in loki.entries()}) == 4


def test_waits_that_a_server_asks_for() -> None:
    """429 three times, then success: all arrive, after the waits that were asked for (O-LOKI-4)."""

    async def main(loki: StandIn) -> float:
        async with delivering(loki.url, retry_cap=0.3, rng=lambda: 0.0) as delivery:
            loki.script(faults.too_many("1"), faults.too_many(faults.http_date(100)), faults.too_many("soon"))
            began = time.monotonic()
            await offered(delivery, lines(1, 10))
            assert fates(delivery) == TEN
            assert delivery.books.retries == 3
            return time.monotonic() - began

    with server() as loki:
        assert run(main(loki)) >= 0.6
        loki.assert_reached()


def test_the_end_in_the_middle_of_a_long_wait() -> None:
    """It comes within its limit, and what is left is tried once more (O-LOKI-4)."""

    async def main(loki: StandIn) -> float:
        async with delivering(loki.url, retry_cap=3600.0) as delivery:
            loki.script(faults.too_many("3600"))
            batch = lines(1, 10)
            delivery.offer(batch, sum(map(len, batch)))
            await asyncio.to_thread(loki.wait_reached)
            began = time.monotonic()
            delivery.hurry()
            await delivery.settle(10, 3.0)
            assert fates(delivery) == TEN
            return time.monotonic() - began

    with server() as loki:
        assert run(main(loki)) < 2.0


@pytest.mark.parametrize("name", ["hang", "black hole", "stop reading", "slow head", "endless body"])
def test_the_end_in_the_middle_of_a_request(name: str) -> None:
    """It comes at once, with the events counted, and leaves nothing behind."""

    async def main(loki: StandIn) -> float:
        loki.script(then=faults.CATALOGUE[name]())
        async with delivering(loki.url, timeout=60.0) as delivery:
            batch = lines(1, 10, "x" * 100_000 if name == "stop reading" else "x")
            delivery.offer(batch, sum(map(len, batch)))
            await asyncio.sleep(0.3)
            began = time.monotonic()
        assert fates(delivery) == {"after_close": 10}
        return time.monotonic() - began

    with server() as loki:
        assert run(main(loki)) < 2.0
        loki.script()
        loki.release()


def test_what_a_request_says() -> None:
    """Tenant, type and encoding are in its headers; labels and metadata are ours and those that were configured."""

    async def main(loki: StandIn) -> None:
        async with delivering(loki.url, tenant="acme", labels={"my-team": "core"}) as delivery:
            await offered(delivery, lines(1, 3))

    with server() as loki:
        run(main(loki))
        (request,) = loki.requests()
        assert (request.header("X-Scope-OrgID"), request.header("Content-Type")) == ("acme", "application/json")
        assert {entry.tenant for entry in loki.entries()} <= {"acme", "fake"}
        entry = loki.entries()[0]
        wanted = {"service": "shop", "env": "prod", "host": "h1", "worker": "2", "my_team": "core"}
        assert {name: value for name, value in entry.labels.items() if name != "service_name"} == wanted
        assert (entry.metadata["pid"], entry.metadata["boot"], entry.metadata["seq"]) == ("77", "b00t", "1")


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"username": "ann", "password": "s3cret:x"}, {"basic_auth": ("ann", "s3cret:x")}),
        ({"token": "s3cret"}, {"bearer": "s3cret"}),
        ({"url": "ann:s3c%2Fret@"}, {"basic_auth": ("ann", "s3c/ret")}),
    ],
    ids=["basic", "bearer", "url"],
)
def test_credentials(given: dict[str, str], options: dict[str, Any], capfd) -> None:
    """They are sent as they are; with wrong ones the events are rejected, and nothing says them."""
    notes.forget()

    async def main(url: str, more: dict[str, Any]) -> dict[str, int]:
        async with delivering(url, **more) as delivery:
            await offered(delivery, lines(1, 10))
            assert "s3c" not in repr(vars(delivery.sink)["sink"])
            return fates(delivery)

    with server(**options) as loki:
        url = loki.url.replace("http://", f"http://{given.pop('url', '')}")
        assert run(main(url, given)) == TEN
        assert run(main(loki.url, {"token": "wr0ng"})) == {"rejected": 10}
    captured = capfd.readouterr()
    assert "401" in captured.err
    assert "s3c" not in captured.err
    assert "wr0ng" not in captured.err


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/push?token=S3CRET&x=S3CRET", "http://h/push?token=***&x=***"),
        ("http://h/push?S3CRET", "http://h/push?***"),
        ("http://h/x;password=S3CRET", "http://h/x;password=***/loki/api/v1/push"),
        ("http://h/x;S3CRET/push", "http://h/x;***/push"),
        ("http://h/key=S3CRET;v=S3=CRET/push", "http://h/key=***;v=***/push"),
        ("http://ann:S3CRET@h/push", "http://h/push"),
        ("http://:S3CRET@h/push", "http://h/push"),
        ("http://ann:12/S3CRET@h/push", "http://ann:12/***@h/push"),
        ("http://ann:1?S3CRET@h/push", "http://ann:1/loki/api/v1/push?***"),
        ("http://ann:1#S3CRET@h/push", "http://ann:1/loki/api/v1/push"),
        ("http://h:9428/insert", "http://h:9428/insert/loki/api/v1/push"),
    ],
)
def test_credentials_anywhere_in_a_url(url: str, shown: str) -> None:
    """They are used, but in nothing that is shown: the sink's form, its `url` and its `target`."""
    sink = LokiSink(url)
    assert (sink.url, sink.target) == (shown, shown)
    assert "CRET" not in repr(sink)
    assert "CRET" not in repr(HiddenUrl(url))  # the setting


def test_a_server_that_says_the_credentials_back(capfd) -> None:
    """They are masked in what people see of its answer, also where nothing is redacted (`FAPILOG_REDACT=false`)."""
    notes.forget()
    before, redaction.current = redaction.current, Redactor(enabled=False)

    async def main(loki: StandIn) -> None:
        url = loki.push_url.replace("//", "//ann:p%2Fssw0rd@") + "?key=qu%20ry"
        async with delivering(url, max_elapsed=0.3) as delivery:
            sent = "YW5uOnAvc3N3MHJk"  # ann:p/ssw0rd
            loki.script(faults.status(403, f"no {sent} p%2Fssw0rd p/ssw0rd key=qu ry key=qu%20ry"), then=faults.status(500, sent))
            await offered(delivery, lines(1, 10))
            await offered(delivery, lines(11, 10))
            assert fates(delivery) == {"rejected": 10, "expired": 10}

    try:
        with server() as loki:
            run(main(loki))
            assert loki.requests()[0].path.endswith("?key=qu%20ry")
    finally:
        redaction.current = before
    said = capfd.readouterr().err
    assert "answer 403: no *** *** *** key=*** key=***" in said
    assert "answer 500: ***" in said


def test_certificates(tmp_path) -> None:
    """A private authority is trusted when it is given; without it, and for other names or expired ones, nothing is sent."""
    authority = certificates.authority(tmp_path)

    async def main(loki: StandIn, **options: Any) -> dict[str, int]:
        async with delivering(loki.url, max_elapsed=0.4, **options) as delivery:
            await offered(delivery, lines(1, 10))
            return fates(delivery)

    trusted = {"ca_file": authority.ca_file}
    with server(tls=authority.server(), host="localhost") as loki:
        assert run(main(loki, **trusted)) == TEN
        assert run(main(loki)) == {"expired": 10}
    for context in (authority.server(expired=True), authority.server(name="other.test")):
        with server(tls=context, host="localhost") as loki:
            assert run(main(loki, **trusted)) == {"expired": 10}
            assert loki.requests() == []


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://loki:3100", "http://loki:3100/loki/api/v1/push"),
        ("https://loki/", "https://loki/loki/api/v1/push"),
        ("http://h/prefix", "http://h/prefix/loki/api/v1/push"),
        ("http://h:9428/insert/loki/api/v1/push?x=1", "http://h:9428/insert/loki/api/v1/push?x=1"),
        ("http://ann:pw@[::1]:3100", "http://[::1]:3100/loki/api/v1/push"),
    ],
)
def test_the_endpoint(url: str, endpoint: str) -> None:
    """A base gets Loki's path, a path that ends in /push is taken as it is; credentials are not in it."""
    assert push_url(url)[0] == endpoint


@pytest.mark.parametrize(
    "url",
    [
        *("", "loki:3100", "ftp://h", "http://", "http://h:99999", "http://[::1", "http://a b", "http://h\n"),
        *("http://1.2.3.999", "http://xn--a", "http://é" + "x" * 70),
    ],
)
def test_no_endpoint(url: str) -> None:
    """The error says what would be right."""
    with pytest.raises(ConfigurationError, match="must be the URL of a server"):
        LokiSink(url)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": "t", "username": "u"}, "exclude each other"),
        ({"tenant": "a\nb"}, "the tenant must be printable ASCII"),
        ({"tenant": "acme "}, "the tenant must be .* no space at its ends"),
        ({"token": "é"}, "the token must be printable ASCII"),
        ({"token": "t "}, "the token must be .* no space at its ends"),
        ({"token": " t"}, "the token must be .* no space at its ends"),
        ({"username": "a:b", "password": "p"}, "must not hold a colon"),
        ({"labels": {"pid": "1"}}, "pid cannot be a label"),
        ({"labels": {"Boot": "1"}}, "Boot cannot be a label"),
        ({"ca_file": "/nowhere/ca.pem"}, "/nowhere/ca.pem has no certificates"),
        ({"ca_file": __file__}, "has no certificates that can be used"),
    ],
)
def test_arguments_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    """They are errors where the sink is made."""
    with pytest.raises(ConfigurationError, match=message):
        LokiSink("http://loki:3100", **options)


def test_an_identity_of_its_own() -> None:
    """`ME` is what the other tests of this module expect: their lines end in its fields, and are made by no process here."""
    found = list(json.loads(line(7)).items())
    assert found[-7:] == [*ME.fields().items(), ("seq", 7)]
    assert ME.fields() == {"service": "shop", "env": "prod", "host": "h1", "worker": 2, "pid": 77, "boot": "b00t"}
    assert ME.pid != os.getpid()
