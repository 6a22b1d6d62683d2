"""Settings: wrong values, names that are no settings, names of levels and loggers, and what the program overrules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fapilog._internal.parsing import nearest
from fapilog.cli.checks.finding import Finding, error, fine, listed, warning
from fapilog.errors import ConfigurationError
from fapilog.settings import EXEMPT, PREFIX, FapilogSettings, load_settings, parse_levels, unknown_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fapilog.cli.checks.case import Case

CHECK = "settings"
_PARTS = re.compile(r"""((?:FAPILOG|OTEL)_\w+=(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\*\*\*)): (.*)""", re.DOTALL)


def check_settings(case: Case) -> Iterator[Finding]:
    """Look at the `FAPILOG_*` variables."""
    for problem in case.problems:
        if found := _PARTS.match(problem):
            rule = found[2]
            yield error(CHECK, f"{found[1]} cannot be used.", f"It {rule}" if rule.startswith(("must ", "may ")) else rule)
        else:
            yield error(CHECK, f"{problem}.", "Set what is missing, or take out what does not go with it.")
    for name, near in unknown_names(case.environ):
        yield warning(CHECK, f"{name} is no setting, so it has no effect.", f"Write {near}." if near else "Remove it.")
    if overruled := list(_overruled(case)):
        yield warning(
            CHECK,
            f"The program passes other values to configure_logging() than {listed(overruled)}: the variables have no effect.",
            "Remove the variables, or the arguments.",
        )
    if not case.problems:
        given = sorted(set(_given(case.environ)) - set(overruled))
        yield fine(CHECK, f"Set, and right: {listed(given, 12)}." if given else "None is set: the defaults hold.")


def check_levels(case: Case) -> Iterator[Finding]:
    """Look whether the loggers that `FAPILOG_LEVEL` names are there; one with a name nearly like it is probably meant."""
    known = case.sight.names
    for name in parse_levels(case.settings.level)[1]:
        if name in known or any(each.startswith(f"{name}.") for each in known):
            continue
        if near := nearest(name, known):
            yield warning(
                "level",
                f"FAPILOG_LEVEL has a level for {name}, and no logger of the standard library has that name after the import.",
                f"If {near} is meant, write {near}.",
            )


def _given(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are settings, by name."""
    known = {PREFIX + name.upper() for name in FapilogSettings.model_fields}
    return {
        name.upper(): value for name, value in environ.items() if name.upper() in known and not name.startswith(PREFIX + EXEMPT)
    }


def _overruled(case: Case) -> Iterator[str]:
    """Return the variables whose value is not the one that holds."""
    if not case.hub.explicit:
        return
    for name, value in _given(case.environ).items():
        field = name.removeprefix(PREFIX).lower()
        try:
            wanted = getattr(load_settings({field: value}, {}), field)
        except ConfigurationError:
            continue
        if field not in {"sinks", "file_strict"} and wanted != getattr(case.settings, field):
            yield name
