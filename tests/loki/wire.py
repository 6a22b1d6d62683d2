"""
What a push request says: content types and encodings, JSON, raw-block snappy and protobuf, decoded without a library.

The source of each rule is Loki v3.7.6, `pkg/loghttp/push/push.go` and `pkg/push/push.proto`.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.loki.labels import LabelError, check_name, label_text, parse_labels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

_INT = re.compile(r"[+-]?[0-9]+")
_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+")
_LITERAL_MAX = 60  # lengths above stand in one to four bytes after the tag
_MAX_LABELS_BYTES = 16 << 20
_WBITS = {"gzip": 31, "deflate": -15}


class Refused(Exception):
    """The server answers *status* and *text*."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status
        self.text = text


@dataclass(slots=True)
class Line:
    """An entry of a request: nanoseconds since 1970, text, structured metadata."""

    ts: int
    line: str
    metadata: dict[str, str] = field(default_factory=dict)

    def size(self) -> int:
        """Return the bytes that Loki's rate limits count."""
        return len(self.line.encode()) + sum(len(name.encode()) + len(value.encode()) for name, value in self.metadata.items())


@dataclass(slots=True)
class Stream:
    """The labels of a request's stream, as pairs because a name may stand twice, and its entries."""

    labels: list[tuple[str, str]]
    lines: list[Line]


def decode(headers: Message, body: bytes, *, max_bytes: int, max_decompressed: int) -> list[Stream]:
    """
    Return the streams of a request.

    Raises:
        Refused: With the answer that Loki gives.
    """
    kind = media_type(headers.get("Content-Type"))
    encoding = headers.get("Content-Encoding", "")
    if encoding not in {"", "gzip", "deflate", "snappy"}:
        raise Refused(400, f'Content-Encoding "{encoding}" not supported')
    if kind == "application/json":
        if encoding == "snappy":
            raise Refused(400, f'Content-Encoding "{encoding}" not supported')
        return decode_json(decompressed(encoding, body[:max_bytes], max_decompressed))
    if len(body) > max_bytes:
        raise Refused(413, f"request body too large: message size too large than max ({len(body)} vs {max_bytes})")
    try:
        return decode_protobuf(unsnap(decompressed(encoding, body, max_decompressed), max_decompressed))
    except (IndexError, ValueError) as error:
        raise Refused(400, f"proto: {error}") from None


def media_type(content_type: str | None) -> str:
    """Return the lower-case media type without its parameters; none at all is an error for Loki."""
    found = _TYPE.match((content_type or "").strip())
    if found is None:
        raise Refused(400, "mime: no media type")
    return found[0].lower()


def decompressed(encoding: str, body: bytes, limit: int) -> bytes:
    """Undo gzip and deflate; ``snappy`` is the name of what protobuf bodies are anyway."""
    if encoding not in _WBITS:
        return body
    inflate = zlib.decompressobj(_WBITS[encoding])
    try:
        data = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused(400, f"{encoding}: {error}") from None
    if len(data) > limit:
        raise Refused(400, f"decompressed message size too large than max ({len(data)} vs {limit})")
    if not inflate.eof:
        raise Refused(400, "unexpected EOF")
    return data


def decode_json(data: bytes) -> list[Stream]:
    """Return the streams of a JSON body; times and lines must be strings, metadata an object of strings."""
    try:
        body = json.loads(data)
        json.dumps(body, ensure_ascii=False).encode()  # a lone surrogate is no text
    except (UnicodeError, ValueError, RecursionError) as error:
        raise Refused(
            400, f"couldn't decode JSON: {error}; Value looks like object, but can't find closing '}}' symbol"
        ) from None
    streams = _typed(_typed(body, dict, "request").get("streams", []), list, "streams")
    return [_json_stream(_typed(stream, dict, "stream")) for stream in streams]


def _typed(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise Refused(400, f"Value is not the expected type: {what}")
    return value


def _json_stream(stream: dict[str, Any]) -> Stream:
    labels = {name: _text(value) for name, value in _typed(stream.get("stream", {}), dict, "stream").items()}
    _check_labels(list(labels), label_text(labels))
    return Stream(list(labels.items()), [_json_line(each) for each in _typed(stream.get("values", []), list, "values")])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _check_labels(names: list[str], text: str) -> None:
    if len(text) > _MAX_LABELS_BYTES:
        raise Refused(413, f"stream labels size {len(text)} exceeds limit {_MAX_LABELS_BYTES}")
    try:
        for name in names:
            check_name(name)
    except LabelError as error:
        raise Refused(400, f"couldn't parse labels: {error}") from None


def _json_line(value: Any) -> Line:
    if not isinstance(value, list) or len(value) not in {2, 3}:
        raise Refused(400, "Value is array of 2 or 3: time, line, structured metadata")
    ts, line, metadata = (*value, {})[:3]
    if not isinstance(ts, str) or not _INT.fullmatch(ts) or not -(1 << 63) <= int(ts) < 1 << 63:
        raise Refused(400, f"Value is string, but can't find closing '\"' symbol: time {ts!r:.60}")
    if not isinstance(line, str):
        raise Refused(400, "Value is string, but can't find closing '\"' symbol: line")
    if not isinstance(metadata, dict) or not all(isinstance(each, str) for each in metadata.values()):
        raise Refused(400, "Value is string, but can't find closing '\"' symbol: structured metadata")
    return Line(int(ts), line, metadata)


def unsnap(data: bytes, limit: int) -> bytes:
    """Return what a raw block of snappy holds (github.com/google/snappy, format_description.txt)."""
    size, at = _varint(data, 0)
    if size > limit:
        raise Refused(400, f"decompressed message size too large than max ({size} vs {limit})")
    made = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            length, at = _literal_length(data, tag >> 2, at)
            if at + length > len(data):
                raise ValueError("snappy: corrupt input")
            made += data[at : at + length]
            at += length
        else:
            at = _copy(made, data, tag, at)
    if len(made) != size:
        raise ValueError("snappy: corrupt input")
    return bytes(made)


def _literal_length(data: bytes, value: int, at: int) -> tuple[int, int]:
    if value < _LITERAL_MAX:
        return value + 1, at
    width = value - _LITERAL_MAX + 1
    return int.from_bytes(data[at : at + width], "little") + 1, at + width


def _copy(made: bytearray, data: bytes, tag: int, at: int) -> int:
    if tag & 3 == 1:
        length, offset, at = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at], at + 1
    else:
        width = 2 if tag & 3 == 2 else 4
        length, offset, at = (tag >> 2) + 1, int.from_bytes(data[at : at + width], "little"), at + width
    if not 0 < offset <= len(made):
        raise ValueError("snappy: corrupt input")
    for _ in range(length):  # may overlap itself: that is how it repeats
        made.append(made[-offset])
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint overflow")


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value: Any
            value, at = _varint(data, at)
        elif wire in {1, 2, 5}:
            size, at = _varint(data, at) if wire == 2 else (8 if wire == 1 else 4, at)
            if at + size > len(data):
                raise ValueError("unexpected EOF")
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"illegal wireType {wire}")
        yield key >> 3, value


def decode_protobuf(data: bytes) -> list[Stream]:
    """Return the streams of a PushRequest message."""
    return [_protobuf_stream(value) for number, value in _fields(data) if number == 1]


def _protobuf_stream(data: bytes) -> Stream:
    text, lines = "", []
    for number, value in _fields(data):
        if number == 1:
            text = value.decode()
        elif number == 2:
            lines.append(_protobuf_line(value))
    try:
        labels = parse_labels(text)
    except LabelError as error:
        raise Refused(400, f"couldn't parse labels: {error}") from None
    _check_labels([], text)
    return Stream(labels, lines)


def _protobuf_line(data: bytes) -> Line:
    made = Line(0, "")
    for number, value in _fields(data):
        if number == 1:
            time = dict(_fields(value))
            made.ts = _signed(time.get(1, 0)) * 1_000_000_000 + _signed(time.get(2, 0))
        elif number == 2:
            made.line = value.decode()
        elif number == 3:
            pair = dict(_fields(value))
            made.metadata[pair.get(1, b"").decode()] = pair.get(2, b"").decode()
    return made


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
