"""
Makes settings.md from the settings class: ``python docs/settings_page.py > docs/settings.md``.

tests/test_docs.py fails when the committed page is not what this prints.
"""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args, get_origin

from fapilog.settings import PREFIX, FapilogSettings

INTRODUCTION = """\
# Settings

Every setting, from the class `fapilog.FapilogSettings`. This page is made by `docs/settings_page.py`; a test compares it with
the class.

A setting `x` comes from the environment variable `FAPILOG_X`, in any case of letters, or from `configure_logging(x=...)`, which
wins. All are read once, when logging is set up, and under a server before any worker is forked. What is wrong is one
`fapilog.ConfigurationError` that names every wrong variable, its value, and what would be right. An unknown `FAPILOG_*` name is
a warning on stderr with the nearest known one.

```python
import fapilog

try:
    fapilog.configure_logging(level="LOUD", queue_size=0)
except fapilog.ConfigurationError as error:
    print(error)
```

<!-- test: output -->
```text
fapilog cannot be set up:
  level='LOUD' (override): ...
  queue_size=0 (override): ...
```

Sizes are in bytes and may be written `64KiB`, `16MiB`, `1GiB`. Durations are in seconds. Switches are `true`/`false`, `1`/`0`,
`yes`/`no` or `on`/`off`. Lists are separated by commas.

Each call of `configure_logging()` with arguments describes the whole set-up: what it does not name comes from the environment
or the default again, not from the call before. The same set-up twice changes nothing, and a call without arguments, or with
`app=` alone, keeps what an earlier one asked for. A logger that is used before any of them configures from the environment; if
that is wrong, it says so on stderr and goes on with the defaults.
"""

GROUPS = {
    "General": "",
    "Queue": "queue_",
    "File": "file_",
    "Loki": "loki_",
    "OTLP": "otlp_",
    "Journal": "journal",
}
MORE = {
    "General": "See also [redaction](redaction.md), [sampling](sampling.md), [exceptions](exceptions.md), "
    "[the console form](console.md), [the standard library](stdlib.md) and [the run directory](operations.md#the-run-directory).",
    "Queue": "See also [the queue](queue.md).",
    "File": "See also [files](files.md).",
    "Loki": "See also [Loki](loki.md).",
    "OTLP": "See also [OTLP](otlp.md), where OpenTelemetry's own variables are.",
    "Journal": "See also [the journal](journal.md).",
}
NAMES = {bool: "switch", int: "whole number", float: "number", str: "text", tuple: "list", dict: "list of `key=value`"}


def group_of(field: str) -> str:
    """Return the title of the group that *field* stands in."""
    return next((title for title, prefix in GROUPS.items() if prefix and field.startswith(prefix)), "General")


def kind_of(annotation: Any) -> str:
    """Return the type of a setting, for people."""
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if type(None) in get_args(annotation):
        return "text"
    return NAMES[origin or annotation]


def default_of(value: Any) -> str:
    """Return a default as it would be written in the environment, or *empty*."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value is None or (not value and not isinstance(value, int | float)):
        return "empty"
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"


def page() -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for title in GROUPS:
        parts.append(f"\n## {title}\n\n{MORE[title]}\n\n| variable | default | type | what it is |\n|---|---|---|---|\n")
        for name, field in FapilogSettings.model_fields.items():
            if group_of(name) == title:
                told = (field.description or "").replace("|", "\\|")
                parts.append(
                    f"| `{PREFIX}{name.upper()}` | {default_of(field.default)} | {kind_of(field.annotation)} | {told} |\n"
                )
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
