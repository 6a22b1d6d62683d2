"""`fapilog doctor` as a command: what it prints, how it ends, what it leaves behind; and programs that do harm when imported."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fapilog.cli import doctor
from fapilog.cli.checks.finding import Finding
from fapilog.cli.checks.program import check_app, check_set_up_twice
from fapilog.cli.checks.servers import check_gunicorn
from fapilog.cli.probe.importing import load, parsed
from fapilog.errors import ConfigurationError
from tests.doctoring import environment, made_up, seen, told, traces, write
from tests.programs.running import wait_until

ROOT = str(Path(__file__).parents[1])
GOOD_APP = """
import fapilog
fapilog.configure_logging(sinks=["file"], service="shop")
fapilog.get_logger().info("imported")

def app(environ, start_response):
    start_response("204 No Content", [])
    return []
"""
GOOD_CONF = """
from fapilog.gunicorn_conf import logger_class
workers = 2
"""


def run(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "fapilog", "doctor", *arguments],
        cwd=folder,
        env={**environment(folder, PYTHONPATH=ROOT, PYTHONDONTWRITEBYTECODE="1"), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_service_that_is_right(tmp_path: Path) -> None:
    """Exit code 0, and nothing is left: no file of the sink, no run directory, no bytecode."""
    write(tmp_path, app=GOOD_APP, conf=GOOD_CONF)
    before = traces(tmp_path)
    done = run(tmp_path, "app:app", FAPILOG_SERVICE="shop", FAPILOG_SINKS="file")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nnothing is wrong\n")
    assert "app:app can be imported, and fapilog is set up " in " ".join(done.stdout.split())
    assert traces(tmp_path) == before


def test_a_service_that_is_wrong(tmp_path: Path) -> None:
    """Exit code 1; errors come first, each with what to change; --json has the same."""
    write(tmp_path, app="def app(*_): return []", conf="workers = 2\n")
    done = run(tmp_path, "app:app", FAPILOG_LEVL="DEBUG")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[2].split()[:2] == ["error", "hooks"]
    assert lines[-1] == "1 error, 2 warnings"
    assert "-> Write FAPILOG_LEVEL." in done.stdout
    document = json.loads(run(tmp_path, "app:app", "--json", FAPILOG_LEVL="DEBUG").stdout)
    assert (document["healthy"], document["errors"], document["warnings"]) == (False, 1, 2)
    (error,) = (each for each in document["findings"] if each["severity"] == "error")
    assert error["check"] == "hooks"
    assert error["change"].startswith("Add to gunicorn.conf.py: `from fapilog.gunicorn_conf import logger_class`")


def test_warnings_alone(tmp_path: Path) -> None:
    """They are no error: exit code 0."""
    done = run(tmp_path, FAPILOG_LEVL="DEBUG")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("no error, 2 warnings\n")


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("app.py",), "'app.py' is no import string: write the application as your server gets it"),
        (("./app:app",), "'./app:app' is no import string"),
        (("app:1",), "'app:1' is no import string"),
        (("app:",), "there is no module"),
        (("-c", "nowhere.py"), "--config nowhere.py: there is no such file"),
        (
            ("-c", "fapilog.gunicorn_conf"),
            "--config fapilog.gunicorn_conf: there is no such file; the module is -c python:fapilog",
        ),
        (("--service", "a/b"), "service='a/b' (override): must be a name"),
        (("--timeout", "0"), "--timeout"),
        (("app:app", "more"), "more"),
    ],
)
def test_bad_usage(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """Exit code 2, and one line that says what is wrong."""
    done = run(tmp_path, *arguments)
    if arguments == ("app:",):  # as Gunicorn has it: the default name in the module
        assert done.returncode == 1
        assert message in done.stdout
        return
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fapilog: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_another_service_and_run_directory(tmp_path: Path) -> None:
    """--service and --run-dir stand for the variables."""
    done = run(tmp_path, "--service", "till", "--run-dir", "elsewhere", "--json", FAPILOG_SINKS="file")
    found = {each["check"]: each["found"] for each in json.loads(done.stdout)["findings"]}
    assert found["run-dir"] == f"{tmp_path}/elsewhere can be used."
    assert found["settings"] == "Set, and right: FAPILOG_RUN_DIR, FAPILOG_SERVICE, FAPILOG_SINKS."


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    """A closed pipe ends it without a word."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fapilog", "doctor"],
        cwd=tmp_path,
        env=environment(tmp_path, PYTHONPATH=ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert (process.stderr.read(), process.wait(60)) == (b"", 0)
    process.stderr.close()


def test_a_check_that_fails_itself(tmp_path: Path) -> None:
    """It is a finding beside what it had found by then, and the others go on."""

    def check_nothing(_case: Any) -> Any:
        yield Finding("ok", "nothing", "So far.")
        raise RuntimeError("broken")

    def check_more(_case: Any) -> Any:
        yield Finding("ok", "more", "Well.")

    findings = doctor.examined(made_up(tmp_path), [check_nothing, check_more])
    assert [(each.severity, each.check) for each in findings] == [("ok", "nothing"), ("warning", "nothing"), ("ok", "more")]
    assert findings[1].found == "This check has failed: RuntimeError: broken"


# The import


def test_what_a_program_leaves_to_others_to_tidy_up(tmp_path: Path) -> None:
    """A semaphore with a name, which the resource tracker of `multiprocessing` removes when its program is gone, is removed."""
    write(
        tmp_path,
        app="""
        import multiprocessing
        lock = multiprocessing.get_context("spawn").Lock()
        open("name", "w").write(lock._semlock.name)
        app = print
        """,
    )
    assert seen(tmp_path, "app:app").sight.stage == "done"
    name = (tmp_path / "name").read_text().strip("/")
    assert not Path(f"/dev/shm/sem.{name}").exists()


@pytest.mark.matrix
def test_an_import_that_never_ends(tmp_path: Path) -> None:
    """It is ended at the limit, with what it has started, and the finding says where it hangs."""
    write(
        tmp_path,
        app="""
        import subprocess, sys, threading, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open("pid", "w").write(str(child.pid))
        threading.Thread(target=time.sleep, args=(600,)).start()
        def forever():
            time.sleep(600)
        forever()
        """,
    )
    began = time.monotonic()
    found = told(check_app, seen(tmp_path, "app:app", limit=3.0))
    assert time.monotonic() - began < 20
    assert found.keys() == {"error"}
    assert "its import does not come to an end at app.py:7." in found["error"]
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: _is_gone(pid), "what it has started is gone", 10)


def _is_gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    return True


def test_a_child_that_cannot_even_begin(tmp_path: Path) -> None:
    """What it has written last is the finding."""
    found = told(check_app, seen(write(tmp_path, app=GOOD_APP), "app:app", PYTHONHOME=str(tmp_path)))
    assert "The application cannot be imported: its import ends the process (exit code 1" in found["error"]


@pytest.mark.matrix
def test_an_import_that_the_limit_cannot_reach(tmp_path: Path) -> None:
    """A program that takes our alarm away is killed a moment later."""
    app = "import faulthandler, time; faulthandler.cancel_dump_traceback_later(); time.sleep(600)"
    case = seen(write(tmp_path, app=app), "app:app", limit=1.0)
    assert "its import does not come to an end" in told(check_app, case)["error"]


@pytest.mark.matrix
def test_an_import_that_crashes_who_looks_where_it_is(tmp_path: Path) -> None:
    """It is found to hang, and not to crash: faulthandler may do that to a program that does not stand still meanwhile."""
    folder = write(tmp_path, app="def deep(n): return n and deep(n - 1)\nwhile True: deep(900)")
    for _ in range(5):
        assert "its import does not come to an end" in told(check_app, seen(folder, "app:app", limit=0.5))["error"]


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no database')", "its import ends the process at app.py:2 (no database)"),
        ("raise SystemExit", "its import ends the process at app.py:2 (without a message)"),
        ("import os; os._exit(7)", "its import ends the process (exit code 7)"),
        ("import os; os.kill(os.getpid(), 11)", "the process died of SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "the process died of SIGKILL"),
        ("import os; os.kill(os.getpid(), 40)", "the process died of signal 40"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt: (no message) at app.py:2"),
        ("1 / 0", "ZeroDivisionError: division by zero at app.py:2"),
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all' at app.py:2"),
        ("pass", "AttributeError: module 'app' has no attribute 'app'"),
        ("this is no Python", "SyntaxError: invalid syntax"),
        ("import logging; logging.FileHandler('none/x.log')", "FileNotFoundError: [Errno 2] No such file or directory"),
        ("import os; print('noise'); os.write(1, b'noise'); os.write(2, b'noise'); 1 / 0", "ZeroDivisionError"),
    ],
)
def test_an_import_that_fails(tmp_path: Path, code: str, message: str) -> None:
    """The finding says how, and where in the user's code."""
    found = told(check_app, seen(write(tmp_path, app=f"\n{code}\n"), "app:app"))
    assert found.keys() == {"error"}
    assert f"app:app cannot be imported: {message}" in found["error"]


def test_secrets_in_what_a_program_raises(tmp_path: Path) -> None:
    """They are masked."""
    case = seen(write(tmp_path, app="raise RuntimeError('no way to postgres://me:hush@db/shop?password=hush')"), "app:app")
    (finding,) = (each for each in doctor.examined(case) if each.check == "app")
    assert "RuntimeError: no way to postgres://***@db/shop?password=***" in finding.found


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    """The finding says which, and where it was looked for; a package may be what is missing."""
    for target, missing in (("shop:app", "shop"), ("shop.web:app", "shop")):
        found = told(check_app, seen(tmp_path, target))
        assert f"{target} cannot be imported: there is no module {missing}. -> Run the doctor where" in found["error"]
        assert str(tmp_path) in found["error"]


def test_a_wrong_setting_at_import(tmp_path: Path) -> None:
    """It is what the program would say."""
    found = told(check_app, seen(write(tmp_path, app=GOOD_APP), "app:app", FAPILOG_LEVEL="LOUD"))
    assert "ConfigurationError: fapilog cannot be set up:" in found["error"]


def test_a_program_that_does_not_set_fapilog_up(tmp_path: Path) -> None:
    """It is a warning: it may do so later; one that does is right; so is none, with a word about it."""
    write(tmp_path, app="app = print", other=GOOD_APP)
    assert "does not set fapilog up" in told(check_app, seen(tmp_path, "app:app"))["warning"]
    assert told(check_app, seen(tmp_path, "other:app")).keys() == {"ok"}
    assert "No application was named" in told(check_app, seen(tmp_path))["warning"]


@pytest.mark.matrix
def test_a_program_and_a_server_that_differ(tmp_path: Path) -> None:
    """Two set-ups are a warning: the first lines go elsewhere than the others; one that both read is right."""
    env: dict[str, Any] = {"FAPILOG_SINKS": "file"}
    write(tmp_path, conf=GOOD_CONF, app=GOOD_APP, bare="import fapilog; fapilog.configure_logging(); app = print")
    found = told(check_set_up_twice, seen(tmp_path, "app:app"))["warning"]
    assert f"(stdout and {tmp_path}/logs/{{service}}.{{worker}}.jsonl; service 'fapilog' and 'shop')" in found
    assert told(check_set_up_twice, seen(tmp_path, "app:app", FAPILOG_SERVICE="shop", **env)) == {}
    assert told(check_set_up_twice, seen(tmp_path, "bare:app", **env)) == {}
    assert told(check_set_up_twice, seen(tmp_path, **env)) == {}
    write(tmp_path, conf=f"{GOOD_CONF}raw_env = ['FAPILOG_SERVICE=till']\n")
    assert "service 'fapilog' and 'till'" in told(check_set_up_twice, seen(tmp_path, "bare:app"))["warning"]
    write(tmp_path, conf="")
    assert told(check_set_up_twice, seen(tmp_path, "app:app")) == {}


def test_what_a_program_logs_at_import(tmp_path: Path) -> None:
    """Nothing of it comes out, whoever logs and wherever to; files of handlers are not made."""
    write(
        tmp_path,
        app="""
        import logging, logging.handlers, multiprocessing, os, fapilog
        fapilog.configure_logging(sinks=["file"], file_path="made/own.jsonl", file_strict=True, run_dir="own")
        fapilog.get_logger().error("own")
        logging.getLogger("a").addHandler(logging.handlers.RotatingFileHandler("a.log", maxBytes=1, backupCount=3))
        logging.getLogger("a").error("one")
        logging.getLogger("a").error("two")
        logging.getLogger("b").addHandler(logging.handlers.TimedRotatingFileHandler("b.log", when="s"))
        logging.getLogger("b").error("one")
        fapilog.flush()
        fapilog.shutdown_logging()
        if (pid := os.fork()) == 0:
            fapilog.get_logger().error("child")
            os._exit(0)
        os.waitpid(pid, 0)
        app = print
        """,
    )
    (tmp_path / "b.log").write_text("of before\n")
    os.utime(tmp_path / "b.log", (1, 1))
    before = traces(tmp_path)
    case = seen(tmp_path, "app:app")
    assert told(check_app, case).keys() == {"ok"}
    assert traces(tmp_path) == before
    assert (tmp_path / "b.log").read_text() == "of before\n"
    assert str(case.run_dir) == f"{tmp_path}/own"


def test_what_a_program_has_in_its_environment(tmp_path: Path) -> None:
    """Settings that a module puts there are the ones that hold."""
    case = seen(write(tmp_path, app="import os; os.environ['FAPILOG_SERVICE'] = 'till'; app = print"), "app:app")
    assert case.settings.service == "till"


@pytest.mark.parametrize("target", ["app", "app:app", "app:web.app", "app:made()", "app:made('x', y=[1])", "sub.app:app"])
def test_import_strings(tmp_path: Path, monkeypatch, target: str) -> None:
    """Those that Gunicorn or uvicorn take are taken."""
    (tmp_path / "sub").mkdir()
    text = """
    class web:
        app = "found"
    application = app = "found"
    def made(x="x", *, y=[1]):
        assert (x, y) == ("x", [1])
        return "found"
    """
    write(tmp_path, app=text)
    write(tmp_path / "sub", app=text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("app", "sub", "sub.app"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert load(target) == "found"
    for name in ("app", "sub", "sub.app"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("target", ["", ":app", "app.py", "a/b:app", "app:f(", "app:[1]", "app:'x'", "app:f()()", "1app:app"])
def test_what_is_no_import_string(target: str) -> None:
    """It is refused before anything is imported."""
    with pytest.raises(ConfigurationError, match="is no import string"):
        parsed(target)


def test_a_configuration_that_hangs(tmp_path: Path) -> None:
    """So does Gunicorn's configuration that does harm: a finding, and an end."""
    found = told(check_gunicorn, seen(write(tmp_path, conf="import time; time.sleep(600)"), limit=4.0))
    assert "at gunicorn.conf.py:1: reading it does not come to an end" in found["error"]
