"""The stand-in Loki itself: what it takes, refuses and keeps, and that each of its behaviours is what its name says."""

from __future__ import annotations

import contextlib
import re
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from email.utils import parsedate_to_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loki import NO_RATES, Dedupe, Limits, StandIn, certificates, faults
from tests.loki.encode import JSON, PROTOBUF, compressed, push_json, push_protobuf, snap, varint
from tests.loki.labels import LabelError, label_text, parse_labels
from tests.loki.wire import unsnap

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
#: What ends only when it is released, with what a client meets that waits 0.3 s for a byte.
ENDLESS = {
    "hang": httpx.ReadTimeout,
    "hang after storing": httpx.ReadTimeout,
    "black hole": httpx.ReadTimeout,
    "stop reading": httpx.ReadTimeout,
    "slow head": httpx.RemoteProtocolError,
    "slow body": httpx.RemoteProtocolError,
}
#: Answers that are none.
BROKEN = {
    "reset": httpx.ConnectError | httpx.ReadError | httpx.WriteError,
    "reset after reading": httpx.ReadError,
    "reset after storing": httpx.ReadError,
    "cut without storing": httpx.RemoteProtocolError,
    "cut after storing": httpx.RemoteProtocolError,
    "cut in the answer": httpx.RemoteProtocolError,
    "garbage": httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError,
    "garbage for an answer": httpx.RemoteProtocolError,
    "body shorter than said": httpx.RemoteProtocolError,
    "unreadable body": httpx.DecodingError,
}
OTHERS = {"refuse", "endless body"}


@pytest.fixture
def client():
    with httpx.Client(timeout=10) as made:
        yield made


@pytest.fixture
def loki():
    with StandIn() as made:
        yield made


def now():
    return time.time_ns()


def push(client, loki, *groups, headers=None, **more):
    """Send JSON; return the answer."""
    return client.post(loki.push_url, content=push_json(*groups), headers={**JSON, **(headers or {})}, **more)


def refusal(answer, status=400):
    """Return the text of a refusal, in the form of Go's http.Error."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.endswith("\n")
    return answer.text[:-1]


def lines(loki):
    return [entry.line for entry in loki.entries()]


# What comes in


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
@pytest.mark.parametrize("form", ["json", "protobuf"])
def test_a_push_in_every_form(client, loki, form, encoding) -> None:
    """The same entries are stored, the answer is 204 without a body, and the record says how it came."""
    at = now()
    group = {"a": 'q"\n\\é\x07', "b": "2"}, [(at, "line\n\u2028 é \U0001f600"), (at + 1, "", {"k": "v\x00"})]
    header, body = compressed(encoding, (push_json if form == "json" else push_protobuf)(group))
    answer = client.post(loki.push_url, content=body, headers={**(JSON if form == "json" else PROTOBUF), **header})
    assert (answer.status_code, answer.content) == (204, b"")
    stored = loki.entries()
    assert [(each.ts, each.line, each.metadata) for each in stored] == [(at, group[1][0][1], {}), (at + 1, "", {"k": "v\x00"})]
    assert {each.key[1] for each in stored} == {(("a", group[0]["a"]), ("b", "2"), ("service_name", "unknown_service"))}
    (request,) = loki.requests()
    assert (request.number, request.status, request.size, request.body) == (1, 204, len(body), body)
    assert {(each.tenant, each.request, each.peer_port) for each in stored} == {("fake", 1, request.peer_port)}
    assert request.answered_at is not None
    assert request.at <= request.answered_at <= time.monotonic()
    assert request.header("content-LENGTH") == str(len(body))


def test_a_chunked_body(client, loki) -> None:
    """It is put together."""
    body = push_json(({"a": "1"}, [(now(), "x" * 1000)]))
    parts = iter([body[:10], body[10:500], body[500:]])
    assert client.post(loki.push_url, content=parts, headers=JSON).status_code == 204
    assert lines(loki) == ["x" * 1000]


def test_snappy_that_copies() -> None:
    """Copies with offsets of one, two and four bytes, overlapping ones among them, and long literals are undone."""
    literal = bytes(range(256)) * 300
    long = bytes([62 << 2]) + (len(literal) - 1).to_bytes(3, "little") + literal
    block = b"\x08abc" + bytes([(9 - 4) << 2 | 1, 3]) + bytes([(5 - 1) << 2 | 2, 12, 0]) + bytes([(3 - 1) << 2 | 3, 3, 0, 0, 0])
    wanted = b"abc" * 4 + b"abcab" + b"cab"
    assert unsnap(varint(len(wanted) + len(literal)) + block + long, 1 << 20) == wanted + literal


@pytest.mark.parametrize(
    "block", [b"\x05\x08abc", b"\x03\x01\x09", b"\x03\x0cab", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b""]
)
def test_broken_snappy(client, loki, block) -> None:
    """It is 400."""
    assert client.post(loki.push_url, content=block, headers=PROTOBUF).status_code == 400


@given(st.binary(max_size=3000))
def test_snappy_without_copies(data) -> None:
    """What was packed is unpacked."""
    assert unsnap(snap(data), 3000) == data


@given(
    st.dictionaries(st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]*", fullmatch=True), st.text(st.characters(exclude_categories=["Cs"])))
)
def test_the_text_of_a_label_set(labels) -> None:
    """What was written is read."""
    assert parse_labels(label_text(labels)) == sorted(labels.items())


@pytest.mark.parametrize(
    "text", ["", "{", '{a="b"', '{a="b}', "{a=b}", '{a-b="c"}', '{1="c"}', '{a="\\q"}', '{a="\\xff"}', '{a="b"}x']
)
def test_what_is_no_label_set(text) -> None:
    """It is refused."""
    with pytest.raises(LabelError):
        parse_labels(text)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Content-Type": ""}, "mime"),
        ({"Content-Type": "text/plain"}, "proto"),
        ({"Content-Type": "application/json", "Content-Encoding": "snappy"}, 'Content-Encoding "snappy" not supported'),
        ({"Content-Type": "application/json", "Content-Encoding": "br"}, 'Content-Encoding "br" not supported'),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, "gzip"),
        ({"Content-Type": "application/json", "Content-Encoding": "deflate"}, "deflate"),
    ],
)
def test_wrong_heads(client, loki, headers, text) -> None:
    """A content type or encoding that is not understood, or not true, is 400."""
    answer = client.post(loki.push_url, content=push_json(({"a": "1"}, [(now(), "x")])), headers=headers)
    assert text in refusal(answer)
    assert loki.entries() == []


def test_a_content_type_with_a_parameter(client, loki) -> None:
    """It is JSON all the same."""
    group = {"a": "1"}, [(now(), "x")]
    assert push(client, loki, group, headers={"Content-Type": "application/json; charset=utf-8"}).status_code == 204


@pytest.mark.parametrize(
    "values",
    [
        [[1, "number for a time"]],
        [["1.5", "no integer"]],
        [["1e9", "no integer"]],
        [["", "no integer"]],
        [[str(1 << 63), "too large"]],
        [["1", 5]],
        [["1", "x", {"n": 5}]],
        [["1", "x", {"n": {"m": "nested"}}]],
        [["1", "x", ["list"]]],
        [["1"]],
        ["1"],
        {},
    ],
)
def test_entries_of_wrong_shape(client, loki, values) -> None:
    """Time and line are strings, the time an integer, metadata an object of strings; else 400 and nothing is stored."""
    good = {"stream": {"a": "1"}, "values": [[str(now()), "good"]]}
    body = {"streams": [good, {"stream": {"a": "1"}, "values": values}]}
    refusal(client.post(loki.push_url, json=body))
    assert loki.entries() == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"streams":{}}', b'{"streams":[1]}', b'{"streams":[{"stream":[]}]}', b'"\\ud800"']
)
def test_bodies_of_wrong_shape(client, loki, body) -> None:
    """They are 400."""
    refusal(client.post(loki.push_url, content=body, headers=JSON))


@pytest.mark.parametrize("name", ["a-b", "a.b", "1a", "", "é", "a b"])
def test_one_bad_label_name(client, loki, name) -> None:
    """400 for the whole request: the good stream before it is not stored either."""
    answer = push(client, loki, ({"a": "1"}, [(now(), "good")]), ({name: "1"}, [(now(), "bad")]))
    assert refusal(answer).startswith("couldn't parse labels: ")
    assert loki.entries() == []


def test_requests_without_entries(client, loki) -> None:
    """No stream is 422, streams without entries are 204."""
    assert refusal(push(client, loki), 422) == "error at least one valid stream is required for ingestion"
    assert push(client, loki, ({"a": "1"}, [])).status_code == 204


@pytest.mark.parametrize(
    ("labels", "service"),
    [
        ({}, "unknown_service"),
        ({"job": "j"}, "j"),
        ({"job": "j", "service": "s"}, "s"),
        ({"service_name": "own", "service": "s"}, "own"),
    ],
)
def test_the_service_name(client, loki, labels, service) -> None:
    """It is added from the first of the known labels."""
    push(client, loki, (labels, [(now(), "x")]))
    assert loki.entries()[0].labels == {**labels, "service_name": service}


def test_what_is_changed_on_the_way(client, loki) -> None:
    """Labels without a value are none, a number as a label is its text, names of metadata are made proper."""
    body = {"streams": [{"stream": {"a": "", "n": 5}, "values": [[str(now()), "x", {"a.b": "1", "9": "2"}]]}]}
    assert client.post(loki.push_url, json=body).status_code == 204
    (entry,) = loki.entries()
    assert entry.labels == {"n": "5", "service_name": "unknown_service"}
    assert entry.metadata == {"a_b": "1", "key_9": "2"}


# Limits


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (
            lambda: (now() - 8 * DAY, "x"),
            r"entry for stream '{a=\"1\", service_name=\"unknown_service\"}' has timestamp too old: ",
        ),
        (lambda: (now() + DAY, "x"), r"entry for stream '.*' has timestamp too new: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
        (
            lambda: (now(), "é" * 51),
            "max entry size '100' bytes exceeded for stream '.*' while adding an entry with length '102' bytes",
        ),
        (lambda: (now(), "x", {"k": "v" * 50}), "has structured metadata too large: '51' bytes, limit: '50' bytes"),
        (lambda: (now(), "x", {"a": "", "b": "", "c": ""}), "has too many structured metadata labels: '3', limit: '2'"),
    ],
    ids=["too old", "too new", "too long", "metadata too large", "too many metadata"],
)
def test_an_entry_over_a_limit(client, bad, text) -> None:
    """400 that says why, and everything else is stored."""
    limits = Limits(max_line_size=100, max_structured_metadata_size=50, max_structured_metadata_count=2)
    with StandIn(limits=limits) as loki:
        answer = push(client, loki, ({"a": "1"}, [(now(), "one"), bad(), (now(), "two")]), ({"a": "2"}, [(now(), "three")]))
        assert re.search(text, refusal(answer))
        assert lines(loki) == ["one", "two", "three"]


def test_metadata_that_is_not_allowed(client) -> None:
    """400 for the entry with it."""
    with StandIn(limits=Limits(allow_structured_metadata=False)) as loki:
        answer = push(client, loki, ({"a": "1"}, [(now(), "with", {"k": "v"}), (now(), "without")]))
        assert "includes structured metadata, but this feature is disallowed" in refusal(answer)
        assert lines(loki) == ["without"]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({f"l{n}": "1" for n in range(16)}, "has 16 label names; limit 15"),
        ({"n" * 1025: "1"}, "has label name too long"),
        ({"n": "v" * 2049}, "has label value too long"),
    ],
)
def test_labels_over_a_limit(client, loki, labels, text) -> None:
    """400, and the other streams are stored; 15 labels, besides the name of the service, are none too many."""
    answer = push(client, loki, (labels, [(now(), "bad")]), ({f"l{n}": "1" for n in range(15)}, [(now(), "good")]))
    assert text in refusal(answer)
    assert lines(loki) == ["good"]


def test_a_label_that_stands_twice(client, loki) -> None:
    """400 for its stream (protobuf only: in JSON the last one counts)."""
    labels = b'{a="1", a="2"}'
    stream = b"\x0a" + varint(len(labels)) + labels + b"\x12\x05\x0a\x00\x12\x01x"
    answer = client.post(loki.push_url, content=snap(b"\x0a" + varint(len(stream)) + stream), headers=PROTOBUF)
    assert "has duplicate label name: 'a'" in refusal(answer)


def test_several_refusals(client) -> None:
    """They are counted by their text."""
    with StandIn(limits=Limits(max_line_size=2)) as loki:
        answer = push(client, loki, ({"a": "1"}, [(now(), "xxx"), (now(), "xxx"), (now(), "xxxx"), (now(), "ok")]))
        assert re.fullmatch(r"2 errors like: max entry .*'3' bytes; 1 errors like: max entry .*'4' bytes", refusal(answer))
        assert lines(loki) == ["ok"]


def test_entries_behind_the_newest_of_their_stream(client, loki) -> None:
    """An hour behind is taken, more is 400 in the ingester's form; other streams have their own hour."""
    at = now()
    group = {"a": "1"}, [(at, "new"), (at - 3600 * SECOND, "old"), *[(at - 3601 * SECOND, "older")] * 11]
    answer = refusal(push(client, loki, group, ({"a": "2"}, [(at - 3601 * SECOND, "other")])))
    assert len(re.findall(r"entry with timestamp \S+ \S+ \+0000 UTC ignored, reason: 'entry too far behind", answer)) == 10
    assert answer.endswith('\nuser \'fake\', total ignored: 11 out of 13 for stream: {a="1", service_name="unknown_service"}')
    assert lines(loki) == ["new", "old", "other"]


def test_the_rate_of_a_stream(client) -> None:
    """What fits is stored and the rest is 429; time brings more."""
    clock = [now() / 1e9]
    with StandIn(limits=Limits(per_stream_rate=1 << 20, per_stream_burst=10), clock=lambda: clock[0]) as loki:
        group = {"a": "1"}, [(now(), "12345"), (now(), "67890"), (now(), "x")]
        text = refusal(push(client, loki, group), 429)
        assert "Per stream rate limit exceeded (limit: 1MB/sec) while attempting to ingest for stream" in text
        assert "total ignored: 1 out of 3" in text
        assert lines(loki) == ["12345", "67890"]
        clock[0] += 1
        assert push(client, loki, ({"a": "1"}, [(now(), "x")])).status_code == 204


def test_the_rate_of_a_tenant(client) -> None:
    """All or nothing, with 429 where there would have been a 400; a request larger than the burst never passes."""
    clock = [now() / 1e9]
    with StandIn(limits=Limits(ingestion_rate=10, ingestion_burst=10), clock=lambda: clock[0]) as loki:
        group = {"a": "1"}, [(now(), "12345"), (now(), "678", {"k": "vwx"}), (now() - 8 * DAY, "old")]
        text = refusal(push(client, loki, group), 429)
        assert text.startswith(
            "ingestion rate limit exceeded for user fake (limit: 10 bytes/sec) while attempting to ingest '2' lines"
        )
        assert "totaling '12' bytes" in text
        clock[0] += 100
        assert push(client, loki, group).status_code == 429
        assert loki.entries() == []
        assert push(client, loki, ({"a": "1"}, [(now(), "1234567890")])).status_code == 204
        assert push(client, loki, ({"a": "1"}, [(now(), "1")])).status_code == 429
        clock[0] += 0.5
        assert push(client, loki, ({"a": "1"}, [(now(), "1")])).status_code == 204


def test_too_many_streams(client) -> None:
    """429, and the streams that exist go on."""
    with StandIn(limits=Limits(max_streams=1)) as loki:
        answer = push(client, loki, ({"a": "1"}, [(now(), "x")]), ({"a": "2"}, [(now(), "y")]), ({"a": "1"}, [(now(), "z")]))
        assert "maximum active stream limit exceeded when trying to create stream {a=" in refusal(answer, 429)
        assert lines(loki) == ["x", "z"]


def test_bodies_over_a_limit(client) -> None:
    """JSON is cut and so 400, protobuf 413, above the proxy's limit 413 in HTML; decompressed 400."""
    group = {"a": "1"}, [(now(), "x" * 1000)]
    with StandIn(limits=Limits(max_recv_size=500)) as loki:
        refusal(push(client, loki, group))
        answer = client.post(loki.push_url, content=push_protobuf(group), headers=PROTOBUF)
        assert refusal(answer, 413).startswith("request body too large: message size too large than max (")
        header, body = compressed("gzip", push_json(group))
        loki.limits = Limits(max_decompressed_size=500)
        answer = client.post(loki.push_url, content=body, headers={**JSON, **header})
        assert refusal(answer).startswith("decompressed message size too large than max (")
        loki.limits = Limits(proxy_max_size=500)
        answer = push(client, loki, group)
        assert (answer.status_code, answer.headers["content-type"]) == (413, "text/html")
        assert loki.entries() == []


@pytest.mark.parametrize(("dedupe", "kept"), [(Dedupe.OFF, 5), (Dedupe.LINE, 2), (Dedupe.METADATA, 3)])
def test_what_is_the_same(client, dedupe, kept) -> None:
    """Entries of a stream with the same time and line, and from 3.7 on the same metadata, are one; streams do not share this."""
    with StandIn(dedupe=dedupe) as loki:
        at = now()
        group = {"a": "1"}, [(at, "x", {"k": "1"}), (at, "x", {"k": "2"})]
        assert push(client, loki, group, ({"a": "2"}, [(at, "x", {"k": "1"})])).status_code == 204
        assert push(client, loki, group).status_code == 204
        assert (len(loki.entries()), len(loki.deduplicated())) == (kept, 5 - kept)


def test_rates_that_stand_in_no_way(client) -> None:
    """A flood that the defaults refuse passes."""
    group = {"a": "1"}, [(now(), "x" * 200_000, {"n": str(n)}) for n in range(40)]
    with StandIn(limits=NO_RATES) as loki:
        assert push(client, loki, group).status_code == 204
        loki.clear()
        loki.limits = Limits()
        assert push(client, loki, group).status_code == 429
        assert (loki.entries(), len(loki.requests())) == ([], 1)


# Who comes in


def test_tenants(client) -> None:
    """With auth on each has its own entries and nobody is 401; with auth off the header is only recorded."""
    group = {"a": "1"}, [(now(), "x")]
    with StandIn(auth=True) as loki:
        assert refusal(push(client, loki, group), 401) == "no org id"
        for tenant in ("one", "two"):
            assert push(client, loki, group, headers={"X-Scope-OrgID": tenant}).status_code == 204
        assert [entry.tenant for entry in loki.entries()] == ["one", "two"]
    with StandIn() as loki:
        push(client, loki, group, headers={"X-Scope-OrgID": "one"})
        assert loki.entries()[0].tenant == "fake"
        assert loki.requests()[0].header("x-scope-orgid") == "one"


@pytest.mark.parametrize(
    ("server", "right", "wrong"),
    [
        ({"basic_auth": ("user", "pass:wörd")}, {"auth": httpx.BasicAuth("user", "pass:wörd")}, {"auth": ("user", "other")}),
        ({"bearer": "t"}, {"headers": {"Authorization": "Bearer t"}}, {"headers": {"Authorization": "Bearer u"}}),
    ],
)
def test_credentials(client, server, right, wrong) -> None:
    """Without the right ones the proxy answers 401 and nothing is stored."""
    group = {"a": "1"}, [(now(), "x")]
    with StandIn(**server) as loki:
        assert push(client, loki, group).status_code == 401
        assert push(client, loki, group, **wrong).status_code == 401
        assert loki.entries() == []
        assert push(client, loki, group, **right).status_code == 204


def test_other_addresses(client, loki) -> None:
    """They are 404 and recorded, so that a followed redirect is seen; GET of the push is 405; a prefix is part of the path."""
    assert refusal(client.get(f"{loki.url}/elsewhere"), 404) == "404 page not found"
    assert client.post(f"{loki.url}/loki/api/v2/push", content=b"x").status_code == 404
    assert client.get(loki.push_url).status_code == 405
    assert [(each.method, each.path, each.status) for each in loki.requests()] == [
        ("GET", "/elsewhere", 404),
        ("POST", "/loki/api/v2/push", 404),
        ("GET", "/loki/api/v1/push", 405),
    ]
    assert client.get(f"{loki.url}/ready").text == "ready\n"
    with StandIn(prefix="/gateway") as behind:
        assert behind.push_url == f"http://127.0.0.1:{behind.port}/gateway/loki/api/v1/push"
        assert push(client, behind, ({"a": "1"}, [(now(), "x")])).status_code == 204


def test_reading_back(client, loki) -> None:
    """query_range selects by labels, time and limit, newest first; metadata is among the labels unless they are asked apart."""
    at = now()
    push(
        client,
        loki,
        ({"a": "1", "b": "x"}, [(at, "one"), (at + 1, "two", {"k": "v"}), (at + 2, "three")]),
        ({"a": "2"}, [(at, "no")]),
    )

    def query(text, headers=None, **more):
        answer = client.get(f"{loki.url}/loki/api/v1/query_range", params={"query": text, **more}, headers=headers)
        return answer.json()["data"]["result"] if answer.status_code == 200 else refusal(answer)

    labels = {"a": "1", "b": "x", "service_name": "unknown_service"}
    assert query('{a="1"}', start=at + 1, limit=10) == [
        {"stream": labels, "values": [[str(at + 2), "three"]]},
        {"stream": {**labels, "k": "v"}, "values": [[str(at + 1), "two"]]},
    ]
    apart = query('{a=~"1|3", b!="y"}', {"X-Loki-Response-Encoding-Flags": "categorize-labels"}, direction="forward", limit=2)
    assert apart == [
        {"stream": labels, "values": [[str(at), "one", {}], [str(at + 1), "two", {"structuredMetadata": {"k": "v"}}]]}
    ]
    assert query('{a="2"}', end=at) == []
    assert "at least one regexp or equality matcher" in query("{}")
    assert "parse error" in query("x")
    assert "max entries limit" in query('{a="1"}', limit=5001)


# Life


def test_a_restart(client, loki) -> None:
    """While it is stopped connections are refused; then it goes on at the same port with its entries, script and numbers."""
    group = {"a": "1"}, [(now(), "one")]
    loki.script(faults.ok(), faults.failure())
    assert push(client, loki, group).status_code == 204
    loki.stop()
    assert not loki.ready()
    with pytest.raises(httpx.ConnectError):
        push(client, loki, group)
    loki.start()
    assert push(client, loki, group).status_code == 500
    assert push(client, loki, group).status_code == 204
    assert ([request.number for request in loki.requests()], lines(loki)) == ([1, 2, 3], ["one"])
    assert len(loki.deduplicated()) == 1
    loki.assert_reached()


def test_stopping_while_requests_hang(loki) -> None:
    """Their connections are closed and no thread is left."""
    loki.script(faults.hang(stored=True), faults.black_hole())

    def ask():
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(loki.push_url, content=push_json(({"a": "1"}, [(now(), "x")])), headers=JSON, timeout=20)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    askers[0].start()
    loki.wait_entries(1)
    askers[1].start()  # only now: its connection must be the next
    loki.wait_reached()
    loki.stop()
    for asker in askers:
        asker.join(10)
        assert not asker.is_alive()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("loki-stand-in")] == []
    assert [request.status for request in loki.requests()] == [None]


def test_its_own_mistakes(client) -> None:
    """An error inside the stand-in is raised when it stops."""
    loki = StandIn(clock=lambda: 1 // 0).start()
    with pytest.raises(httpx.HTTPError):
        push(client, loki, ({"a": "1"}, [(now(), "x")]))
    with pytest.raises(ZeroDivisionError):
        loki.close()


# Script


def test_a_script(client, loki) -> None:
    """One behaviour a request, in order, reads apart; then as usual, or like the standing one until it is taken away."""
    group = {"a": "1"}, [(now(), "x")]
    loki.script(faults.failure(), *[faults.too_many()] * 2, then=faults.unavailable())
    assert client.get(f"{loki.url}/ready").status_code == 200
    assert [push(client, loki, group).status_code for _ in range(2)] == [500, 429]
    assert (loki.reached(), loki.left()) == (["500", "429"], ["429"])
    with pytest.raises(AssertionError, match=r"never reached: \['429'\]"):
        loki.assert_reached()
    assert [push(client, loki, group).status_code for _ in range(3)] == [429, 503, 503]
    loki.wait_reached()
    loki.script()
    assert push(client, loki, group).status_code == 204
    assert [request.fault for request in loki.requests()] == ["500", "429", "429", "503", "503", ""]


def test_a_script_that_nobody_comes_for(loki) -> None:
    """Waiting for it fails and says what is left."""
    loki.script(faults.ok())
    with pytest.raises(AssertionError, match=r"every scripted behaviour is reached \(script left: \['ok'\], 0 requests\)"):
        loki.wait_reached(0.05)


def two_lines():
    return {"a": "1"}, [(now(), "one"), (now() + 1, "two")]


def check_kept(client, loki, fault, group):
    """Check that what the fault says was kept, and that the same push passes on the same client afterwards."""
    assert lines(loki) == {"all": ["one", "two"], "some": ["two"], "none": []}[fault.stored]
    assert push(client, loki, group).status_code == 204
    assert sorted(lines(loki)) == ["one", "two"]


@pytest.mark.parametrize("name", sorted(faults.CATALOGUE.keys() - ENDLESS.keys() - BROKEN.keys() - OTHERS))
def test_an_answer(client, loki, name) -> None:
    """Its status is what the name says, it keeps what it says, and the connection goes on."""
    fault, group = faults.CATALOGUE[name](), two_lines()
    loki.script(fault)
    assert push(client, loki, group).status_code == int(name[:3])
    loki.assert_reached()
    if name == "204, then an unannounced close":  # sooner, the client may rightly write into what is being closed
        loki.wait_for(lambda: not loki.open_connections(), "the connection is closed")
    check_kept(client, loki, fault, group)
    assert loki.connections() == (2 if name == "204, then an unannounced close" else 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("429", None),
        ("429, retry after seconds", r"1"),
        ("429, retry after a date", r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"),
        ("429, retry after very long", r"\d{9}"),
        ("429, retry after rubbish", r"soon"),
        ("503", None),
        ("503, retry after seconds", r"1"),
    ],
)
def test_retry_after(client, loki, name, value) -> None:
    """It stands there in each of its forms."""
    loki.script(faults.CATALOGUE[name]())
    found = push(client, loki, two_lines()).headers.get("Retry-After")
    assert found is None if value is None else re.fullmatch(value, found)


def test_the_date_of_retry_after() -> None:
    """It is counted from the answer on."""
    wait = parsedate_to_datetime(faults.http_date(60)()).timestamp() - time.time()
    assert 58 < wait <= 60


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_answer(client, loki, name) -> None:
    """The client gets no answer; what it says is kept; the next connection passes."""
    fault, group = faults.CATALOGUE[name](), two_lines()
    loki.script(fault)
    with pytest.raises(httpx.HTTPError) as caught:
        push(client, loki, group)
    assert isinstance(caught.value, BROKEN[name]), repr(caught.value)
    loki.assert_reached()
    check_kept(client, loki, fault, group)


@pytest.mark.parametrize("name", sorted(ENDLESS))
def test_what_never_ends(client, loki, name) -> None:
    """It lasts until it is released: silence runs into the client's timeout, dripping does not."""
    fault, group = faults.CATALOGUE[name](), two_lines()
    loki.script(fault)
    silent = ENDLESS[name] is httpx.ReadTimeout
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(push, client, loki, group, timeout=0.3)
        loki.wait_reached()
        if silent:
            assert isinstance(asked.exception(10), httpx.ReadTimeout)
        else:
            assert wait([asked], 0.4).not_done, "longer than the timeout for a byte"
        loki.release()
        assert isinstance(asked.exception(10), ENDLESS[name])
    loki.script()
    check_kept(client, loki, fault, group)


def test_a_body_without_an_end(client, loki) -> None:
    """It comes for as long as the client takes it."""
    fault, group = faults.CATALOGUE["endless body"](), two_lines()
    loki.script(fault)
    with client.stream("POST", loki.push_url, content=push_json(group), headers=JSON) as answer:
        assert answer.status_code == 500
        taken = 0
        for part in answer.iter_raw():
            taken += len(part)
            if taken > 1 << 22:
                break
    check_kept(client, loki, fault, group)


def test_refused_connections(client, loki) -> None:
    """Nobody listens until the time has passed and the condition holds, kept connections are closed, then the script goes on."""
    over = threading.Event()
    loki.script(faults.ok(), faults.refuse(0, over.is_set), faults.failure())
    answer = push(client, loki, two_lines())
    assert (answer.status_code, answer.headers["connection"]) == (204, "close")
    for _ in range(3):
        with pytest.raises(httpx.ConnectError, match="refused"):
            push(client, loki, two_lines())
    assert loki.reached() == ["ok"]
    over.set()
    loki.wait_for(loki.ready, "it listens again")
    assert push(client, loki, two_lines()).status_code == 500
    assert loki.reached() == ["ok", "refuse", "500"]
    loki.script(then=faults.refuse())
    with pytest.raises(httpx.HTTPError):
        push(client, loki, two_lines())
    loki.script()
    loki.wait_for(loki.ready, "it listens again")
    assert push(client, loki, two_lines()).status_code == 204


def test_a_restart_while_connections_are_refused(client, loki) -> None:
    """The refusal goes on after it, until it ends by itself."""
    over = threading.Event()
    loki.script(faults.refuse(0, over.is_set))
    loki.stop()
    loki.start()
    assert not loki.ready()
    over.set()
    loki.wait_reached()
    assert push(client, loki, two_lines()).status_code == 204


@pytest.mark.parametrize("kind", ["old", "behind", "rate"])
def test_a_partial_refusal(client, loki, kind) -> None:
    """So many entries are refused as told, with the server's own words and counts."""
    loki.script(faults.partial(3, kind))
    entries = [(now() + n, str(n)) for n in range(5)]
    text = refusal(push(client, loki, ({"a": "1"}, entries)), 429 if kind == "rate" else 400)
    assert lines(loki) == ["3", "4"]
    if kind == "old":
        assert sum(map(int, re.findall(r"(\d+) errors like: ", text))) == 3
    else:
        assert "total ignored: 3 out of 5 for stream" in text


def test_a_slow_answer(client, loki) -> None:
    """It comes after its time, or as soon as it is released."""
    loki.script(faults.slow(0.1), faults.slow(1000))
    begun = time.monotonic()
    assert push(client, loki, two_lines()).status_code == 204
    assert time.monotonic() - begun >= 0.1
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(push, client, loki, two_lines())
        loki.wait_reached()
        loki.release()
        assert asked.result(10).status_code == 204


# TLS


def wait_broken(loki):
    loki.wait_for(lambda: loki.tls_failures, "a handshake breaks")


def test_tls(tmp_path) -> None:
    """Who trusts the authority gets through; who does not, an expired or a wrong name's certificate is refused by the client."""
    authority = certificates.authority(tmp_path / "ca")
    trusting, strange = ssl.create_default_context(cafile=authority.ca_file), ssl.create_default_context()
    for host in ("127.0.0.1", "localhost"):
        with StandIn(tls=authority.server(), host=host) as loki, httpx.Client(verify=trusting) as client:
            assert push(client, loki, two_lines()).status_code == 204
            assert loki.url.startswith(f"https://{host}:")
    for server, context in (
        (authority.server(), strange),
        (authority.server(expired=True), trusting),
        (authority.server(name="other.test"), trusting),
    ):
        with StandIn(tls=server) as loki, httpx.Client(verify=context) as client:
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                push(client, loki, two_lines())
            wait_broken(loki)
            assert loki.requests() == []


@pytest.mark.parametrize("name", ["garbage", "reset", "black hole", "cut after storing", "reset after storing", "hang", "503"])
def test_behaviours_under_tls(tmp_path, name) -> None:
    """They are the same; those of a connection come before the handshake."""
    authority = certificates.authority(tmp_path / "ca")
    fault, group = faults.CATALOGUE[name](), two_lines()
    with (
        StandIn(tls=authority.server()) as loki,
        httpx.Client(verify=ssl.create_default_context(cafile=authority.ca_file), timeout=0.3) as client,
    ):
        loki.script(fault)
        if name == "503":
            assert push(client, loki, group).status_code == 503
        else:
            with pytest.raises(httpx.HTTPError):
                push(client, loki, group)
        loki.assert_reached()
        client.timeout = 10
        check_kept(client, loki, fault, group)


def test_plain_http_to_a_server_with_tls(tmp_path, client) -> None:
    """It is a failed handshake."""
    with StandIn(tls=certificates.authority(tmp_path / "ca").server()) as loki:
        with pytest.raises(httpx.HTTPError):
            client.get(f"http://127.0.0.1:{loki.port}/ready")
        wait_broken(loki)
