"""The commands and their options; what they do is in the modules beside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fapilog.cli import level as levels
from fapilog.cli import recover as recovering
from fapilog.cli import stats as statistics
from fapilog.cli import tail as tails
from fapilog.cli import top as screens
from fapilog.cli import verify as proofs
from fapilog.cli.choice import chosen
from fapilog.cli.probe.child import Asked
from fapilog.errors import ConfigurationError

app = typer.Typer(
    help="What the processes of a service have logged, delivered and dropped, and how they should log.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Service = Annotated[str, typer.Option("--service", help="Of which service, by its name (FAPILOG_SERVICE).")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Of which run directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Logger = Annotated[str, typer.Option("--logger", help="Of this logger and those below it; the default level without it.")]
Worker = Annotated[int | None, typer.Option("--worker", min=0, help="In this worker only.")]


@app.command()
def stats(service: Service = "", run_dir: RunDir = None, *, as_json: Json = False) -> None:
    """Show the books of all workers: what was logged, delivered, dropped and why."""
    statistics.show(chosen(run_dir, service), as_json=as_json)


@app.command()
def top(
    service: Service = "",
    run_dir: RunDir = None,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between two looks.")] = 1.0,
    count: Annotated[int, typer.Option("--count", min=0, help="End after so many looks; 0 for never.")] = 0,
    *,
    as_json: Json = False,
) -> None:
    """Watch all workers: rate, queue, drops, sinks. `q` quits; not on a terminal, one snapshot follows the other."""
    screens.watch(chosen(run_dir, service), interval, count, as_json=as_json)


@app.command()
def level(
    name: Annotated[str, typer.Argument(metavar="[LEVEL]", help="DEBUG, INFO, WARNING, ERROR or CRITICAL.")] = "",
    logger: Logger = "",
    worker: Worker = None,
    duration: Annotated[str, typer.Option("--for", help="How long, such as 30s, 10m or 1h30m; until --reset without it.")] = "",
    show: Annotated[bool, typer.Option("--show", help="Show what is asked for now.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Take back what was asked for.")] = False,
    service: Service = "",
    run_dir: RunDir = None,
    *,
    as_json: Json = False,
) -> None:
    """Change the level of all workers that run, and of those to come, within a second; it reverts by itself after --for."""
    levels.check(name, duration, show=show, reset=reset, as_json=as_json)
    place = chosen(run_dir, service)
    if show:
        levels.show(place, logger, worker, as_json=as_json)
    elif reset:
        levels.reset(place, logger, worker)
    else:
        levels.ask(place, name, logger, worker, duration)


@app.command()
def recover(
    to: Annotated[Path | None, typer.Option("--to", help="Into files in this directory, instead of the service's sinks.")] = None,
    service: Service = "",
    run_dir: RunDir = None,
) -> None:
    """Deliver what killed processes left, now, instead of at the next start; with the environment of the service."""
    place = run_dir or chosen(run_dir, service)
    if to is None:
        recovering.into_sinks(place)
    else:
        recovering.into_directory(place, to)


@app.command()
def metrics(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="To listen on; 0 for any that is free.")],
    host: Annotated[str, typer.Option("--host", help="To listen on.")] = "127.0.0.1",
    service: Service = "",
    run_dir: RunDir = None,
) -> None:
    """Serve the metrics of all workers to Prometheus, from this process, until it is interrupted."""
    from fapilog._internal.exposition import serve

    place = run_dir or chosen(run_dir, service)
    try:
        code = serve(place, host, port, lambda url: typer.echo(f"metrics of {place} on {url}"))
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    raise typer.Exit(code)


@app.command()
def verify(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Log files, and directories with log files in them.")],
    sink: Annotated[str, typer.Option("--sink", help="The name of the sink that wrote them.")] = "file",
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where a life has no end, too.")] = False,
    as_json: Json = False,
) -> None:
    """Prove that log files hold every event, once, or say which are missing: 0 if none is without an explanation, else 1."""
    raise typer.Exit(proofs.verify(paths, sink, strict=strict, as_json=as_json))


@app.command()
def tail(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH...]", help="Log files, and directories with log files in them.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written, until interrupted.")] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, help="Only so many of the last ones; 10 with --follow.")
    ] = None,
    since: Annotated[str, typer.Option("--since", help="From then on: 10m, or 2026-11-28T10:30.")] = "",
    level: Annotated[str, typer.Option("--level", help="Of this level and above.")] = "",
    worker: Annotated[list[int] | None, typer.Option("--worker", min=0, help="Of this worker; may be given again.")] = None,
    where: Annotated[
        list[str] | None, typer.Option("--where", help="Such as status>=500, path~^/api, user=ada; all of them.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="console, json or logfmt; auto is console on a terminal, else json.")
    ] = "auto",
    fields: Annotated[str, typer.Option("--fields", help="Only these, separated by commas.")] = "",
) -> None:
    """Show the events of all workers in the order of time, from their files; with -f also those to come."""
    chosen_fields = [name.strip() for name in fields.split(",") if name.strip()]
    options = tails.Options(follow, lines, since, level, worker or (), where or (), form, chosen_fields)
    raise typer.Exit(tails.tail(paths or [], options))


@app.command()
def doctor(
    target: Annotated[str, typer.Argument(metavar="[APP]", help="The application, as your server gets it: app:app.")] = "",
    config: Annotated[str, typer.Option("--config", "-c", help="Gunicorn's, as it gets it: a file, or python:MODULE.")] = "",
    limit: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds that the import may take.")] = 30.0,
    service: Annotated[str, typer.Option("--service", help="Instead of FAPILOG_SERVICE.")] = "",
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="Instead of FAPILOG_RUN_DIR.")] = None,
    *,
    push: Annotated[bool, typer.Option("--push/--no-push", help="Whether to send a line to Loki or an OTLP server.")] = True,
    as_json: Json = False,
) -> None:
    """Say what is wrong with the set-up of a service, and what to change: 0 if there is no error, else 1."""
    from fapilog.cli import doctor as examinations  # which loads the HTTP client

    asked = Asked(target, config, limit)
    raise typer.Exit(examinations.doctor(asked, service=service, run_dir=run_dir, push=push, as_json=as_json))
