"""The sinks that settings name, made of those settings; what is optional is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fapilog._internal.threaded import ThreadedSink
from fapilog.errors import ConfigurationError
from fapilog.sinks.file import FileSink
from fapilog.sinks.stream import StreamSink

if TYPE_CHECKING:
    from fapilog.settings import FapilogSettings


def chosen_run_dir(settings: FapilogSettings) -> Path | None:
    """Return the run directory that *settings* name, if they do."""
    return Path(settings.run_dir).absolute() if settings.run_dir else None


def built_in(name: str, settings: FapilogSettings) -> FileSink | StreamSink | ThreadedSink:
    """
    Return the sink *name*.

    Raises:
        ConfigurationError: What *settings* say cannot be used, or a package is missing.
    """
    name = name.strip().lower()
    if name == "file":
        return FileSink(
            settings.file_path,
            max_bytes=settings.file_max_bytes,
            rotate_every=settings.file_rotate_every,
            keep=settings.file_keep,
            compress=settings.file_compress,
        )
    if name in _PUSHING:
        return _PUSHING[name](settings)
    return StreamSink(name, form=settings.format, run_dir=chosen_run_dir(settings))


def _loki(settings: FapilogSettings) -> ThreadedSink:
    if not settings.loki_url.strip():
        raise ConfigurationError("FAPILOG_LOKI_URL: the sink loki needs the URL of a server, such as http://loki:3100")
    from fapilog.sinks.loki import LokiSink

    try:
        return ThreadedSink(LokiSink(**loki_arguments(settings)), built_in=True)
    except ConfigurationError as error:
        raise ConfigurationError(f"FAPILOG_LOKI_*: {error}") from error


def _otlp(settings: FapilogSettings) -> ThreadedSink:
    try:
        from fapilog.sinks.otlp import OtlpSink

        return ThreadedSink(OtlpSink(**otlp_arguments(settings)), built_in=True)
    except ImportError as error:
        raise ConfigurationError(str(error)) from error
    except ConfigurationError as error:
        raise ConfigurationError(f"FAPILOG_OTLP_* or OTEL_EXPORTER_OTLP_*: {error}") from error


def loki_arguments(settings: FapilogSettings) -> dict[str, Any]:
    """Return what *settings* ask of a `LokiSink`."""
    return {**_given(settings, "loki_"), "labels": {**settings.labels, **settings.loki_labels}}


def otlp_arguments(settings: FapilogSettings) -> dict[str, Any]:
    """Return what *settings* ask of an `OtlpSink`."""
    return {**_given(settings, "otlp_"), "resource": {**settings.labels, **settings.otlp_resource}}


def _given(settings: FapilogSettings, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in settings.model_dump().items() if name.startswith(prefix)}


_PUSHING = {"loki": _loki, "otlp": _otlp}
