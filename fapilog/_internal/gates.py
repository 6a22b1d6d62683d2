"""
Which levels are let through, by logger name.

Invariants:

1. A log call reads one attribute of an object that it holds already; everything else happens when a level is set.
2. What somebody asks for from outside (`fapilog level`) lies over the rules of the process as if it had been set there, and
   leaves them as they were when it is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Gate:
    """The level from which one logger name is let through. Shared by all loggers of that name; set in place."""

    __slots__ = ("level",)

    def __init__(self, level: int) -> None:
        self.level = level


class Gates:
    """
    The gates of a process by logger name; a rule for ``a.b`` holds for ``a.b.c`` too.

    `of()` and `set()` may be called from any thread. A log call only reads `Gate.level`.
    """

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}
        self._rules: dict[str, int] = {"": 20}
        self._asked: dict[str, int] = {}
        self._all = self._rules
        self._inherited = False
        #: Called after what is asked for from outside has changed.
        self.when_asked: Callable[[], None] | None = None

    def of(self, name: str | None) -> Gate:
        """Return the gate of the logger *name*; *None* is the root."""
        key = name or ""
        gate = self._gates.get(key)
        return gate if gate is not None else self._gates.setdefault(key, Gate(self._level(key)))

    def set(self, default_level: int, rules: dict[str, int]) -> None:
        """Replace all rules."""
        self._rules = {**rules, "": default_level}
        self._apply()

    def set_one(self, level: int, name: str = "") -> None:
        """Set the rule of one logger name; ``""`` is the default."""
        self._rules = {**self._rules, name: level}
        self._apply()

    def rules(self) -> dict[str, int]:
        """Return the rules of the process; ``""`` is the default."""
        return dict(self._rules)

    def effective(self) -> dict[str, int]:
        """Return the rules that hold now, with those asked for from outside."""
        return dict(self._all)

    def ask(self, rules: dict[str, int]) -> None:
        """Lay *rules* over those of the process, in place of the last that were asked for."""
        if rules != self._asked or self._inherited:
            self._asked = rules
            self._inherited = False
            self._apply()
            if self.when_asked is not None:
                self.when_asked()

    def forget(self) -> None:
        """
        Take back what a parent was asked for, in its forked child: nobody may tell the child that it is over.

        Takes no lock; the loggers of the standard library follow at the next `ask()`.
        """
        if self._asked:
            self._asked = {}
            self._inherited = True
            self._apply()

    def _apply(self) -> None:
        self._all = {**self._rules, **self._asked}
        for name, gate in list(self._gates.items()):
            gate.level = self._level(name)

    def rule_of(self, name: str) -> int | None:
        """Return the level of the rule that names *name* or one above it; None where only the default holds."""
        rules = self._all
        while name:
            if name in rules:
                return rules[name]
            name = name.rpartition(".")[0]
        return None

    def _level(self, name: str) -> int:
        rule = self.rule_of(name)
        return self._all[""] if rule is None else rule


gates = Gates()


class NamedLogger:
    """A logger as the user's processors get it: a name and its level, in the words of the standard library."""

    __slots__ = ("name",)
    disabled = False

    def __init__(self, name: str | None) -> None:
        self.name = name

    @property
    def level(self) -> int:
        """The level from which this logger logs."""
        return gates.of(self.name).level

    def getEffectiveLevel(self) -> int:  # noqa: N802 - logging's name
        """Return the level from which this logger logs."""
        return gates.of(self.name).level

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        """Return whether an event at *level* would be logged."""
        return gates.of(self.name).level <= level
