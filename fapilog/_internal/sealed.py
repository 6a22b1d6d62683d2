"""
Blocks of a shared file that other processes may read at any time: each is whole or does not count.

Layout: a file is a row of blocks of `BLOCK_BYTES`. The first begins with `MAGIC`; the others have two halves of `HALF_BYTES`. A
half begins with its number, the length of its text and a checksum over these, the place of the block and the text: 8, 4 and 4
bytes, little endian.

Invariants:

1. A half is whole or does not count: a reader that comes in the middle of a write, or after a byte was changed, finds that the
   checksum is wrong. CRC-32 finds every change within four bytes in a row; of others, one in four milliards slips through.
2. A writer writes over the older half, so what was published before stays readable, also if it is killed in the middle.
3. A block has one writer at a time: whoever holds the lock that goes with it. Readers need no lock.
4. Nothing that is read is trusted: neither sizes nor types. Reading raises nothing but `OSError`.

Why a text and not a number of counters, each in a word of its own: a reader sees all the counters of a moment, never some from
before an event and some from after it, and a changed byte cannot pass for a number.

Why it is written and not mapped: a mapping keeps a descriptor that a program may have closed and given to another file, a forked
child keeps both for life, and a file that somebody truncates would end the process by SIGBUS.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"fapilog board 1\n"
BLOCK_BYTES = 32_768
HALF_BYTES = BLOCK_BYTES // 2
_HEAD = struct.Struct("<QII")
ROOM_BYTES = HALF_BYTES - _HEAD.size
MOST = 1 << 62  # publications: more than there will be
_SUM_OF = struct.Struct("<QQI")


class TooLargeError(ValueError):
    """A text does not fit into a half."""


def seal(place: int, number: int, text: bytes) -> bytes:
    """Return a half of the block at *place*."""
    if len(text) > ROOM_BYTES:
        raise TooLargeError(f"{len(text)} bytes, with room for {ROOM_BYTES}")
    return _HEAD.pack(number, len(text), _sum(place, number, text)) + text


def _sum(place: int, number: int, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(_SUM_OF.pack(place, number, len(text))))


def unseal(place: int, half: bytes) -> tuple[int, bytes] | None:
    """Return the number and the text of a half; None unless it is whole."""
    if len(half) < _HEAD.size:
        return None
    number, length, checksum = _HEAD.unpack_from(half)
    text = half[_HEAD.size : _HEAD.size + length]
    whole = 0 < number < MOST and len(text) == length and _sum(place, number, text) == checksum
    return (number, text) if whole else None


def newest(place: int, block: bytes) -> tuple[int, bytes]:
    """Return the number and the text that were published last in the block at *place*; 0 and nothing if there are none."""
    halves = (unseal(place, block[:HALF_BYTES]), unseal(place, block[HALF_BYTES:]))
    return max((half for half in halves if half is not None), default=(0, b""))


def read_block(fd: int, place: int) -> tuple[bytes, bool]:
    """Return the text that was published last in the block at *place*, and whether something stands there that is not whole."""
    block = os.pread(fd, BLOCK_BYTES, place * BLOCK_BYTES)
    number, text = newest(place, block)
    return text, not number and bool(block.strip(b"\0"))


def heads(fd: int, place: int) -> bytes:
    """Return the heads of both halves of a block: if they are what they were, so is the text."""
    start = place * BLOCK_BYTES
    return os.pread(fd, _HEAD.size, start) + os.pread(fd, _HEAD.size, start + HALF_BYTES)


def write_block(fd: int, place: int, text: bytes) -> None:
    """
    Publish *text* in the block at *place*. The caller holds the lock that goes with it.

    Raises:
        OSError: There is no room for it.
        TooLargeError: It does not fit; what was published before stays.
    """
    number = newest(place, os.pread(fd, BLOCK_BYTES, place * BLOCK_BYTES))[0] + 1
    os.pwrite(fd, seal(place, number, text), place * BLOCK_BYTES + HALF_BYTES * (number % 2))


def written_places(fd: int, most: int) -> Iterator[int]:
    """Return the places below *most* where anything stands; the holes of a sparse file are passed over."""
    end = min(os.fstat(fd).st_size, most * BLOCK_BYTES)
    at = 0
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole
            return
        if at < end:
            yield at // BLOCK_BYTES
        at = (at // BLOCK_BYTES + 1) * BLOCK_BYTES
