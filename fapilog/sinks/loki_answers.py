"""
What Loki's answer means for the events of the request.

Sources: the status codes and texts of Grafana Loki (`pkg/validation`, `pkg/distributor`).

Invariants:

1. Only 204 is success. 200 and other 2xx are what a blocked tenant, or something that is no Loki, answers.
2. What was refused is never sent again: the valid rest of it is stored already.
3. What an answer quotes of ours, such as the values of labels, decides nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fapilog.sinks.answers import Answer, Fate, reason_of, retry_after_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_AGAIN = frozenset((408, 425, 429))
#: A label set as Loki quotes it; its values are the user's, and may read like an answer.
_LABEL_SET = re.compile(r'\{(?:[^{}"]|"(?:[^"\\]|\\.)*+"?)*+\}?', re.DOTALL)
_OF_ENTRIES = re.compile(r"entry |max entry size|stream '|user '|total ignored|[0-9]{1,9} errors? like: ")
_IGNORED = re.compile(r"total ignored: ([0-9]{1,9}) out of")
_LIKE = re.compile(r"(?:^|; )([0-9]{1,9}) errors? like: ")
_OF_STREAM = re.compile(r"stream '\{\}' has (?:[0-9]+ label names|label (?:name|value) too long|duplicate label name)")
_OF_ONE_ENTRY = re.compile(r"entry for stream|max entry size|stream '\{\}' (?:includes|has) .*structured metadata", re.DOTALL)


def judged(
    status: int, headers: Mapping[str, str], text: str, count: int, hidden_in: Callable[[str], str] = lambda text: text
) -> Answer:
    """
    Return what an answer means for the *count* events of a request.

    Args:
        status: Of the answer.
        headers: Of the answer, their names in small letters.
        text: Of the answer, or its beginning.
        count: How many events were sent.
        hidden_in: Takes secrets out of a text that is shown.
    """
    if status == 204:
        return Answer(Fate.STORED)
    reason = reason_of(status, hidden_in(text))
    if status == 413:
        return Answer(Fate.TOO_MUCH, count, reason)
    if status in _AGAIN or status >= 500:
        return Answer(Fate.AGAIN, 0, reason, retry_after_of(headers))
    return Answer(Fate.REFUSED, _refused(text, count) if status == 400 else count, reason)


def _refused(text: str, count: int) -> int:
    """
    Return how many entries the text of a 400 says were refused; all of them where it does not say.

    What is refused for its labels is a stream with all of its entries, of which only the ingester tells the number.
    """
    said = _LABEL_SET.sub("{}", text)
    if not _OF_ENTRIES.match(said):  # the request was not understood
        return count
    numbers = _IGNORED.findall(said)
    if not numbers and _OF_STREAM.search(said):
        return count
    numbers = numbers or _LIKE.findall(said)
    if numbers:
        return max(1, min(sum(map(int, numbers)), count))
    return 1 if _OF_ONE_ENTRY.match(said) else count
