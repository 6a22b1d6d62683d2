"""redaction.py: which names are those of secrets, and what is masked in a text."""

from __future__ import annotations

import itertools
import json
import re
import time
import timeit

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fapilog import redaction
from fapilog._internal.credentials import names_in_line
from fapilog.encoding import encode_open
from fapilog.redaction import MASK, Allowance, Redactor

SECRET = """
db_pass smtp_pass SMTP_PASS pass_phrase PHPSESSID openai_key stripe_key TLS_KEY masterkey code_verifier recovery_codes
password passwd pwd PASSWORD Password passphrase db_password user.password userPassword mypassword password2 password_hash
Authorization authorization proxy-authorization X-Authorization auth basic_auth cookie Cookie set-cookie Set-Cookie cookies
api_key apikey apiKey APIKey X-Api-Key x-api-key api-key api_keys XAPIKEY stripe_secret_key client_secret clientSecret
clientsecret secret secrets my_secret token access_token accessToken refreshToken id_token csrf_token csrftoken X-CSRF-Token
xsrf api_tokens session session_id sessionid sessionId JSESSIONID session_key private_key privateKey ssh_key ssh-key
signing_key encryption_key aws_secret_access_key AWS_SECRET_ACCESS_KEY aws_access_key_id credentials credential creds jwt
bearer otp totp cvv cvc service_account_key account_key master_key auth_code x-auth-token oauth2_token github.token
"""
HARMLESS = """
next_token page_token next_page_token eos_token token_ids eos_token_id first_token_latency auth_failures password_attempts jwt_alg
secret_arn csrf_failed password_reset credentials_file fencing_token first_pass boarding_pass
author authored_by authors tokenizer token_count max_tokens prompt_tokens total_tokens tokens token_type token_url
token_expires_at keyboard key keys primary_key foreign_key public_key cache_key partition_key idempotency_key passenger
compass passage secretary monkey user username auth_method auth_type authenticated session_duration session_count
password_changed_at password_length cookie_consent cookie_count secret_name authorization_url bypass pass path id request_id
status event level timestamp host port signature sig design assign pin code country card number email address
"""


@pytest.mark.parametrize("name", SECRET.split())
def test_the_name_of_a_secret(name) -> None:
    """It is one as text, as bytes and as a class derived from text, at the first look and at the second (O-SEC-2)."""
    redactor = Redactor()
    derived = type("Name", (str,), {"__hash__": str.__hash__, "__str__": lambda _self: "harmless"})(name)
    for _ in range(2):
        assert redactor.is_secret(name)
        assert redactor.is_secret(name.encode())
        assert redactor.is_secret(derived)


@pytest.mark.parametrize("name", HARMLESS.split())
def test_the_name_of_something_else(name) -> None:
    """It is none, however much it looks like one."""
    redactor = Redactor()
    for _ in range(2):
        assert not redactor.is_secret(name)
        assert not redactor.is_secret(name.upper().encode())


@pytest.mark.parametrize("name", [None, 1, 1.5, (), ("password",), object(), b"\xff\xfe", "", "\udc80", "\x00"])
def test_a_name_that_is_no_word(name) -> None:
    """It is the name of no secret."""
    assert not Redactor().is_secret(name)


@pytest.mark.parametrize("name", ["tenant_code", "Tenant-Code", "tenantCode", "X_TENANT_CODE", "tenantcode", "the.tenant.code"])
def test_a_name_of_the_users(name) -> None:
    """It is found however it is spelled and wherever it stands in a longer one."""
    assert Redactor(keys=["tenantCode"]).is_secret(name)
    assert Redactor(keys=["tenant-code"]).is_secret(name)
    assert not Redactor(keys=["tenant_code"]).is_secret("tenant")
    assert Redactor(keys=["\u043f\u0430\u0440\u043e\u043b\u044c"]).is_secret("\u041f\u0430\u0440\u043e\u043b\u044c")


def test_a_redactor_that_is_switched_off() -> None:
    """Nothing is a secret and no text is changed."""
    off = Redactor(enabled=False, keys=["a"], patterns=["b"])
    assert not off.is_secret("password")
    assert off.text("token=a https://u:p@h b") == "token=a https://u:p@h b"
    assert not off.suspects(b"token=a")


def test_more_names_than_are_remembered(monkeypatch) -> None:
    """The memory of harmless names is bounded, and the answers stay right."""
    monkeypatch.setattr(redaction, "MAX_KNOWN", 100)
    redactor = Redactor()
    for number in range(1000):
        assert not redactor.is_secret(f"name{number}")
        assert len(redactor._harmless) <= 100
        assert redactor.is_secret("password")
    assert not redactor.is_secret("n" * 100_000)
    assert all(len(str(name)) <= redaction.MAX_NAME for name in redactor._harmless)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("", ""),
        ("a=1&b=2", "a=1&b=2"),
        ("token=abc", "token=***"),
        ("a=1&token=abc&b=2", "a=1&token=***&b=2"),
        ("token=abc;a=1", "token=***;a=1"),
        ("TOKEN=abc", "TOKEN=***"),
        ("access_token=a&id_token=b&csrf-token=c", "access_token=***&id_token=***&csrf-token=***"),
        ("password=p&passwd=q&new_password=r&passwort=s", "password=***&passwd=***&new_password=***&passwort=***"),
        ("api_key=a&apikey=b&api-key=c&x-api-key=d", "api_key=***&apikey=***&api-key=***&x-api-key=***"),
        ("secret=a&client_secret=b", "secret=***&client_secret=***"),
        ("X-Amz-Signature=a&X-Amz-Credential=b", "X-Amz-Signature=***&X-Amz-Credential=***"),
        ("auth=a&authorization=b", "auth=***&authorization=***"),
        ("session=a&sessionid=b&JSESSIONID=c", "session=***&sessionid=***&JSESSIONID=***"),
        ("token=a=b==&c=1", "token=***&c=1"),
        ("token=&a=1", "token=&a=1"),
        ("token", "token"),
        ("token=a&token=b", "token=***&token=***"),
        ("token=a b\r\nc&d=1", "token=*** b\r\nc&d=1"),
        ("q=token", "q=token"),
        ("https://here/p?token=abc#part", "https://here/p?token=***#part"),
        ("https://user:word@here/p", "https://***@here/p"),
        ("https://user:word@here/p?password=abc&a=@", "https://***@here/p?password=***&a=@"),
        ("//user@here", "//***@here"),
        ("https://here/p@q", "https://here/p@q"),
        ("mail=a@b", "mail=a@b"),
    ],
)
def test_masking(given, shown) -> None:
    """The values of parameters that sound like secrets, and the user and password of a URL; nothing else."""
    assert Redactor().text(given) == shown


@pytest.mark.parametrize(
    ("given", "secret"),
    [
        pytest.param("tok%65n=SECRET", "SECRET", id="name-percent-encoded"),
        pytest.param("https://user:one@SECRET@here/p", "SECRET", id="at-sign-in-the-password"),
        pytest.param("pwd=SECRET", "SECRET", id="pwd"),
    ],
)
def test_secrets_that_are_harder_to_see(given, secret) -> None:
    """They are masked as well."""
    assert secret not in Redactor().text(given)


@pytest.mark.parametrize(
    "given", ["&" * 100_000, "a=" * 50_000, "token" * 20_000, "token=" * 20_000, "//" * 50_000 + "@", "@" * 100_000]
)
def test_masking_of_a_long_text(given) -> None:
    """It takes no more than a moment."""
    before = time.process_time()
    Redactor().text(given)
    assert time.process_time() - before < 2


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ('{"password": "x y", "a": 1}', '{"password": "***", "a": 1}'),
        ('{"password":"x\\"y"}', '{"password":"***"}'),
        ('{"token": null, "password": 12, "secret": true}', '{"token": null, "password": ***, "secret": true}'),
        ("{'password': 'x', b'cookie': b'y'}", "{'password': '***', b'cookie': b'***'}"),
        ('{\\"password\\": \\"x\\"}', '{\\"password\\": \\"***\\"}'),
        ('{"password": ["x", "y"], "a": 1}', '{"password": ***, "a": 1}'),
        ('{"max_tokens": 5, "author": "x"}', '{"max_tokens": 5, "author": "x"}'),
        ("User(name='x', password='y z')", "User(name='x', password=***)"),
        ("password = hunter2", "password = ***"),
        ("authorization=Bearer abc def", "authorization=***"),
        ("?token=a#b and password=a#b", "?token=***#b and password=***"),
        ("<http://h/?api_key=a>", "<http://h/?api_key=***>"),
        ('msg="token=abc"', 'msg="token=***"'),
    ],
)
def test_a_text_with_secrets(given, shown) -> None:
    """Pairs of programs, of URLs, of JSON and of `repr()` are understood; what stands around them stays."""
    assert Redactor().text(given) == shown


@pytest.mark.parametrize(
    ("pattern", "given", "shown"),
    [
        ("bearer", "sent Bearer abcdefgh12 end", "sent Bearer *** end"),
        ("bearer", "the bearer of this", "the bearer of this"),
        ("jwt", "a eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJ b", "a *** b"),
        ("jwt", "eyJ alone", "eyJ alone"),
        ("card", "card 4111 1111 1111 1111 and 4111-1111-1111-1111", "card *** and ***"),
        ("card", "no card 4111 1111 1111 1112", "no card 4111 1111 1111 1112"),
        ("card", "378282246310005", "***"),
        (r"\d{3}-\d{2}-\d{4}", "ssn 123-45-6789", "ssn ***"),
    ],
)
def test_a_pattern(pattern, given, shown) -> None:
    """What it matches is masked; card numbers only with the right check digit."""
    assert Redactor(patterns=[pattern]).text(given) == shown


@pytest.mark.parametrize(
    "text",
    [
        "a\napi_key=1", "a\tapi_key=1", "\u00e9api_key=1", "\x01api_key=1", "\\\\api_key=1",
        '"api_key=1', "x%20api_key=1",
        "//u:p@h", "//u:p\\\\q@h", '{"api_key": 1}', "{'api_key': 1}", "{b'api_key': 1}", '{\\"api_key\\": 1}', "api_key = 1",
    ],
)  # fmt: skip
def test_a_line_that_has_to_be_looked_at(text) -> None:
    """Whatever `text()` would mask is suspected in the encoded line, behind every kind of escape."""
    redactor = Redactor()
    assert redactor.text(text) != text
    assert redactor.suspects(orjson.dumps({"event": text}))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.text(st.sampled_from("abc\"\\' "), min_size=3, max_size=10), st.integers(min_value=1, max_value=3))
def test_a_secret_in_json_in_json(secret: str, levels: int) -> None:
    """Nothing of it is left, whatever signs it has and however deep the texts are in one another."""
    text: str = json.dumps({"a": 1, "password": f"<{secret}>", "b": "kept"})
    for _ in range(levels - 1):
        text = json.dumps({"body": text, "c": 1})
    shown = Redactor().text(text)
    for _ in range(levels - 1):
        shown = json.loads(shown)["body"]
    assert json.loads(shown) == {"a": 1, "password": MASK, "b": "kept"}


PIECES = st.sampled_from(
    [
        *("api_key", "token", "auth", "a", "n", "u:p", "git", "host", "x y", "Authorization", "secret"),
        *"=:'\"\\\n\t\x1b\x01@/?#&, (){}[]%",
        *("//", "\\n", "\x1b[0m", ": ", "\u00e9", "\u2028", "://"),
    ]
)


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_any_text(text: str) -> None:
    """What `text()` changes, `suspects()` suspects in the encoded line: nothing slips past by the fast way."""
    redactor = Redactor()
    line = orjson.dumps({"event": text})
    signs = any(sign in line for sign in b"=@'\\") or ": " in text
    assert redactor.text(text) == text or (signs and redactor.suspects(line))


@pytest.mark.parametrize("text", ["a=1", "b@c.de", "it's", 'say "a": b', "C:\\\\dir", "https://h/p?a=b", "tokenizer=1"])
def test_a_line_without_secrets(text) -> None:
    """It is not suspected, although it holds the signs."""
    assert not Redactor().suspects(orjson.dumps({"event": text}))


TRAPS = {
    "names": "a" * 100_000,
    "pairs": "a=" * 50_000,
    "quoted pairs": 'token="' * 20_000,
    "members": '"token":' * 20_000,
    "quotes": "'" * 100_000,
    "backslashes": "\\\\" * 50_000,
    "backslashes and quotes": '\\\\"' * 30_000,
    "slashes": "/" * 100_000,
    "at signs": "//" + "@" * 100_000,
    "users": "//a@" * 30_000,
    "percent signs": "%" * 100_000 + "=",
    "brackets": '"token": [' * 15_000,
    "escaped quotes": '"token": "' + '\\\\"' * 50_000,
    "headers": "x-api-key: " * 9_000,
    "couples": "('token', " * 10_000,
    "couples of quotes": "('token', '" * 10_000,
    "odd users": "//a:b/" * 17_000,
    "colours": "\x1b[36m" * 20_000,
    "escapes": "\x01" * 100_000,
    "jwt": "eyJ" * 40_000,
    "digits": "4" * 100_000,
    "groups": "4111 " * 25_000,
    "bearers": "bearer " * 20_000,
}


@pytest.mark.matrix
@pytest.mark.parametrize("name", list(TRAPS))
def test_a_long_text_made_to_trip_expressions(name) -> None:
    """The time is linear: twice the text takes no more than about twice as long, and 100,000 characters are no matter."""
    text = TRAPS[name]
    redactor = Redactor(patterns=["bearer", "jwt", "card"])

    def took(text: str) -> float:
        began = time.process_time()
        redactor.text(text)
        redactor.suspects(orjson.dumps({"event": text}))
        return time.process_time() - began

    took(text)
    assert min(took(text) for _ in range(3)) < 1.0
    assert min(took(text * 4) for _ in range(3)) < 0.05 + 8 * min(took(text) for _ in range(3))


@pytest.mark.parametrize(
    "value", [("Authorization", "x"), [("Authorization", "x")], [["Authorization", "x"]], {"a": ("cookie", "x")}]
)
def test_a_pair(value) -> None:
    """It is masked as a field of its own as well as within others, on the fast way and on the slow one."""
    for beside in ({}, {"big": 2**70}):
        line = encode_open({"event": "e", "value": value, **beside}, 262_144)
        assert b'"x"' not in line
        assert b'"***"' in line


def test_the_names_in_a_line() -> None:
    """They are found in order of their kinds, without what stands around them."""
    line = orjson.dumps({"event": "a\nb=1 c_d=2", "q": '{"e": 1}'})
    assert names_in_line(line) == [b"b", b"c_d", b"e"]


def test_the_cost_of_an_event_with_nothing_to_hide() -> None:
    """Names and line together cost less than encoding the event does (the budget itself is a ratio that `make bench` shows)."""
    redactor = Redactor()
    fields = {f"name{number}": f"value {number}" for number in range(10)}
    for name in fields:
        redactor.learn(name)
    line = orjson.dumps(fields)
    encoding = min(timeit.repeat(lambda: orjson.dumps(fields), number=2000, repeat=20))
    looking = min(timeit.repeat(lambda: redactor.are_plain(fields) and (61 in line or 64 in line), number=2000, repeat=20))
    assert redactor.are_plain(fields)
    assert looking < 3 * encoding
    assert redactor.text("plain") == "plain"
    assert MASK == "***"


def test_very_many_new_names_in_one_text() -> None:
    """They are judged one by one where they differ in more than digits; from some number on, what looks like a secret is one."""
    redactor = Redactor()
    numbered = "".join(f"key_{n}=a password{n}=b x{n}_token_count=c " for n in range(5_000))
    assert redactor.text(numbered) == re.sub(r"(password\d+=)b", r"\1***", numbered)
    letters = ["".join(word) for word in itertools.product("abcdefghij", repeat=4)]
    assert redactor.text("".join(f"x_{word}=a " for word in letters)).count("***") == 0
    masked = redactor.text("".join(f"key_{word}=a " for word in letters))
    assert masked.startswith("key_aaaa=a key_aaab=a ")
    assert masked.endswith("key_jjji=*** key_jjjj=*** ")


def test_the_allowance_of_a_call() -> None:
    """It is for all texts of the call together, and only names that no search tells apart take of it."""
    redactor, allowance = Redactor(), Allowance()
    words = ["".join(word) for word in itertools.product("abcdefghij", repeat=4)]
    for word in words:
        assert redactor.text(f"x_{word}=a", allowance=allowance) == f"x_{word}=a"
    before = allowance.left
    shown = [redactor.text(f"key_{word}=a", allowance=allowance) for word in words[: before + 2]]
    assert shown[before - 1 :] == [f"key_{words[before - 1]}=a", f"key_{words[before]}=***", f"key_{words[before + 1]}=***"]
    assert redactor.text(f"key_{words[before]}=a") == f"key_{words[before]}=a"


@pytest.mark.parametrize(
    "text", ["redis://a:b@h //db:pa#ss", "http://a.very.long.name:b@h //db:pa#ss", "http://a:b@h //db:pa#s...[cut: 99 bytes]"]
)
def test_a_cut_password_behind_another_one(text: str) -> None:
    """What is masked before it does not move the place of the cut."""
    assert "pa#s" not in Redactor().text(text, cut="[cut:" not in text)
