"""
Readers of configuration values: each takes what was given and returns the value to use.

What is given is text from the environment or a Python value from an override. A reader either returns a value of exactly
the documented type or raises `ConfigurationError` with what would be right; it never picks a side silently. The caller
adds the name of the setting and the value.
"""

from __future__ import annotations

import difflib
import os
import re
import string
from collections.abc import Callable, Iterable, Mapping

from fapilog.errors import ConfigurationError

LEVELS: dict[str, int] = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "WARN": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50}
"""Every accepted level name, in upper case, with its number."""

SINKS = ("stdout", "stderr", "file", "loki", "otlp")
STREAM_LABELS = ("service", "env", "host", "worker")
PATTERNS = ("bearer", "jwt", "card")

MAX_INTEGER = 2**63 - 1
MAX_SECONDS = 1_000_000  # about 11 days; much longer waits overflow in poll() and in lock timeouts, inside a worker

_SWITCHES = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_LEVELS_ARE = "levels are DEBUG, INFO, WARNING, ERROR, CRITICAL or a whole number 0 to 50"
_LEVEL_NAMES = {number: name for name, number in LEVELS.items() if name not in ("WARN", "FATAL")}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that looks most like *word*, or *None* if none is near."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean X?"`, or nothing if no known word is near."""
    near = nearest(word, known)
    return f"; did you mean {near}?" if near else ""


def boolean(value: object) -> bool:
    """Read *True*, *False* or one of true/false, 1/0, yes/no, on/off in any case, with spaces around."""
    switch = _SWITCHES.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(switch, bool):
        raise ConfigurationError("must be true or false (also 1/0, yes/no, on/off)")
    return switch


def whole(minimum: int) -> Callable[[object], int]:
    """Make a reader of whole numbers from *minimum* up, written in plain digits."""

    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value.strip()):
            value = int(value)
        return _integer(value, minimum, f"must be a whole number, {minimum} or more")

    return read


def size(minimum: int) -> Callable[[object], int]:
    """Make a reader of byte sizes from *minimum* up: plain digits, or with KiB, MiB or GiB behind."""

    def read(value: object) -> int:
        if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,19}) ?([KMG]iB|)", value.strip())):
            value = int(match[1]) * _UNITS[match[2]]
        return _integer(value, minimum, f"must be a size in bytes, {minimum} or more, such as 65536, 64KiB, 16MiB or 1GiB")

    return read


def _integer(value: object, minimum: int, rule: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= MAX_INTEGER:
        raise ConfigurationError(rule)
    return int(value)


def real(minimum: float, maximum: float, unit: str = "", *, above: bool = False) -> Callable[[object], float]:
    """
    Make a reader of finite numbers.

    Args:
        minimum: Smallest number taken; with *above* only what is greater than it.
        maximum: Greatest number taken.
        unit: Said in the error, for example "seconds".
        above: Whether *minimum* itself is refused.
    """
    lower = f"more than {minimum:g}" if above else f"at least {minimum:g}"
    rule = f"must be a number{unit and f' of {unit}'}, {lower} and at most {maximum:.10g}"

    def read(value: object) -> float:
        if isinstance(value, str) and re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", value.strip()):
            value = float(value)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise ConfigurationError(rule)
        if above and value == minimum:
            raise ConfigurationError(rule)
        return float(value)

    return read


def seconds(*, above_zero: bool = False) -> Callable[[object], float]:
    """Make a reader of durations in seconds, from 0 (or just above it) to `MAX_SECONDS`."""
    return real(0, MAX_SECONDS, "seconds", above=above_zero)


def choice(*names: str) -> Callable[[object], str]:
    """Make a reader of one of *names* in any case, with spaces around."""

    def read(value: object) -> str:
        name = value.strip().lower() if isinstance(value, str) else ""
        if name not in names:
            raise ConfigurationError(f"must be one of {', '.join(names)}{did_you_mean(name, names)}")
        return name

    return read


def text(value: object) -> str:
    """Read text as it is, empty text included."""
    if not isinstance(value, str):
        raise ConfigurationError("must be text")
    return value


class Hidden(str):
    """A text that its `repr()` does not show: a password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


class HiddenUrl(str):
    """A URL whose `repr()` does not show the credentials in it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(shown_url(self))


#: Before an ``@``, also behind the host where a password has a slash in it; and values of parameters of a path.
_SECRET_IN_PLACE = re.compile(r"(?<=/)[^/]*(?=@)|(?<==)[^/;]++|(?<=;)[^/;=]++(?!=)")


def shown_url(url: str) -> str:
    """Return *url*, be it one or not, without what may be a secret: credentials, values in its path and query, its fragment."""
    address = url.partition("#")[0]
    place, mark, query = address.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")] if query else []
    return _SECRET_IN_PLACE.sub("***", place) + mark + "&".join(f"{name}=***" if sign else "***" for name, sign, _ in pairs)


def shown(value: str) -> str:
    """Return a hidden text as its `repr()` shows it, without the quotes."""
    return repr(value)[1:-1]


def service_name(value: object) -> str:
    """Read a name that can be part of a file name: printable characters, no `/`, not blank, not `.` or `..`."""
    if not isinstance(value, str) or not value.isprintable() or "/" in value or value.strip() in ("", ".", ".."):
        raise ConfigurationError("must be a name that can be part of a file name: not empty, no / and no control characters")
    return value


def optional_path(value: object) -> str | None:
    """Read a path as text; *None* and the empty text both mean not given."""
    if value is None or value == "":
        return None
    return _path(value)


def _path(value: object) -> str:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise ConfigurationError("must be a path")
    return path


def path_template(*placeholders: str) -> Callable[[object], str]:
    """Make a reader of file paths that may hold the given `{placeholders}`, without conversion, format or attribute."""
    allowed = ", ".join(f"{{{name}}}" for name in placeholders)

    def read(value: object) -> str:
        path = _path(value)
        try:
            fields = [field[1:] for field in string.Formatter().parse(path) if field[1] is not None]
        except ValueError:
            raise ConfigurationError("braces must be paired; write {{ or }} for one in the name") from None
        if any(name not in placeholders or spec or conversion for name, spec, conversion in fields):
            raise ConfigurationError(f"may only hold the placeholders {allowed}")
        if path.endswith("/"):
            raise ConfigurationError("must name a file, not a directory")
        return path

    return read


def names(value: object) -> tuple[str, ...]:
    """Read a comma list, or any iterable, of non-empty texts; empty text means none."""
    if isinstance(value, str):
        value = value.split(",") if value else ()
    if isinstance(value, (bytes, Mapping)) or not isinstance(value, Iterable):
        raise ConfigurationError("must be a list of names with commas between them")
    found = tuple(item.strip() if isinstance(item, str) else "" for item in value)
    if not all(found):
        raise ConfigurationError("must be a list of names with commas between them, without an empty one")
    return found


def sink_names(value: object) -> tuple[str, ...]:
    """
    Read names out of `SINKS`, each at most once, in any case.

    Empty text is an error; an empty list from Python means no sink.
    """
    found = tuple(name.lower() for name in names(value))
    for name in found:
        if name not in SINKS:
            raise ConfigurationError(f"{name!r} is not a sink; use {', '.join(SINKS)}{did_you_mean(name, SINKS)}")
    if value == "" or len(set(found)) != len(found):
        raise ConfigurationError(f"must name one or more of {', '.join(SINKS)}, each once")
    return found


def stream_labels(value: object) -> tuple[str, ...]:
    """Read one or more names out of `STREAM_LABELS`, each once, in any case; they come back in its order."""
    found = tuple(name.lower() for name in names(value))
    for name in found:
        if name not in STREAM_LABELS:
            raise ConfigurationError(f"{name!r} is not one; use {', '.join(STREAM_LABELS)}{did_you_mean(name, STREAM_LABELS)}")
    if not found or len(set(found)) != len(found):
        raise ConfigurationError(f"must name one or more of {', '.join(STREAM_LABELS)}, each once")
    return tuple(name for name in STREAM_LABELS if name in found)


def keys(value: object) -> tuple[str, ...]:
    """Read `names`, each with a letter or digit in it."""
    found = names(value)
    for name in found:
        if not any(map(str.isalnum, name)):
            raise ConfigurationError(f"{name!r} is no name of a field: it has neither letters nor digits")
    return found


def labels(value: object) -> dict[str, str]:
    """Read `key=value,key=value`, or a mapping of texts; a value may hold `=` but no comma; empty text means none."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        parts = [item.partition("=") for item in names(value)]
        if not all(equals for _, equals, _ in parts):
            raise ConfigurationError("must be key=value pairs with commas between them")
        pairs = [(key.strip(), label.strip()) for key, _, label in parts]
    if not all(isinstance(key, str) and key and isinstance(label, str) for key, label in pairs):
        raise ConfigurationError("must be key=value pairs of texts, no key empty")
    if len(dict(pairs)) != len(pairs):
        raise ConfigurationError("must give each key once")
    return dict(pairs)


def patterns(value: object) -> tuple[str, ...]:
    r"""
    Read a comma list, or any iterable, of regular expressions, each of which compiles.

    In text the comma of a repeat such as `{1,3}` does not separate; any other comma in an expression is written `\x2c`.
    """
    found = names(re.split(r",(?![0-9]*\})", value) if isinstance(value, str) and value else value)
    found = tuple(pattern.lower() if pattern.lower() in PATTERNS else pattern for pattern in found)
    for pattern in found:
        if pattern not in PATTERNS and re.fullmatch(r"[A-Za-z]+", pattern) and (near := nearest(pattern.lower(), PATTERNS)):
            raise ConfigurationError(f"{pattern!r} masks that word alone; did you mean {near}? (Otherwise write ({pattern}).)")
        try:
            if re.compile(pattern).match(""):
                raise ConfigurationError(f"{pattern!r} matches nothing at all, so it would mask everywhere")
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigurationError(rf"{pattern!r} is not a regular expression: {error} (write \x2c for a comma)") from None
    return found


def rotation(value: object) -> str:
    """Read `midnight`, or a whole number of seconds, minutes, hours or days such as `30s`, `1h`, `1d`, or nothing."""
    period = value.strip() if isinstance(value, str) else None
    if period is None or not re.fullmatch(r"|midnight|0*[1-9][0-9]{0,5}[smhd]", period):
        raise ConfigurationError("must be empty, midnight, or a period such as 30s, 15m, 1h or 1d")
    return period


def level_number(level: str | int) -> int:
    """
    Return the number of a level.

    Args:
        level: A name out of `LEVELS` in any case, with spaces around, or a whole number 0 to 50, as text or as *int*.

    Raises:
        ConfigurationError: It is neither; the message says which name is near.
    """
    name = level.strip().upper() if isinstance(level, str) else ""
    if name in LEVELS:
        return LEVELS[name]
    number = int(name) if re.fullmatch(r"[0-9]{1,3}", name) else level
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= LEVELS["CRITICAL"]:
        raise ConfigurationError(f"{level!r} is not a level{did_you_mean(name, LEVELS) or ';'} {_LEVELS_ARE}")
    return int(number)


def parse_levels(text: str) -> tuple[int, dict[str, int]]:
    """
    Return the default level and the levels of single loggers.

    Args:
        text: Comma list of one level and of `logger=level` pairs, such as `INFO,sqlalchemy=WARNING`; without the one
            level the default is INFO.

    Raises:
        ConfigurationError: A level is unknown, the default or a logger is given twice, or a logger is no name (it may not
            hold white space, `;` or `=`).
    """
    default: int | None = None
    loggers: dict[str, int] = {}
    for item in text.split(","):
        logger, equals, level = item.rpartition("=")
        number, logger = level_number(level), logger.strip()
        if not equals and default is None:
            default = number
        elif equals and re.fullmatch(r"[^\s;=]+", logger) and logger not in loggers:
            loggers[logger] = number
        else:
            raise ConfigurationError(f"must hold one level and logger=level pairs, each logger once; {_LEVELS_ARE}")
    return LEVELS["INFO"] if default is None else default, loggers


def levels(value: object) -> str:
    """Read what `parse_levels` takes, or a level as *int*, and return it as text in one spelling: `INFO,sqlalchemy=WARNING`."""
    default, loggers = parse_levels(value) if isinstance(value, str) else (level_number(value), {})  # type: ignore[arg-type]
    numbers = {"": default, **loggers}
    return ",".join(f"{logger}{'=' if logger else ''}{_LEVEL_NAMES.get(n, n)}" for logger, n in numbers.items())
