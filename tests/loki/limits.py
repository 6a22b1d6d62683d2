"""What the stand-in refuses: the limits, with Loki's names and defaults, and token buckets."""

from __future__ import annotations

import enum
from dataclasses import dataclass

MB = 1 << 20


class Dedupe(enum.Enum):
    """Which entries of a stream are one and the same."""

    OFF = "off"  # VictoriaLogs
    LINE = "ts+line"  # Loki up to 3.6
    METADATA = "ts+line+metadata"  # Loki from 3.7 on


@dataclass(frozen=True, kw_only=True)
class Limits:
    """
    The limits of one server (Loki v3.7.6, `pkg/validation/limits.go`); rates in bytes a second, None for none.

    Args:
        proxy_max_size: Bytes of a body as sent; above it a proxy in front answers 413, whatever the content (None: no proxy).
        max_line_size: Bytes of a line.
        ingestion_rate, ingestion_burst: Of a tenant: all of a request or nothing of it, 429.
        per_stream_rate, per_stream_burst: Of a stream: what fits is stored, 429 for the rest.
        reject_old_samples_max_age, creation_grace_period: Seconds behind and ahead of the server's clock.
        unordered_window: Seconds that an entry may be behind the newest of its stream.
        max_streams: Of a tenant.
    """

    proxy_max_size: int | None = None
    max_recv_size: int = 100 * MB
    max_decompressed_size: int = 5000 * MB
    max_line_size: int = 262_144
    ingestion_rate: float | None = 4 * MB
    ingestion_burst: int = 6 * MB
    per_stream_rate: float | None = 3 * MB
    per_stream_burst: int = 15 * MB
    max_streams: int = 5000
    max_label_names: int = 15
    max_label_name_length: int = 1024
    max_label_value_length: int = 2048
    allow_structured_metadata: bool = True
    max_structured_metadata_size: int = 65_536
    max_structured_metadata_count: int = 128
    reject_old_samples_max_age: float | None = 7 * 86_400
    creation_grace_period: float = 600
    unordered_window: float | None = 3600


#: For floods: no rate stands in the way.
NO_RATES = Limits(ingestion_rate=None, per_stream_rate=None)


class Bucket:
    """Tokens that come at *rate* a second, *burst* of them at the most, full at first."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = float(burst)
        self.seen = now

    def allow(self, tokens: int, now: float) -> bool:
        """Take them if all of them are there."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.seen) * self.rate)
        self.seen = now
        if tokens > self.tokens:
            return False
        self.tokens -= tokens
        return True


def size_text(value: float) -> str:
    """Return bytes as Loki's ByteSize shows them."""
    number = int(value)
    for unit, name in ((MB, "MB"), (1 << 10, "KB")):
        if number and number % unit == 0:
            return f"{number // unit}{name}"
    return f"{number}B"
