"""
Sampling rules: of events that come too often, the first few of an interval pass, then one in so many.

A rule is `what=first:thereafter/interval`, with zap's words and meaning: in each interval the first *first* events pass, then
every *thereafter*-th; none without *thereafter*. *what* is the name of an event, `level:NAME`, or `*` for all below ERROR.

Invariants:

1. An event meets one rule at the most: that of its name, else that of its level, else `*`. ERROR and above meet only a rule that
   names them: somebody who wrote `*` did not mean to lose errors.
2. A rule counts each name at each level by itself, so that a flood takes nothing from its neighbours.
3. The counts are exact, whatever threads, signal handlers and finalisers do: no event is counted twice or for two intervals.
4. An event that is stopped has been refused before `stops()` returns True; one that is not refused passes.
5. The state is bounded by the rules, not by what is logged: at most `MAX_NAMES` counts for each rule, and no text of an event.
6. No lock, no I/O; an interval begins with the first event after the end of the one before, on the monotonic clock.

Why there is no lock: as in `line_queue`, a run of bytecode without a call is atomic under the GIL against threads, signal
handlers and finalisers. The keys are integers, so that looking one up runs no code of anybody's.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fapilog._internal.accounting import Reason
from fapilog._internal.notes import note
from fapilog._internal.parsing import LEVELS, MAX_SECONDS, did_you_mean, names
from fapilog.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_NAMES = 4096  # as many counters as zap has for a level
MAX_NAME = 256  # characters: hashing a name must not cost more than encoding it
ERROR = 40

_RULE = re.compile(
    r"(?P<what>.*\S)\s*=\s*(?P<first>[0-9]{1,12})(:(?P<thereafter>[0-9]{1,12}))?/(?P<interval>[0-9.]+)(?P<unit>\w*)", re.DOTALL
)
_NUMBER = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")
_UNITS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_LEVEL = "level:"
_ALL = "*"
_EXAMPLES = "cache_miss=100:50/1s, level:debug=10:100/1m or *=1000/1s"


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One rule.

    Args:
        what: The name of an event, or `*`; empty for a rule of a level.
        levelno: The number of the level, for a rule of one; else 0.
        first: How many events pass at the beginning of each interval.
        thereafter: Of those that follow, every how many-th passes; 0 for none.
        interval: In seconds.
    """

    what: str
    levelno: int
    first: int
    thereafter: int
    interval: float


def parse_rules(text: str) -> tuple[Rule, ...]:
    """
    Read a comma list of rules, such as `cache_miss=100:50/1s,level:debug=10:100/1m,*=1000/1s`; empty text means none.

    Raises:
        ConfigurationError: A rule is none, or is not the only one of its name or level; the message names it.
    """
    rules: dict[tuple[str, int], Rule] = {}
    for item in names(text):
        rule = _rule(item)
        if rules.setdefault((rule.what, rule.levelno), rule) is not rule:
            raise ConfigurationError(f"{item!r} is a second rule for the same events; give each name, each level and * one")
    return tuple(rules.values())


def sampling(value: object) -> str:
    """Read what `parse_rules` takes, or a list of such rules, and return it as text without the spaces around the commas."""
    text = ",".join(names(value))
    parse_rules(text)
    return text


def _rule(item: str) -> Rule:
    found = _RULE.fullmatch(item)
    if found is None:
        raise ConfigurationError(f"{item!r} is not a rule; write what=first:thereafter/interval, such as {_EXAMPLES}")
    what, levelno = found["what"], 0
    if what.startswith(_LEVEL):
        name = what.removeprefix(_LEVEL).strip()
        levelno = LEVELS.get(name.upper(), 0)
        if not levelno:
            known = [level.lower() for level in LEVELS]
            raise ConfigurationError(f"{item!r}: {name!r} is not one of {', '.join(known)}{did_you_mean(name.lower(), known)}")
        what = ""
    if len(what) > MAX_NAME:
        raise ConfigurationError(f"{item[:40]!r}...: the name of an event may have {MAX_NAME} characters here")
    interval = _seconds(item, found["interval"], found["unit"])
    return Rule(what, levelno, int(found["first"]), int(found["thereafter"] or 0), interval)


def _seconds(item: str, number: str, unit: str) -> float:
    seconds = float(number) * _UNITS[unit] if _NUMBER.fullmatch(number) and unit in _UNITS else 0.0
    if not 0.001 <= seconds <= MAX_SECONDS:
        raise ConfigurationError(
            f"{item!r}: the interval must be 1ms to {MAX_SECONDS}s: a number with ms, s, m, h or d behind, such as 1s or 15m"
        )
    return seconds


class Counts:
    """
    What one rule has seen in the current interval.

    Args:
        rule: Whose.
        clock: Returns seconds, never less than before.
    """

    __slots__ = ("_clock", "_counts", "_ends", "_rule")

    def __init__(self, rule: Rule, clock: Callable[[], float]) -> None:
        self._rule = rule
        self._clock = clock
        self._ends = -math.inf
        self._counts: dict[int, int] = {}

    def passes(self, name_hash: int, levelno: int) -> bool:
        """Count one event and return whether it passes; any thread, signal handler or finaliser."""
        rule = self._rule
        now = self._clock()
        # Made beforehand: on 3.11 making a dict may collect garbage, and a finaliser may log.
        fresh: dict[int, int] | None = {} if now >= self._ends else None
        key = name_hash ^ levelno
        counts = self._counts if fresh is None else fresh
        if len(counts) >= MAX_NAMES and key not in counts:
            key = levelno  # a race may let one more in for each thread, no more
        # Atomic from here: whoever finds the interval over begins the next, and each event gets a number of its own ...
        if fresh is not None and now >= self._ends:
            self._ends = now + rule.interval
            self._counts = fresh
        counts = self._counts
        number = counts[key] + 1 if key in counts else 1
        counts[key] = number
        # ... to here.
        beyond = number - rule.first
        return beyond <= 0 or (rule.thereafter > 0 and beyond % rule.thereafter == 0)


monotonic = time.monotonic  # replaced by `fapilog.testing.FakeClock`


def _now() -> float:
    return monotonic()


class Sampler:
    """
    The rules of one process with their counts; a forked child needs its own, from `fresh()`.

    Args:
        rules: From `parse_rules`.
        clock: In seconds, for tests; monotonic.
    """

    __slots__ = ("_by_level", "_by_name", "_clock", "rules")

    def __init__(self, rules: Iterable[Rule], clock: Callable[[], float] | None = None) -> None:
        self.rules = tuple(rules)
        self._clock = clock = clock or _now
        counts = {(rule.what, rule.levelno): Counts(rule, clock) for rule in self.rules}
        self._by_name = {what: each for (what, levelno), each in counts.items() if not levelno and what != _ALL}
        self._by_level = {levelno: each for (_, levelno), each in counts.items() if levelno}
        if (_ALL, 0) in counts:
            below = {levelno: counts[_ALL, 0] for levelno in LEVELS.values() if levelno < ERROR}
            self._by_level = {**below, **self._by_level}

    def fresh(self) -> Sampler:
        """Return one with the same rules that has seen nothing."""
        return Sampler(self.rules, self._clock)

    def stops(self, levelno: int, event: object, refuse: Callable[[Reason], object], logger: object = None) -> bool:
        """
        Return whether a rule stops the event, which *refuse* then has counted; the name of the *logger* does not matter.

        Any thread, signal handler or finaliser. Raises no `Exception`; if one comes up (thrown by a signal handler, say) before
        the event was refused, the event passes. It must stay a function written in Python: when one returns, CPython does not
        look for signals, so that the caller sees the True of an event that was refused.
        """
        stopped = False
        try:
            name = event if type(event) is str and len(event) <= MAX_NAME else _name(event)
            rule = self._by_name.get(name) or self._by_level.get(levelno)
            if rule is not None and not rule.passes(hash(name), levelno):
                refuse(Reason.SAMPLED)
                stopped = True
        except Exception as error:
            note("accept", f"an exception came up in the middle of a log call, which does not raise: {error!r}")
        return stopped


def _name(event: object) -> str:
    """Return what rules know an event by: its first characters, without running code of a subclass; empty for what is no text."""
    return str.__getitem__(event, slice(MAX_NAME)) if isinstance(event, str) else ""


def sampler_of(text: str, current: Sampler | None = None) -> Sampler | None:
    """
    Return a sampler for the rules in *text*; None where there is none, so that a log call need not ask.

    A *current* one with the same rules goes on: another set-up begins no interval.
    """
    rules = parse_rules(text)
    if current is not None and current.rules == rules:
        return current
    return Sampler(rules) if rules else None
