"""
Where the blocks of one section run: a directory of its own, an environment without settings, a port.

What they print is compared with what the page says they do. Times, process ids, paths and the like differ from run to run and
are not compared (`VOLATILE`); with *like*, no number is, and a block may come true a little later.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.error
import urllib.request
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.docs.snippets import DATA, SHELL, Block, commands
from tests.loki.standin import StandIn
from tests.otlp.standin import Collector
from tests.programs.running import STRICT, Running, living, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

HERE = Path(__file__).parent
LIMIT_S = 60.0
SOON_S = 20.0
DOCUMENTED_PORT = "8000"
LOKI = "http://loki:3100"
COLLECTOR = "http://collector:4318"
NOT_OURS = ("FAPILOG_", "OTEL_", "GUNICORN_", "PYTEST_")

#: Fields of a line that no page can know, and what stands for them.
VOLATILE = frozenset(
    {"timestamp", "host", "pid", "boot", "file", "line", "duration_ms", "request_id", "client", "user_agent", "run_dir"}
)
_TEXT = [
    (r"\d\d:\d\d:\d\d\.\d{3}", "TIME"),
    (r'"(?:/[^/"\s]+)+/([\w.-]+\.py)", line \d+', r'"\1", line N'),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"fapilog\[\d+\]", "fapilog[PID]"),
    (r'"(timestamp|host|boot|request_id|user_agent)":"[^"]*"', r'"\1":"..."'),
    (r'"(pid|duration_ms)":[\d.]+', r'"\1":0'),
    (r"\b(?:\d+h)?\d+m\d+s", "DURATION"),
    (r"\b1\d{9}\.\d+", "EPOCH"),
]
_NUMBER = re.compile(r"\b[0-9a-f]{16}\b|\d[\d.,]*(?:\s(?:[KMG]i)?B|[kM%]|ms|[smhd](?=\d|\b))?")
_ASSIGNED = re.compile(r"(?:\w+=(?:'[^']*'|\"[^\"]*\"|\S)*\s+)*")


class Bench:
    """
    A directory with the files that the page has defined so far.

    Args:
        folder: The directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = ""
        self.printed = ""
        self.loki: StandIn | None = None
        self.collector: Collector | None = None
        self._open = contextlib.ExitStack()
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port = int(bound.getsockname()[1])
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
        path = os.pathsep.join([sysconfig.get_path("scripts"), kept.get("PATH", os.defpath)])
        self.env = kept | {
            "PATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(folder),
            "XDG_RUNTIME_DIR": str(folder),  # gunicorn's control socket
            "FAPILOG_RUN_DIR": str(folder / "run"),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def save(self, block: Block) -> None:
        """Make the file that *block* is."""
        path = self.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._here(block.text))

    def do(self, block: Block) -> None:
        """Do what *block* asks for."""
        if block.file:
            self.save(block)
        if block.language in DATA:
            parsed(block)
        if "skip" in block.marks:
            if block.language == "python":
                compile(block.text, block.place, "exec")
        elif "output" in block.marks and block.language not in SHELL:
            self._compare(block)
        elif block.language == "python" and (not block.file or "run" in block.marks):
            self._python(block)
        elif block.language in SHELL:
            self._console(block)

    def run_tests(self, names: Sequence[str]) -> None:
        """Run the files of tests among the blocks."""
        code, out, err = self._ended([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *names])
        assert code == 0, out + err

    def _python(self, block: Block) -> None:
        text = self._here(block.text)
        self.script = f"{self.script}\n{text}" if "after" in block.marks else f"{block.marks.get('given', '')}\n{text}"
        path = self.folder / (block.file or f"block_{block.line}.py")
        path.write_text(self.script)
        self._run_file(path.name, block)

    def _run_file(self, name: str, block: Block, **more: str) -> None:
        strict = () if "warnings.warn" in (self.folder / name).read_text() else STRICT
        code, self.printed, err = self._ended([sys.executable, *strict, name], **_assignments(block), **more)
        assert code == int(block.marks.get("exit", 0)), f"exit code {code}\n{err}\n{self.printed}"
        if not code:
            assert "Traceback" not in err, err
            assert "fapilog[" not in err, err

    def _console(self, block: Block) -> None:
        listed = commands(self._here(block.text)) if block.language == "console" else [(self._here(block.text), [])]
        lines = [command for command, _ in listed]
        wanted = "\n".join(line for _, under in listed for line in under)
        if "serve" in block.marks:
            self._serve(block, lines)
            assert not (wrong := difference(wanted, self.printed) if wanted else ""), wrong
            return
        if all(line.startswith("export ") for line in lines):
            lines.append(f"{sys.executable} -W error -c 'import fapilog; fapilog.configure_logging()'")
        if "given" in block.marks:
            code, out, err = self._ended(["bash", "-ec", block.marks["given"]])
            assert code == 0, out + err
        script = "\n".join(["set -e", *lines])
        like = "like" in block.marks.get("output", "").split()
        end = time.monotonic() + SOON_S
        while True:
            code, out, err = self._ended(["bash", "-c", script], **_assignments(block))
            self.printed = out + err
            wrong = "" if code == int(block.marks.get("exit", 0)) else f"exit code {code}"
            if not wrong and wanted:
                wrong = difference(wanted, self.printed, like=like)
            if not wrong or not like or time.monotonic() > end:
                break
            time.sleep(0.1)
        assert not wrong, f"{wrong}\n{self.printed}"

    def _compare(self, block: Block) -> None:
        words = block.marks["output"].split()
        if "of" in words:
            self._run_file(words[words.index("of") + 1], block)
        wrong = difference(block.text, self.printed, like="like" in words, lines=block.language == "json")
        assert not wrong, f"{wrong}\n---- printed:\n{self.printed}"

    def _serve(self, block: Block, lines: list[str]) -> None:
        """Start the server, visit it, end it by SIGTERM; what it logged is there, each life has its end, nothing is missing."""
        paths, _, events = block.marks["serve"].partition(" logs ")
        assigned = _ASSIGNED.match(lines[-1])
        assert assigned is not None
        last = f"{assigned[0]}exec {lines[-1][assigned.end() :]}"
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port, fd = bound.getsockname()[1], bound.fileno()
            env = {**self.env, "UVICORN_FD": str(fd), "GUNICORN_CMD_ARGS": f"--bind fd://{fd}", **_assignments(block)}
            command = ["-c", "import os, sys; os.execvp('bash', ['bash', '-c', sys.argv[1]])", "\n".join([*lines[:-1], last])]
            server = Running(command, self.folder, env, [fd])
        with server:
            for path in paths.split():
                wait_until(lambda path=path: self._answers(server, port, path), f"{path} answers")  # type: ignore[misc]
            server.signal(15)
            code = server.ended(20)
            server.nothing_left()
            assert code == int(block.marks.get("exit", 0)), f"exit code {code}\n{server.stderr}"
            self.printed = server.stdout
            self._check_events(events.split(), server)

    def _answers(self, server: Running, port: int, path: str) -> bool:
        assert server.process.poll() is None, f"it ended with {server.process.returncode}\n{server.stderr}\n{server.stdout}"
        said = re.search(r"http://127\.0\.0\.1:(\d+)", server.stdout)
        for each in {port, self.port, int(said[1]) if said else port}:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{each}{path}", timeout=20) as answer:
                assert answer.status == 200
                return True
        return False

    def _check_events(self, wanted: list[str], server: Running) -> None:
        files = sorted(self.folder.rglob("*.jsonl"))
        texts = [server.stdout, server.stderr, *(path.read_text() for path in files)]
        lines = [json.loads(line) for text in texts for line in text.splitlines() if line.startswith('{"timestamp"')]
        names = {line["event"] for line in lines}
        if self.loki is not None:
            names &= {json.loads(entry.line)["event"] for entry in self.loki.entries()}
        if self.collector is not None:
            names &= {found.record.body.string_value for found in self.collector.records()}
        assert set(wanted) <= names, f"{wanted} are not all in {sorted(names)}\n{server.stderr}"
        if wanted and files:
            code, out, err = self._ended(["fapilog", "verify", "--strict", *map(str, files)])
            assert code == 0, out + err

    def _ended(self, command: Sequence[str], **more: str) -> tuple[int, str, str]:
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.env, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=LIMIT_S)
            finally:
                for pid in living(process.pid):
                    os.kill(pid, signal.SIGKILL)
        return process.returncode, out, err

    def _here(self, text: str) -> str:
        if LOKI in text:
            if self.loki is None:
                self.loki = self._open.enter_context(StandIn())
            text = text.replace(LOKI, self.loki.url)
        if COLLECTOR in text:
            if self.collector is None:
                self.collector = self._open.enter_context(Collector())
            text = text.replace(COLLECTOR, self.collector.url)
        return re.sub(rf"\b{DOCUMENTED_PORT}\b", str(self.port), text).replace("--port 9464", "--port 0")

    def beside(self, name: str) -> None:
        """Let a program of this folder run from now on; it says `ready` when it is."""
        program = self._open.enter_context(Running([str(HERE / f"{name}.py")], self.folder, self.env))
        self._open.callback(program.ended)
        self._open.callback(program.signal, 15)
        program.said("ready")


def parsed(block: Block) -> object:
    """Return what the text of a block of data says; fail if it is none."""
    if block.language == "json":
        with contextlib.suppress(ValueError):
            return [json.loads(block.text)]
        return [json.loads(line) for line in block.text.splitlines() if line]
    if block.language == "toml":
        return tomllib.loads(block.text)
    if block.language == "yaml":
        return import_module("yaml").safe_load(block.text)
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(block.text)
    assert parser.sections()
    return parser


def difference(wanted: str, printed: str, *, like: bool = False, lines: bool = False) -> str:
    """Return what of *wanted* is not in *printed*; *lines*: both are lines of events, of which *wanted* may leave out fields."""
    if lines:
        there = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        return "\n".join(
            f"no line has {line}"
            for line in wanted.splitlines()
            if line and not any(holds(each, json.loads(line)) for each in there)
        )
    if like and wanted[:1] in {"{", "["}:
        return "" if alike(json.loads(printed), json.loads(wanted)) else "the keys of the document are others"
    if like:
        shapes = {shape(line) for line in printed.splitlines()}
        missing = [line for line in wanted.splitlines() if shape(line) not in shapes and shape(line) not in {"", "..."}]
        return "\n".join(f"no line is like {line!r}, that is {shape(line)!r}" for line in missing)
    pattern = re.escape(normal(wanted.strip("\n"))).replace(r"\.\.\.", "(?s:.*?)")
    return (
        "" if re.fullmatch(pattern, normal(printed.strip("\n"))) else f"wanted:\n{normal(wanted)}\n---- not:\n{normal(printed)}"
    )


def normal(text: str) -> str:
    """Return *text* without what differs from run to run."""
    for what, by in _TEXT:
        text = re.sub(what, by, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def shape(line: str) -> str:
    """Return a line without its numbers, rules and widths."""
    line = re.sub(rf"\b({re.escape(os.uname().nodename)}|vm)\b", "HOST", line.replace("─", " "))
    return " ".join(_NUMBER.sub("#", re.sub(r"/[\w/.-]*/(?=logs/)", "/srv/", line)).split())


def alike(there: Any, wanted: Any) -> bool:
    """Whether two documents have the same keys; every item of a wanted list is like one that is there."""
    if isinstance(wanted, dict) and isinstance(there, dict):
        return wanted.keys() == there.keys() and all(alike(there[name], value) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(there, list):
        return all(any(alike(each, value) for each in there) for value in wanted)
    return type(wanted) is type(there)


def holds(there: Any, wanted: Any) -> bool:
    """Whether *there* has all that *wanted* has, but for the values of volatile fields."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(
            name in there and (type(value) is type(there[name]) if name in VOLATILE else holds(there[name], value))
            for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(there, list) and len(there) == len(wanted) and all(map(holds, there, wanted))
    return bool(there == wanted)


def _assignments(block: Block) -> dict[str, str]:
    words = f"{block.marks.get('with', '')} {block.marks.get('output', '').partition(' with ')[2]}".split()
    return dict(word.split("=", 1) for word in words if "=" in word)
