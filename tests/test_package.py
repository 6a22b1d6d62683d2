"""The package: what importing it costs, what it offers, how its modules stand on each other, and what it must not say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import fapilog
from tests._support import ran_well, run_script

PACKAGE = Path(fapilog.__file__).parent
ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

#: From the bottom up; a module imports only modules of lines above its own. `fapilog` itself and empty packages stand outside.
LAYERS = """
fapilog.errors fapilog.identity fapilog.results
fapilog._internal.credentials fapilog._internal.accounting fapilog._internal.forms
fapilog._internal.members fapilog._internal.mappings fapilog._internal.terms fapilog._internal.schedule
fapilog._internal.sink_calls fapilog._internal.waker fapilog._internal.seqs
fapilog._internal.backlog fapilog._internal.backoff fapilog._internal.replay fapilog._internal.patterns fapilog._internal.audit
fapilog.redaction fapilog._internal.findings
fapilog._internal.notes fapilog._internal.plain
fapilog._internal.flat
fapilog._internal.frames
fapilog._internal.native fapilog._internal.exceptions fapilog._internal.kin
fapilog._internal.owner
fapilog.typing fapilog.encoding fapilog._internal.parsing fapilog._internal.lifecycle
fapilog._internal.arbiter fapilog._internal.settling fapilog._internal.chain fapilog._internal.sampling fapilog._internal.gates
fapilog._internal.standard fapilog._internal.tracing fapilog._internal.dirty
fapilog._internal.route fapilog._internal.formatting
fapilog._internal.claim fapilog._internal.executor fapilog._internal.rundir fapilog._internal.filelock
fapilog._internal.compressor
fapilog._internal.sealed fapilog._internal.records
fapilog._internal.board fapilog._internal.journal fapilog._internal.aside
fapilog._internal.remains fapilog._internal.scan fapilog._internal.controls fapilog._internal.overview fapilog._internal.deaths
fapilog._internal.logfiles
fapilog._internal.families
fapilog.settings fapilog.pipeline
fapilog._internal.forking fapilog._internal.lines fapilog._internal.ledger
fapilog._internal.overflow fapilog._internal.pace
fapilog._internal.line_queue
fapilog._internal.notices fapilog._internal.snapshot fapilog._internal.protection
fapilog._internal.publishing
fapilog._internal.sink_life
fapilog._internal.event_queue fapilog._internal.delivery fapilog._internal.threaded fapilog._internal.direct fapilog.logger
fapilog.sinks.base fapilog.sinks.terminal fapilog.sinks.sources
fapilog.sinks.turns fapilog.sinks.family fapilog.sinks.written fapilog.sinks.origins fapilog.sinks.answers fapilog.sinks.endpoint
fapilog.sinks.tracebacks fapilog.sinks.rotation fapilog.sinks.flow
fapilog.sinks.push fapilog.sinks.loki_answers fapilog.sinks.pushing fapilog.sinks.otlp_request fapilog.sinks.otlp_answers
fapilog.sinks.console fapilog.sinks.home
fapilog.sinks.late fapilog.sinks.put_back
fapilog.sinks.file fapilog.sinks.stream fapilog.sinks.loki fapilog.sinks.otlp
fapilog.sinks
fapilog._internal.worker fapilog._internal.built_in
fapilog._internal.recovery fapilog._internal.insurance
fapilog._internal.queue fapilog._internal.hub
fapilog._internal.state fapilog._internal.access fapilog.stdlib
fapilog._internal.access_records
fapilog._internal.starting fapilog._internal.levels
fapilog._internal.capture
fapilog.coordinator
fapilog._internal.exchange
fapilog.asgi fapilog.wsgi fapilog._internal.captured fapilog._internal.isolation
fapilog._internal.applications
fapilog.bootstrap
fapilog.metrics
fapilog._internal.exposition
fapilog.cli.shown
fapilog.cli.probe.sight fapilog.cli.probe.importing fapilog.cli.probe.quiet
fapilog.cli.probe.hub fapilog.cli.probe.watching
fapilog.cli.probe.program fapilog.cli.probe.server fapilog.cli.probe.child
fapilog.cli.probe.main
fapilog.cli.checks.finding fapilog.cli.checks.filesystems fapilog.cli.checks.case
fapilog.cli.checks.clock fapilog.cli.checks.distribution fapilog.cli.checks.places fapilog.cli.checks.program
fapilog.cli.checks.servers fapilog.cli.checks.sharing fapilog.cli.checks.values fapilog.cli.checks.pushing
fapilog.cli.checks.loki fapilog.cli.checks.otlp
fapilog.cli.doctor
fapilog.cli.choice fapilog.cli.stats fapilog.cli.level fapilog.cli.screen fapilog.cli.recover fapilog.cli.verify
fapilog.cli.picking
fapilog.cli.top fapilog.cli.merging fapilog.cli.forms
fapilog.cli.following
fapilog.cli.tail
fapilog.cli.app
fapilog.cli
fapilog.__main__
fapilog.testing
fapilog.servers.setup
fapilog.servers.gunicorn fapilog.servers.uvicorn fapilog.servers.hypercorn fapilog.servers.granian fapilog.servers.celery
fapilog.servers.gunicorn_logger
fapilog.gunicorn_conf
"""
RANK = {name: rank for rank, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()}
OUTSIDE = {"fapilog", "fapilog._internal", "fapilog.servers", "fapilog.cli.checks", "fapilog.cli.probe"}

#: On top of what `import structlog` loads.
NOT_LOADED = [
    "httpx",
    "opentelemetry",
    "google",
    "fastapi",
    "starlette",
    "prometheus_client",
    "typer",
    "gunicorn",
    "uvicorn",
    "celery",
    "rich",
]


def test_what_an_import_loads(tmp_path) -> None:
    """No optional or heavy package, and no rich beyond what structlog itself loads."""
    printed = ran_well(
        run_script(
            """
            import sys
            import structlog
            before = set(sys.modules)
            import fapilog
            print(*sorted(set(sys.modules) - before))
            """,
            tmp_path,
        )
    )
    loaded = {name.partition(".")[0] for name in printed.split()}
    assert loaded.isdisjoint(NOT_LOADED)
    assert "fapilog" in loaded


def test_what_an_import_starts(tmp_path) -> None:
    """No thread, no file, no handler of a signal, no output."""
    result = run_script(
        """
        import os, signal, threading
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        import fapilog
        fapilog.get_logger()
        assert threading.active_count() == 1
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert (len(os.listdir("/proc/self/fd")) if before else 0) == before
        assert os.listdir(".") == []
        """,
        tmp_path,
    )
    assert (ran_well(result), result.stderr) == ("", "")


def test_the_public_names() -> None:
    """They are exactly these, sorted, and each exists."""
    assert fapilog.__all__ == [
        "ConfigurationError",
        "Event",
        "EventQueue",
        "FapilogError",
        "FapilogLogger",
        "FapilogSettings",
        "FlushResult",
        "HubStatistics",
        "Identity",
        "LoggingHub",
        "QueueWorker",
        "ServiceStatistics",
        "Sink",
        "SinkError",
        "SinkRejected",
        "SinkResult",
        "SinkStatistics",
        "SinkTotals",
        "SinkUnavailable",
        "WorkerStatistics",
        "aflush",
        "bind_contextvars",
        "bound_contextvars",
        "clear_contextvars",
        "configure_logging",
        "flush",
        "get_contextvars",
        "get_logger",
        "queue_sink",
        "reset_contextvars",
        "service_statistics",
        "set_level",
        "shutdown_logging",
        "statistics",
        "unbind_contextvars",
    ]
    assert fapilog.__all__ == sorted(fapilog.__all__)
    assert all(hasattr(fapilog, name) for name in fapilog.__all__)


def test_a_star_import_and_an_unknown_name() -> None:
    """The first works, the second is an AttributeError."""
    names: dict[str, object] = {}
    exec("from fapilog import *", names)
    assert names["get_logger"] is fapilog.get_logger
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        fapilog.nothing_of_ours  # noqa: B018


def test_the_version() -> None:
    """It is that of the installed metadata."""
    from importlib.metadata import version

    assert fapilog.__version__ == version("fapilog")


def test_py_typed() -> None:
    """Type checkers are told that the package is typed."""
    assert (PACKAGE / "py.typed").is_file()


def run_time_imports(tree: ast.AST) -> list[tuple[str, str | None]]:
    """Return (module, name) of each import that is not for type checkers only."""
    found: list[tuple[str, str | None]] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found += [each for part in node.orelse for each in run_time_imports(ast.Module([part], []))]
        elif isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [(str(node.module), alias.name) for alias in node.names]
        else:
            found += run_time_imports(node)
    return found


def test_every_module_has_its_layer() -> None:
    """The table above names all modules and no others."""
    assert set(MODULES) - OUTSIDE == set(RANK)


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"fapilog"}))
def test_the_direction_of_imports(name: str) -> None:
    """A module imports, also inside of functions, only modules of layers below its own."""
    upwards = []
    for module, member in run_time_imports(ast.parse(MODULES[name].read_text())):
        target = f"{module}.{member}" if f"{module}.{member}" in MODULES else module
        if target.partition(".")[0] == "fapilog" and not RANK.get(target, 99) < RANK.get(name, -1):
            upwards.append(target)
    assert upwards == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_length_of_modules_and_functions(name: str) -> None:
    """No module has over 350 lines, no function over 40."""
    text = MODULES[name].read_text()
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno and node.end_lineno - node.lineno + 1 > 40
    ]
    assert long == []
    assert len(text.splitlines()) <= 350


def texts() -> list[Path]:
    """Return the package's files and, in a checkout, everything that people read."""
    found = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyi", ".md")]
    if (ROOT / "pyproject.toml").is_file():
        found += [*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]
        for folder in ("docs", "examples", "benchmarks"):
            found += [
                path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix in (".md", ".py", ".txt", ".rst")
            ]
    return [path for path in found if path.is_file()]


def test_what_nothing_says() -> None:
    """The name on the public index belongs to another project: no text tells anybody to install it from there."""
    wrong = re.compile(r"(pip3?|uv|pipx|poetry|pdm)\s+(install|add|pip\s+install)\s+[^\n]*?(?<![\w./-])['\"]?fapilog(?![\w/.-])")
    assert [str(path) for path in texts() if wrong.search(path.read_text(errors="replace"))] == []
    assert wrong.search("pip install 'fapilog[all]'")
    assert wrong.search("pip install -U fapilog")
    assert not wrong.search("pip install ./dist/fapilog-0.1.0-py3-none-any.whl")
