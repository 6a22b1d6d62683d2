"""
The fenced blocks of the documentation, read from Markdown.

What a test has to know of a block stands in HTML comments directly above its fence, which readers do not see:

``<!-- test: file NAME -->``    it is a file of that name; so is a block whose first line is a comment with a path, ``# app.py``
``<!-- test: run -->``          beside `file`: it is run, too
``<!-- test: after -->``        it goes on where the python block before it in its section ends
``<!-- test: given`` CODE ``-->``    lines that a python block needs and a reader does not
``<!-- test: serve PATH... [logs EVENT...] -->``    its last command is a server, which answers 200 and logs these events
``<!-- test: exit N -->``       the exit code that is expected, if it is not 0
``<!-- test: output [of NAME] [with A=B...] [like] -->``    what the block before it, or the file, prints; *like*: but for numbers
``<!-- test: with A=B... -->``  more environment
``<!-- test: beside NAME -->``  for its whole section: `tests/docs/NAME.py` runs beside its blocks
``<!-- test: needs NAME -->``   for its whole section: a package without which it is skipped
``<!-- test: skip REASON -->``  it is not run; the reason says why not
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

WORDS = frozenset({"file", "run", "after", "given", "serve", "exit", "output", "with", "beside", "needs", "skip"})
SHELL = frozenset({"console", "bash"})
DATA = frozenset({"json", "yaml", "toml", "ini"})
PROSE = frozenset({"", "text", "logql", "promql", "docker"})
LANGUAGES = SHELL | DATA | PROSE | {"python"}

_MARK = re.compile(r"<!-- test: (\w+)\s?(.*?)\s*-->", re.DOTALL)
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})([\w{}+-]*)[^\n]*\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)
_NAMED = re.compile(r"# ([\w./-]+\.\w+)\n")


@dataclass
class Block:
    """
    A fenced block.

    Args:
        page: Path of the page from the root of the repository.
        line: Number of the line of its fence.
        section: The heading above it, of the second or third level.
        language: After the fence.
        text: What is in it, without the indentation of the fence.
        marks: By word.
    """

    page: str
    line: int
    section: str
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The name of the file that it is, or nothing."""
        named = _NAMED.match(self.text)
        return self.marks.get("file", "") or (named[1] if named else "")


def blocks_of(page: Path, root: Path = ROOT) -> list[Block]:
    """Return the blocks of a page below *root*, from the top."""
    text = page.read_text()
    headings = [(found.start(), found[1]) for found in re.finditer(r"^#{2,3} (.*)$", _without_blocks(text), re.MULTILINE)]
    found = []
    for fence in _FENCE.finditer(text):
        section = next((title for start, title in reversed(headings) if start < fence.start()), "")
        indent = fence[1]
        body = "".join(line.removeprefix(indent) for line in fence[4].splitlines(keepends=True))
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(str(page.relative_to(root)), line, section, fence[3], body, _marks_above(text[: fence.start()])))
    return found


def _without_blocks(text: str) -> str:
    """Blank the blocks out, so that a comment in one is no heading; nothing else moves."""
    return _FENCE.sub(lambda fence: re.sub(r"[^\n]", " ", fence[0]), text)


def _marks_above(text: str) -> dict[str, str]:
    marks: dict[str, str] = {}
    while (end := text.rstrip()).endswith("-->") and "\n\n" not in text[len(end) :]:
        start = end.rindex("<!--")
        mark = _MARK.fullmatch(end[start:])
        if mark is None:
            break
        marks[mark[1]] = mark[2]
        text = end[:start]
    return marks


def pages() -> list[Path]:
    """Return all pages whose blocks are held to be true."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a console block, each with the lines that stand under it."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        elif found:
            found[-1][1].append(line)
        else:
            raise AssertionError(f"a console block begins with a command: {line!r}")
    return found
