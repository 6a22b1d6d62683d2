"""
Sphinx configuration: `make docs`, or `sphinx-build -W --keep-going -n -c docs . build/docs`.

The source directory is the root of the repository, so that a link between two Markdown files is the same for Sphinx and for a
reader on a code host. The navigation is made of the list of links in index.md, for the same reason.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent

project = "fapilog"
author = "fapilog developers"
project_copyright = "fapilog developers"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "docs/*.md", "examples/*/README.md", "benchmarks/README.md"]
exclude_patterns = [".*", "build", "dist"]

myst_heading_anchors = 4  # the same names as on code hosts

html_theme = "furo"
html_title = f"fapilog {version}"
html_extra_path = ["_root"]  # index.html: on to docs/index.html


def without_marks(_app: Sphinx, _docname: str, source: list[str]) -> None:
    """Leave out what only tests read (`tests/docs/snippets.py`); the numbers of lines stay."""
    source[0] = re.sub(r"<!-- test:.*?-->", lambda mark: "\n" * mark[0].count("\n"), source[0], flags=re.DOTALL)


def with_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add a table of contents for each list of links in the index."""
    if docname != root_doc:
        return
    text = source[0]
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        pages = re.findall(r"^- \[[^]]*\]\(([^)#]+)\.md\)", body, re.MULTILINE)
        text += "\n".join(["", "", "```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```", ""])
    source[0] = text


def setup(app: Sphinx) -> None:
    """Connect."""
    app.connect("source-read", with_navigation)
    app.connect("source-read", without_marks)
