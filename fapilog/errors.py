"""
The exceptions of fapilog, all in one tree.

::

    FapilogError
    ├── ConfigurationError      a setting, an override or an argument is wrong (also a ValueError)
    └── SinkError               what a sink may tell its delivery
        ├── SinkUnavailable     call me again later with the same events
        └── SinkRejected        these events will never be taken

A log call raises none of them: they come from set-up (`ConfigurationError`) or are raised *by* sinks, for their delivery to
read.
"""

from __future__ import annotations


class FapilogError(Exception):
    """Base of everything that fapilog raises on purpose."""


class ConfigurationError(FapilogError, ValueError):
    """
    Raised at set-up, before any worker is forked, when a value cannot be used.

    The message names the setting, the value that was given and what would be right.
    """


class SinkError(FapilogError):
    """Base of what a sink raises from `write()` to tell its delivery what to do."""


class SinkUnavailable(SinkError):
    """
    Raised by a sink that cannot take events now; it is called again with the same batch.

    A sink that has taken a part of the batch says how much, so far; it is still called with the whole batch. The two numbers are
    used only if the batch is given up (it expires, the tries are used up, the hub closes), and then the rest is counted so. They
    need not be about the first events of the batch, nor is it said which they are: the rest is reported with the sequence numbers
    of the whole batch. The highest number given for a batch holds, and together they are never more than its events.

    Args:
        message: What is wrong, for the operator.
        retry_after: Seconds to wait at least before the next call: the delivery's own backoff may be longer, its longest wait
            (for the settings' sinks 30 s) bounds both. *None*, 0 and what is no number leave the wait to the backoff.
        delivered: How many events of the batch are delivered already.
        rejected: How many events of the batch will never be taken.
    """

    def __init__(self, message: str = "", retry_after: float | None = None, *, delivered: int = 0, rejected: int = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.delivered = delivered
        self.rejected = rejected


class SinkRejected(SinkError):
    """
    Raised by a sink that will never take some events of the batch; they are counted `rejected`.

    Args:
        count: How many events of the batch were refused; the others count as delivered. *None* means all of them.
        message: What is wrong, for the operator.
    """

    def __init__(self, count: int | None = None, message: str = "") -> None:
        super().__init__(message)
        self.count = count
