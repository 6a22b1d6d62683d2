"""
Source lines for the tracebacks that people read; the lines of events do not carry them.

Invariants:

1. Only files that modules of this process were loaded from are read. What an event says is no path to open: it may come from
   anywhere and name a pipe, which would hold up its reader, or a file that is nobody's business.
2. What a source line shows of secrets is masked as in any text.
3. Nothing is raised, imported or run: the attributes of modules are read past what they define themselves.
"""

from __future__ import annotations

import linecache
import sys
import tokenize  # noqa: F401 - linecache imports it when it reads a file, which must find it loaded

from fapilog.redaction import redaction

_modules = 0


def source_line(file: str, line: int) -> str:
    """Return a line of the source of a loaded module, without its indent; empty where there is none. Any thread."""
    try:
        return redaction.current.text(linecache.getline(file, line).strip()) if _is_loaded(file) else ""
    except Exception:
        return ""


def _is_loaded(file: str) -> bool:
    global _files, _modules
    if file not in _files and len(sys.modules) != _modules:
        modules = list(sys.modules.values())
        _files, _modules = _files.union(map(_file_of, modules)), len(modules)
    return file in _files


def _file_of(module: object) -> str | None:
    try:
        found = object.__getattribute__(module, "__dict__").get("__file__")
    except AttributeError:
        return None
    return found if type(found) is str else None


#: Those met so far. That of the program itself is asked for now: it is taken from `__main__` when the program ends, which is when
#: the last events are written.
_files = frozenset((_file_of(sys.modules.get("__main__")),))
