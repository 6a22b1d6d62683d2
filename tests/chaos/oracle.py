"""What must be in the files after everything that was done to the processes: each event whose call returned, once and unhurt."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from fapilog._internal.logfiles import find
from fapilog.cli.verify import audited

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BEGINS = b'{"timestamp":'


def returned(folder: Path) -> set[int]:
    """Return the numbers of the events whose log calls have returned."""
    texts = [path.read_bytes() for path in folder.glob("returned.*")]
    return {int(number) for text in texts for number in text.split(b"\n")[:-1]}


def written(folder: Path) -> Iterator[dict[str, Any]]:
    """Return all events that are in the files of *folder*, but for lines that a kill has cut off in the middle of their write."""
    for path in sorted(folder.glob("[!.]*.jsonl*")):  # what begins with a dot is half made
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for line in filter(None, data.split(b"\n")):
            try:
                yield orjson.loads(line)
            except ValueError:
                assert line.startswith(BEGINS) or BEGINS.startswith(line), line


def exactly_once(folder: Path) -> int:
    """Check that every event whose call returned is there once, and none twice; return how many there are."""
    events = [event for event in written(folder) if event["event"] == "chaos"]
    counts = Counter(event["number"] for event in events)
    wanted = returned(folder)
    missing = wanted - set(counts)
    doubled = [number for number, count in counts.items() if count > 1]
    assert (len(missing), len(doubled)) == (0, 0), f"{len(missing)} missing, {len(doubled)} twice, of {len(wanted)}"
    assert all(zlib.crc32(event["payload"].encode()) == event["crc"] for event in events)
    seqs = Counter((event["boot"], event["seq"]) for event in written(folder) if "seq" in event)
    assert max(seqs.values()) == 1
    return len(wanted)


def strangers(folder: Path) -> int:
    """Return how many events are in the files whose log calls did not return, or could not say so any more."""
    return len({event["number"] for event in written(folder) if event["event"] == "chaos"} - returned(folder))


def once_at_most(folder: Path) -> int:
    """Check that no event is there twice, where some were refused and counted; return how many there are."""
    counts = Counter(event["number"] for event in written(folder) if event["event"] == "chaos")
    assert max(counts.values()) == 1
    return len(counts)


def balanced(folder: Path) -> None:
    """Check what `verified()` does, without the time that a process takes."""
    found = audited(find([os.fspath(folder)]), "file")
    worst = [life for life in found.lives if not life.balanced or life.state == "open"]
    assert (found.balanced, found.open) == (True, 0), worst[:3]


def verified(folder: Path) -> dict[str, Any]:
    """Return what `fapilog verify` says of the files of *folder*, which must be that they balance."""
    command = [sys.executable, "-m", "fapilog", "verify", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found: dict[str, Any] = orjson.loads(done.stdout)
    worst = [life for life in found["lives"] if life["unexplained"] or life["duplicates"] or life["state"] == "open"]
    assert (done.returncode, found["balanced"]) == (0, True), (done.stderr, worst[:3])
    return found
