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
5. An event with nothing to hide costs a look-up of its names in a set, and a search for five characters in its line.

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
from fapilog._internal.patterns import search_for

__all__ = ["MASK", "Redaction", "Redactor", "is_maskable", "redaction"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

MAX_NAME = 256  # characters of a name that are looked at
MAX_KNOWN = 10_000
MANY_NAMES = 64  # in one text, that are not worth remembering: it will hardly come again
MAX_JUDGED = 1_000

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

#: What is in every name of a secret, in small letters: most names are told apart by this alone.
_HINT = re.compile("pass|pwd?|secret|token|key|auth|cookie|cred|csrf|xsrf|cv[cv]|jwt|otp|bearer|sess|sig|verifier|recovery")
_DIGITS = str.maketrans("123456789", "0" * 9)
_WORD = re.compile(r"[A-Z]{2,}(?![a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")

_COLOUR = re.compile(r"\A\[?[0-9]{1,3}m")  # what is left of a terminal's colour sequence before a name


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


def _hint_for(keys: Iterable[str]) -> re.Pattern[str]:
    """Return `_HINT` and what is in every name that one of the *keys* asks for: its letters and digits in their order."""
    own = ("[^a-z0-9\n]*+".join("".join(words_of(key))) or re.escape(key.lower()) for key in keys)
    return re.compile("|".join((_HINT.pattern, *filter(None, own))))


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


class Allowance:
    """How many new names a log call may bring that need more than a search."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_JUDGED


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
        keys = tuple(keys)
        self._keys = tuple(("_".join(words_of(key)), key.lower()) for key in keys)
        self._has_digits = any(sign.isdigit() for key in keys for sign in key)
        self._hint = _hint_for(keys) if keys else _HINT
        self._reserved = reserved
        self._searches = [search_for(pattern) for pattern in patterns] if enabled else []
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
        # What is beyond ASCII may be a name that was asked for whatever the hint says.
        if (not self._keys or text.isascii()) and not self._hint.search(text.lower()):
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
        r"""
        Whether an encoded line may hold what `text()` would mask; sure when it says no.

        It cannot if it has none of the signs ``=@'\`` and no colon with a blank behind it: callers look for these first.
        """
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

    def _secrets_among(self, allowance: Allowance, names: Sequence[str]) -> AbstractSet[str]:
        """
        Return those of the *names* in one text that are names of secrets.

        When a call brings more new names that look like those of secrets than its allowance, the rest count as such.
        """
        if self._quiet.issuperset(names):
            return frozenset()
        new = [name for name in dict.fromkeys(names) if name not in self._quiet]
        suspicious = self._suspicious(new)
        if len(new) <= MANY_NAMES:
            for name in set(new).difference(suspicious):
                _remember(self._quiet, name)
        return self._judged_by_shape(suspicious, allowance)

    def _judged_by_shape(self, names: list[str], allowance: Allowance) -> AbstractSet[str]:
        """Return the secrets among *names*; which digits are in a name makes no difference, unless it was asked for by them."""
        if not names:
            return frozenset()
        shapes = names if self._has_digits else "\n".join(names).translate(_DIGITS).split("\n")
        shapes = [name if "%" in name else shape for name, shape in zip(names, shapes, strict=True)]
        kinds: dict[str, bool] = {}
        for shape in dict.fromkeys(shapes):
            if shape in self._quiet or shape in self._loud:
                kinds[shape] = shape in self._loud
            elif allowance.left > 0:
                allowance.left -= 1
                kinds[shape] = self._is_secret_in_text(shape)
        return {name for name, shape in zip(names, shapes, strict=True) if kinds.get(shape, True)}

    def _suspicious(self, names: list[str]) -> list[str]:
        """Return those of the *names* that have what is in every name of a secret: all are searched at once."""
        joined = "\n".join(names)
        found: dict[str, None] = dict.fromkeys(name for name in names if "%" in name) if "%" in joined else {}
        at = 0
        for hint in self._hint.finditer(joined.lower()):
            if hint.start() >= at:
                at = joined.find("\n", hint.end()) + 1 or len(joined)
                found[joined[joined.rfind("\n", 0, hint.start()) + 1 : at].rstrip("\n")] = None
        return list(found)

    def text(self, text: str, *, cut: bool = False, allowance: Allowance | None = None) -> str:
        """
        Return *text* without the credentials of URLs, the values of secrets, and what patterns match.

        Args:
            text: Of a value, or a whole one.
            cut: Whether it goes on.
            allowance: Of the call that the text is a part of.
        """
        if not self.enabled:
            return text
        secrets_among = partial(self._secrets_among, allowance or Allowance())
        if "=" in text:
            text = without_pairs(text, secrets_among)
        if ":" in text and ("'" in text or '"' in text):
            text = without_members(text, secrets_among)
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


class Redaction:
    """Holds the redactor in use, replaced whole."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current = Redactor()


redaction = Redaction()
