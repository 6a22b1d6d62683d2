"""What several workers would share, or inherit dead: log files, queues with a thread behind them, threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fapilog.cli.checks.finding import Finding, error, fine, listed, several, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.cli.checks.case import Case
    from fapilog.cli.probe.sight import FileSeen, QueueSeen

FILES, PRELOAD = "shared-files", "preload"
_INSTEAD = "the sink file of fapilog (FAPILOG_SINKS=file), which gives each worker a file of its own"
#: Packages whose background threads are known by name.
_KNOWN = {
    "sentry_sdk": "Sentry",
    "opentelemetry": "OpenTelemetry",
    "ddtrace": "Datadog",
    "newrelic": "New Relic",
    "apscheduler": "APScheduler",
    "posthog": "PostHog",
    "prometheus_client": "prometheus_client",
}
_OF_QUEUES = ("logging.handlers", "loguru")


def check_files(case: Case) -> Iterator[Finding]:
    """Look at the files of other log handlers, which every worker opens."""
    if case.workers is not None and not case.several:
        return
    count = "the workers" if case.workers is None else f"{case.workers} workers"
    say = warning if case.workers is None else error
    for file in case.sight.files:
        what = f"{file.path} is written to by a {file.kind}{_on(file)} in each of {count}"
        if file.rotates:
            yield say(
                FILES,
                f"{what}, and each of them renames it: lines go into renamed files, and rotated files are overwritten.",
                f"Remove that handler and use {_INSTEAD}, or a handler that locks (concurrent-log-handler).",
            )
        else:
            yield warning(FILES, f"{what}: long lines may be torn, or stand within others.", f"Use {_INSTEAD}.")
    if case.sight.stage == "done" and case.sight.app and not case.sight.files:
        yield fine(FILES, "No other log handler writes to a file that workers would share.")


def _on(file: FileSeen) -> str:
    return f" on the logger {listed(file.loggers, 2)}" if file.loggers else ""


def check_queues(case: Case) -> Iterator[Finding]:
    """Look at queues of log records whose thread a fork does not copy."""
    if case.preloads is False:
        return
    for queue in case.sight.queues:
        preloaded = (
            "preload_app is on" if case.preloads else "With preload_app (gunicorn --preload), or any fork after the import"
        )
        yield from _dead(queue, preloaded, sure=bool(case.preloads))


def _dead(queue: QueueSeen, preloaded: str, *, sure: bool) -> Iterator[Finding]:
    what = "loguru's enqueue=True" if queue.kind == "loguru" else f"a QueueListener over a {queue.queue}"
    if queue.between_processes:
        yield warning(
            PRELOAD,
            f"{preloaded}, and {what} is made at import: all workers write through one pipe, and one thread of the master "
            "empties it. A worker that is killed while it holds the lock of that pipe stops the logging of all others.",
            "Log through fapilog, or make it in each worker (post_fork), or switch preload_app off.",
        )
    else:
        say = error if sure else warning
        yield say(
            PRELOAD,
            f"{preloaded}, and {what} is started at import: its thread does not live in the workers, so what they log is kept in "
            "memory and never written.",
            "Log through fapilog, or start the listener in each worker (post_fork), or switch preload_app off.",
        )


def check_threads(case: Case) -> Iterator[Finding]:
    """Look at threads that the import has started, which a fork does not copy."""
    others = [thread for thread in case.sight.threads if not thread.package.startswith(_OF_QUEUES)]
    if others and case.preloads:
        packages = sorted({_name_of(thread.package) for thread in others})
        yield warning(
            PRELOAD,
            f"preload_app is on, and the import starts {several(len(others), 'thread')} ({listed(packages)}): in the workers "
            "they do not live, and locks that they hold at the fork stay held.",
            "Start them in each worker (post_fork), or switch preload_app off.",
        )
    elif others and case.preloads is None:
        packages = sorted({_name_of(thread.package) for thread in others})
        count = several(len(others), "thread")
        yield fine(
            PRELOAD, f"The import starts {count} ({listed(packages)}): leave preload_app off, or start them in each worker."
        )
    elif case.preloads and not case.sight.queues and case.sight.app and case.sight.stage == "done":
        yield fine(PRELOAD, "preload_app is on, and the import starts no thread that the workers would miss.")


def _name_of(package: str) -> str:
    return _KNOWN.get(package.partition(".")[0], package)
