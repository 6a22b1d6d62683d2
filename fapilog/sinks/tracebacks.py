"""
Tracebacks for people: the lines of an event's `exception` and `stack`, as the standard library's `traceback` writes them.

Invariants:

1. Every line is clean, and one line: the console form puts its indent before each. A message or a note of several lines is
   several lines here, those after the first set back by `BEYOND`, deeper than any frame, so that text cannot pass for a frame.
2. What is too long is cut with the mark: texts at `TEXT_LIMIT` characters; a traceback in its middle, at `LINES_LIMIT` lines,
   because its beginning and its end say most.
3. Any JSON value in any place is shown in some way; a form that is not known at all is left to the caller.
"""

from __future__ import annotations

import json
import re
from collections import deque
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from fapilog.sinks.terminal import clean, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fapilog.sinks.terminal import Paint

    #: Returns what stands in a line of a file, or nothing.
    Source = Callable[[str, int], str]

TEXT_LIMIT = 8_192
LINES_LIMIT = 1_000
MAX_GROUP_DEPTH = 10  # the standard library's
REPEATS = 3  # the standard library's
BEYOND = "    "
ERROR = "1;31"

CAUSE = "The above exception was the direct cause of the following exception:"
CONTEXT = "During handling of the above exception, another exception occurred:"
_UNNAMED_MODULES = (None, "", "builtins", "__main__")
_KNOWN = frozenset(("type", "module", "message", "notes", "frames", "cause", "context", "exceptions"))
_dumps = json.JSONEncoder(ensure_ascii=False).encode


def no_source(_file: str, _line: int) -> str:
    """Return nothing; the `Source` where there is none."""
    return ""


def traceback_lines(exception: Any, paint: Paint, source: Source) -> list[str] | None:
    """Return the lines of an `exception` field; *None* for a form that is not known."""
    if isinstance(exception, str) and "\n" in exception:
        return _bounded(_lines(exception))
    if isinstance(exception, dict) and ("type" in exception or "frames" in exception):
        return _bounded(_Writer(paint, source).chain(exception))
    return None


def stack_lines(stack: Any, source: Source) -> list[str] | None:
    """Return the lines of a `stack` field, a text or a list of frames; *None* for a form that is not known."""
    if isinstance(stack, str) and "\n" in stack:
        return _bounded(_lines(stack))
    if isinstance(stack, list) and stack and isinstance(stack[0], dict) and "file" in stack[0]:
        return _bounded(["Stack (most recent call last):", *_frames(stack, source)])
    return None


def _bounded(lines: Iterable[str]) -> list[str]:
    rest = iter(lines)
    kept = list(islice(rest, LINES_LIMIT))
    half = LINES_LIMIT // 2
    tail: deque[str] = deque(maxlen=half)
    more = 0
    for more, line in enumerate(rest, 1):  # noqa: B007 - the count
        tail.append(line)
    if not more:
        return kept
    end = [*kept, *tail][-half:]
    return [*kept[:half], f"...[cut: {LINES_LIMIT + more} items]", *end]


class _Writer:
    """
    Walks an exception as `traceback.TracebackException.format()` does.

    Attributes:
        depth: How many groups there are around what is being written.
        unclosed: Whether the margin of the innermost group still has to be closed.
    """

    def __init__(self, paint: Paint, source: Source) -> None:
        self.depth = 0
        self.unclosed = False
        self._paint = paint
        self._source = source

    def chain(self, error: dict[str, Any]) -> Iterator[str]:
        """Yield the lines of *error* after those of its cause or context."""
        for sentence, link in reversed(list(_links(error))):
            if not isinstance(link, dict):
                yield from self._within([_text(link)])
            elif not link.get("exceptions"):
                yield from self._within(self._single(link, "Traceback"))
            elif self.depth > MAX_GROUP_DEPTH:
                yield from self._within([f"... (max_group_depth is {MAX_GROUP_DEPTH})"])
            else:
                yield from self._group(link)
            if sentence:
                yield from self._within(["", sentence, ""])

    def _single(self, error: dict[str, Any], title: str) -> Iterator[str]:
        frames = list(_frames(error.get("frames"), self._source))
        if frames:
            yield f"{title} (most recent call last):"
            yield from frames
        for line in _described(error):
            yield self._paint(line, ERROR)
        yield from _notes(error.get("notes"))

    def _group(self, error: dict[str, Any]) -> Iterator[str]:
        outermost = not self.depth
        self.depth += outermost
        lines = self._within(self._single(error, "Exception Group Traceback"))
        for number, line in enumerate(lines):
            titled = outermost and not number and error.get("frames")
            yield line.replace("|", "+", 1) if titled else line
        yield from self._members(error["exceptions"])
        self.depth -= outermost

    def _members(self, members: Any) -> Iterator[str]:
        members = members if isinstance(members, list) else [members]
        self.unclosed = False
        for number, member in enumerate(members, 1):
            self.unclosed = number == len(members)  # a group inside of the last one may close for all
            yield "  " * self.depth + f"{'+-' if number == 1 else '  '}+---------------- {number} ----------------"
            self.depth += 1
            yield from self.chain(member) if isinstance(member, dict) else self._within([_text(member)])
            if self.unclosed and number == len(members):
                yield "  " * self.depth + "+------------------------------------"
                self.unclosed = False
            self.depth -= 1

    def _within(self, lines: Iterable[str]) -> Iterator[str]:
        margin = "  " * self.depth + "| " if self.depth else ""
        for line in lines:
            yield margin + line


def _links(error: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield *error* and what came before it, each with the sentence that leads on from it."""
    sentence = ""
    link: Any = error
    while link is not None:
        yield sentence, link
        if not isinstance(link, dict):
            return
        sentence, link = (CAUSE, link["cause"]) if link.get("cause") else (CONTEXT, link.get("context") or None)


def _described(error: dict[str, Any]) -> Iterator[str]:
    module = error.get("module")
    name = _text(error.get("type"))
    if module not in _UNNAMED_MODULES:
        name = f"{_text(module)}.{name}"
    message = error.get("message")
    first, *others = _lines(message) if message not in (None, "") else [""]
    yield f"{name}: {first}" if first or others else name
    yield from (BEYOND + line for line in others)
    yield from (f"{BEYOND}{_text(key)} = {_text(value)}" for key, value in error.items() if key not in _KNOWN)


def _notes(notes: Any) -> Iterator[str]:
    if notes is None:
        return
    for note in notes if isinstance(notes, list) else [notes]:
        first, *others = _lines(note)
        yield first
        yield from (BEYOND + line for line in others)


def _frames(frames: Any, source: Source) -> Iterator[str]:
    """Yield the lines of *frames*; of one that comes again and again, the first `REPEATS` and how many more there were."""
    if not frames:
        return
    for _, same in groupby(frames if isinstance(frames, list) else [frames], _place):
        alike = list(same)
        for frame in alike[:REPEATS]:
            yield from _frame(frame, source)
        more = len(alike) - REPEATS
        if more > 0:
            yield f"  [Previous line repeated {more} more time{'s' if more > 1 else ''}]"


def _place(frame: Any) -> tuple[str, ...]:
    return tuple(repr(frame.get(name)) for name in ("file", "line", "function")) if isinstance(frame, dict) else (repr(frame),)


def _frame(frame: Any, source: Source) -> Iterator[str]:
    if not isinstance(frame, dict):
        yield f"  {_text(frame)}"
        return
    yield f'  File "{_text(frame.get("file"))}", line {_text(frame.get("line"))}, in {_text(frame.get("function"))}'
    file, line = frame.get("file"), frame.get("line")
    code = frame.get("code") or (source(file, line) if isinstance(file, str) and isinstance(line, int) else "")
    if code:
        yield f"    {_text(code)}"
    found = frame.get("locals")
    if isinstance(found, dict):
        yield from (f"    {_text(name)} = {_text(value)}" for name, value in found.items())
    elif found is not None:
        yield f"    {_text(found)}"


def _lines(value: Any) -> list[str]:
    """Return a text of several lines as clean ones."""
    text = shortened(value, TEXT_LIMIT) if isinstance(value, str) else _text(value)
    return [clean(line) for line in re.split("\r?\n", text.rstrip("\r\n"))]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else _dumps(value)
    return clean(shortened(text, TEXT_LIMIT))
