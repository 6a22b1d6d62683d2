"""
The modelled Loki: one tenant, its limits, and what it answers.

Sources: Grafana Loki v3.7.6, `pkg/validation/limits.go`, `pkg/distributor`, `pkg/ingester`. It sets no ``Retry-After`` itself; a
proxy in front of it that answers 503 may.

Invariants:

1. A request is checked in Loki's order: rate of the tenant (all or nothing), number of streams, age, rate of the stream.
2. Rates count the bytes of lines and of their metadata, not compressed.
3. Every entry that was sent is counted once for each time that it came, as stored or as refused for one reason.

Left out: replicas (one ingester knows all streams), streams that idle out, the part of a request that the rate of its stream lets
through (here it is all or nothing), the limits of lines, labels and requests, which nothing here comes near, and time: an answer
comes at once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Those of a tenant, with Loki's defaults.

    Args:
        rate: Bytes a second.
        burst: Bytes at once; a greater request never passes.
        streams: Active ones.
        stream_rate: Bytes a second in a stream.
        stream_burst: Bytes at once in a stream.
        unordered_s: How far an entry may be behind the newest one of its stream, in seconds.
    """

    rate: float = 4.0 * MB
    burst: float = 6.0 * MB
    streams: int = 5000
    stream_rate: float = 3.0 * MB
    stream_burst: float = 15.0 * MB
    unordered_s: float = 3600.0

    def scaled(self, factor: float) -> Limits:
        """Return those of a tenant for *factor* times as many hosts."""
        return replace(self, rate=self.rate * factor, burst=self.burst * factor, streams=max(1, round(self.streams * factor)))

    def raised(self, factor: float) -> Limits:
        """Return those of a tenant whose rate was raised by *factor*."""
        return replace(self, rate=self.rate * factor, burst=self.burst * factor)


class Bucket:
    """Tokens that come at *rate* a second, *burst* of them at the most, full at first."""

    __slots__ = ("burst", "rate", "seen", "tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self.seen = now

    def allow(self, tokens: float, now: float) -> bool:
        """Take them if all of them are there."""
        self.tokens = min(self.burst, self.tokens + (now - self.seen) * self.rate)
        self.seen = now
        if tokens > self.tokens:
            return False
        self.tokens -= tokens
        return True


@dataclass(slots=True)
class Second:
    """What came in one second."""

    requests: int = 0
    unanswered: int = 0  # no connection, or a proxy's 503
    refused: int = 0  # 429
    stored_bytes: int = 0


@dataclass(slots=True)
class Stream:
    """An active stream."""

    bucket: Bucket
    newest: float


@dataclass(frozen=True, slots=True)
class Reply:
    """
    Args:
        status: 0 where nobody listens.
        text: Of the answer.
        headers: Of the answer.
    """

    status: int
    text: str = ""
    headers: dict[str, str] | None = None


STORED = Reply(204)
REFUSED_CONNECTION = Reply(0)
RATE = Reply(429, "ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec)")
STREAMS = Reply(429, "maximum active stream limit exceeded when trying to create stream {}")
STREAM_RATE = Reply(429, "entry with timestamp 0 ignored, reason: 'Per stream rate limit exceeded'")


class Server:
    """
    Answers pushes.

    Args:
        limits: Of the tenant.
        retry_after: What a proxy in front asks for while Loki is away, in seconds; *None*: connections are refused.

    Attributes:
        away: Whether it is.
        seconds: What came, second by second.
        entries: How many entries had which fate: `stored`, or why not.
        answers: How many requests had which answer.
    """

    def __init__(self, limits: Limits, retry_after: float | None = None) -> None:
        self.limits = limits
        self.away = False
        self.seconds: list[Second] = []
        self.entries: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self._away = Reply(503, "", {"retry-after": f"{retry_after:g}"}) if retry_after is not None else REFUSED_CONNECTION
        self._tenant = Bucket(limits.rate, limits.burst, 0.0)
        self._streams: dict[Hashable, Stream] = {}

    @property
    def streams(self) -> int:
        """How many are active."""
        return len(self._streams)

    def push(self, key: Hashable, times: Sequence[float], size: int, now: float) -> Reply:
        """
        Take a request.

        Args:
            key: Of its stream.
            times: Of its entries, in order.
            size: Of their lines and metadata, in bytes.
            now: In seconds.
        """
        second = self._second(now)
        second.requests += 1
        if self.away:
            second.unanswered += 1
            return self._told("away", self._away, len(times))
        if not self._tenant.allow(size, now):
            second.refused += 1
            return self._told("rate", RATE, len(times))
        stream = self._streams.get(key)
        if stream is None:
            if len(self._streams) >= self.limits.streams:
                second.refused += 1
                return self._told("streams", STREAMS, len(times))
            stream = self._streams[key] = Stream(Bucket(self.limits.stream_rate, self.limits.stream_burst, now), 0.0)
        return self._into(stream, times, size, now)

    def _into(self, stream: Stream, times: Sequence[float], size: int, now: float) -> Reply:
        second = self.seconds[int(now)]
        late = bisect_left(times, stream.newest - self.limits.unordered_s)
        if not stream.bucket.allow(size, now):
            second.refused += 1
            return self._told("stream_rate", STREAM_RATE, len(times))
        stream.newest = max(stream.newest, times[-1])
        second.stored_bytes += size * (len(times) - late) // len(times)
        self.entries["stored"] += len(times) - late
        if late:
            text = f"entry with timestamp 0 ignored, reason: 'entry too far behind',\nuser 'fake', total ignored: {late} out of "
            return self._told("too_far_behind", Reply(400, f"{text}{len(times)}"), late)
        self.answers["stored"] += 1
        return STORED

    def _told(self, why: str, reply: Reply, entries: int) -> Reply:
        self.entries[why] += entries
        self.answers[why] += 1
        return reply

    def _second(self, now: float) -> Second:
        while len(self.seconds) <= now:
            self.seconds.append(Second())
        return self.seconds[int(now)]
