"""
The command line: ``fapilog tail | stats | top | level | metrics | recover | verify | doctor``, also as ``python -m fapilog``.

Invariants:

1. Every error that the user can do something about is one line on stderr and exit code 2.
2. Nothing here starts a hub, takes a worker slot or writes to the board, but for what `fapilog level` is asked for, and for
   `fapilog recover`, which is a process of the service for a moment.
3. When nobody reads on (`| head`) it ends without a word; with exit code 1, as click does, where no command has one of its own.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

CLOSED_PIPE = 1
NEEDED = frozenset(("typer", "rich", "click", "shellingham"))


def main() -> None:
    """Run the command of ``sys.argv``; ends the process."""
    try:
        from fapilog.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDED:
            raise
        raise SystemExit(failed("the command line needs another package: pip install typer")) from None
    import typer

    from fapilog.errors import FapilogError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that cannot show a sign is no reason to show nothing
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        raise SystemExit(code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered must not fail at exit
        raise SystemExit(CLOSED_PIPE) from None
    except (FapilogError, OSError) as error:
        raise SystemExit(failed(str(error))) from None
    except typer.Abort:
        raise SystemExit(130) from None
    except Exception as error:
        # What says that a command line is wrong: click's, which newer versions of typer have a copy of.
        if not any(kind.__name__ == "ClickException" for kind in type(error).__mro__):
            raise
        message: str = error.format_message()  # type: ignore[attr-defined]
        raise SystemExit(failed(f"{message.rstrip('.')} (see `fapilog --help`)")) from None


def failed(message: str) -> int:
    """Say what is wrong; return the exit code."""
    print(f"fapilog: {message}", file=sys.stderr)
    return 2
