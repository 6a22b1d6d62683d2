"""For tests of rotation: all lines of a family of files, from its plain and compressed members, each of which must parse."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fapilog.errors import SinkUnavailable
from fapilog.identity import Identity
from fapilog.sinks.family import Family
from fapilog.sinks.rotation import HEADER
from tests._support import strict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fapilog.sinks import FileSink

ME = Identity("app", "", "host", 1, 77, "b00t")


def line(number: int, size: int = 0) -> bytes:
    """Return a line, which is *size* bytes long if that is enough for it."""
    short = json.dumps({"n": number, "boot": ME.boot, "x": "", "seq": number}) + "\n"
    return short.replace('"x": ""', f'"x": "{"x" * (size - len(short))}"').encode()


def batch(numbers: Iterable[int], size: int = 0) -> list[bytes]:
    return [line(number, size) for number in numbers]


def content(path: str | Path) -> bytes:
    data = Path(path).read_bytes()
    return gzip.decompress(data) if str(path).endswith(".gz") else data


def lines_of(path: str | Path) -> list[dict[str, Any]]:
    data = content(path)
    assert data.endswith(b"\n") or not data, f"{path}: torn end {data[-80:]!r}"
    return [strict(each) for each in data.split(b"\n")[:-1]]


def family_lines(path: Path) -> list[list[dict[str, Any]]]:
    """Return the lines of each file of the family of *path*, oldest first."""
    return [lines_of(each) for each in Family(str(path)).paths()]


def numbers(path: Path) -> list[int]:
    """Return the numbers of all lines of the family, but for the first lines of ours."""
    return [each["n"] for lines in family_lines(path) for each in lines if "n" in each]


def headers(path: Path) -> list[dict[str, Any]]:
    return [lines[0] for lines in family_lines(path) if lines and lines[0].get("event") == HEADER]


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def written(sink: FileSink, batches: Iterable[Sequence[bytes]], tries: int = 500) -> None:
    """Write each batch as a delivery does: again with the same lines while the sink is unavailable."""
    for lines in batches:
        for _ in range(tries):
            try:
                await sink.write_lines(lines)
            except SinkUnavailable:
                await asyncio.sleep(0)
                continue
            break
        else:
            raise AssertionError("never taken")


def run(sink: FileSink, *batches: Sequence[bytes], identity: Identity = ME) -> None:
    """Open *sink*, write the batches, close it."""

    async def main() -> None:
        await sink.open(identity)
        await written(sink, batches)
        await sink.close()

    asyncio.run(main())
