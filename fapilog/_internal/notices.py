"""The `fapilog.dropped` event: what says in the log itself that events are missing from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fapilog.pipeline import own_head

if TYPE_CHECKING:
    from fapilog._internal.accounting import Reason

NOTICE_EVERY = 1.0  # seconds, for each scope and reason


def dropped_head(scope: str, reason: Reason, count: int, first_seq: int, last_seq: int, first_ns: int, last_ns: int) -> bytes:
    """Return the head of the notice for what `DropWindow.take()` gave."""
    return own_head(
        "fapilog.dropped",
        "warning",
        scope=scope,
        reason=str(reason),
        count=count,
        first_seq=first_seq,
        last_seq=last_seq,
        first_ns=first_ns,
        last_ns=last_ns,
    )
