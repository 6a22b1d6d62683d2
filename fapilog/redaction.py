"""
What is masked in an event: values under names of secrets, and credentials in URLs and query strings.

Invariants:

1. A name of a secret is one however it is spelled: ``stripe_secret_key``, ``X-Api-Key``, ``clientSecret``, ``b"authorization"``.
   What stands under it is masked whole; *None*, *True* and *False* are no secrets and stay.
2. Words that only contain such a word are none (``author``, ``tokenizer``), nor are measures and marks of a secret
   (``token_count``, ``password_changed_at``).
3. Text is searched for ``name=value``, ``"name": value`` and ``("name", "value")`` with such a name, for a few headers
   (``Authorization: ...``), and for what stands before the ``@`` of a URL. Other free text is not understood; patterns are there
   for it.
4. The cost is linear in the text, whatever it holds: every expression here takes each character a bounded number of times.
5. An event with nothing to hide costs a look-up of its names in a set, and a search for four characters in its line.

The set of names known to be harmless is a cache: it is bounded, threads may fill it at once, and losing an entry costs time only.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fapilog._internal.credentials import (
    MASK,
    has_credentials,
    names_in_line,
    without_headers,
    without_members,
    without_pairs,
    without_users,
)

__all__ = ["MASK", "Redaction", "Redactor", "is_maskable", "redaction"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_NAME = 256  # characters of a name that are looked at
MAX_KNOWN = 10_000

_WORDS = """
apikey auth authorization authorisation bearer cookie cookies cred creds credential credentials csrf cvc cvv jwt otp passcode
passphrase passwd password passwords pwd pw secret secrets sessionid token totp xsrf
"""
#: ``key`` and ``id`` after one of these, and the plural of ``token``.
_KINDS_OF_KEYS = """
access account anthropic api app auth aws azure client consumer deploy enc encryption functions gcp github google hmac
license master openai private rsa secret sendgrid service session shared signing slack ssh ssl storage stripe subscription
tls twilio
"""
#: A name that ends so tells something about a secret and not the secret.
_MEASURES = """
age alg algorithm arn at attempt attempts backend bucket budget bytes changed claims class consent cost count counts created
date dir domain duration enabled endpoint error errors exists expiration expired expires expiring expiry failed failure
failures file fingerprint format hint in index issuer kind label latency len length level limit loaded location logprobs max
method min missing mode ms name names namespace ok path policy position present price problem provider rate ratio reason ref
remaining requested required reset result scheme scope scopes seconds sent size source status store strength style success
symbol time timeout total ttl type types updated uri url usage used user username valid validity verified version
"""
_SECRET_WORDS = frozenset(_WORDS.split())
_SECRET_ENDS = (
    *("password", "passwd", "passphrase", "pwd", "secret", "token", "sessionid", "sessid"),
    *("apikey", "secretkey", "privatekey", "accesskey", "masterkey", "sshkey", "authkey", "signingkey", "encryptionkey"),
)
_KEY_OF = frozenset(_KINDS_OF_KEYS.split())
_PASS_OF = frozenset(
    ("admin", "db", "database", "ftp", "ldap", "mail", "mysql", "pg", "postgres", "redis", "root", "smtp", "sql", "user")
)
#: Before ``token``: a place in a text, a list or a sequence.
_PLACES = """
bos cancellation cls continuation eos fencing first last lock mask next pad page pagination per resume sep stop unk
"""
_HARMLESS_TOKENS = frozenset(_PLACES.split())
_TOKENS_OF = frozenset(("access", "api", "auth", "bearer", "refresh", "session"))
_ABOUT = frozenset(_MEASURES.split())
_ONLY_IN_TEXT = frozenset(("sig", "signature"))

#: What is in every name of a secret: most names are told apart by this alone.
_HINT = re.compile(
    "pass|pwd?|secret|token|key|auth|cookie|cred|[cx]srf|cv[cv]|jwt|otp|bearer|sess|sig|verifier|recovery", re.IGNORECASE
)
_WORD = re.compile(r"[A-Z]{2,}(?![a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")

_COLOUR = re.compile(r"\A\[?[0-9]{1,3}m")  # what is left of a terminal's colour sequence before a name
_BEARER = re.compile(r"\b(bearer|basic|digest|negotiate|token)([ \t]+)[A-Za-z0-9._~+/=-]{8,}+", re.IGNORECASE)
_JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]*+)?")
_CARD = re.compile(
    r"(?<![0-9])(?:[2-6][0-9]{12,18}|[2-6][0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}|3[0-9]{3}([ -])[0-9]{6}\2[0-9]{5})(?![0-9])"
)


def words_of(name: str) -> list[str]:
    """Return the words of a name in small letters, whether they are joined by signs or by capitals."""
    return [word.lower() for word in _WORD.findall(name[:MAX_NAME])]


def _names_a_secret(words: list[str]) -> bool:
    """Whether a name of these words is that of a secret."""
    if not words or words[-1] in _ABOUT or (words[-2:-1] == ["token"] and words[-1] in {"id", "ids"}):
        return False
    if words == ["session"]:
        return True
    for before, word in zip(["", *words], words, strict=False):
        if word == "token" and before in _HARMLESS_TOKENS:
            continue
        if word in _SECRET_WORDS or word.endswith(_SECRET_ENDS) or "passw" in word or _names_together(before, word):
            return True
    return False


def _names_together(before: str, word: str) -> bool:
    """Whether two words name a secret that neither of them names."""
    return (
        (word in {"key", "keys"} and before in _KEY_OF)
        or (word == "tokens" and before in _TOKENS_OF)
        or (word == "id" and before == "session")
        or (word == "pass" and before in _PASS_OF)
        or (word == "phrase" and before == "pass")
        or (word == "verifier" and before in {"code", "oauth"})
        or (word in {"code", "codes"} and before == "recovery")
    )


class Redactor:
    """
    Decides what is masked; immutable but for its cache.

    Args:
        enabled: Whether anything is.
        keys: Names that are masked besides the built-in ones, however they are spelled.
        patterns: ``bearer``, ``jwt`` and ``card`` (numbers that a payment card could have), or regular expressions; what they
            match in a text is masked.
        reserved: Names that are not harmless for the reason of the caller, who asks `are_plain()`.
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        keys: Iterable[str] = (),
        patterns: Iterable[str] = (),
        reserved: frozenset[str] = frozenset(),
    ) -> None:
        self.enabled = enabled
        self._keys = tuple(("_".join(words_of(key)), key.lower()) for key in keys)
        self._reserved = reserved
        self._searches = [_search(pattern) for pattern in patterns] if enabled else []
        self.rewrites = bool(self._searches)
        self._harmless: set[object] = set()
        self._plain: set[object] = set()
        self._quiet: set[object] = set()  # harmless in front of an equals sign
        self._loud: set[object] = set()
        self.are_harmless: Callable[[Iterable[object]], bool] = self._harmless.issuperset
        self.are_plain: Callable[[Iterable[object]], bool] = self._plain.issuperset

    def is_secret(self, name: object) -> bool:
        """Whether what stands under *name*, of any type, is masked; any thread."""
        exact = _exact(name)
        if exact is None or not self.enabled or exact in self._harmless:
            return False
        beginning = exact[:MAX_NAME]
        if self._judged(beginning if isinstance(beginning, str) else beginning.decode("latin-1")):
            return True
        _remember(self._harmless, exact)
        return False

    def learn(self, name: object) -> None:
        """Remember that a field *name* needs no attention, if that is so; any thread."""
        if type(name) is str and name not in self._reserved and not self.is_secret(name):
            _remember(self._plain, name)

    def _judged(self, text: str, more: frozenset[str] = frozenset()) -> bool:
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)
        if not self._keys and not _HINT.search(text):
            return False
        words = words_of(text)
        if self._keys and self._is_asked_for("_".join(words), text.lower()):
            return True
        return _names_a_secret(words) or not more.isdisjoint(words)

    def _is_asked_for(self, name: str, text: str) -> bool:
        return any(
            text == literal or (key and (f"_{key}_" in f"_{name}_" or name.replace("_", "") == key.replace("_", "")))
            for key, literal in self._keys
        )

    def suspects(self, line: bytes) -> bool:
        r"""Whether an encoded line with one of the signs ``=@'\`` may hold what `text()` would mask; sure when it says no."""
        if not self.enabled:
            return False
        names = names_in_line(line)
        if names and not self._quiet.issuperset(names) and any(map(self._is_secret_in_text, names)):
            return True
        return has_credentials(line)

    def _is_secret_in_text(self, name: str | bytes) -> bool:
        if name in self._quiet:
            return False
        if name in self._loud:
            return True
        text = name[-MAX_NAME:].decode("ascii") if isinstance(name, bytes) else name[-MAX_NAME:]
        text = _COLOUR.sub("", text)
        if self._judged(unquote(text) if "%" in text else text, _ONLY_IN_TEXT):
            _remember(self._loud, name)
            return True
        _remember(self._quiet, name)
        return False

    def text(self, text: str, *, cut: bool = False) -> str:
        """Return *text* without the credentials of URLs, the values of secrets, and what patterns match; *cut* if it goes on."""
        if not self.enabled:
            return text
        if "=" in text:
            text = without_pairs(text, self._is_secret_in_text, self._quiet.issuperset)
        if ":" in text and ("'" in text or '"' in text):
            text = without_members(text, self._is_secret_in_text)
        if ": " in text or ":\t" in text:
            text = without_headers(text)
        if "@" in text or cut or "[cut:" in text:
            text = without_users(text, cut=cut)
        for search in self._searches:
            text = search(text)
        return text


def _exact(name: Any) -> str | bytes | None:
    """Return a text or bytes without what a subclass may have made of them; *None* for anything else."""
    kind = type(name)
    if kind is str or kind is bytes:
        return name  # type: ignore[no-any-return]
    if issubclass(kind, str):
        return str.__str__(name)
    if issubclass(kind, enum.Enum):
        return _exact(name.value) if not issubclass(type(name.value), enum.Enum) else None
    return bytes.__getitem__(name, slice(None)) if issubclass(kind, bytes) else None


def _remember(names: set[object], name: str | bytes) -> None:
    if len(name) > MAX_NAME:
        return
    if len(names) >= MAX_KNOWN:
        names.clear()
    names.add(name)


def is_maskable(value: object) -> bool:
    """Whether *value* could be a secret at all."""
    return value is not None and value is not True and value is not False


def _search(pattern: str) -> Callable[[str], str]:
    """Return what masks the matches of *pattern* in a text."""
    named = {"bearer": (_BEARER, rf"\1\2{MASK}"), "jwt": (_JWT, MASK), "card": (_CARD, _masked_card)}
    expression, instead = named.get(pattern) or (re.compile(pattern), lambda _found: MASK)
    return partial(expression.sub, instead)


def _masked_card(found: re.Match[str]) -> str:
    digits = [int(sign) for sign in found.group() if sign.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return found.group() if (sum(digits[::-2]) + sum(doubled)) % 10 else MASK


class Redaction:
    """Holds the redactor in use, replaced whole."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current = Redactor()


redaction = Redaction()
