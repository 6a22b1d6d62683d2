"""
An exception as data: type, module, message, notes, frames, its cause or context, and the members of a group.

Invariants:

1. Nothing that an exception's class overrides is trusted: chains, tracebacks and members are read past it, and a `str()` that
   raises is named in place of the message.
2. The result is bounded in frames, in depth and in the number of exceptions, and marks where it was cut; cycles end.
3. No file is read here (a log call does no I/O): the source lines of frames are for whoever shows them to people.

The form::

    {"type": "KeyError", "module": "builtins", "message": "'x'", "notes": [...], "frames": [...],
     "cause" or "context": {...}, "exceptions": [{...}, ...]}

Frames are outermost first: ``{"file": ..., "line": ..., "function": ..., "locals": {...}}``. What would be empty is left out.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from fapilog._internal.forms import is_scalar, safe_text, size_in_bytes
from fapilog._internal.plain import ARGS_OF, Plain
from fapilog.redaction import redaction

if TYPE_CHECKING:
    from types import TracebackType

MAX_FRAMES = 64  # of one exception; the outer and the inner half are kept
MAX_DEPTH = 10  # of causes, contexts and groups in one another
MAX_EXCEPTIONS = 200  # in all
MAX_NOTES = 20
MAX_MESSAGE = 16_384
MAX_LOCALS = 50  # of one frame
MAX_FRAME_TEXT = 8_192  # characters of one frame's locals
MAX_LOCALS_TEXT = 65_536  # of all frames'
MAX_ITEMS = 1_000  # of collections among the arguments of an exception
MAX_WALK = 100_000  # frames and links that are counted

_cause_of: Any = BaseException.__dict__["__cause__"].__get__
_context_of: Any = BaseException.__dict__["__context__"].__get__
_is_suppressed: Any = BaseException.__dict__["__suppress_context__"].__get__
_traceback_of: Any = BaseException.__dict__["__traceback__"].__get__
_members_of: Any = BaseExceptionGroup.__dict__["exceptions"].__get__
_BUILT_IN = frozenset((BaseException.__str__, KeyError.__str__))
_qualname_of: Any = type.__dict__["__qualname__"].__get__
_module_of: Any = type.__dict__["__module__"].__get__


def told(error: BaseException, traceback: TracebackType | None = None, *, with_locals: bool = False) -> dict[str, Any]:
    """
    Return *error* as data.

    Args:
        error: The exception.
        traceback: Its own by default.
        with_locals: Whether frames carry their local variables.
    """
    return _Teller(with_locals=with_locals).exception(error, traceback, 0)


class _Teller:
    def __init__(self, *, with_locals: bool) -> None:
        self._with_locals = with_locals
        self._above: set[int] = set()
        self._left = MAX_EXCEPTIONS
        self._room = MAX_LOCALS_TEXT
        self._walk = MAX_WALK

    def exception(self, error: BaseException, traceback: TracebackType | None, depth: int) -> dict[str, Any]:
        kind = type(error)
        self._left -= 1
        self._above.add(id(error))
        found: dict[str, Any] = {
            "type": str(_qualname_of(kind)),
            "module": _text(_module_of, kind),
            "message": _message(error),
            "notes": _notes(error),
            "frames": self._frames(traceback or _traceback_of(error)),
            **self._origin(error, depth),
        }
        if issubclass(kind, BaseExceptionGroup):
            found["exceptions"] = self._members(_members_of(error), depth)
        self._above.discard(id(error))
        return {name: value for name, value in found.items() if value or name == "message"}

    def _origin(self, error: BaseException, depth: int) -> dict[str, Any]:
        """Return why *error* came up: its cause, else what was being handled, if that is not suppressed."""
        cause, context = _cause_of(error), _context_of(error)
        if cause is not None:
            return {"cause": self._other(cause, depth)}
        if context is not None and not _is_suppressed(error):
            return {"context": self._other(context, depth)}
        return {}

    def _members(self, members: tuple[BaseException, ...], depth: int) -> list[Any]:
        shown: list[Any] = []
        for member in members:
            if self._left <= 0:
                shown.append(f"...[cut: {len(members)} items]")
                break
            shown.append(self._other(member, depth))
        return shown

    def _other(self, error: BaseException, depth: int) -> Any:
        if id(error) in self._above:
            return "...[cut: cycle]"
        if depth >= MAX_DEPTH or self._left <= 0:
            return f"...[cut: {self._chain_length(error)} items]"
        return self.exception(error, None, depth + 1)

    def _frames(self, traceback: TracebackType | None) -> list[Any]:
        links: list[TracebackType] = []
        while traceback is not None and len(links) < MAX_WALK:
            links.append(traceback)
            traceback = traceback.tb_next
        if len(links) <= MAX_FRAMES:
            return [self._frame(link) for link in links]
        half = MAX_FRAMES // 2
        outer = [self._frame(link) for link in links[:half]]
        return [*outer, f"...[cut: {len(links)} items]", *(self._frame(link) for link in links[-half:])]

    def _frame(self, link: TracebackType) -> dict[str, Any]:
        code = link.tb_frame.f_code
        frame: dict[str, Any] = {"file": code.co_filename, "line": link.tb_lineno, "function": code.co_name}
        if self._with_locals:
            frame["locals"] = self._locals(link)
        return frame

    def _locals(self, link: TracebackType) -> dict[str, Any]:
        """Return the local variables of a frame in plain form, without secrets and with little of what is large."""
        try:
            items = list(itertools.islice(link.tb_frame.f_locals.items(), MAX_LOCALS))
        except Exception:
            return {}
        plain = Plain(4 * MAX_LOCALS, min(MAX_FRAME_TEXT, self._room))
        shown = plain.guarded(dict(items))
        self._room -= MAX_FRAME_TEXT - max(0, plain.room)
        return shown if isinstance(shown, dict) else {}

    def _chain_length(self, error: BaseException | None) -> int:
        """Return how many exceptions hang together from *error* on, as far as they are counted."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen and self._walk > 0:
            self._walk -= 1
            seen.add(id(error))
            error = _cause_of(error) or (None if _is_suppressed(error) else _context_of(error))
        return max(1, len(seen))


def _text(read: Any, kind: type) -> str:
    try:
        return str(read(kind))
    except Exception:
        return ""


def _message(error: BaseException) -> str:
    try:
        text = _text_of_args(error) or str(error)
        return _cut(text if type(text) is str else str.__str__(text))
    except Exception as problem:
        return f"<{_qualname_of(type(error))}: str raised {_qualname_of(type(problem))}>"


def _text_of_args(error: BaseException) -> str:
    """
    Return the text of an exception whose class has the built-in `str()` and whose arguments include others than scalars.

    That `str()` is their `repr()`, which has no bound. Empty where `str()` may be asked.
    """
    if type(error).__str__ not in _BUILT_IN:
        return ""
    args = ARGS_OF(error)
    if all(is_scalar(arg) for arg in args):
        return ""
    plain = Plain(MAX_ITEMS, MAX_MESSAGE)
    shown = [safe_text(arg) if is_scalar(arg) else safe_text(plain.guarded(arg)) for arg in args[:MAX_LOCALS]]
    return shown[0] if len(args) == 1 else f"({', '.join(shown)})"


def _cut(text: str) -> str:
    """Return a message or note, cut where it is very long; it is masked first, for the cut may take half of a secret."""
    if len(text) <= MAX_MESSAGE:
        return text
    return f"{redaction.current.text(text[:MAX_MESSAGE], cut=True)}...[cut: {size_in_bytes(text)} bytes]"


def _notes(error: BaseException) -> list[str]:
    try:
        given: Any = error.__notes__
    except Exception:  # there are none, or they cannot be had
        return []
    if type(given) is not list and type(given) is not tuple:
        return [safe_text(given)]
    shown = [_cut(note) if type(note) is str else safe_text(note) for note in given[:MAX_NOTES]]
    return shown if len(given) <= MAX_NOTES else [*shown, f"...[cut: {len(given)} items]"]
