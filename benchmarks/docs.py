"""Puts the results of a run into the documentation: ``python -m benchmarks.docs [results.json]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.bench import RESULTS
from benchmarks.plots import draw
from benchmarks.report import as_markdown, overview

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- bench: begin, made by python -m benchmarks.docs -->", "<!-- bench: end -->"


def replaced(text: str, inner: str) -> str:
    """
    Return *text* with *inner* between its marks.

    Raises:
        ValueError: The marks are not there.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} with an {END} behind it")
    return f"{head}{BEGIN}\n\n{inner.strip()}\n\n{END}{tail}"


def main(argv: list[str]) -> int:
    """Write README.md, docs/performance.md and the plots."""
    found = json.loads(Path(argv[0] if argv else RESULTS / "results.json").read_text())
    for page, inner in (("README.md", overview(found)), ("docs/performance.md", as_markdown(found))):
        path = ROOT / page
        path.write_text(replaced(path.read_text(), inner))
    draw(found, ROOT / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
