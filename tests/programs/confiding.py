"""
Logs secrets in many shapes, each with a secret of its own, and writes down what a custom sink was given and what reprs show.

`SHAPES` maps a name to a function that logs one event ``shape <name>`` with the secret it is given. `tests/test_secrets.py` runs
this as a program and looks for the secrets in whatever came out.
"""

# ruff: noqa: G003, G004 - the text of an event is one of the places where secrets stand

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
import json
import logging
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import attr
import httpx
import numpy as np
import pydantic
import structlog
from starlette.datastructures import Headers, QueryParams

import fapilog
from fapilog.asgi import FapilogMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    Shape = Callable[[str, str], object]

log: Any = fapilog.get_logger("confiding")

#: Each of these names a secret, whatever its spelling.
KEYS = [
    *(
        "password",
        "passwd",
        "pwd",
        "PASSWORD",
        "Password",
        "passphrase",
        "db_password",
        "dbPassword",
        "user.password",
        "new-password",
    ),
    *(
        "password_confirmation",
        "passwords",
        "secret",
        "secrets",
        "client_secret",
        "clientSecret",
        "client-secret",
        "stripe_secret_key",
    ),
    *(
        "secretKey",
        "token",
        "access_token",
        "accessToken",
        "refreshToken",
        "id_token",
        "auth_token",
        "x-auth-token",
        "bearer_token",
    ),
    *(
        "csrf_token",
        "X-CSRF-Token",
        "Authorization",
        "authorization",
        "AUTHORIZATION",
        "Proxy-Authorization",
        "HTTP_AUTHORIZATION",
    ),
    *(
        "Cookie",
        "Set-Cookie",
        "cookies",
        "HTTP_COOKIE",
        "X-Api-Key",
        "x-api-key",
        "X_API_KEY",
        "HTTP_X_API_KEY",
        "api_key",
        "apikey",
    ),
    *(
        "apiKey",
        "APIKey",
        "api key",
        "api_keys",
        "session_id",
        "sessionid",
        "sessionId",
        "private_key",
        "privateKey",
        "access_key",
    ),
    *("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", "credentials", "credential"),
]

#: None of these does.
HARMLESS = [
    *(
        "author",
        "authored_by",
        "authors",
        "authority",
        "authenticated",
        "is_authorized",
        "tokenizer",
        "token_count",
        "max_tokens",
    ),
    *("prompt_tokens", "completion_tokens", "total_tokens", "tokenized", "keyboard", "passenger", "passed", "compass", "bypass"),
    *(
        "secretary",
        "monkey",
        "turkey",
        "key",
        "keys",
        "keyword",
        "primary_key",
        "foreign_key",
        "cache_key",
        "sort_key",
        "cookie_consent",
    ),
    *("request_id", "user_id", "encompassing", "compression", "bearing", "passing_rate", "hub", "username", "user", "host"),
]


class Field(enum.Enum):
    PASSWORD = "password"


class FieldName(enum.StrEnum):
    API_KEY = "api_key"


class Login(NamedTuple):
    user: str
    password: str


@dataclasses.dataclass
class Account:
    user: str
    password: str
    inner: Any = None


@dataclasses.dataclass(slots=True)
class SlottedAccount:
    api_key: str


@attr.define
class AttrsAccount:
    user: str
    password: str


class Profile(pydantic.BaseModel):
    user: str = "ann"
    access_token: str = ""
    hidden: pydantic.SecretStr = pydantic.SecretStr("")
    inner: Any = None


class WilyKey(str):
    """A key that is `password` in the line and says that it is something else."""

    __slots__ = ()

    def lower(self) -> str:
        return "harmless"

    casefold = upper = lower

    def __hash__(self) -> int:
        return 5

    def __eq__(self, other: object) -> bool:
        return self is other


class WilyDict(dict):
    """Hides its key from everybody who asks for items."""

    def keys(self) -> Any:
        return ["harmless"]

    __iter__ = None  # type: ignore[assignment]


def fields(**made: Callable[[str], Any]) -> dict[str, Shape]:
    """Return shapes whose secret stands in the field `data`."""

    def shape(make: Callable[[str], Any]) -> Shape:
        return lambda name, secret: log.info(f"shape {name}", data=make(secret))

    return {name: shape(make) for name, make in made.items()}


def keyed() -> dict[str, Shape]:
    """Return each key as a field of the call and deep in what is logged."""

    def shape(key: str) -> Shape:
        return lambda name, secret: log.info(f"shape {name}", **{key: secret}, deep=[{"headers": ({key: secret},)}])

    return {f"key {key}": shape(key) for key in KEYS}


def deep(wrap: Callable[[Any], Any], value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = wrap(value)
    return value


HEADERS = ["Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "x-api-key", "Proxy-Authorization", "X-Auth-Token"]

CONTAINERS = fields(
    **{
        "headers as dict": lambda s: dict.fromkeys(HEADERS, f"Bearer {s}"),
        "headers as list of pairs": lambda s: [(key, f"Bearer {s}") for key in HEADERS],
        "headers as list of lists": lambda s: [[key, f"Bearer {s}"] for key in HEADERS],
        "headers as tuple of pairs": lambda s: tuple((key, f"Bearer {s}") for key in HEADERS),
        "headers as ASGI has them": lambda s: [(key.lower().encode(), f"Bearer {s}".encode()) for key in HEADERS],
        "headers as dict of bytes": lambda s: {key.encode(): s.encode() for key in HEADERS},
        "headers as dict of lists": lambda s: {key: [s, s] for key in HEADERS},
        "headers as set of pairs": lambda s: {(key, s) for key in HEADERS},
        "headers as items": lambda s: dict.fromkeys(HEADERS, s).items(),
        "headers of starlette": lambda s: Headers(dict.fromkeys(HEADERS, s)),  # type: ignore[arg-type]
        "headers of httpx": lambda s: httpx.Headers(dict.fromkeys(HEADERS, s)),  # type: ignore[arg-type]
        "headers of a scope": lambda s: {
            "type": "http",
            "headers": [(b"authorization", s.encode())],
            "query_string": b"token=" + s.encode(),
        },
        "query of starlette": lambda s: QueryParams({"token": s}),
        "environ of WSGI": lambda s: {"HTTP_AUTHORIZATION": s, "HTTP_COOKIE": f"a={s}", "QUERY_STRING": f"access_token={s}"},
        "query parsed": lambda s: {"access_token": [s]},
        "nested": lambda s: {"a": [{"b": ({"stripe_secret_key": s},)}]},
        "subtree of a list": lambda s: {"passwords": [s, [s]]},
        "subtree of a dict": lambda s: {"credentials": {"user": s, "nested": {"harmless": s}}},
        "subtree of a set": lambda s: {"api_keys": {s}},
        "subtree of keys": lambda s: {"secrets": {s: 1, 1: s}},
        "subtree of a model": lambda s: {"credentials": Account(s, s)},
        "subtree of an object": lambda s: {"password": types.SimpleNamespace(x=s)},
        "subtree of an array": lambda s: {"password": np.array([s])},
        "bytes": lambda s: {"password": s.encode(), b"token": bytearray(s.encode())},
        "number": lambda s: {"password": int(s[2:])},
        "large number": lambda s: {"password": int(s[2:] * 5)},
        "OrderedDict": lambda s: collections.OrderedDict(password=s),
        "defaultdict": lambda s: collections.defaultdict(str, password=s),
        "ChainMap": lambda s: collections.ChainMap({"password": s}),
        "UserDict": lambda s: collections.UserDict(password=s),
        "MappingProxyType": lambda s: types.MappingProxyType({"password": s}),
        "deque": lambda s: collections.deque([{"password": s}]),
        "object array": lambda s: np.array([{"password": s}], dtype=object),
        "structured array": lambda s: np.array([(1, s)], dtype=[("user", "i4"), ("password", "U20")]),
        "generator's neighbour": lambda s: [iter([1]), {"password": s}],
        "key of bytes": lambda s: {b"password": s},
        "key of an enum": lambda s: {Field.PASSWORD: s},
        "key of a StrEnum": lambda s: {FieldName.API_KEY: s},
        "key of a wily str": lambda s: {WilyKey("password"): s},
        "key in a wily dict": lambda s: WilyDict(password=s),
        "slow by an integer": lambda s: {"n": 2**70, "password": s},
        "slow by a key": lambda s: {1: 1, "password": s},
        "slow by a surrogate": lambda s: {"odd": "\udc80", "password": s, "pass\udc80word": 1},
        "slow by a cycle": lambda s: circular({"password": s}),
        "cut": lambda s: {"password": s, "filler": "x" * 400_000},
        "cut from the other side": lambda s: {"filler": "x" * 400_000, "password": s},
        "cut under the key": lambda s: {"password": s * 100_000},
        "cut list": lambda s: [["token", s]] + [["filler", n] for n in range(100_000)],
        "below the depth limit": lambda s: deep(lambda value: [value], {"password": s}, 60),
        "far below the depth limit": lambda s: deep(lambda value: {"k": value}, {"password": s}, 300),
        "deep in tuples and models": lambda s: deep(lambda value: (Account("ann", "x", value),), {"password": s}, 10),
    }
)


def circular(value: dict[Any, Any]) -> dict[Any, Any]:
    value["self"] = value
    return value


MODELS = fields(
    **{
        "dataclass": lambda s: Account("ann", s),
        "dataclass with slots": SlottedAccount,
        "dataclass in a dataclass": lambda s: Account("ann", "x", [Account("bob", s)]),
        "dataclass as key's value": lambda s: {1: Account("ann", s)},
        "attrs": lambda s: AttrsAccount("ann", s),
        "attrs in a deque": lambda s: collections.deque([AttrsAccount("ann", s)]),
        "pydantic": lambda s: Profile(access_token=s),
        "pydantic in a list": lambda s: [Profile(access_token=s), 2**70],
        "pydantic SecretStr": lambda s: [Profile(hidden=pydantic.SecretStr(s)), pydantic.SecretStr(s)],
        "pydantic with models in Any": lambda s: Profile(inner={"deep": Account("ann", s)}),
        "namedtuple": lambda s: Login("ann", s),
        "namedtuples": lambda s: [Login("ann", s), Login("bob", s)],
        "SimpleNamespace": lambda s: types.SimpleNamespace(password=s),
        "SimpleNamespace, deep": lambda s: [{"x": types.SimpleNamespace(inner={"api_key": s})}],
    }
)

URLS = {
    "URL user": lambda s: f"https://ann:{s}@host.example/path",
    "URL user only": lambda s: f"https://{s}@host.example/path",
    "URL user of odd characters": lambda s: f"https://ann:p%40:{s}!$&'()*+,;=@host.example/path",
    "URL token": lambda s: f"https://host.example/path?x=1&token={s}&y=2",
    "URL TOKEN": lambda s: f"https://host.example/path?x=1&ACCESS_TOKEN={s}",
    "URL api_key first": lambda s: f"https://host.example/path?api_key={s}#end",
    "URL token in the fragment": lambda s: f"https://host.example/path#access_token={s}&x=1",
    "URL percent-encoded name": lambda s: f"https://host.example/?pass%77ord={s}&access%5Ftoken={s}",
    "URL signature": lambda s: f"https://s3.example/key?X-Amz-Credential={s}&X-Amz-Security-Token={s}",
    "DSN postgres": lambda s: f"postgres://ann:{s}@db.example:5432/app",
    "DSN driver": lambda s: f"postgresql+asyncpg://ann:{s}@db.example/app",
    "DSN redis": lambda s: f"redis://:{s}@cache.example:6379/0",
    "DSN amqp": lambda s: f"amqp://ann:{s}@mq.example//",
    "DSN several hosts": lambda s: f"mongodb://ann:{s}@a.example:1,b.example:2/app?authSource=admin",
    "path and query": lambda s: f"/login?password={s}&x=1",
    "query alone": lambda s: f"x=1&client_secret={s}",
    "text around it": lambda s: (
        f"cannot reach <postgres://ann:{s}@db.example/app>, giving up (see https://h.example/?token={s})."
    ),
    "two of them": lambda s: f"a://u:{s}@h b://u:{s}@h",
    "several lines": lambda s: f"first\nhttps://ann:{s}@host.example\nlast",
    "upper case": lambda s: f"HTTPS://ANN:{s}@HOST.EXAMPLE/?TOKEN={s}",
}


def url_shapes() -> dict[str, Shape]:
    """Return each URL as the event's text, an argument, a value, a nested value, bytes, and the message of an exception."""
    places: dict[str, Callable[[str, Any], object]] = {
        "value": lambda name, text: log.info(f"shape {name}", data=text),
        "event": lambda name, text: log.info(f"shape {name} {text}"),
        "argument": lambda name, text: log.info("shape %s %s", name, text),
        "nested": lambda name, text: log.info(f"shape {name}", data=[{"x": (text, [text])}]),
        "bytes": lambda name, text: log.info(f"shape {name}", data=[text.encode()]),
        "key": lambda name, text: log.info(f"shape {name}", data={text: 1}),
        "set": lambda name, text: log.info(f"shape {name}", data={text}),
        "slow": lambda name, text: log.info(f"shape {name}", data=[text, 2**70, "\udc80"]),
        "exception": lambda name, text: log.info(f"shape {name}", exc_info=ValueError(text)),
    }

    def shape(place: Callable[[str, Any], object], make: Callable[[str], str]) -> Shape:
        return lambda name, secret: place(name, make(secret))

    return {f"{name} as {at}": shape(place, make) for name, make in URLS.items() for at, place in places.items()}


#: Text that is not a URL but shows a name and a secret, as `repr()`, `json.dumps()` and configuration files write them.
TEXTS = {
    "JSON text": lambda s: json.dumps({"user": "ann", "access_token": s}),
    "JSON text, nested": lambda s: json.dumps({"a": [{"Authorization": f"Bearer {s}", "b": 1}]}, indent=1),
    "text of a dict": lambda s: str({"user": "ann", "password": s}),
    "text of a dict of bytes": lambda s: str({b"authorization": s.encode()}),
    "text of a dataclass": lambda s: repr(Account("ann", s)),
    "text of a namespace": lambda s: repr(types.SimpleNamespace(api_key=s)),
    "text of a call": lambda s: f"connect(host='h', password='{s}')",
    "text of libpq": lambda s: f"host=db.example password={s} user=ann",
    "text of ODBC": lambda s: f"Server=db.example;Uid=ann;Pwd={s};",
}


class Shown:
    """Shows its configuration in its own text form, as many classes do."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"Shown(url='postgres://ann:{self.secret}@db.example/app')"


class ShownByStr(Shown):
    def __str__(self) -> str:
        return f"https://host.example/?token={self.secret}"


def noted(error: BaseException, *notes: Any) -> BaseException:
    for note in notes:
        error.add_note(note)
    return error


def chained(secret: str) -> BaseException:
    error = ValueError("outer")
    error.__cause__ = OSError(f"https://ann:{secret}@host.example")
    error.__cause__.__context__ = KeyError(f"https://host.example/?token={secret}")
    return error


def in_context(name: str, **values: Any) -> None:
    with structlog.contextvars.bound_contextvars(**values):
        log.info(f"shape {name}")


def through_processor(name: str, **added: Any) -> None:
    """Log an event to which the processor of this program adds fields."""
    log.info(f"shape {name}", add=added)


def adding(_logger: Any, _method: str, event_dict: dict[str, Any]) -> dict[str, Any]:
    event_dict.update(event_dict.pop("add", {}))
    if "raise" in event_dict:
        raise ValueError(event_dict.pop("raise"))
    return event_dict


def own_chain(name: str, **values: Any) -> None:
    structlog.wrap_logger(None, processors=[fapilog.queue_sink], wrapper_class=structlog.BoundLogger).info(
        f"shape {name}", **values
    )


def requested(name: str, secret: str, **more: Any) -> None:
    """Serve a request whose query, referer and user agent hold the secret."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", secret.encode())]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def send(_message: Any) -> None:
        """Take it."""

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/shape {name}",
        "query_string": f"x=1&access_token={secret}&pass%77ord={secret}".encode(),
        "headers": [
            (b"authorization", secret.encode()),
            (b"referer", f"https://ann:{secret}@h.example/?token={secret}".encode()),
        ],
        "client": ("127.0.0.1", 1),
        **more,
    }
    asyncio.run(FapilogMiddleware(app, access=True)(scope, send, send))  # type: ignore[arg-type]


def plain_record(name: str, *args: Any, **options: Any) -> None:
    logging.getLogger("confiding.plain").warning(f"shape {name}" + " %s" * len(args), *args, **options)


ENTRANCES: dict[str, Shape] = {
    "bound": lambda name, s: log.bind(password=s, deep={"api_key": s}).info(f"shape {name}"),
    "get_logger's value": lambda name, s: fapilog.get_logger("confiding", token=s).info(f"shape {name}"),
    "context": lambda name, s: in_context(name, api_key=s, deep=[{"password": s}]),
    "processor's field": lambda name, s: through_processor(name, password=s, deep={"token": s}),
    "processor's error": lambda name, s: through_processor(name, **{"raise": f"https://ann:{s}@host.example"}),
    "queue_sink": lambda name, s: own_chain(name, password=s, deep=[("Authorization", s)], url=f"a://b:{s}@c"),
    "extra of a record": lambda name, s: plain_record(name, extra={"password": s, "deep": {"token": s}}),
    "arguments of a record": lambda name, s: plain_record(name, f"https://ann:{s}@host.example"),
    "exception of a record": lambda name, s: plain_record(name, exc_info=ValueError(f"https://h.example/?token={s}")),
    "access event": requested,
    "access event without a referer": lambda name, s: requested(name, s, headers=[(b"cookie", s.encode())]),
    "warning": lambda name, s: warnings.warn(f"shape {name} https://ann:{s}@host.example", UserWarning, stacklevel=2),
    "text form": lambda name, s: log.info(f"shape {name}", data=Shown(s), more=[Shown(s)]),
    "text form by str": lambda name, s: log.info(f"shape {name}", data=ShownByStr(s)),
    "text form as an argument": lambda name, s: log.info("shape %s %s %r", name, ShownByStr(s), Shown(s)),
    "text form as a key": lambda name, s: log.info(f"shape {name}", data={ShownByStr(s): 1}),
    "text form of a URL": lambda name, s: log.info(f"shape {name}", data=[httpx.URL(f"https://ann:{s}@host.example/?token={s}")]),
    "text form of a DSN": lambda name, s: log.info(
        f"shape {name}", data=pydantic.PostgresDsn(f"postgres://ann:{s}@db.example/app")
    ),
    "name of a logger": lambda name, s: fapilog.get_logger(f"https://ann:{s}@host.example").info(f"shape {name}"),
    "logger as a value": lambda name, s: log.info(f"shape {name}", data=log.bind(url=f"a://b:{s}@c")),
    "exception's message": lambda name, s: log.info(f"shape {name}", exc_info=ValueError(f"postgres://ann:{s}@db.example")),
    "exception's note": lambda name, s: log.info(f"shape {name}", exc_info=noted(ValueError(), f"https://h.example/?token={s}")),
    "exception's chain": lambda name, s: log.info(f"shape {name}", exc_info=chained(s)),
    "exception's group": lambda name, s: log.info(
        f"shape {name}", exc_info=ExceptionGroup(f"a://b:{s}@c", [ValueError(f"a://b:{s}@c")])
    ),
    "exception as a value": lambda name, s: log.info(f"shape {name}", data=[ValueError(f"postgres://ann:{s}@db.example")]),
    "exception given as a field": lambda name, s: log.info(
        f"shape {name}", exception={"type": "X", "message": f"a://b:{s}@c", "password": s}
    ),
    "stack given as a field": lambda name, s: log.info(f"shape {name}", stack=f"line a://b:{s}@c"),
    "event that is a dict": lambda name, s: log.info({"password": s, "name": f"shape {name}"}),
    "hub's names": lambda name, s: log.info(f"shape {name}", pid={"password": s}, level={"token": s}, timestamp=f"a://b:{s}@c"),
    "arguments that do not fit": lambda name, s: log.info(f"shape {name} %d %d", f"https://ann:{s}@host.example"),
    "cut amid a URL": lambda name, s: [
        log.info(f"shape {name}", data="x" * n + f"https://ann:{s * 20}@host.example/?token={s * 20}" + "y" * 300_000)
        for n in (*range(130_000, 132_000, 300), *range(261_000, 262_200, 150))
    ],
    "in the filler of a cut line": lambda name, s: log.info(f"shape {name}", data=[f"a://b:{s}@c"] * 30_000),
}

TEXT_SHAPES: dict[str, Shape] = {
    **{f"{name} as value": (lambda name, s, make=make: log.info(f"shape {name}", data=make(s))) for name, make in TEXTS.items()},  # type: ignore[misc]
    **{
        f"{name} in an exception": (lambda name, s, make=make: log.info(f"shape {name}", exc_info=ValueError(f"bad: {make(s)}")))  # type: ignore[misc]
        for name, make in TEXTS.items()
    },
}

SHAPES: dict[str, Shape] = {**keyed(), **CONTAINERS, **MODELS, **url_shapes(), **ENTRANCES, **TEXT_SHAPES}


def secrets() -> dict[str, str]:
    """Return the secret of each shape: letters, then digits, the same in every encoding."""
    return {name: f"zq{7_310_000_000 + index * 7919}" for index, name in enumerate(SHAPES)}


class Custom:
    """A sink that keeps all it is given."""

    name = "custom"

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def open(self, identity: object) -> None:
        """Nothing to do."""

    async def write(self, events: Any) -> None:
        for event in events:
            self.seen += [json.dumps(dict(event), default=repr), repr(event), event.line.decode()]

    async def close(self) -> None:
        """Nothing to do."""

    def write_now(self, lines: Any) -> None:
        self.seen += [line.decode() for line in lines]


def main() -> None:
    custom = Custom()
    hub = fapilog.configure_logging(sinks=["file", "stdout", custom], processors=[adding])
    warnings.simplefilter("default")
    for name, secret in secrets().items():
        try:
            SHAPES[name](name, secret)
        except Exception as error:  # the test must hear of it, and of the others
            print(f"RAISED {name}: {type(error).__name__}", file=sys.stderr)
    complete = fapilog.flush(20).complete
    with open("custom.txt", "w") as file:
        file.write("\n".join(custom.seen))
    with open("reprs.txt", "w") as file:
        settings = fapilog.FapilogSettings()
        shown = [fapilog.statistics(), hub, settings, settings.model_dump(), log, fapilog.logger.processors]
        file.write("\n".join(f"{each!r}\n{each!s}" for each in shown))
    sys.exit(0 if complete else 3)


if __name__ == "__main__":
    main()
