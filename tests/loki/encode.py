"""Push requests for the tests of the servers themselves: what any client may send, valid or not."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

from tests.loki.labels import label_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Labels, and (time in ns, line) or (time in ns, line, metadata) each.
Group = tuple["Mapping[str, str]", "Iterable[Sequence[Any]]"]
JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def push_json(*groups: Group) -> bytes:
    """Return a JSON body."""
    streams = [{"stream": dict(labels), "values": [[str(ts), *rest] for ts, *rest in lines]} for labels, lines in groups]
    return json.dumps({"streams": streams}, ensure_ascii=False).encode()


def push_protobuf(*groups: Group) -> bytes:
    """Return a protobuf body: a raw block of snappy with literals only."""
    return snap(b"".join(_bytes(1, _stream(label_text(labels), lines)) for labels, lines in groups))


def compressed(encoding: str, body: bytes) -> tuple[dict[str, str], bytes]:
    """Return the header and the body; *encoding* is gzip, deflate (raw) or nothing."""
    if encoding == "gzip":
        return {"Content-Encoding": "gzip"}, gzip.compress(body, mtime=0)
    if encoding == "deflate":
        deflate = zlib.compressobj(wbits=-15)
        return {"Content-Encoding": "deflate"}, deflate.compress(body) + deflate.flush()
    return {}, body


def snap(data: bytes) -> bytes:
    """Return *data* as a raw block of snappy, not made smaller."""
    made = bytearray(varint(len(data)))
    for start in range(0, len(data), 1 << 16):
        part = data[start : start + (1 << 16)]
        made += bytes([61 << 2]) + (len(part) - 1).to_bytes(2, "little") + part
    return bytes(made)


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def _bytes(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def _stream(labels: str, lines: Iterable[Sequence[Any]]) -> bytes:
    return _bytes(1, labels.encode()) + b"".join(_bytes(2, _line(*line)) for line in lines)


def _line(ts: int, line: str, metadata: Mapping[str, str] | None = None) -> bytes:
    seconds, nanos = divmod(ts, 1_000_000_000)
    time = b"\x08" + varint(seconds % (1 << 64)) + b"\x10" + varint(nanos)
    pairs = (_bytes(3, _bytes(1, name.encode()) + _bytes(2, value.encode())) for name, value in (metadata or {}).items())
    return _bytes(1, time) + _bytes(2, line.encode()) + b"".join(pairs)
