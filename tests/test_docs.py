"""The documentation: every fenced block of README.md and docs/*.md does what it says, and the generated pages are up to date."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import pytest

from fapilog.settings import FapilogSettings
from tests.docs.bench import Bench, difference
from tests.docs.snippets import DATA, LANGUAGES, PROSE, ROOT, SHELL, WORDS, Block, blocks_of, commands, pages

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

pytestmark = pytest.mark.skipif(not (ROOT / "docs" / "index.md").is_file(), reason="the pages are not beside these tests")

#: Pages whose blocks other tests run, or make.
ELSEWHERE = {
    "docs/testing.md": "tests/test_testing.py::test_the_documentation",
    "docs/top.md": "tests/test_cli_top.py",
}
ALL = {str(page.relative_to(ROOT)): blocks_of(page) for page in pages()} if (ROOT / "docs").is_dir() else {}
HERE = {page: blocks for page, blocks in ALL.items() if page not in ELSEWHERE}


def is_run(block: Block) -> bool:
    return block.language in SHELL | DATA | {"python"} or "output" in block.marks


def is_test(block: Block) -> bool:
    return block.file.rpartition("/")[2].startswith(("test_", "conftest"))


SECTIONS = [
    (page, section)
    for page, blocks in HERE.items()
    for section, group in groupby(blocks, lambda block: block.section)
    if any(map(is_run, group))
]


@pytest.mark.parametrize("page", HERE)
def test_the_blocks_of_a_page(page: str) -> None:
    """Each says what it is, in a language that is known here; what is run is no plain text; marks are those that there are."""
    for block in HERE[page]:
        assert block.language in LANGUAGES, f"{block.place}: {block.language!r} is none of {sorted(LANGUAGES)}"
        assert set(block.marks) <= WORDS, f"{block.place}: {set(block.marks) - WORDS}"
        assert block.marks.get("skip", "why") != "", f"{block.place}: skip says no reason"
        if block.language in PROSE and "skip" not in block.marks:
            assert not re.search(r"^\$ ", block.text, re.MULTILINE), f"{block.place}: a block with commands is `console`"
        if block.language == "console":
            assert commands(block.text), block.place


@pytest.mark.parametrize("page", HERE)
def test_the_files_of_a_page(page: str) -> None:
    """What a block is saved as is run, tested, or used by another block of the page."""
    for block in HERE[page]:
        if block.file and block.language == "python" and not {"run", "skip"} & set(block.marks):
            name = block.file.rpartition("/")[2]
            others = "\n".join(other.text + " ".join(other.marks.values()) for other in HERE[page] if other is not block)
            used = is_test(block) or re.search(rf"\b{re.escape(name.partition('.')[0])}\b", others)
            assert used, f"{block.place}: nothing uses {block.file}"


@pytest.mark.matrix
@pytest.mark.parametrize(("page", "section"), SECTIONS, ids=[f"{page}: {section}" for page, section in SECTIONS])
def test_the_snippets(page: str, section: str, tmp_path: Path) -> None:
    """The blocks of a section, one after the other, in a directory with the files of README.md and of the blocks above."""
    own = [block for block in HERE[page] if block.section == section]
    for name in (block.marks["needs"] for block in own if "needs" in block.marks):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed here")
    with Bench(tmp_path) as bench:
        above = [*HERE["README.md"], *(block for block in HERE[page] if block.line < own[0].line)]
        for block in above:
            if block.file and not is_test(block):
                bench.save(block)
        for name in {block.marks["beside"] for block in own if "beside" in block.marks}:
            bench.beside(name)
        for block in own:
            with placed(block):
                bench.do(block)
        if tests := [block.file for block in own if is_test(block) and "conftest" not in block.file]:
            with placed(own[-1]):
                bench.run_tests(tests)


def test_what_differs() -> None:
    """Other output, a line too many or too few, another value, another key: each is seen; times and process ids are not."""
    line = '{"timestamp":"2026-01-15T10:30:00.123456Z","event":"a","n":1,"pid":4242}'
    other = '{"timestamp":"2027-01-15T10:30:00.123456Z","event":"a","n":1,"pid":7,"seq":3}'
    assert not difference(line, other, lines=True)
    assert difference(line, other.replace('"n":1', '"n":2'), lines=True)
    assert difference(line, other.replace('"n":1', '"m":1'), lines=True)
    assert not difference("10:30:00.123 info a", "11:00:12.001 info a\n")
    assert difference("10:30:00.123 info a", "11:00:12.001 info b\n")
    assert difference("a", "a\nb")
    assert difference("a\nb", "a")
    assert not difference("a\n...\nd", "a\nb\nc\nd")
    assert not difference("worker  1  7,001 of 9 KiB", "worker 2 1 of 1.5 MiB", like=True)
    assert difference("worker  1  7,001 of 9 KiB", "worker 2 1 in 1.5 MiB", like=True)
    assert not difference('{"a": {"b": [{"c": 1}]}}', '{"a": {"b": [{"d": 1}, {"c": 2}]}}', like=True)
    assert difference('{"a": {"b": [{"c": 1}]}}', '{"a": {"b": [{"d": 1}]}}', like=True)


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("```python\nx = 1\n```\n", {}),
        ("<!-- test: skip why -->\n```python\nx = 1\n```\n", {"skip": "why"}),
        (
            "<!-- test: given\na = 1\nb = 2\n-->\n<!-- test: exit 2 -->\n```python\nx\n```\n",
            {"given": "a = 1\nb = 2", "exit": "2"},
        ),
        ("<!-- test: run -->\n\n```python\nx = 1\n```\n", {}),
        ("- item\n\n  <!-- test: after -->\n  ```python\n  x = 1\n  ```\n", {"after": ""}),
        ("<!-- a comment -->\n```python\nx = 1\n```\n", {}),
    ],
)
def test_the_marks_of_a_block(tmp_path: Path, text: str, marks: dict[str, str]) -> None:
    """They stand directly above its fence."""
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n## Section\n\ntext\n\n{text}")
    (block,) = blocks_of(page, tmp_path)
    assert block.marks == marks
    assert (block.section, block.language, block.text[:1]) == ("Section", "python", "x")
    assert page.read_text().splitlines()[block.line - 1].strip() == "```python"


def test_what_a_bench_does(tmp_path: Path) -> None:
    """A block goes on where the one before it ended if it says so; a failure, a wrong exit code and other output are errors."""

    def block(text: str, language: str = "python", **marks: str) -> Block:
        return Block("page.md", 1, "", language, text, marks)

    with Bench(tmp_path) as bench:
        bench.do(block("x = 1\n"))
        bench.do(block("print(x + 2)\n", after=""))
        bench.do(block("3\n", "text", output=""))
        with pytest.raises(AssertionError, match="wanted"):
            bench.do(block("4\n", "text", output=""))
        with pytest.raises(AssertionError, match="NameError"):
            bench.do(block("print(x)\n"))
        bench.do(block("raise SystemExit(3)\n", exit="3"))
        with pytest.raises(AssertionError, match="exit code 0"):
            bench.do(block("pass\n", exit="3"))
        bench.do(block("$ echo a\na\n$ false || echo b\nb\n", "console"))
        with pytest.raises(AssertionError, match="exit code 1"):
            bench.do(block("$ false\n$ echo a\n", "console"))
        with pytest.raises(AssertionError, match="FAPILOG_LEVEL='LOUD'"):
            bench.do(block("$ export FAPILOG_LEVEL=LOUD\n", "console"))


# Pages that are made, and tables.


def settings_page() -> ModuleType:
    """Return the module that makes settings.md; `docs` is no package."""
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "docs" / "settings_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings() -> None:
    """It is what the settings class says: `python docs/settings_page.py > docs/settings.md` renews it."""
    assert (ROOT / "docs" / "settings.md").read_text() == settings_page().page()


def tables_of_settings() -> dict[str, dict[str, str]]:
    """Return the defaults in the tables of the pages that explain settings in other words, by page and field."""
    found = {}
    for name in ("README.md", "docs/files.md", "docs/loki.md", "docs/otlp.md"):
        rows = re.findall(r"^\| `FAPILOG_(\w+)`(?:, `_(\w+)`)? \| (.*?) ?\|", (ROOT / name).read_text(), re.MULTILINE)
        found[name] = {field.lower(): default for field, _, default in rows}
        found[name] |= {f"{field.rpartition('_')[0]}_{more}".lower(): default for field, more, default in rows if more}
    return found


def same_default(told: str, default: str) -> bool:
    """Whether *told*, in a table for people, means *default*."""
    told = re.sub(r"^`(.*?)`.*", r"\1", told).removesuffix(" s")
    if size := re.fullmatch(r"(\d+) MiB", told):
        told = str(int(size[1]) << 20)
    bare = default.strip("`")
    if bare == "empty":
        return told in {"", "empty", "chosen"}
    return told == bare or (told.replace(".", "").isdigit() and float(told) == float(bare))


def test_the_tables_of_settings() -> None:
    """README and three pages name no setting that is not there, each with its default; the pages all of their own."""
    defaults = {name: settings_page().default_of(field.default) for name, field in FapilogSettings.model_fields.items()}
    named: set[str] = set()
    for page, rows in tables_of_settings().items():
        for field, default in rows.items():
            named.add(field)
            assert field in defaults, f"{page}: {field} is no setting"
            assert same_default(default, defaults[field]), f"{page}: {field} is {defaults[field]}, not {default}"
    assert named >= {name for name in defaults if name.startswith(("queue_", "file_", "loki_", "otlp_"))}


def test_the_reference_of_metrics() -> None:
    """metrics.md names every metric with its type and labels, and none that is not there."""
    pytest.importorskip("prometheus_client")
    from fapilog._internal.families import described

    families = {
        (f"{family.name}_total" if family.type == "counter" else family.name): (family.type, set(cast("Any", family)._labelnames))
        for family in described()
    }
    rows = re.findall(r"^\| `(fapilog_\w+)` \| (\w+) \| (.*?) ?\|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert {name: (kind, labels_in(cell)) for name, kind, cell in rows} == families


def labels_in(cell: str) -> set[str]:
    return set() if cell.startswith("no ") else {"worker", *re.findall(r"`(\w+)`", cell)}


def test_the_index() -> None:
    """Every page is in it once, and nothing else."""
    named = re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "index.md").read_text())
    there = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert len(named) == len(set(named))
    assert set(named) == there


@contextlib.contextmanager
def placed(block: Block):
    """Let whatever fails say where it stands."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the block at {block.place}")
        raise
