"""The program: whether it can be imported, and what that leaves: fapilog set up, structlog, the loggers of `logging`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fapilog.cli.checks.finding import Finding, error, fine, listed, several, warning
from fapilog.cli.probe.importing import parsed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.cli.checks.case import Case
    from fapilog.cli.probe.sight import Failure

APP, STRUCTLOG, LOGGERS = "app", "structlog", "loggers"
_SET_UP = "Call fapilog.configure_logging() where the application is made"


def check_app(case: Case) -> Iterator[Finding]:
    """Look whether the application can be imported, and whether that sets fapilog up."""
    sight = case.sight
    failure = sight.app_failure
    if failure is not None:
        what = sight.app or "The application"
        yield error(APP, f"{what} cannot be imported: {_reason(sight.app, failure)}.", _advice(case, failure))
    elif not sight.app:
        found = "No application was named, so none was looked at."
        yield warning(APP, found, "Name it as your server gets it: `fapilog doctor app:app`.")
    elif sight.hub is None:
        yield warning(
            APP,
            f"The import of {sight.app} does not set fapilog up: the first event does, from the environment, and records that "
            "come to the standard library's logging before are not taken.",
            f"{_SET_UP}, unless it is called later, in a lifespan for example.",
        )
    else:
        how = "with arguments" if sight.hub.explicit else "from the environment"
        yield fine(APP, f"{sight.app} can be imported, and fapilog is set up {how}.")


def _reason(app: str, failure: Failure) -> str:
    at = f" at {failure.where}" if failure.where else ""
    match failure.kind:
        case "hang":
            return f"its import does not come to an end{at}"
        case "signal":
            return f"the process died of {failure.message}"
        case "exit" | "SystemExit":
            return f"its import ends the process{at} ({failure.message or 'without a message'})"
        case "ModuleNotFoundError" if _is_part_of(failure.missing, app):
            return f"there is no module {failure.missing}"
    return f"{failure.kind}: {failure.message or '(no message)'}{at}"


def _is_part_of(module: str, app: str) -> bool:
    target = parsed(app)[0]
    return bool(module) and (target == module or target.startswith(f"{module}."))


def _advice(case: Case, failure: Failure) -> str:
    if failure.kind == "hang":
        return "Let the import do no work that waits, or give it longer (--timeout)."
    if failure.kind in {"exit", "SystemExit", "signal"}:
        return "Let the import end: a server would end there, too."
    if failure.kind == "ConfigurationError":
        return "Change the setting as it says."
    if failure.kind == "ModuleNotFoundError" and _is_part_of(failure.missing, case.sight.app):
        return f"Run the doctor where the server starts; it looked in {case.sight.directory}, and in the path of {_python()}."
    return "Let the import succeed: a server would end with the same error."


def _python() -> str:
    import sys

    return sys.executable


def check_set_up_twice(case: Case) -> Iterator[Finding]:
    """Look whether the server's configuration and the application ask for the same: the first events come before the latter."""
    first, last = case.sight.first, case.hub
    if first is None or case.sight.app_failure is not None:
        return
    differ = [name for name in ("service", "run_dir") if first.settings[name] != last.settings[name]]
    if first.targets == last.targets and not differ:
        return
    said = [f"{listed(first.targets)} and {listed(last.targets)}"] if first.targets != last.targets else []
    said += [f"{name} {first.settings[name]!r} and {last.settings[name]!r}" for name in differ]
    yield warning(
        APP,
        f"Gunicorn's configuration and {case.sight.app} set fapilog up in different ways ({'; '.join(said)}): the lines of the "
        "master, and the first ones of each worker, go by the former, and `fapilog verify` misses them in files of the latter.",
        "Set FAPILOG_* variables where Gunicorn is started (raw_env is too late), which both read, and pass no such arguments.",
    )


def check_structlog(case: Case) -> Iterator[Finding]:
    """Look whether what `structlog.get_logger()` gives ends in fapilog."""
    seen = case.sight.structlog
    if seen is None or not seen.configured:
        return
    if not seen.feeds:
        cached = ", and loggers that were used keep that for ever (cache_logger_on_first_use)" if seen.caches else ""
        say = error if case.sight.hub is not None else warning
        yield say(
            STRUCTLOG,
            f"structlog.configure() at {seen.where or 'an unknown place'} has the last word{cached}: what is logged through "
            "structlog.get_logger() does not come to fapilog.",
            "Remove that call, or call it before configure_logging(), or let its last processor be fapilog.queue_sink.",
        )
    elif seen.old and case.sight.hub is not None:
        yield warning(
            STRUCTLOG,
            f"Loggers of structlog's were bound or used before configure_logging() and keep the processors of then (in "
            f"{listed(seen.old)}): their events do not come to fapilog.",
            "Call configure_logging() before the modules that bind loggers are imported, or bind later.",
        )
    else:
        yield fine(STRUCTLOG, "structlog.get_logger() feeds fapilog.")


def check_loggers(case: Case) -> Iterator[Finding]:
    """Look at the loggers of `logging`: disabled ones, and output that comes twice."""
    sight = case.sight
    culprits = [config for config in sight.configs if config.disables]
    if sight.disabled:
        by = f" by {culprits[-1].call}() at {culprits[-1].where}" if culprits else ""
        yield warning(
            LOGGERS,
            f"{several(len(sight.disabled), 'logger is', 'loggers are')} disabled{by}, so nobody gets their records: "
            f"{listed(sight.disabled)}.",
            "Set disable_existing_loggers to False in that configuration.",
        )
    for config in sight.configs:
        if config.servers:
            yield warning(
                LOGGERS,
                f"{config.call}() at {config.where} gives {listed(config.servers)} handlers of its own: the server's lines go "
                "there instead of fapilog, or as well.",
                "Take these loggers out of that configuration.",
            )
    if sight.streams and case.hub.streams and case.settings.capture_stdlib and sight.hub is not None:
        yield warning(
            LOGGERS,
            f"The root logger has a {sight.streams[0]} of its own beside fapilog's sink {case.hub.streams[0]}: records of the "
            "standard library's logging come out twice.",
            "Remove that handler (logging.basicConfig(), dictConfig()), or set FAPILOG_CAPTURE_STDLIB=false.",
        )
