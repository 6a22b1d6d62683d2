"""`fapilog doctor` on Gunicorn's configuration and uvicorn's: each wrong one, built for real, with the right one beside it."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import pytest

from fapilog.cli.checks.servers import check_access, check_gunicorn, check_heartbeat, check_hooks, check_times, check_uvicorn
from fapilog.servers.uvicorn import LOG_CONFIG_FILE
from tests.doctoring import SERVER, configured, made_up, seen, told, traces, write

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.matrix  # each is two processes or more


APP = "import fapilog; fapilog.configure_logging(sinks=['file'])\ndef app(*_): return []\n"
BARE = "def app(*_): return []\n"

# The configuration itself


def test_how_gunicorn_is_configured(tmp_path: Path) -> None:
    """The file of ``-c``, a module, the default file, and `GUNICORN_CMD_ARGS`, which wins: all as Gunicorn reads them."""
    write(tmp_path, conf="workers = 2", other="workers = 3; wsgi_app = 'shop:app'", shop=APP)
    assert "gunicorn.conf.py: 2 sync workers." in told(check_gunicorn, seen(tmp_path))["ok"]
    case = seen(tmp_path, config="other.py")
    assert "other.py: 3 sync workers." in told(check_gunicorn, case)["ok"]
    assert (case.sight.app, case.sight.app_failure, case.workers) == ("shop:app", None, 3)
    for config in ("file:other.py", "python:other"):
        assert seen(tmp_path, config=config).workers == 3
    case = seen(tmp_path, config="other.py", GUNICORN_CMD_ARGS="-w 4 -k gthread --preload")
    assert "other.py: 4 gthread workers, preload_app." in told(check_gunicorn, case)["ok"]
    assert seen(tmp_path, config="other.py", WEB_CONCURRENCY="9").workers == 3
    assert "__pycache__" not in traces(tmp_path)


def test_without_gunicorn(tmp_path: Path) -> None:
    """Where nothing of it is configured, nothing is said."""
    case = seen(tmp_path)
    assert case.sight.server is None
    for check in (check_gunicorn, check_hooks, check_times, check_access, check_heartbeat):
        assert told(check, case) == {}


def test_what_a_configuration_sets(tmp_path: Path) -> None:
    """Its directory, path and environment hold for the application."""
    for name in ("inner", "lib"):
        (tmp_path / name).mkdir()
    write(tmp_path / "lib", helper="")
    write(tmp_path / "inner", app="import helper, fapilog; fapilog.configure_logging(); app = print")
    conf = f"""
    import os
    os.environ["FAPILOG_ENV"] = "of the file"
    chdir = {str(tmp_path / "inner")!r}
    pythonpath = {str(tmp_path / "lib")!r}
    raw_env = ["FAPILOG_SERVICE=till", "FAPILOG_SINKS=file"]
    """
    case = seen(write(tmp_path, conf=conf), "app:app")
    assert case.sight.app_failure is None
    assert (case.settings.service, case.settings.env) == ("till", "of the file")
    assert case.hub.files[0].template == f"{tmp_path}/inner/logs/{{service}}.{{worker}}.jsonl"


UNREADABLE = {
    "1 / 0": " at conf0.py:1: ZeroDivisionError: division by zero.",
    "workers = 'many'": ": Invalid value for workers: many; Error: invalid literal for int()",
    "import sys; sys.exit(3)": " at conf2.py:1: it ends the process with exit code 3.",
    "import no_such_module_at_all": "No module named 'no_such_module_at_all'",
    "logger_class = 'nobody.knows.it'": "class uri 'nobody.knows.it' invalid or not found",
    "raw_env = ['x']": "environment setting 'x' invalid",
    "def post_fork(*all): pass": "Error: Value must have an arity of: 2",
}


def test_configurations_that_cannot_be_read(tmp_path: Path) -> None:
    """The finding has what Gunicorn says."""
    cases = configured(tmp_path, {conf: conf for conf in UNREADABLE})
    for conf, message in UNREADABLE.items():
        found = told(check_gunicorn, cases[conf])
        assert found.keys() == {"error"}, conf
        assert message in found["error"], (conf, found)


def test_arguments_that_gunicorn_does_not_know(tmp_path: Path) -> None:
    """So do those of the environment."""
    found = told(check_gunicorn, seen(tmp_path, GUNICORN_CMD_ARGS="--no-such-thing"))
    assert "unrecognized arguments: --no-such-thing" in found["error"]


def test_a_wrong_setting_in_the_configuration(tmp_path: Path) -> None:
    """What our own module says there is what is shown."""
    found = told(check_gunicorn, seen(tmp_path, config="python:fapilog.gunicorn_conf", FAPILOG_QUEUE_SIZE="-1"))
    assert "FAPILOG_QUEUE_SIZE='-1': must be a whole number" in found["error"]


def test_no_gunicorn(tmp_path: Path) -> None:
    """Where it is configured and not installed, its package is named."""
    (tmp_path / "gunicorn").mkdir()
    (tmp_path / "gunicorn" / "__init__.py").write_text("raise ModuleNotFoundError('No module named gunicorn', name='gunicorn')")
    found = told(check_gunicorn, seen(write(tmp_path, conf="workers = 2")))
    assert found["error"].endswith("-> Install it: pip install gunicorn")


# Hooks

OURS = {
    "the logger class": "from fapilog.gunicorn_conf import logger_class",
    "a star": "from fapilog.gunicorn_conf import *",
    "post_fork": "from fapilog.gunicorn_conf import post_fork",
    "wrap": "import fapilog.servers.gunicorn\ndef post_fork(server, worker): pass\nfapilog.servers.gunicorn.wrap(globals())",
    "a decorator": "import fapilog.servers.gunicorn as f\n@f.wrap_post_fork\ndef post_fork(server, worker): pass",
    "a call": "from fapilog import gunicorn_conf\ndef post_fork(server, worker): gunicorn_conf.post_fork(server, worker)",
    "a call by a long name": "import fapilog.gunicorn_conf\n"
    "def post_fork(server, worker): fapilog.gunicorn_conf.post_fork(server, worker)",
    "a call by another name": "from fapilog.gunicorn_conf import post_fork as ours\n"
    "def post_fork(server, worker): ours(server, worker)",
    "an import inside": "def post_fork(server, worker):\n"
    "    from fapilog.servers.gunicorn import post_fork\n    post_fork(server, worker)",
    "a logger class made from it": "from fapilog.servers.gunicorn_logger import Logger\nclass logger_class(Logger): pass",
    "the logger class by name": "logger_class = 'fapilog.servers.gunicorn_logger.Logger'",
    "a hook by name": "post_fork = 'fapilog.gunicorn_conf.post_fork'",
}
NOT_OURS = {
    "none": "workers = 2",
    "another one": "def post_fork(server, worker): pass",
    "ours, and then another one": "from fapilog.gunicorn_conf import post_fork\ndef post_fork(server, worker): pass",
    "a log line": "import fapilog\ndef post_fork(server, worker): fapilog.get_logger().info('post_fork')",
    "another hook of ours": "from fapilog.gunicorn_conf import worker_exit",
}


def test_hooks_that_are_installed(tmp_path: Path) -> None:
    """Every documented way is known."""
    assert {name: list(told(check_hooks, case)) for name, case in configured(tmp_path, OURS).items()} == {
        name: ["ok"] for name in OURS
    }


def test_hooks_that_are_not(tmp_path: Path) -> None:
    """A finding has the line that puts them in."""
    for name, case in configured(tmp_path, NOT_OURS).items():
        found = told(check_hooks, case)
        assert found.keys() == {"error"}, name
        text = found["error"]
        assert "fapilog's hooks are not installed" in text
        assert ("a function of yours" in text) == ("def post_fork" in NOT_OURS[name])
        assert case.sight.server is not None
        assert f"Add to {case.sight.server.source}: `from fapilog.gunicorn_conf import logger_class`" in text


def test_our_module_as_the_configuration(tmp_path: Path) -> None:
    """It is right by itself; without any file the way to it is told."""
    assert told(check_hooks, seen(tmp_path, config="python:fapilog.gunicorn_conf")).keys() == {"ok"}
    found = told(check_hooks, seen(tmp_path, GUNICORN_CMD_ARGS="-w 2"))
    assert "Start with `gunicorn -c python:fapilog.gunicorn_conf`" in found["error"]


def test_how_bad_it_is_without_hooks(tmp_path: Path) -> None:
    """A warning for a program that sets fapilog up by itself; an error for one that does not, and without the journal."""
    write(tmp_path, conf="workers = 2", app=APP, bare=BARE)
    assert "is left to the journal" in told(check_hooks, seen(tmp_path, "app:app"))["warning"]
    assert "is left to the journal" in told(check_hooks, seen(tmp_path, "bare:app"))["error"]
    assert "is lost, since there is no journal" in told(check_hooks, seen(tmp_path, "app:app", FAPILOG_JOURNAL="off"))["error"]


# Time limits


def test_a_drain_that_is_longer_than_gunicorn_waits(tmp_path: Path) -> None:
    """It is an error from the same number on."""
    write(tmp_path, conf="from fapilog.gunicorn_conf import logger_class\ngraceful_timeout = 5")
    for drain in ("5", "8"):
        found = told(check_times, seen(tmp_path, FAPILOG_DRAIN_TIMEOUT=drain))
        assert f"FAPILOG_DRAIN_TIMEOUT ({drain} s) is not below Gunicorn's graceful_timeout (5 s)" in found["error"]
    assert told(check_times, seen(tmp_path, FAPILOG_DRAIN_TIMEOUT="2")).keys() == {"ok"}


def test_a_drain_of_the_program_s_own(tmp_path: Path) -> None:
    """What counts is what the program asks for."""
    write(tmp_path, conf="graceful_timeout = 5", app="import fapilog; fapilog.configure_logging(drain_timeout=60); app = print")
    assert "(60 s)" in told(check_times, seen(tmp_path, "app:app"))["error"]


def test_a_drain_that_is_longer_than_the_timeout(tmp_path: Path) -> None:
    """It is a warning where workers are recycled; a timeout of 0 is none."""
    write(tmp_path, conf="timeout = 2; max_requests = 100", none="timeout = 0; max_requests = 100", once="timeout = 2")
    assert "timeout (2 s)" in told(check_times, seen(tmp_path))["warning"]
    assert told(check_times, seen(tmp_path, config="none.py")).keys() == {"ok"}
    assert told(check_times, seen(tmp_path, config="once.py")).keys() == {"ok"}


# Access logs


def test_requests_that_are_logged_twice(tmp_path: Path) -> None:
    """By us and by Gunicorn into a file: a warning; not where its access log comes to us, or ours is off."""
    ours = "from fapilog.gunicorn_conf import logger_class\n"
    write(tmp_path, file=f"{ours}accesslog = 'access.log'", dash=f"{ours}accesslog = '-'", none=ours)
    found = told(check_access, seen(tmp_path, config="file.py"))
    assert "Each request is logged twice: as an event of fapilog's, and by Gunicorn in access.log." in found["warning"]
    assert told(check_access, seen(tmp_path, config="file.py", FAPILOG_ACCESS_LOG="false")) == {}
    assert told(check_access, seen(tmp_path, config="dash.py")) == {}
    assert told(check_access, seen(tmp_path, config="none.py")) == {}
    assert "access.log" not in traces(tmp_path)


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("fastapi", "from fastapi import FastAPI; import fapilog; app = FastAPI(); fapilog.configure_logging(app=app)"),
        ("flask", "from flask import Flask; import fapilog; app = Flask('x'); fapilog.configure_logging(app=app)"),
        ("litestar", "from litestar import Litestar; import fapilog; app = Litestar(); fapilog.configure_logging(app=app)"),
        ("django", "import fapilog.wsgi; app = fapilog.wsgi.FapilogMiddleware(print)"),
    ],
)
def test_a_middleware_beside_gunicorns_access_log(tmp_path: Path, kind: str, text: str) -> None:
    """Requests are logged twice; not without the one or the other."""
    if kind != "django":
        pytest.importorskip(kind)
    write(tmp_path, conf="accesslog = '-'", none="accesslog = None", app=text, bare=BARE)
    assert "and by Gunicorn to its stdout" in told(check_access, seen(tmp_path, "app:app"))["warning"]
    assert told(check_access, seen(tmp_path, "bare:app")) == {}
    assert told(check_access, seen(tmp_path, "app:app", config="none.py")) == {}


# The heartbeat


def test_where_workers_give_signs_of_life(tmp_path: Path, monkeypatch) -> None:
    """A directory that is not there is an error, one on a network file system a warning, any other is right."""
    (tmp_path / "tmp").mkdir()
    write(tmp_path, conf="worker_tmp_dir = 'nowhere'", good="worker_tmp_dir = 'tmp'")
    assert "Gunicorn cannot start a worker" in told(check_heartbeat, seen(tmp_path))["error"]
    case = seen(tmp_path, config="good.py")
    assert told(check_heartbeat, case) == {}
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / {tmp_path}/tmp rw - nfs4 host:/x rw\n")
    monkeypatch.setattr("fapilog.cli.checks.filesystems.MOUNTS", mounts)
    assert "on a network file system (nfs4)" in told(check_heartbeat, case)["warning"]


# uvicorn


def log_config(folder: Path, text: object) -> dict[str, Any]:
    (folder / "log.json").write_text(text if isinstance(text, str) else json.dumps(text))
    return {"UVICORN_LOG_CONFIG": "log.json"}


def test_a_log_configuration_of_uvicorns_that_is_ours(tmp_path: Path) -> None:
    """It is right."""
    case = made_up(tmp_path, environ={"UVICORN_LOG_CONFIG": str(LOG_CONFIG_FILE)})
    assert told(check_uvicorn, case).keys() == {"ok"}


def test_a_log_configuration_of_uvicorns_that_is_not(tmp_path: Path) -> None:
    """It takes uvicorn's lines elsewhere, and disables loggers unless it says otherwise."""
    other = {"version": 1, "handlers": {"h": {"class": "logging.StreamHandler"}}, "loggers": {"uvicorn": {"handlers": ["h"]}}}
    found = told(check_uvicorn, seen(tmp_path, **log_config(tmp_path, other)))["warning"]
    assert "sends the lines of uvicorn elsewhere than to fapilog. It disables loggers that exist" in found
    mild = {**other, "disable_existing_loggers": False}
    assert "It disables" not in told(check_uvicorn, seen(tmp_path, **log_config(tmp_path, mild)))["warning"]
    root = {**mild, "root": {"handlers": ["h"]}}
    findings = list(check_uvicorn(seen(tmp_path, **log_config(tmp_path, root))))
    assert "gives the root logger handlers (h): records of the standard library's logging come out twice" in findings[-1].found


def test_a_log_configuration_in_another_form(tmp_path: Path) -> None:
    """YAML is read where its package is; a form that is not read is not judged."""
    text = "version: 1\ndisable_existing_loggers: false\nloggers:\n  uvicorn.access: {handlers: [h]}\n"
    (tmp_path / "log.yaml").write_text(text)
    case = made_up(tmp_path, environ={"UVICORN_LOG_CONFIG": "log.yaml"})
    if importlib.util.find_spec("yaml") is not None:
        assert "sends the lines of uvicorn.access elsewhere than to fapilog. ->" in told(check_uvicorn, case)["warning"]
    (tmp_path / "log.ini").write_text("[loggers]\nkeys=root\n")
    assert told(check_uvicorn, made_up(tmp_path, environ={"UVICORN_LOG_CONFIG": "log.ini"})) == {}


@pytest.mark.parametrize("text", ["{", "[1]", "7"])
def test_a_log_configuration_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    """uvicorn would not start: an error; so for one that is not there."""
    assert "which cannot be read" in told(check_uvicorn, seen(tmp_path, **log_config(tmp_path, text)))["error"]
    assert told(check_uvicorn, made_up(tmp_path, environ={"UVICORN_LOG_CONFIG": "nowhere.json"})).keys() == {"error"}
    assert told(check_uvicorn, made_up(tmp_path, environ={"UVICORN_LOG_CONFIG": "nowhere.yaml"})).keys() == {"error"}


def test_an_asgi_application_without_a_server(tmp_path: Path) -> None:
    """What uvicorn would do with its own lines is told; under Gunicorn, and of a WSGI application, it is not."""
    asgi = "async def app(scope, receive, send): pass"
    write(tmp_path, app=asgi, web=BARE)
    assert "If uvicorn serves app:app" in told(check_uvicorn, seen(tmp_path, "app:app"))["ok"]
    assert told(check_uvicorn, seen(tmp_path, "web:app")) == {}
    assert told(check_uvicorn, made_up(tmp_path, asgi=True, server=SERVER)) == {}
