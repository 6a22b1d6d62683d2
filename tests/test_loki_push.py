"""What the Loki sink sends: labels, entries and their encoding; and what it makes of an answer."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog._internal.parsing import STREAM_LABELS, stream_labels
from fapilog.errors import ConfigurationError
from fapilog.identity import Identity
from fapilog.sinks import LokiSink
from fapilog.sinks.answers import Answer, Fate, retry_after_of
from fapilog.sinks.loki_answers import judged
from fapilog.sinks.origins import MAX_KNOWN, Origins, time_ns_of
from fapilog.sinks.push import IN_LABELS, LINE_LIMIT_BYTES, MAX_LABELS, Origin, clean_name, encode_push, labels_of, origin_of
from tests.loki.lines import ME, line, lines

NAME = r"[a-zA-Z_][a-zA-Z0-9_]*"


def origins_of(identity: Identity, **configured: object) -> Origins[Origin]:
    return Origins(identity, partial(origin_of, configured=configured))


MINE = origins_of(ME)
OTHER = Identity("shop", "prod", "h1", 3, 78, "b0b")


def decoded(body: bytes) -> dict[str, Any]:
    found = json.loads(body)
    assert isinstance(found, dict)
    return found


@given(st.text(max_size=2000))
def test_any_name_of_a_label(name: str) -> None:
    """It becomes one that Loki takes, and is not of the reserved ones (O-LOKI-2)."""
    cleaned = clean_name(name)
    assert len(cleaned) <= 1024
    assert cleaned.isascii()
    assert cleaned.isidentifier()
    assert not cleaned.startswith("__")


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [("team", "team"), ("my-team", "my_team"), ("a.b", "a_b"), ("1st", "_1st"), ("__x", "_x"), ("", "_"), ("größe", "gr__e")],
)
def test_the_form_of_a_cleaned_name(name: str, cleaned: str) -> None:
    """Signs become underscores, a digit gets one in front, reserved beginnings lose one (O-LOKI-2)."""
    assert clean_name(name) == cleaned


def test_a_process_whose_worker_is_no_label() -> None:
    """All workers of a host share a stream; which of them has written an entry stands in its metadata and its line."""
    origins = Origins(ME, partial(origin_of, configured={"team": "core"}, names=("service", "env", "host")))
    theirs = b'{"timestamp":"2026-01-02T03:04:05.000006Z","event":"x"' + OTHER.tail() % 2
    (stream,) = decoded(encode_push(origins, [line(1), theirs]))["streams"]
    assert stream["stream"] == {"service": "shop", "env": "prod", "host": "h1", "team": "core"}
    assert [metadata for _, _, metadata in stream["values"]] == [
        {"worker": "2", "pid": "77", "boot": "b00t", "seq": "1"},
        {"worker": "3", "pid": "78", "boot": "b0b", "seq": "2"},
    ]
    assert [json.loads(text)["worker"] for _, text, _ in stream["values"]] == [2, 3]


def test_what_is_no_label_and_has_no_value() -> None:
    """It is left out of the metadata too."""
    nobody = Identity("shop", "", "h1", 3, 78, "b0b")
    origin = origin_of(nobody, {}, ("service",))
    assert (origin.labels, set(origin.metadata)) == ({"service": "shop"}, {"host", "worker", "pid", "boot"})


@pytest.mark.parametrize("wrong", [(), ("pid",), ("host", "host"), "", "workers", ("service", 1)])
def test_stream_labels_that_cannot_be(wrong: Any) -> None:
    """They are an error at set-up, which says what can be."""
    with pytest.raises(ConfigurationError, match=r"service, env, host, worker|list of names"):
        LokiSink("http://loki:3100", stream_labels=wrong)


def test_the_names_that_the_settings_take() -> None:
    """They are the labels that the sink has, in its order whatever the order they are given in."""
    assert IN_LABELS == STREAM_LABELS
    assert stream_labels("Worker, service") == ("service", "worker")


def test_names_that_become_equal() -> None:
    """Both values are kept, the later one under a number; also where it is one of our own (O-LOKI-2)."""
    labels, left = labels_of(ME, {"a-b": "1", "a.b": "2", "a_b": "3", "worker": "mine"})
    assert labels == {
        "service": "shop",
        "env": "prod",
        "host": "h1",
        "worker": "2",
        "a_b": "1",
        "a_b_2": "2",
        "a_b_3": "3",
        "worker_2": "mine",
    }
    assert left == []


def test_values_of_labels() -> None:
    """Numbers become texts, what is empty is left out, long ones are cut, any sign may be in them (O-LOKI-2)."""
    labels, _ = labels_of(
        Identity("s", "", "h", 0, 1, "b"),
        {"n": 7, "none": None, "empty": "", "q": 'a"b\n\\', "long": "x" * 5000, "odd": "\ud800"},
    )
    assert labels == {"service": "s", "host": "h", "worker": "0", "n": "7", "q": 'a"b\n\\', "long": "x" * 2048, "odd": "?"}


@pytest.mark.parametrize("sign", ["é", "€", "😀", "a"])
def test_a_value_beyond_ascii_that_is_too_long(sign: str) -> None:
    """It is cut to the server's 2,048 bytes, not characters, and at the edge of one (O-LOKI-2)."""
    labels, _ = labels_of(ME, {"long": "." + sign * 3000})
    assert 2048 - len(sign.encode()) < len(labels["long"].encode()) <= 2048
    assert labels["long"] == "." + sign * (len(labels["long"]) - 1)


def test_more_labels_than_a_server_takes() -> None:
    """The first fifteen are used, and the others are named."""
    labels, left = labels_of(ME, {f"l{number}": "x" for number in range(20)})
    assert len(labels) == MAX_LABELS
    assert left == [f"l{number}" for number in range(11, 20)]


def test_an_entry() -> None:
    """Its line is the event's, without the line end; its metadata are texts; its time is the event's, and seq mod 1000."""
    made = line(1234, stamp="2026-11-28T05:17:29.123456Z")
    found = decoded(encode_push(origins_of(ME, team="core"), [made]))
    (stream,) = found["streams"]
    assert stream["stream"] == {"service": "shop", "env": "prod", "host": "h1", "worker": "2", "team": "core"}
    ((ts, text, metadata),) = stream["values"]
    assert (ts, text) == ("1795843049123456234", made.decode().rstrip("\n"))
    assert metadata == {"pid": "77", "boot": "b00t", "seq": "1234"}


def test_the_same_lines_again() -> None:
    """They are the same bytes, whoever encodes them: the process that wrote them, or one that recovers them (O-LOKI-3)."""
    some = lines(1, 50)
    assert encode_push(MINE, some) == encode_push(origins_of(ME), list(some)) == encode_push(origins_of(OTHER), some)


def by(identity: Identity, seq: int, text: str = "x") -> bytes:
    """Return a line that the process of *identity* has written."""
    head = b'{"timestamp":"2026-11-28T05:17:29.123456Z","level":"info","event":"%b"' % text.encode()
    return head + identity.tail() % seq


def test_lines_of_another_life() -> None:
    """They get its labels and metadata, with the configured labels of the sender; streams come by their first line."""
    late = Identity("shop", "prod", "h1", 2, 90, "b1b")  # the one whose slot the sender has now
    batch = [by(OTHER, 1), by(ME, 1), by(late, 2), by(OTHER, 2), by(ME, 2)]
    streams = decoded(encode_push(origins_of(ME, team="core"), batch))["streams"]
    assert [stream["stream"] for stream in streams] == [
        {**labels_of(identity, {})[0], "team": "core"} for identity in (OTHER, ME)
    ]
    said = [[(meta["pid"], meta["boot"], meta["seq"]) for _, _, meta in stream["values"]] for stream in streams]
    assert said == [[("78", "b0b", "1"), ("78", "b0b", "2")], [("77", "b00t", "1"), ("90", "b1b", "2"), ("77", "b00t", "2")]]


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30), st.integers(0, 1 << 40), st.integers(1, 1 << 31))
def test_any_identity_in_a_line(service: str, env: str, host: str, worker: int, seq: int) -> None:
    """It is read back, whatever signs are in it."""
    other = Identity(service, env, host, worker, 5, "b%b")
    (stream,) = decoded(encode_push(MINE, [by(other, seq)]))["streams"]
    assert stream["stream"] == labels_of(other, {})[0]
    assert stream["values"][0][2] == {"pid": "5", "boot": "b%b", "seq": str(seq)}


TAIL = '"service":"s","env":"e","host":"h","worker":{},"pid":{},"boot":"b","seq":{}'


@pytest.mark.parametrize(
    "text",
    [
        *("plain", "a: b", "{}", "[1]", '{"seq":5}', '{"a":1,"service":"x","seq":5}', '{"a":1,' + TAIL.format(1, 2, '"x"') + "}"),
        *('{"a":1,' + TAIL.format("true", 2, 3) + "}", '{"a":1,' + TAIL.format('"1"', 2, 3) + "}"),
        *(
            '{"a":1,' + TAIL.format(1, 2, 3) + ',"more":4}',
            '{"a":1,' + TAIL.format(1, 2.5, 3) + "}",
            '{"a":{"b":1,' + TAIL.format(1, 2, 3) + "}}",
        ),
    ],
)
def test_a_line_that_no_hub_has_made(text: str) -> None:
    """It keeps the labels of the process that sends it, and its text."""
    (stream,) = decoded(encode_push(MINE, [f"{text}\n".encode()]))["streams"]
    assert stream["stream"] == labels_of(ME, {})[0]
    assert (stream["values"][0][1], stream["values"][0][2]["boot"]) == (text, "b00t")


def test_an_identity_within_an_event() -> None:
    """What a user's value holds of another identity decides nothing."""
    quoted = by(OTHER, 9).decode().rstrip("\n").replace("\\", "\\\\").replace('"', '\\"')
    (stream,) = decoded(encode_push(origins_of(OTHER), [by(ME, 1, quoted)]))["streams"]
    assert stream["stream"] == labels_of(ME, {})[0]


def test_the_lines_of_very_many_processes() -> None:
    """What is remembered of them is bounded."""
    origins = origins_of(ME)
    lives = [Identity("s", "", "h", 1, pid, f"b{pid}") for pid in range(3 * MAX_KNOWN)]
    (stream,) = decoded(encode_push(origins, [by(life, 1) for life in lives]))["streams"]
    assert [meta["pid"] for _, _, meta in stream["values"]] == [str(life.pid) for life in lives]
    assert len(vars(origins)["_others"]) <= MAX_KNOWN


def test_events_at_the_same_microsecond() -> None:
    """
    A thousand of them in a row have different times, in order (O-LOKI-3); only where `seq` passes a multiple of 1000 the order
    turns, which no time of the line alone can avoid.
    """
    stamp = "2026-11-28T05:17:29.123456Z"
    times = [time_ns_of(line(seq, stamp=stamp), seq) or 0 for seq in range(1000, 2000)]
    assert times == sorted(set(times))
    assert time_ns_of(line(2000, stamp=stamp), 2000) == times[0]


def test_lines_without_a_time_of_ours() -> None:
    """They get the time at which they are sent, and nothing is lost."""
    found = decoded(encode_push(MINE, [b"plain text\n", b'{"timestamp":"2026-99-99T99:99:99.123456Z"}\n', b"\xff\n"]))
    values = found["streams"][0]["values"]
    assert [text for _, text, _ in values] == ["plain text", '{"timestamp":"2026-99-99T99:99:99.123456Z"}', "\ufffd"]
    assert all(len(ts) == 19 for ts, _, _ in values)


@pytest.mark.parametrize("sign", ["x", "é", "\U0001f600"])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_a_line_over_the_limit(sign: str, shift: int) -> None:
    """It is cut at the edge of a character, says its size, and is within the limit."""
    made = line(1, "y" * shift + sign * LINE_LIMIT_BYTES)
    ((_, text, _),) = decoded(encode_push(MINE, [made]))["streams"][0]["values"]
    assert LINE_LIMIT_BYTES - 4 <= len(text.encode()) <= LINE_LIMIT_BYTES
    assert text.endswith(f"{sign}...[cut: {len(made) - 1} bytes]")


LIST = "entry with timestamp 2026 ignored, reason: 'too far behind',\nuser 'fake', total ignored: {} out of 10 for stream: {{}}"


@pytest.mark.parametrize(
    ("status", "text", "refused"),
    [
        (200, "", 10),
        (202, "", 10),
        (260, "ingestion blocked", 10),
        (301, "", 10),
        (400, "couldn't parse labels: 1:2: parse error", 10),
        (400, "loghttp.PushRequest.Streams: Value looks like object", 10),
        (400, "entry for stream '{a=\"b\"}' has timestamp too old: 2020", 1),
        (400, "max entry size '262144' bytes exceeded for stream '{}' while adding an entry with length '300000' bytes", 1),
        (400, "stream '{}' has structured metadata too large: '70000' bytes, limit: '65536' bytes.", 1),
        (400, "entry for stream '{}' has 16 label names; limit 15", 10),
        (400, "3 errors like: entry for stream '{}' has timestamp too old; 2 errors like: max entry size", 5),
        (400, LIST.format(4), 4),
        (400, LIST.format(400), 10),
        (400, "entry for stream '{team=\"label name\"}' has timestamp too old: x, total ignored: 1 out of 10", 1),
        (400, "entry for stream '{team=\"label name\"}' has timestamp too old: 2020", 1),
        (400, 'entry for stream \'{a="} parse labels", b="\\"x"}\' has timestamp too new: 2020', 1),
        (400, "max entry size '9' bytes exceeded for stream '{a=\"total ignored: 7 out of 9\"}' while adding", 1),
        (400, "stream '{a=\"label value\"}' includes structured metadata, but this feature is disallowed.", 1),
        (400, "2 errors like: entry for stream '{a=\"; 3 errors like: \"}' has timestamp too old; 1 errors like: max entry", 3),
        (400, LIST.format(2).replace("{}", '{a="label name, total ignored: 5 out of 10"}'), 2),
        (400, "entry for stream '{a=\"b\"}' has 16 label names; limit 15", 10),
        (400, "stream '{a=\"b\"}' has label value too long: 'x'", 10),
        (400, "stream '{a=\"b\"}' has duplicate label name: 'x'", 10),
        (400, "1 errors like: stream '{a=\"b\"}' has label name too long: 'x'; 2 errors like: max entry size '9'", 10),
        (400, "entry for stream '{a=\"cut", 1),
        (400, 'readObject: error found in #10 byte of ...|"total ignored: 1 out of 2"|...', 10),
        (400, "couldn't parse labels: {a=\"total ignored: 1 out of 2", 10),
        (400, "", 10),
        (401, "no org id", 10),
        (403, "", 10),
        (404, "404 page not found", 10),
        (422, "error at least one valid stream", 10),
    ],
)
def test_answers_that_refuse(status: int, text: str, refused: int) -> None:
    """Nothing is sent again; a 400 that says how many entries it means refuses those, any other answer the whole request."""
    answer = judged(status, {}, text, 10)
    assert (answer.fate, answer.refused) == (Fate.REFUSED, refused)
    assert str(status) in answer.reason


def test_the_text_of_an_answer_that_never_closes() -> None:
    """It is read in time linear in its length."""
    began = time.monotonic()
    for text in ("{" * 65_536, '{"' * 32_768, '{"{' * 20_000, '{a="\\' * 16_000, "stream '{}' has " * 4_000):
        judged(400, {}, "stream '" + text, 10)
    assert time.monotonic() - began < 1.0


def test_other_answers() -> None:
    """204 is success, 413 asks for parts, 429 and 5xx for another try."""
    assert judged(204, {}, "", 10) == Answer(Fate.STORED)
    assert judged(413, {}, "", 10).fate is Fate.TOO_MUCH
    for status in (408, 425, 429, 500, 501, 502, 503, 504, 599):
        assert judged(status, {}, "", 10).fate is Fate.AGAIN


def test_the_text_of_an_answer() -> None:
    """It is shown on one line, clean, cut and without secrets."""
    reason = judged(500, {}, "a\x1b[31m\n b\x00 password=hunter2 " + "x" * 10_000, 1).reason
    assert reason.startswith("answer 500: a [31m b password=***")
    assert len(reason) < 300


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": "999999999"}, 999999999.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "9" * 40}, None),
        ({"retry-after": "Sat, 28 Nov 2026 05:00:30 GMT", "date": "Sat, 28 Nov 2026 05:00:00 GMT"}, 30.0),
        ({"retry-after": "Sat, 28 Nov 2026 04:00:00 GMT", "date": "Sat, 28 Nov 2026 05:00:00 GMT"}, None),
        ({"retry-after": "Sat, 99 Nov 2026 04:00:00 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds and dates are understood, dates by the server's clock; the past and rubbish are ignored (O-LOKI-4)."""
    assert retry_after_of(headers) == seconds


def test_a_date_without_the_servers_time() -> None:
    """It is taken by our own clock (O-LOKI-4)."""
    seconds = retry_after_of({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert seconds is not None
    assert 90 < seconds <= 101


def test_labels_of_which_none_has_a_value() -> None:
    """The label is the service: Loki takes no stream without a label."""
    assert labels_of(replace(ME, env=""), {}, ["env"]) == ({"service": "shop"}, [])
    assert labels_of(replace(ME, env="prod"), {}, ["env"]) == ({"env": "prod"}, [])
    assert labels_of(replace(ME, env=""), {"zone": "a"}, ["env"]) == ({"zone": "a"}, [])
