"""
Secrets in many spellings and shapes: none of them comes out anywhere, and what is no secret does (Shows 4, O-SEC-2).

Written from the issue and the case O-SEC-2, not from the code. `tests/programs/confiding.py` has the shapes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fapilog
from tests._support import ran_well, rest_in_matrix, run_script, strict
from tests.hostile import ROOT, caught_heads
from tests.programs.confiding import HARMLESS, KEYS, SHAPES, TEXT_SHAPES, secrets

PROGRAM = Path(__file__).parent / "programs" / "confiding.py"
SECRET = "zq99887766"
MASK = "***"
LIMIT_S = 120

#: What the secret stood in may be cut off, or shown in another way.
CUT_OFF = {
    *("cut from the other side", "cut list", "cut amid a URL", "below the depth limit", "far below the depth limit"),
    *("pydantic SecretStr", "logger as a value"),
}

#: How the program is run: JSON and the console form on stdout, and without a queue.
WAYS = {
    "json": {"FAPILOG_FORMAT": "json"},
    "console": {"FAPILOG_FORMAT": "console"},
    "synchronous": {"FAPILOG_FORMAT": "json", "FAPILOG_QUEUE_ENABLED": "false"},
    "locals": {"FAPILOG_FORMAT": "json", "FAPILOG_EXCEPTION_LOCALS": "true"},
}


@dataclass
class Outcome:
    """Everything that came out of the program, by where it came out; and the lines of each shape's event in the file."""

    outputs: dict[str, str]
    by_shape: dict[str, list[str]]
    returncode: int


def run(way: str, folder: Path) -> Outcome:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FAPILOG_")}
    settings = {
        "FAPILOG_RUN_DIR": str(folder / "run"),
        "FAPILOG_FILE_PATH": str(folder / "out.jsonl"),
        "FAPILOG_QUEUE_OVERFLOW": "block",
        "FAPILOG_QUEUE_BLOCK_TIMEOUT": "20",
        "FAPILOG_QUEUE_MAX_BYTES": "64MiB",
        "PYTHONPATH": os.pathsep.join([str(ROOT), clean.get("PYTHONPATH", "")]),
    }
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.programs.confiding"],
        cwd=folder,
        env={**clean, **settings, **WAYS[way]},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    outputs = {"stdout": result.stdout, "stderr": result.stderr}
    for name in ("out.jsonl", "custom.txt", "reprs.txt"):
        outputs[name] = (folder / name).read_text() if (folder / name).exists() else ""
    by_shape: dict[str, list[str]] = defaultdict(list)
    names = sorted(SHAPES, key=len, reverse=True)
    for line in outputs["out.jsonl"].splitlines():
        found = next((name for name in names if f"shape {name}" in line), None)
        by_shape[found or ""].append(line)
    return Outcome(outputs, by_shape, result.returncode)


@pytest.fixture(scope="module", params=rest_in_matrix(1, ["locals", "console", "json", "synchronous"]))
def outcome(request, tmp_path_factory) -> Outcome:
    return run(request.param, tmp_path_factory.mktemp(request.param))


def test_the_program(outcome) -> None:
    """It ends by itself, no log call raises, and each of its events arrived."""
    assert outcome.returncode == 0, outcome.outputs["stderr"][-3000:]
    assert "RAISED" not in outcome.outputs["stderr"]
    assert sorted(set(SHAPES) - set(outcome.by_shape)) == []


@pytest.mark.matrix
def test_no_secret_in_any_output(outcome) -> None:
    """Not in the file, on stdout, in what a custom sink was given, on stderr, in statistics or in a repr; what leaks is named."""
    leaks = [f"{name} in {at}" for name, secret in secrets().items() for at, text in outcome.outputs.items() if secret in text]
    assert leaks == []


def test_the_number_of_shapes() -> None:
    """There are many more than the 30 that are asked for."""
    assert len(SHAPES) > 200
    assert len(set(secrets().values())) == len(SHAPES)


@pytest.fixture(scope="module")
def plainly(tmp_path_factory) -> Outcome:
    return run("json", tmp_path_factory.mktemp("plainly"))


@pytest.mark.matrix
@pytest.mark.parametrize("name", list(SHAPES))
def test_a_shape(plainly, name: str) -> None:
    """Its secret is nowhere, its event is there, and a mask says that something is missing (O-SEC-2)."""
    secret = secrets()[name]
    assert [at for at, text in plainly.outputs.items() if secret in text] == []
    lines = plainly.by_shape[name]
    assert lines, "the event is missing"
    for line in lines:
        strict(line)
    assert name in CUT_OFF or any(MASK in line for line in lines)


# -- what exactly is masked -----------------------------------------------------------------------------------------------------


@pytest.fixture
def caught():
    with caught_heads() as heads:
        yield heads


def logged(heads: list[bytes], event: Any = "e", **fields: Any) -> dict[str, Any]:
    fapilog.get_logger("secrets").info(event, **fields)
    return strict(heads.pop())


@pytest.mark.parametrize("key", KEYS)
def test_the_value_of_a_secret_key(caught, key: str) -> None:
    """It is replaced by three asterisks, whole; its neighbours are not."""
    found = logged(caught, visible=1, **{key: SECRET}, deep=[{key: [SECRET, {"a": SECRET}], "beside": "b"}])
    assert found[key] == MASK
    assert found["deep"] == [{key: MASK, "beside": "b"}]
    assert found["visible"] == 1


@pytest.mark.parametrize(
    "value",
    [SECRET, 12345, 1.5, b"bytes", ["list"], {"a": "dict"}, ("tuple",), 2**70, object()],
    ids=lambda value: type(value).__name__,
)
def test_values_of_any_type_under_a_secret_key(caught, value: Any) -> None:
    """They are masked, whatever they are."""
    assert logged(caught, password=value, deep={"token": value}) | {"timestamp": 0} == {
        "timestamp": 0,
        "level": "info",
        "event": "e",
        "logger": "secrets",
        "password": MASK,
        "deep": {"token": MASK},
    }


def test_none_under_a_secret_key(caught) -> None:
    """It says that there is no secret, which is not one: null, or the mask."""
    assert logged(caught, password=None)["password"] in {None, MASK}


@pytest.mark.parametrize("key", HARMLESS)
def test_the_value_of_a_harmless_key(caught, key: str) -> None:
    """It is shown as it is: as a field, nested, as a pair, in a query and beside a secret."""
    found = logged(
        caught, **{key: "plain"}, deep={key: ["plain"], "password": "x"}, pairs=[(key, "plain")], url=f"https://h/?{key}=plain"
    )
    assert found[f"{key}_" if key == "host" else key] == "plain"
    assert found["deep"] == {key: ["plain"], "password": MASK}
    assert found["pairs"] == [[key, "plain"]]
    assert found["url"] == f"https://h/?{key}=plain"


HARMLESS_TEXTS = [
    "user ann@example.com wrote to bob@example.com",
    "https://example.com/path?page=2&sort=name#top",
    "https://example.com/@ann/status",
    "https://example.com/a:b@c",
    "git@example.com:repo.git",
    "see http://[::1]:8000/ and ws://h:1/x",
    "a=b, c == d, e => f; 12:30:00 @ noon",
    "the secret of the token is the password",
    "token_count=5 author=ann keyboard=de",
    "token expired: session closed",
    "4111 1111 1111 1111",  # cards are masked as an option only
    "C:\\dir\\file:stream",
    "***",
    "eyJ",
]


@pytest.mark.parametrize("text", HARMLESS_TEXTS)
def test_harmless_text(caught, text: str) -> None:
    """It is shown as it is, as event, value and message of an exception."""
    found = logged(caught, text, value=text, nested=[(text,)], exc_info=ValueError(text))
    assert (found["event"], found["value"], found["nested"]) == (text, text, [[text]])
    assert found["exception"]["message"] == text


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        (f"postgres://ann:{SECRET}@db.example:5432/app", ["postgres://", "@db.example:5432/app"]),
        (f"redis://:{SECRET}@cache.example/0", ["redis://", "@cache.example/0"]),
        (f"https://h.example/p?x=1&token={SECRET}&y=2", ["https://h.example/p?x=1&token=***&y=2"]),
        (f"/login?password={SECRET}#top", ["/login?password=***#top"]),
        (
            f"see <https://ann:{SECRET}@h.example/p?api_key={SECRET}>, twice",
            ["see <https://", "@h.example/p?api_key=***>, twice"],
        ),
    ],
)
def test_what_stays_of_a_url(caught, text: str, stays: list[str]) -> None:
    """Only the credentials go: the rest is what one needs when something does not work."""
    for shown in (logged(caught, text)["event"], logged(caught, value=text)["value"]):
        assert SECRET not in shown
        assert MASK in shown
        assert [part for part in stays if part not in shown] == []


@pytest.mark.parametrize("names", [("authorization", "accept"), (b"Authorization", b"Accept"), ("X-Api-Key", "Host")])
@pytest.mark.parametrize("kind", [list, tuple])
def test_pairs(caught, names: tuple[Any, Any], kind: Any) -> None:
    """Of a list of pairs, the second of a secret pair is masked; the others and the order stay."""
    secret, plain = names
    shown = [str(name, "ascii") if isinstance(name, bytes) else name for name in names]
    found = logged(caught, headers=[kind((plain, "a")), kind((secret, SECRET)), kind((plain, "b"))])
    assert found["headers"] == [[shown[1], "a"], [shown[0], MASK], [shown[1], "b"]]


def test_lists_that_are_no_pairs(caught) -> None:
    """Words that name secrets are no secrets, and what stands near them in a longer list is shown."""
    value = [["password", "is", "wrong"], "password", "token", ["token"], ("name", "password")]
    assert logged(caught, value=value)["value"] == [
        ["password", "is", "wrong"],
        "password",
        "token",
        ["token"],
        ["name", "password"],
    ]


@pytest.mark.parametrize("size", [1024, 4096])
def test_a_url_that_is_cut(size: int) -> None:
    """Wherever the cut falls, no part of the credentials is left standing without its end."""
    password = "".join(f"{n:03d}zq" for n in range(60))
    with caught_heads(max_event_bytes=size) as heads:
        for before in range(0, 2 * size, 13):
            text = "x" * before + f" https://ann:{password}@host.example/?token={password} " + "y" * size
            found = logged(heads, "e", value=text)
            assert "zq" not in json.dumps(found), (before, found["value"][-100:])
            found = logged(heads, text)
            assert "zq" not in json.dumps(found), (before, found["event"][-100:])
            found = logged(heads, "e", value={"deep": [text]}, exc_info=ValueError(text))
            assert "zq" not in json.dumps(found), before


def test_the_callers_objects(caught) -> None:
    """Masking changes the line, not what was logged."""
    headers = [("Authorization", SECRET), [b"cookie", b"c"]]
    value = {"password": SECRET, "deep": {"token": [SECRET]}, "headers": headers, "url": f"a://b:{SECRET}@c"}
    before = repr(value)
    assert SECRET not in json.dumps(logged(caught, value=value, headers=headers))
    assert repr(value) == before


# -- options --------------------------------------------------------------------------------------------------------------------


def test_without_redaction() -> None:
    """FAPILOG_REDACT=false shows all values, whatever keys and patterns are configured."""
    with caught_heads(redact=False, redact_keys="tenant_code", redact_patterns="bearer") as heads:
        found = logged(
            heads, f"https://ann:{SECRET}@h", password=SECRET, tenant_code="t", headers=[("Authorization", f"Bearer {SECRET}")]
        )
    assert found["event"] == f"https://ann:{SECRET}@h"
    assert (found["password"], found["tenant_code"]) == (SECRET, "t")
    assert found["headers"] == [["Authorization", f"Bearer {SECRET}"]]


@pytest.mark.parametrize("key", ["tenant_code", "TENANT_CODE", "tenantCode", "Tenant-Code", "pin"])
def test_keys_of_the_users_own(key: str) -> None:
    """FAPILOG_REDACT_KEYS adds keys, however spelled in the event; the built-in ones stay, and others are shown."""
    with caught_heads(redact_keys="tenant_code, pin") as heads:
        found = logged(
            heads, **{key: SECRET}, password=SECRET, deep=[{key: SECRET}, (key, SECRET)], url=f"/?{key}={SECRET}", pinned=1
        )
        assert SECRET not in json.dumps(found)
        assert found[key] == found["password"] == MASK
        assert found["deep"] == [{key: MASK}, [key, MASK]]
        assert found["pinned"] == 1
    with caught_heads() as heads:
        assert logged(heads, **{key: SECRET})[key] == SECRET


JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PATTERNS = [
    ("bearer", "sent Bearer abc.DEF-123_456~+/= to", "abc.DEF-123"),
    ("bearer", "authorization=bearer abcdef123456", "abcdef123456"),
    ("jwt", f"got {JWT} from", JWT.rpartition(".")[2]),
    ("jwt", f"'{JWT}'", "eyJzdWIi"),
    ("card", "card 4111111111111111 declined", "4111111111111111"),
    ("card", "card 4111 1111 1111 1111 declined", "1111 1111 1111"),
    ("card", "card 4111-1111-1111-1111 declined", "1111-1111-1111"),
    ("card", "amex 378282246310005.", "378282246310005"),
    (r"ACME-\d+", "order ACME-123 done", "ACME-123"),
    (r"(?i)internal:\w{1,9}", "see INTERNAL:abc", "abc"),
]


@pytest.mark.parametrize(("pattern", "text", "secret"), PATTERNS)
def test_patterns(pattern: str, text: str, secret: str) -> None:
    """FAPILOG_REDACT_PATTERNS masks what matches in event, value, key, argument and exception; without it the text is shown."""
    with caught_heads(redact_patterns=pattern) as heads:
        found = logged(heads, text, value=text, nested={"a": [text.encode()], text: 1}, exc_info=ValueError(text))
        assert secret not in json.dumps(found)
        assert MASK in found["event"]
        assert found["value"] == found["event"] == found["exception"]["message"]
    with caught_heads() as heads:
        assert logged(heads, value=text.replace("authorization=", ""))["value"] == text.replace("authorization=", "")


def test_what_surrounds_a_match() -> None:
    """It stays."""
    with caught_heads(redact_patterns=r"bearer,jwt,card,ACME-\d+") as heads:
        assert logged(heads, "order ACME-123 done, ACME-4!")["event"] == "order *** done, ***!"
        assert logged(heads, "card 4111111111111111 declined")["event"] == "card *** declined"
        assert logged(heads, f"got {JWT} from")["event"] == "got *** from"


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",
        "order 1234567890123456",
        "2026-01-02T03:04:05.123456Z",
        "1234567890",
        "a.b.c",
        "eyJ.eyJ",
        "bearer of news",
    ],
)
def test_what_the_patterns_let_through(text: str) -> None:
    """Numbers whose check digit is wrong are no cards, and other things are neither tokens nor cards."""
    with caught_heads(redact_patterns="bearer,jwt,card") as heads:
        assert logged(heads, text, value=[text])["event"] == text


def test_settings_from_the_environment(tmp_path) -> None:
    """The three variables do in a process what the arguments do."""
    result = run_script(
        f"""
        import fapilog
        fapilog.get_logger("a").info("card 4111111111111111", tenant_code="{SECRET}", password="{SECRET}", plain="shown")
        """,
        tmp_path,
        env={"FAPILOG_FORMAT": "json", "FAPILOG_REDACT_KEYS": "tenant_code", "FAPILOG_REDACT_PATTERNS": "card"},
    )
    found = strict(ran_well(result).splitlines()[0])
    assert (found["event"], found["tenant_code"], found["password"], found["plain"]) == ("card ***", MASK, MASK, "shown")
    assert result.stderr == ""


# -- our own --------------------------------------------------------------------------------------------------------------------


def test_credentials_among_our_own_settings(tmp_path) -> None:
    """Reserved and mistyped variables that hold credentials appear in no repr, warning, line or error of set-up (O-SEC-2)."""
    result = run_script(
        """
        import fapilog
        settings = fapilog.FapilogSettings()
        hub = fapilog.configure_logging()
        fapilog.get_logger("a").info("e")
        print(repr(settings), str(settings), settings.model_dump(), settings.model_dump_json(), hub, fapilog.statistics())
        try:
            fapilog.configure_logging(level="nonsense")
        except fapilog.ConfigurationError as error:
            print(repr(error), error)
        """,
        tmp_path,
        env={
            "FAPILOG_LOKI_URL": f"https://ann:{SECRET}@loki.example",
            "FAPILOG_LOKI_PASSWORD": SECRET,
            "FAPILOG_LOKI_TOKEN": SECRET,
            "FAPILOG_LOKI_PASWORD": SECRET,
            "FAPILOG_OTLP_ENDPOINT": f"https://otlp.example/?token={SECRET}",
        },
    )
    assert SECRET not in ran_well(result) + result.stderr
    assert "nonsense" in result.stdout


def test_the_repr_of_a_bound_logger(caught) -> None:
    """It does not show the secrets that are bound to it."""
    bound = fapilog.get_logger("secrets").bind(password=SECRET, headers=[("Authorization", SECRET)], visible="yes")
    assert SECRET not in repr(bound)
    assert SECRET not in str(bound)


def test_a_sink_that_fails(tmp_path) -> None:
    """What stderr says about it shows no secret of the events that it did not take, nor of its own error."""
    result = run_script(
        f"""
        import fapilog

        class Broken:
            name = "broken"
            async def open(self, identity): pass
            async def write(self, events): raise ValueError("https://ann:{SECRET}@sink.example/?token={SECRET}")
            async def close(self): pass

        fapilog.configure_logging(sinks=[Broken()], queue_max_retries=1, queue_retry_delay=0.05, queue_batch_timeout=0.05)
        fapilog.get_logger("a").error("e", password="{SECRET}")
        fapilog.flush(5)
        print(fapilog.statistics())
        """,
        tmp_path,
    )
    assert SECRET not in ran_well(result) + result.stderr


assert set(TEXT_SHAPES) <= set(SHAPES)
