"""What `fapilog.settings` takes, what it refuses, and what it says then."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from fapilog.errors import ConfigurationError
from fapilog.settings import (
    HIDDEN,
    LEVELS,
    FapilogSettings,
    level_number,
    load_settings,
    parse_levels,
    unknown_names,
    warnings_for,
)

DEFAULTS: dict[str, object] = {
    "service": "fapilog",
    "env": "",
    "level": "INFO",
    "format": "auto",
    "sinks": ("stdout",),
    "labels": {},
    "run_dir": None,
    "drain_timeout": 3.0,
    "capture_stdlib": True,
    "redact": True,
    "redact_keys": (),
    "redact_patterns": (),
    "exception_locals": False,
    "max_event_bytes": 262144,
    "sampling": "",
    "access_log": True,
    "queue_enabled": True,
    "queue_size": 1000,
    "queue_max_bytes": 16 * 1024 * 1024,
    "queue_batch_size": 10,
    "queue_batch_timeout": 1.0,
    "queue_retry_delay": 1.0,
    "queue_max_retries": 3,
    "queue_overflow": "drop",
    "queue_sample_rate": 0.1,
    "queue_block_timeout": 0.05,
    "queue_reserve": 0.1,
    "file_path": "logs/{service}.{worker}.jsonl",
    "file_max_bytes": 0,
    "file_rotate_every": "",
    "file_keep": 7,
    "file_compress": "none",
    "file_strict": False,
    "loki_url": "",
    "loki_tenant": "",
    "loki_username": "",
    "loki_password": "",
    "loki_token": "",
    "loki_ca_file": None,
    "loki_labels": {},
    "loki_stream_labels": ("service", "env", "host", "worker"),
    "loki_batch_bytes": 1024 * 1024,
    "loki_batch_timeout": 1.0,
    "loki_timeout": 10.0,
    "loki_max_elapsed": 300.0,
    "loki_backlog_bytes": 32 * 1024 * 1024,
    "otlp_endpoint": "",
    "otlp_endpoint_exact": False,
    "otlp_headers": "",
    "otlp_timeout": 10.0,
    "otlp_compression": "none",
    "otlp_ca_file": None,
    "otlp_client_certificate": None,
    "otlp_client_key": None,
    "otlp_resource": {},
    "otlp_batch_bytes": 1024 * 1024,
    "otlp_batch_timeout": 1.0,
    "otlp_max_elapsed": 300.0,
    "otlp_backlog_bytes": 32 * 1024 * 1024,
    "journal": "auto",
    "journal_bytes": 8 * 1024 * 1024,
}
KNOWN = "stdout, stderr, file, loki, otlp"
OPTIONAL_PATHS = ["run_dir", "loki_ca_file", "otlp_ca_file", "otlp_client_certificate", "otlp_client_key"]
BOOLEANS = [name for name, value in DEFAULTS.items() if isinstance(value, bool)]
SIZES = [
    *("max_event_bytes", "queue_max_bytes", "file_max_bytes", "journal_bytes"),
    *("loki_batch_bytes", "loki_backlog_bytes", "otlp_batch_bytes", "otlp_backlog_bytes"),
]
COUNTS = ["queue_size", "queue_batch_size", "queue_max_retries", "file_keep"]
DURATIONS = [
    *("drain_timeout", "queue_batch_timeout", "queue_retry_delay", "queue_block_timeout"),
    *("loki_batch_timeout", "loki_timeout", "loki_max_elapsed"),
    *("otlp_batch_timeout", "otlp_timeout", "otlp_max_elapsed"),
]
LEVELS_ARE = "levels are DEBUG, INFO, WARNING, ERROR, CRITICAL or a whole number 0 to 50"
CHOICES = ["format", "queue_overflow", "file_compress", "otlp_compression", "journal"]


def variable(field):
    return f"FAPILOG_{field.upper()}"


def from_env(field, text):
    return getattr(load_settings(environ={variable(field): text}), field)


def refusal(overrides=None, environ=None):
    with pytest.raises(ConfigurationError) as caught:
        load_settings(overrides, environ if environ is not None else {})
    return str(caught.value)


def assert_refused(field, text, *, right=""):
    message = refusal(environ={variable(field): text})

    assert f"{variable(field)}={text!r}: " in message
    assert right in message
    assert len(message.splitlines()) == 2


class TestDefaults:
    def test_nothing_set(self):
        """Every setting has its documented default."""
        assert load_settings(environ={}).model_dump() == DEFAULTS

    def test_defaults_given_as_their_own_text(self):
        """The text of a default means the default."""
        environ = {variable(name): str(value) for name, value in DEFAULTS.items() if not isinstance(value, (tuple, dict))}

        assert load_settings(environ=environ).model_dump() == DEFAULTS | dict.fromkeys(OPTIONAL_PATHS, "None")

    @pytest.mark.parametrize("field", DEFAULTS)
    def test_description(self, field):
        """Every setting says what it means, for the documentation."""
        assert (FapilogSettings.model_fields[field].description or "").endswith((".", "INFO,sqlalchemy=WARNING."))

    def test_assignment(self):
        """Settings cannot be changed once made."""
        settings = load_settings(environ={})

        with pytest.raises(ValidationError):
            settings.level = "DEBUG"

    def test_pickled(self):
        """Settings survive a spawn unchanged, whatever the environment of the other process."""
        settings = load_settings({"service": "api"}, {})

        assert pickle.loads(pickle.dumps(settings)) == settings


class TestSources:
    def test_environment_of_the_process(self, monkeypatch):
        """Without a mapping the process's environment is read, by both ways of making settings."""
        monkeypatch.setenv("FAPILOG_SERVICE", "api")

        assert (load_settings().service, FapilogSettings().service) == ("api", "api")

    def test_mapping_instead_of_the_environment(self, monkeypatch):
        """A given mapping replaces the process's environment altogether."""
        monkeypatch.setenv("FAPILOG_SERVICE", "api")
        monkeypatch.setenv("FAPILOG_QUEUE_SIZE", "junk")

        assert load_settings(environ={}).service == "fapilog"

    def test_lower_case_variable(self):
        """Names of variables may be in any case; the upper-case one wins."""
        assert load_settings(environ={"fapilog_queue_size": "5"}).queue_size == 5
        assert load_settings(environ={"fapilog_queue_size": "5", "FAPILOG_QUEUE_SIZE": "6"}).queue_size == 6

    def test_override_and_variable(self):
        """An override wins over the variable, even over a wrong one."""
        assert load_settings({"queue_size": 5}, {"FAPILOG_QUEUE_SIZE": "junk"}).queue_size == 5

    def test_dotenv_file_in_the_working_directory(self, tmp_path, monkeypatch):
        """No .env file is read."""
        (tmp_path / ".env").write_text("FAPILOG_SERVICE=dotenv\n")
        monkeypatch.chdir(tmp_path)

        assert load_settings(environ={}).service == "fapilog"

    def test_variable_of_another_prefix(self):
        """A variable without the prefix is not ours."""
        assert load_settings(environ={"LEVEL": "DEBUG"}).level == "INFO"

    def test_positional_environ_and_settings_base(self):
        """The class is an ordinary pydantic-settings class that takes a mapping and keywords."""
        assert issubclass(FapilogSettings, BaseSettings)
        assert FapilogSettings({"FAPILOG_LEVEL": "ERROR"}, level="DEBUG").level == "DEBUG"

    @pytest.mark.parametrize(
        ("field", "given", "expected"),
        [
            ("level", logging.DEBUG, "DEBUG"),
            ("level", 15, "15"),
            ("level", 0, "0"),
            ("sinks", ["file"], ("file",)),
            ("sinks", "stderr,file", ("stderr", "file")),
            ("sinks", {"stdout": 1, "stderr": 2}.keys(), ("stdout", "stderr")),
            ("sinks", [], ()),
            ("file_path", Path("/var/log/{service}.log"), "/var/log/{service}.log"),
            ("run_dir", Path("/run/api"), "/run/api"),
            ("run_dir", None, None),
            ("labels", {"team": "core"}, {"team": "core"}),
            ("labels", {}, {}),
            ("redact_keys", ["ssn", "pin"], ("ssn", "pin")),
            ("redact_patterns", [r"\d{1,3},\d+"], (r"\d{1,3},\d+",)),
            ("drain_timeout", 2, 2.0),
            ("queue_size", 5, 5),
            ("queue_size", "5", 5),
            ("queue_max_bytes", "1MiB", 2**20),
            ("redact", False, False),
            ("redact", "off", False),
        ],
    )
    def test_override_as_python_value(self, field, given, expected):
        """Overrides may be Python values or the text that a variable would hold."""
        value = getattr(load_settings({field: given}, {}), field)

        assert (value, type(value)) == (expected, type(expected))

    def test_mapping_of_labels_changed_afterwards(self):
        """The settings keep a copy of what they were given."""
        labels = {"team": "core"}
        settings = load_settings({"labels": labels}, {})
        labels["team"] = "other"

        assert settings.labels == {"team": "core"}


class TestErrors:
    def test_several_wrong(self):
        """One error lists every wrong variable and override by its own name, with the value; nothing of pydantic shows."""
        message = refusal(
            {"queue_size": 0, "sinks": ["syslog"], "levle": "INFO"},
            {"FAPILOG_LEVEL": "warnning", "fapilog_redact": "ture", "FAPILOG_QUEUE_MAX_BYTES": "10k", "FAPILOG_SINKS": "junk"},
        )

        assert [
            "fapilog cannot be set up:",
            "  levle (override) is not a fapilog setting; did you mean level?",
            f"  FAPILOG_LEVEL='warnning': 'warnning' is not a level; did you mean WARNING? {LEVELS_ARE}",
            "  sinks=['syslog'] (override): 'syslog' is not a sink; use " + KNOWN,
            "  FAPILOG_REDACT='ture': must be true or false (also 1/0, yes/no, on/off)",
            "  queue_size=0 (override): must be a whole number, 1 or more",
            "  FAPILOG_QUEUE_MAX_BYTES='10k': must be a size in bytes, 1 or more, such as 65536, 64KiB, 16MiB or 1GiB",
        ] == message.splitlines()
        assert "pydantic" not in message

    def test_wrong_variable_and_direct_construction(self, monkeypatch):
        """O-CFG-1: making the class directly gives the same error as loading, without pydantic's behind it."""
        monkeypatch.setenv("FAPILOG_QUEUE_SIZE", "many")

        with pytest.raises(ConfigurationError, match="FAPILOG_QUEUE_SIZE='many'") as caught:
            FapilogSettings()

        assert caught.value.__context__ is None

    @pytest.mark.parametrize(
        ("name", "near"), [("levle", "level"), ("queue_sise", "queue_size"), ("Level", "level"), ("zzz", None), ("self", None)]
    )
    def test_unknown_override(self, name, near):
        """An override that is no setting is an error with the nearest known name, if one is near."""
        line = refusal({name: 1}).splitlines()[1]

        assert line == f"  {name} (override) is not a fapilog setting" + (f"; did you mean {near}?" if near else "")

    @pytest.mark.parametrize("field", [name for name in DEFAULTS if name not in OPTIONAL_PATHS])
    @pytest.mark.parametrize("value", [None, object(), b"x", {1: 2}, [3]])
    def test_override_of_a_wrong_type(self, field, value):
        """A Python value of a wrong type is an error that names the override and shows the value, if it is no secret."""
        shown = "***" if field in HIDDEN else repr(value)
        assert f"\n  {field}={shown} (override): " in refusal({field: value})

    @pytest.mark.parametrize("field", [*COUNTS, *SIZES, *DURATIONS, "queue_sample_rate", "queue_reserve", "level"])
    @pytest.mark.parametrize("value", [True, -1, float("nan"), float("inf"), 10**400])
    def test_number_out_of_bounds_as_override(self, field, value):
        """Booleans are no numbers, and numbers stay within what a worker can use."""
        assert f"\n  {field}={value!r} (override): " in refusal({field: value})

    @pytest.mark.parametrize(
        "field", [*BOOLEANS, *SIZES, *COUNTS, *DURATIONS, *CHOICES, "sinks", "level", "service", "file_path"]
    )
    def test_empty_variable_that_needs_a_value(self, field):
        """O-CFG-1: an empty variable of a number, a boolean or an enumeration is an error, not the default."""
        assert_refused(field, "")

    @pytest.mark.parametrize(
        ("field", "expected"),
        [
            ("env", ""),
            ("sampling", ""),
            ("file_rotate_every", ""),
            ("run_dir", None),
            ("labels", {}),
            ("redact_keys", ()),
            ("redact_patterns", ()),
        ],
    )
    def test_empty_variable_that_is_optional(self, field, expected):
        """An empty variable of an optional text means empty."""
        assert from_env(field, "") == expected


class TestBooleans:
    @pytest.mark.parametrize("field", BOOLEANS)
    @pytest.mark.parametrize("text", ["true", "1", "yes", "on", "True", "TRUE", "oN", " yes ", "\ttrue\n"])
    def test_documented_spelling_of_true(self, field, text):
        """O-CFG-1: every documented spelling of true is true, in any case and with spaces around."""
        assert from_env(field, text) is True

    @pytest.mark.parametrize("field", BOOLEANS)
    @pytest.mark.parametrize("text", ["false", "0", "no", "off", "False", "FALSE", "oFF", " no ", "\tfalse\n"])
    def test_documented_spelling_of_false(self, field, text):
        """O-CFG-1: every documented spelling of false is false, in any case and with spaces around."""
        assert from_env(field, text) is False

    @pytest.mark.parametrize("field", BOOLEANS)
    @pytest.mark.parametrize("text", ["ture", " ", "2", "-1", "None", "enabled", "t", "y", "1.0"])
    def test_any_other_text(self, field, text):
        """O-CFG-1: anything else is an error, never a side picked silently."""
        assert_refused(field, text, right="must be true or false")


class TestLevels:
    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("DEBUG", 10),
            ("info", 20),
            ("INFO ", 20),
            (" Warning", 30),
            ("warn", 30),
            ("ERROR", 40),
            ("critical", 50),
            ("Fatal", 50),
            ("20", 20),
            (" 35 ", 35),
            ("0", 0),
            (40, 40),
        ],
    )
    def test_level(self, text, number):
        """O-CFG-1: names count in any case and with spaces around, and so do whole numbers from 0 to 50."""
        assert level_number(text) == number

    @pytest.mark.parametrize(
        ("text", "near"),
        [("warnning", "WARNING"), ("inf", "INFO"), ("DEBUGG", "DEBUG"), ("err", "ERROR"), ("critcal", "CRITICAL")],
    )
    def test_misspelt_level(self, text, near):
        """O-CFG-1: a misspelt level is an error that suggests the nearest name."""
        assert_refused("level", text, right=f"{text!r} is not a level; did you mean {near}?")

    @pytest.mark.parametrize("level", ["", " ", "51", "-1", "2.5", "1e1", "loud", "٢٠", "NOTSET", 51, -1, True, 20.0, None])
    def test_no_level(self, level):
        """What is no level raises an error that names it."""
        with pytest.raises(ConfigurationError) as caught:
            level_number(level)

        assert f"{level!r} is not a level" in str(caught.value)

    def test_levels_known_to_the_standard_library(self):
        """Our numbers are those of the standard library."""
        assert {name: logging.getLevelName(name) for name in LEVELS} == LEVELS

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("INFO", (20, {})),
            ("INFO,sqlalchemy=WARNING", (20, {"sqlalchemy": 30})),
            (" debug , a.b = warn , c=35", (10, {"a.b": 30, "c": 35})),
            ("a=ERROR", (20, {"a": 40})),
            ("a=ERROR,DEBUG", (10, {"a": 40})),
        ],
    )
    def test_levels_of_single_loggers(self, text, expected):
        """The default level and those of single loggers come apart; the default is INFO when it is not given."""
        assert parse_levels(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "INFO,",
            "INFO,DEBUG",
            "INFO,=DEBUG",
            "INFO,a=",
            "INFO,a=DEBUG,a=INFO",
            "a=b=",
            "INFO;a=DEBUG",
            "a b=DEBUG",
            "a=b=DEBUG",
        ],
    )
    def test_malformed_levels(self, text):
        """O-CFG-1: a default or a logger missing or given twice is an error."""
        assert_refused("level", text)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("20", "INFO"), (" warn ", "WARNING"), ("fatal", "CRITICAL"), ("15", "15"), ("info, a = 30,b=5", "INFO,a=WARNING,b=5")],
    )
    def test_spelling_that_is_kept(self, text, expected):
        """Whatever the spelling, the setting holds one form, which reads back the same."""
        assert from_env("level", text) == expected
        assert parse_levels(text) == parse_levels(expected)


class TestNumbers:
    @pytest.mark.parametrize("field", SIZES)
    @pytest.mark.parametrize(
        ("text", "expected"),
        [("2048", 2048), (" 4096 ", 4096), ("10KiB", 10240), ("16MiB", 2**24), ("16 MiB", 2**24), ("1GiB", 2**30)],
    )
    def test_size(self, field, text, expected):
        """O-CFG-1: sizes are plain integers, or with a binary unit behind."""
        assert from_env(field, text) == expected

    @pytest.mark.parametrize("field", SIZES)
    @pytest.mark.parametrize(
        "text",
        [
            "10k",
            "-1",
            "1e3",
            " ",
            "10kb",
            "10KB",
            "10kib",
            "1.5MiB",
            "MiB",
            "16  MiB",
            "1_000",
            "0x10",
            "٣٠٠٠",
            "9" * 5000,
            "9999999999GiB",
        ],
    )
    def test_no_size(self, field, text):
        """O-CFG-1: any other spelling of a size is an error that shows a right one."""
        assert_refused(field, text, right="such as 65536, 64KiB, 16MiB or 1GiB")

    @pytest.mark.parametrize(
        ("field", "text"), [("max_event_bytes", "1023"), ("queue_max_bytes", "0"), ("queue_size", "0"), ("queue_batch_size", "0")]
    )
    def test_below_the_minimum(self, field, text):
        """A number below the minimum is an error."""
        assert_refused(field, text, right="or more")

    @pytest.mark.parametrize(
        ("field", "text", "expected"),
        [("max_event_bytes", "1024", 1024), ("queue_size", "1", 1), ("queue_max_retries", "0", 0), ("file_keep", " 0 ", 0)],
    )
    def test_the_minimum(self, field, text, expected):
        """The minimum itself is right."""
        assert from_env(field, text) == expected

    @pytest.mark.parametrize("field", COUNTS)
    @pytest.mark.parametrize("text", ["-1", "1.0", "1e3", "ten", "1_000", "+1", "10KiB", " ", "9" * 5000])
    def test_no_count(self, field, text):
        """O-CFG-1: counts are whole numbers in plain digits."""
        assert_refused(field, text, right="must be a whole number")

    @pytest.mark.parametrize("field", DURATIONS)
    @pytest.mark.parametrize(("text", "expected"), [("2", 2.0), ("0.25", 0.25), (" .5 ", 0.5), ("1e-3", 0.001), ("1000000", 1e6)])
    def test_duration(self, field, text, expected):
        """Durations are seconds, with a fraction if wanted."""
        assert from_env(field, text) == expected

    @pytest.mark.parametrize("field", DURATIONS)
    @pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-0.1", "1e999", "1000001", "3s", "1,5", "1_0", ".", " ", "٣"])
    def test_no_duration(self, field, text):
        """O-CFG-1: a duration that no worker could wait for is an error at set-up."""
        assert_refused(field, text, right="must be a number of seconds")

    def test_duration_of_zero(self):
        """Zero is a duration, but not a time in which to drain."""
        assert from_env("queue_block_timeout", "0") == 0.0
        assert_refused("drain_timeout", "0", right="more than 0")

    @pytest.mark.parametrize(
        ("field", "text", "expected"),
        [("queue_sample_rate", "1", 1.0), ("queue_reserve", "0", 0.0), ("queue_reserve", "1.0", 1.0)],
    )
    def test_share(self, field, text, expected):
        """A share goes up to all; a reserve may be nothing."""
        assert from_env(field, text) == expected

    @pytest.mark.parametrize("text", ["0", "1.01", "-0.1", "10%", "nan"])
    def test_no_sample_rate(self, text):
        """A sample rate that keeps nothing, or more than all, is an error."""
        assert_refused("queue_sample_rate", text, right="more than 0 and at most 1")

    @pytest.mark.parametrize("text", ["1.01", "-0.1", "10%", "nan"])
    def test_no_reserve(self, text):
        """A reserve outside 0 to 1 is an error."""
        assert_refused("queue_reserve", text, right="at least 0 and at most 1")


class TestChoices:
    @pytest.mark.parametrize(
        ("field", "text", "expected"),
        [
            ("format", "console", "console"),
            ("format", " JSON ", "json"),
            ("queue_overflow", "drop_oldest", "drop_oldest"),
            ("queue_overflow", "sample", "sample"),
            ("queue_overflow", "Block", "block"),
            ("file_compress", "gzip", "gzip"),
        ],
    )
    def test_choice(self, field, text, expected):
        """A documented choice counts in any case and with spaces around."""
        assert from_env(field, text) == expected

    @pytest.mark.parametrize(
        ("field", "text", "right"),
        [
            ("format", "jsno", "must be one of auto, json, console; did you mean json?"),
            ("format", "xml", "must be one of auto, json, console"),
            ("queue_overflow", "drop-oldest", "must be one of drop, drop_oldest, sample, block; did you mean drop_oldest?"),
            ("file_compress", "zip", "must be one of none, gzip"),
        ],
    )
    def test_no_choice(self, field, text, right):
        """O-CFG-1: a misspelt choice is an error that lists the right ones."""
        assert_refused(field, text, right=right)

    @pytest.mark.parametrize("text", ["stdout,stderr,file", " stdout , STDERR,file"])
    def test_sinks(self, text):
        """Sinks are a comma list, in the order given."""
        assert from_env("sinks", text) == ("stdout", "stderr", "file")

    @pytest.mark.parametrize("text", ["stdot", "stdout,", ",", "stdout,stdout", "stdout;file", '["file"]'])
    def test_no_sinks(self, text):
        """O-CFG-1: an unknown, empty or repeated sink is an error."""
        assert_refused("sinks", text, right=KNOWN if text == "stdot" else "")


class TestTexts:
    @pytest.mark.parametrize("text", ["api", "my api", "größe", " api "])
    def test_service(self, text):
        """A service may hold any printable characters and keeps its spaces."""
        assert from_env("service", text) == text

    @pytest.mark.parametrize("text", [" ", "a/b", "a\0b", "a\nb", "a\x7fb", "\udcff", ".", ".."])
    def test_no_service(self, text):
        """A service that cannot be in a file name is an error."""
        assert_refused("service", text, right="must be a name that can be part of a file name")

    def test_free_text(self):
        """Texts without a grammar are kept as they are."""
        assert from_env("env", " prod ") == " prod "

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("a=1", {"a": "1"}), ("team=core, zone = eu ", {"team": "core", "zone": "eu"}), ("q=x=y,e=", {"q": "x=y", "e": ""})],
    )
    def test_labels(self, text, expected):
        """Labels are key=value pairs, without the spaces around; a value may hold = or be empty."""
        assert from_env("labels", text) == expected

    @pytest.mark.parametrize("text", ["team", "team=core,", "=core", " =core", "a=1,a=2", '{"a": "b"}'])
    def test_no_labels(self, text):
        """O-CFG-1: a label without a key or given twice is an error."""
        assert_refused("labels", text)

    def test_label_that_is_no_text(self):
        """A label from Python is text, as one from a variable would be."""
        assert "labels={'version': 3} (override): must be key=value pairs of texts" in refusal({"labels": {"version": 3}})

    def test_keys_to_redact(self):
        """Keys are a comma list without the spaces around."""
        assert from_env("redact_keys", "ssn, x-pin ") == ("ssn", "x-pin")
        assert_refused("redact_keys", "ssn,,pin", right="without an empty one")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (r"\d{4}-\d{4}", (r"\d{4}-\d{4}",)),
            (r"\d{1,3}, a{2,},c{2,3}", (r"\d{1,3}", "a{2,}", "c{2,3}")),
            (r"a\x2cb", (r"a\x2cb",)),
        ],
    )
    def test_patterns_to_redact(self, text, expected):
        """Patterns are a comma list in which the comma of a repeat does not separate."""
        assert from_env("redact_patterns", text) == expected

    @pytest.mark.parametrize("text", ["(", "[a,b]", "(a,b)", "a,,b", "*"])
    def test_no_patterns(self, text):
        """A pattern that does not compile is an error at set-up."""
        assert_refused("redact_patterns", text)

    def test_run_directory(self):
        """The run directory is a path as given."""
        assert from_env("run_dir", "/run/api") == "/run/api"
        assert "run_dir='a\\x00b' (override): must be a path" in refusal({"run_dir": "a\0b"})

    @pytest.mark.parametrize("text", ["app.jsonl", "/var/log/{service}/{env}-{host}.{worker}.{pid}.jsonl", "a{{b}}.jsonl"])
    def test_file_path(self, text):
        """A path may hold every documented placeholder, and doubled braces."""
        assert from_env("file_path", text) == text

    @pytest.mark.parametrize(
        ("text", "right"),
        [
            ("{user}.jsonl", "may only hold the placeholders {service}, {env}, {host}, {worker}, {pid}"),
            ("{}.jsonl", "may only hold the placeholders"),
            ("{service.__class__}", "may only hold the placeholders"),
            ("{service[0]}", "may only hold the placeholders"),
            ("{pid:05}", "may only hold the placeholders"),
            ("{pid!r}", "may only hold the placeholders"),
            ("{service.jsonl", "braces must be paired"),
            ("service}.jsonl", "braces must be paired"),
            ("logs/", "must name a file"),
        ],
    )
    def test_malformed_file_path(self, text, right):
        """A path that could not be filled in inside a worker is an error at set-up."""
        assert_refused("file_path", text, right=right)

    @pytest.mark.parametrize(
        ("text", "expected"), [("30s", "30s"), ("15m", "15m"), (" 1h ", "1h"), ("1d", "1d"), ("midnight", "midnight")]
    )
    def test_rotation(self, text, expected):
        """A file is rotated at midnight or after a period."""
        assert from_env("file_rotate_every", text) == expected

    @pytest.mark.parametrize("text", ["0s", "1", "1w", "-1h", "1.5h", "noon", "h"])
    def test_no_rotation(self, text):
        """O-CFG-1: any other period is an error."""
        assert_refused("file_rotate_every", text, right="such as 30s, 15m, 1h or 1d")


class TestNames:
    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("FAPILOG_QUEUE_SZIE", "FAPILOG_QUEUE_SIZE"),
            ("FAPILOG_LEVLE", "FAPILOG_LEVEL"),
            ("FAPILOG_LOKI_ULR", "FAPILOG_LOKI_URL"),
            ("fapilog_formt", "FAPILOG_FORMAT"),
            ("FAPILOG_ZZZZZZ", None),
            ("FAPILOG_", None),
        ],
    )
    def test_unknown_name(self, name, near):
        """An unknown name comes with the nearest known one, if one is near."""
        assert unknown_names({name: "x", "PATH": "/bin"}) == [(name, near)]

    @pytest.mark.parametrize("name", [*map(variable, DEFAULTS), "fapilog_level", "FAPILOG_TEST_LEVLE", "FAPI_LEVEL"])
    def test_known_or_exempt_name(self, name):
        """Settings, names of later versions, names for tests and names that are not ours are not unknown."""
        assert unknown_names({name: "x"}) == []

    def test_unknown_name_while_loading(self):
        """An unknown variable is no error; whether to warn is the caller's."""
        assert load_settings(environ={"FAPILOG_QUEUE_SZIE": "5"}).model_dump() == DEFAULTS

    def test_nothing_to_warn_of(self):
        """Settings that all take effect give no warning."""
        environ = {"FAPILOG_LEVEL": "DEBUG", "FAPILOG_FILE_STRICT": "true", "FAPILOG_TEST_X": "1"}

        assert warnings_for(environ) == []

    def test_warnings(self):
        """There is one line for each unknown name; no value is shown."""
        environ = {
            "FAPILOG_QUEUE_SZIE": "5",
            "FAPILOG_ZZZZZZ": "5",
            "FAPILOG_OTLP_ENDPOINT": "hunter2",
        }

        assert warnings_for(environ) == [
            "FAPILOG_QUEUE_SZIE is not a fapilog setting; did you mean FAPILOG_QUEUE_SIZE?",
            "FAPILOG_ZZZZZZ is not a fapilog setting",
        ]


class TestSecrets:
    SECRETS = {  # noqa: RUF012
        "loki_url": "https://ann:hunter2@loki.example/x",
        "loki_password": "hunter2",
        "loki_token": "hunter2",
        "otlp_endpoint": "https://ann:hunter2@otlp.example/x",
        "otlp_headers": "api-key=hunter2",
    }

    def test_in_messages_and_forms(self):
        """Neither `repr()` nor an error shows them; the values are what was given."""
        settings = load_settings(self.SECRETS, {})
        assert {name: getattr(settings, name) for name in self.SECRETS} == self.SECRETS
        assert "hunter2" not in f"{settings!r} {settings!s} {settings.model_dump()} {settings.model_dump_json()}"
        assert "https://***@loki.example/x" in repr(settings)
        for name in self.SECRETS:
            assert "hunter2" not in refusal({name: ["hunter2"]})

    def test_other_settings_made_of_them(self):
        """They survive being taken over."""
        again = load_settings(load_settings(self.SECRETS, {}).model_dump(), {})
        assert {name: getattr(again, name) for name in self.SECRETS} == self.SECRETS
