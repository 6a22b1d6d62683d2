"""
Gunicorn's configuration, read by Gunicorn itself: every form of ``-c``, `GUNICORN_CMD_ARGS`, ``gunicorn.conf.py``.

For a process of its own: a configuration is a program that may do anything, and changes directory, path and environment.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fapilog.cli.probe.sight import Failure, ServerSeen
from fapilog.cli.probe.watching import last_of_the_users

if TYPE_CHECKING:
    from types import CodeType

DEFAULT_FILE = "gunicorn.conf.py"
ARGUMENTS = "GUNICORN_CMD_ARGS"
HOOKS = ("on_starting", "post_fork", "worker_exit", "child_exit", "on_exit")
_MARK = "fapilog_hook"  # that `fapilog.servers.gunicorn` sets on hooks that run ours
_LOGGER = "fapilog.servers.gunicorn_logger"
_PLACEHOLDER = "app:app"


def source_of(config: str) -> str:
    """Return what Gunicorn would read in this directory and environment; empty if there is no sign of Gunicorn."""
    if config:
        return config
    found = [DEFAULT_FILE] if Path(DEFAULT_FILE).is_file() else []
    return " and ".join([*found, *([ARGUMENTS] if os.environ.get(ARGUMENTS) else [])])


def read(config: str, app: str) -> tuple[ServerSeen, str] | Failure:
    """
    Read the configuration; enter its directory, and set its path and environment.

    Return what it says and the application that it names, if it does; or why it cannot be read.
    """
    source = source_of(config)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            cfg = _cfg(config, app)
            _enter(cfg)
            return _seen(cfg, source), str(cfg.wsgi_app or "")
    except ModuleNotFoundError as error:
        return failure_of(error)
    except SystemExit as error:  # Gunicorn has printed what is wrong
        printed = said.getvalue()
        message = error.code if isinstance(error.code, str) else _last_line(printed)
        told = failure_of(error)
        where = _last_place(printed) or (told.where if "gunicorn/app" not in told.where else "")
        return Failure("exit", message or f"it ends the process with exit code {error.code}", where)
    except Exception as error:
        return failure_of(error)


def failure_of(error: BaseException) -> Failure:
    """Return an exception in the form that is reported."""
    missing = str(error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    return Failure(type(error).__name__, str(error), last_of_the_users(traceback.extract_tb(error.__traceback__)), missing)


def _cfg(config: str, app: str) -> Any:
    from gunicorn.app.wsgiapp import WSGIApplication

    sys.argv = ["gunicorn", *(["-c", config] if config else []), app or _PLACEHOLDER]
    return WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn").cfg


def _enter(cfg: Any) -> None:
    for path in (cfg.pythonpath or "").split(",") if cfg.pythonpath else ():
        sys.path.insert(0, os.path.abspath(path))
    os.environ.update(cfg.env)


def _seen(cfg: Any, source: str) -> ServerSeen:
    logger = cfg.logger_class
    return ServerSeen(
        source,
        cfg.workers,
        cfg.preload_app,
        float(cfg.graceful_timeout),
        float(cfg.timeout),
        cfg.max_requests,
        cfg.worker_class_str,
        cfg.accesslog,
        cfg.worker_tmp_dir,
        cfg.uid,
        cfg.gid,
        f"{logger.__module__}.{logger.__qualname__}",
        any(base.__module__ == _LOGGER for base in logger.__mro__),
        {name: _kind_of(name, cfg.settings[name].get(), cfg.settings[name].default) for name in HOOKS},
    )


def _kind_of(name: str, hook: Any, default: Any) -> str:
    if getattr(hook, _MARK, False):
        return "ours"
    if hook is None or hook is default:
        return "none"
    code = getattr(hook, "__code__", None)
    return "calls ours" if code is not None and _calls_ours(name, code, getattr(hook, "__globals__", {})) else "other"


def _calls_ours(name: str, code: CodeType, names: dict[str, Any]) -> bool:
    """Whether the code of a user's hook mentions ours of that *name*: a function, or the attribute of a module of fapilog's."""
    if any(getattr(names.get(each), _MARK, False) for each in code.co_names):
        return True
    modules = (str(getattr(names.get(each), "__name__", each)) for each in code.co_names)
    return name in code.co_names and any(module.partition(".")[0] == "fapilog" for module in modules)


def _last_line(text: str) -> str:
    """Return what Gunicorn has printed about its configuration: the last line, and which setting it is about."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    about = [line for line in lines[:-1] if line.startswith("Invalid value for")]
    return "; ".join([*about, *lines[-1:]])


def _last_place(text: str) -> str:
    """Return the last place of a traceback in *text* that is in the user's code."""
    found = [line.split('"')[1::2] + line.rsplit("line ", 1)[1:] for line in text.splitlines() if line.startswith('  File "')]
    frames = [traceback.FrameSummary(path, int(rest.partition(",")[0]), "") for path, rest in found]
    return last_of_the_users(frames)
