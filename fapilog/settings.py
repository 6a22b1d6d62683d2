"""
Every setting of fapilog, as one frozen value that is read once, at set-up.

The environment is read in one place, when a `FapilogSettings` is made. Each setting `x` comes from the variable
`FAPILOG_X`, in any case; an override wins over it. Where neither is there, OpenTelemetry's variables speak for the sink otlp.
Whatever is wrong is raised together, as one `ConfigurationError`, before any worker is forked. Names of durations are in seconds
and of sizes in bytes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fapilog._internal import parsing
from fapilog._internal.parsing import LEVELS, level_number, parse_levels
from fapilog._internal.sampling import sampling as sampling_rules
from fapilog._internal.standard import standard
from fapilog.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "LEVELS",
    "FapilogSettings",
    "level_number",
    "load_settings",
    "parse_levels",
    "unknown_names",
    "warnings_for",
]

PREFIX = "FAPILOG_"
EXEMPT = "TEST_"
HIDDEN = ("loki_url", "loki_password", "loki_token", "otlp_endpoint", "otlp_headers")  # whose values are in no message

Switch = Annotated[bool, BeforeValidator(parsing.boolean)]
Count = Annotated[int, BeforeValidator(parsing.whole(0))]
PositiveCount = Annotated[int, BeforeValidator(parsing.whole(1))]
Seconds = Annotated[float, BeforeValidator(parsing.seconds())]
PositiveSeconds = Annotated[float, BeforeValidator(parsing.seconds(above_zero=True))]
PositiveSize = Annotated[int, BeforeValidator(parsing.size(1))]
OptionalPath = Annotated[str | None, BeforeValidator(parsing.optional_path)]
Labels = Annotated[dict[str, str], BeforeValidator(parsing.labels)]
Text = Annotated[str, BeforeValidator(parsing.text)]
Hidden = Annotated[
    str, BeforeValidator(parsing.text), AfterValidator(parsing.Hidden), PlainSerializer(parsing.shown, when_used="json")
]
HiddenUrl = Annotated[
    str, BeforeValidator(parsing.text), AfterValidator(parsing.HiddenUrl), PlainSerializer(parsing.shown, when_used="json")
]
Format = Annotated[Literal["auto", "json", "console"], BeforeValidator(parsing.choice("auto", "json", "console"))]
Overflow = Annotated[
    Literal["drop", "drop_oldest", "sample", "block"],
    BeforeValidator(parsing.choice("drop", "drop_oldest", "sample", "block")),
]
Journaling = Annotated[Literal["auto", "on", "off"], BeforeValidator(parsing.choice("auto", "on", "off"))]
Compression = Annotated[Literal["none", "gzip"], BeforeValidator(parsing.choice("none", "gzip"))]
PathTemplate = Annotated[str, BeforeValidator(parsing.path_template("service", "env", "host", "worker", "pid"))]


class FapilogSettings(BaseSettings):
    """
    The settings of one process, checked and frozen.

    Args:
        environ: What to read instead of `os.environ`.
        values: Settings by field name, as text or as Python values; they win over the environment.

    Raises:
        ConfigurationError: One or more settings are wrong or unknown; the message names every one of them.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, case_sensitive=False, env_file=None, frozen=True, extra="forbid")

    service: Annotated[str, BeforeValidator(parsing.service_name)] = Field(
        "fapilog", description="Name of the service, on every event and in file names; no / and no control characters."
    )
    env: Text = Field("", description="Name of the environment, such as prod; empty means not given.")
    level: Annotated[str, BeforeValidator(parsing.levels)] = Field(
        "INFO",
        description="Lowest level that is logged: DEBUG, INFO, WARNING, ERROR, CRITICAL or a whole number 0 to 50 (20 is INFO); "
        "single loggers follow as logger=level: INFO,sqlalchemy=WARNING.",
    )
    format: Format = Field(
        "auto", description="Form of the lines on stdout and stderr; auto is console on a terminal, else json."
    )
    sinks: Annotated[tuple[str, ...], BeforeValidator(parsing.sink_names)] = Field(
        ("stdout",), description="Where events go: comma list of stdout, stderr, file, loki, otlp."
    )
    labels: Labels = Field(
        {}, description="Labels of the events in sinks that have labels: key=value,key=value; empty means none."
    )
    run_dir: OptionalPath = Field(
        None, description="Directory of the files that the processes of a service share; empty means that fapilog chooses it."
    )
    drain_timeout: PositiveSeconds = Field(
        3.0, description="Seconds that a shutdown waits for delivery of what is queued, at most."
    )
    capture_stdlib: Switch = Field(default=True, description="Whether events of the standard logging module are taken too.")
    redact: Switch = Field(default=True, description="Whether secrets are masked, by key and by value.")
    redact_keys: Annotated[tuple[str, ...], BeforeValidator(parsing.keys)] = Field(
        (),
        description="Comma list of names that are masked besides the built-in ones, however they are spelled; empty means none.",
    )
    redact_patterns: Annotated[tuple[str, ...], BeforeValidator(parsing.patterns)] = Field(
        (),
        description="Comma list of bearer, jwt, card, and of regular expressions, whose matches in texts are masked; the comma "
        r"of a repeat such as {1,3} is part of it, any other is written \x2c; empty means none.",
    )
    exception_locals: Switch = Field(default=False, description="Whether exceptions carry the local variables of their frames.")
    max_event_bytes: Annotated[int, BeforeValidator(parsing.size(1024))] = Field(
        262144, description="Greatest size of one encoded event, in bytes, 1024 or more; also with KiB, MiB or GiB."
    )
    sampling: Annotated[str, BeforeValidator(sampling_rules)] = Field(
        "",
        description="Comma list of rules what=first:thereafter/interval for events that come often: in each interval the first "
        "events pass, then every thereafter-th, or none without it. What is the name of an event, level:NAME, or * for all below "
        "ERROR. cache_miss=100:50/1s,level:debug=10:100/1m; intervals with ms, s, m, h or d; empty keeps all.",
    )
    access_log: Switch = Field(default=True, description="Whether one event is logged for each request.")

    queue_enabled: Switch = Field(
        default=True,
        description="Whether events go through the queue; without it the caller writes them, to streams and files only.",
    )
    queue_size: PositiveCount = Field(1000, description="Events that the queue holds, 1 or more.")
    queue_max_bytes: PositiveSize = Field(
        16 * 2**20, description="Bytes of encoded events that the queue holds; also with KiB, MiB or GiB; the default is 16 MiB."
    )
    queue_batch_size: PositiveCount = Field(
        10, description="Waiting events that make the worker take all that wait, without the timeout; 1 or more."
    )
    queue_batch_timeout: Seconds = Field(1.0, description="Seconds that an event waits to be taken, at most.")
    queue_retry_delay: Seconds = Field(
        1.0, description="Seconds before the first retry of a failed write, at most; doubled each time, with jitter."
    )
    queue_max_retries: Count = Field(
        3, description="Times that a custom sink gets a failed batch again; file and stream sinks retry while they have room."
    )
    queue_overflow: Overflow = Field(
        "drop",
        description="What a full queue does: drop the new event, drop_oldest, sample (keep a share of the new ones), or block "
        "the caller for a while.",
    )
    queue_sample_rate: Annotated[float, BeforeValidator(parsing.real(0, 1, above=True))] = Field(
        0.1,
        description="Share of the new events that a full queue keeps under the policy sample, as one in N; above 0, at most 1.",
    )
    queue_block_timeout: Seconds = Field(0.05, description="Seconds that the policy block holds a caller, at most.")
    queue_reserve: Annotated[float, BeforeValidator(parsing.real(0, 1))] = Field(
        0.1, description="Share of the queue's size kept on top for events of WARNING and above; 0 to 1."
    )

    file_path: PathTemplate = Field(
        "logs/{service}.{worker}.jsonl",
        description="File of the sink file; may hold {service}, {env}, {host}, {worker} and {pid}.",
    )
    file_max_bytes: Annotated[int, BeforeValidator(parsing.size(0))] = Field(
        0, description="Size in bytes at which a file is rotated; also with KiB, MiB or GiB; 0 means never."
    )
    file_rotate_every: Annotated[str, BeforeValidator(parsing.rotation)] = Field(
        "", description="Time after which a file is rotated: midnight, or a period such as 30s, 15m, 1h, 1d; empty means never."
    )
    file_keep: Count = Field(7, description="Rotated files that are kept.")
    file_compress: Compression = Field("none", description="How rotated files are compressed: none or gzip.")
    file_strict: Switch = Field(
        default=False, description="Whether a file that cannot be opened at set-up is an error instead of a warning."
    )

    loki_url: HiddenUrl = Field(
        parsing.HiddenUrl(""),
        description="URL of the Loki server of the sink loki, or of its push endpoint, with or without user:password@.",
    )
    loki_tenant: Text = Field("", description="Tenant, sent as X-Scope-OrgID; empty means none.")
    loki_username: Text = Field("", description="User name of basic authentication; empty means none.")
    loki_password: Hidden = Field(parsing.Hidden(""), description="Password of basic authentication.")
    loki_token: Hidden = Field(parsing.Hidden(""), description="Token of bearer authentication; empty means none.")
    loki_ca_file: OptionalPath = Field(None, description="File of certificates that are trusted besides those of the system.")
    loki_labels: Labels = Field({}, description="Labels for Loki besides FAPILOG_LABELS: key=value,key=value; empty means none.")
    loki_stream_labels: Annotated[tuple[str, ...], BeforeValidator(parsing.stream_labels)] = Field(
        parsing.STREAM_LABELS,
        description="Comma list of those of service, env, host and worker that are labels at Loki; the others are metadata of "
        "each entry, so that there are fewer streams.",
    )
    loki_batch_bytes: PositiveSize = Field(
        2**20, description="Bytes of events in one request, at most; also with KiB, MiB or GiB; the default is 1 MiB."
    )
    loki_batch_timeout: Seconds = Field(1.0, description="Seconds that an event waits for others to be sent with, at most.")
    loki_timeout: PositiveSeconds = Field(10.0, description="Seconds that one request may take as a whole.")
    loki_max_elapsed: PositiveSeconds = Field(
        300.0, description="Seconds after which an event that could not be sent is given up and counted expired."
    )
    loki_backlog_bytes: PositiveSize = Field(
        32 * 2**20, description="Bytes of events that wait for Loki, at most; also with KiB, MiB or GiB; the default is 32 MiB."
    )

    otlp_endpoint: HiddenUrl = Field(
        parsing.HiddenUrl(""),
        description="URL of the OpenTelemetry Collector of the sink otlp, or of its /v1/logs, with or without user:password@; "
        "empty means what OTEL_EXPORTER_OTLP_LOGS_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT says, or else http://localhost:4318.",
    )
    otlp_endpoint_exact: Switch = Field(
        default=False, description="Whether that URL is used as it is, without /v1/logs at its end."
    )
    otlp_headers: Hidden = Field(
        parsing.Hidden(""),
        description="Headers of its requests: key=value,key=value, percent-encoded; without it OTEL_EXPORTER_OTLP_*HEADERS.",
    )
    otlp_timeout: PositiveSeconds = Field(
        10.0, description="Seconds that one request may take; without it OTEL_EXPORTER_OTLP_*TIMEOUT, which is in milliseconds."
    )
    otlp_compression: Compression = Field(
        "none", description="How requests are compressed: none or gzip; without it OTEL_EXPORTER_OTLP_*COMPRESSION."
    )
    otlp_ca_file: OptionalPath = Field(
        None, description="File of certificates trusted besides the system's; without it OTEL_EXPORTER_OTLP_*CERTIFICATE."
    )
    otlp_client_certificate: OptionalPath = Field(
        None, description="File with a certificate of the client's; without it OTEL_EXPORTER_OTLP_*CLIENT_CERTIFICATE."
    )
    otlp_client_key: OptionalPath = Field(
        None, description="File with the key to that, if it is another one; without it OTEL_EXPORTER_OTLP_*CLIENT_KEY."
    )
    otlp_resource: Labels = Field(
        {},
        description="Attributes of the resource besides FAPILOG_LABELS: key=value,key=value; without it "
        "OTEL_RESOURCE_ATTRIBUTES, and OTEL_SERVICE_NAME where FAPILOG_SERVICE is not set.",
    )
    otlp_batch_bytes: PositiveSize = Field(
        2**20, description="Bytes of one request before compression, at most; also with KiB, MiB or GiB; the default is 1 MiB."
    )
    otlp_batch_timeout: Seconds = Field(1.0, description="Seconds that an event waits for others to be sent with, at most.")
    otlp_max_elapsed: PositiveSeconds = Field(
        300.0, description="Seconds after which an event that could not be sent is given up and counted expired."
    )
    otlp_backlog_bytes: PositiveSize = Field(
        32 * 2**20, description="Bytes of events that wait to be sent, at most; also with KiB, MiB or GiB; the default is 32 MiB."
    )

    journal: Journaling = Field(
        "auto",
        description="Whether a process that is killed leaves its events in a journal, for another one to deliver: on, off, or "
        "auto, which is on under a server and in programs of several processes.",
    )
    journal_bytes: Annotated[int, BeforeValidator(parsing.size(1024))] = Field(
        8 * 2**20,
        description="Bytes of the latest events that a journal holds, 1024 or more; also with KiB, MiB or GiB; the default is "
        "8 MiB. Room for two events of the greatest size is made in any case.",
    )

    def __init__(self, environ: Mapping[str, str] | None = None, /, **values: Any) -> None:
        """Read the environment, lay *values* over it and check everything; see the class."""
        fields = type(self).model_fields
        wrong = [_unknown_override(name, fields) for name in values if name not in fields]
        environ = os.environ if environ is None else environ
        variables = _variables(environ)
        given: dict[str, Any] = {name: variables[_variable(name)] for name in fields if _variable(name) in variables}
        given.update({name: value for name, value in values.items() if name in fields})
        told, untold = standard(environ, service="service" in given, env=bool(given.get("env")))
        if "otlp_endpoint" in given:
            told.pop("otlp_endpoint_exact", None)
        given = {**told, **given}
        try:
            super().__init__(**given)
            wrong += untold if "otlp" in self.sinks else []
        except ValidationError as error:
            wrong += [_problem(str(detail["loc"][0]), given, values, detail) for detail in error.errors(include_url=False)]
        if wrong:
            raise ConfigurationError("\n  ".join(["fapilog cannot be set up:", *wrong]))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave only what `__init__` passes: it has read the environment, without JSON and with the names for the error."""
        return (init_settings,)


def load_settings(overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> FapilogSettings:
    """
    Make the settings of this process.

    Args:
        overrides: Values by field name, such as `{"level": logging.DEBUG, "sinks": ["file"]}`; they win.
        environ: What to read instead of `os.environ`.

    Raises:
        ConfigurationError: One message with every wrong variable or override, the value given and what would be right.
    """
    return FapilogSettings(environ, **(overrides or {}))


def unknown_names(environ: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """Return each `FAPILOG_*` name in *environ* that is no setting, with the nearest known one; `FAPILOG_TEST_*` is exempt."""
    known = [name.upper() for name in FapilogSettings.model_fields]
    unknown: list[tuple[str, str | None]] = []
    for name in sorted(environ):
        short = name.upper().removeprefix(PREFIX)
        if name.upper().startswith(PREFIX) and short not in known and not short.startswith(EXEMPT):
            near = parsing.nearest(short, known)
            unknown.append((name, near and PREFIX + near))
    return unknown


def warnings_for(environ: Mapping[str, str]) -> list[str]:
    """Return a line for each unknown name in *environ*; none shows a value."""
    return [
        f"{name} is not a fapilog setting" + (f"; did you mean {near}?" if near else "") for name, near in unknown_names(environ)
    ]


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the `FAPILOG_*` entries by upper-case name; where two differ in case only, the upper-case one wins."""
    ours = [name for name in sorted(environ, reverse=True) if name.upper().startswith(PREFIX)]
    return {name.upper(): environ[name] for name in ours}


def _unknown_override(name: str, known: Mapping[str, object]) -> str:
    return f"{name} (override) is not a fapilog setting{parsing.did_you_mean(name, known)}"


def _problem(field: str, given: Mapping[str, object], overrides: Mapping[str, object], detail: Mapping[str, Any]) -> str:
    rule = detail.get("ctx", {}).get("error", detail["msg"])
    value = "***" if field in HIDDEN else repr(given.get(field))
    name = f"{field}={value} (override)" if field in overrides else f"{_variable(field)}={value}"
    return f"{name}: {rule}"
