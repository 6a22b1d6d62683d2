"""`fapilog doctor` on settings, on the clock, and on distributions of the name fapilog."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from fapilog.cli.checks.case import case_of
from fapilog.cli.checks.clock import check_clock, compared
from fapilog.cli.checks.distribution import OURS, PACKAGE, check_distribution
from fapilog.cli.checks.values import check_levels, check_settings
from fapilog.cli.probe.sight import Sight
from tests.doctoring import made_up, seen, told, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fapilog.cli.checks.case import Case

# Settings


def test_settings_that_are_right(tmp_path: Path) -> None:
    """They are named, without their values."""
    case = made_up(tmp_path, environ={"FAPILOG_LEVEL": "debug", "FAPILOG_LOKI_TOKEN": "secret", "FAPILOG_TEST_X": "1"})
    assert told(check_settings, case) == {"ok": "Set, and right: FAPILOG_LEVEL, FAPILOG_LOKI_TOKEN, FAPILOG_RUN_DIR. -> "}
    none = case_of(Sight("done", str(tmp_path)))
    assert told(check_settings, none) == {"ok": "None is set: the defaults hold. -> "}


@pytest.mark.parametrize(
    ("name", "value", "found", "change"),
    [
        ("FAPILOG_LEVEL", "LOUD", "FAPILOG_LEVEL='LOUD' cannot be used.", "'LOUD' is not a level; levels are DEBUG, INFO"),
        ("FAPILOG_LEVEL", "WARNIGN", "FAPILOG_LEVEL='WARNIGN' cannot be used.", "did you mean WARNING?"),
        ("FAPILOG_SINKS", "flie", "FAPILOG_SINKS='flie' cannot be used.", "did you mean file?"),
        ("FAPILOG_QUEUE_SIZE", "a: b", "FAPILOG_QUEUE_SIZE='a: b' cannot be used.", "It must be a whole number, 1 or more"),
        ("FAPILOG_SERVICE", "it's/x", 'FAPILOG_SERVICE="it\'s/x" cannot be used.', "It must be a name"),
    ],
)
def test_a_value_that_is_wrong(tmp_path: Path, name: str, value: str, found: str, change: str) -> None:
    """It is an error that names the variable, the value and what would be right."""
    findings = told(check_settings, made_up(tmp_path, environ={name: value}))
    assert findings.keys() == {"error"}
    assert findings["error"].startswith(f"{found} -> ")
    assert change in findings["error"]


def test_several_wrong_values(tmp_path: Path) -> None:
    """Each is a finding of its own, and the right ones hold for the other checks."""
    case = made_up(tmp_path, environ={"FAPILOG_LEVEL": "LOUD", "FAPILOG_REDACT": "maybe", "FAPILOG_SERVICE": "till"})
    findings = list(check_settings(case))
    assert [(each.severity, each.found.partition("=")[0]) for each in findings] == [
        ("error", "FAPILOG_LEVEL"),
        ("error", "FAPILOG_REDACT"),
    ]
    assert (case.settings.service, case.settings.level) == ("till", "INFO")


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"FAPILOG_SINKS": "loki"}, "FAPILOG_LOKI_URL: the sink loki needs the URL of a server"),
        ({"FAPILOG_SINKS": "file,loki", "FAPILOG_LOKI_URL": "loki:3100"}, "must be the URL of a server"),
        (
            {"FAPILOG_SINKS": "loki", "FAPILOG_LOKI_URL": "http://a", "FAPILOG_LOKI_TOKEN": "hush", "FAPILOG_LOKI_USERNAME": "b"},
            "a token and a user name with password exclude each other",
        ),
        (
            {"FAPILOG_SINKS": "loki", "FAPILOG_LOKI_URL": "http://a", "FAPILOG_QUEUE_ENABLED": "false"},
            "FAPILOG_QUEUE_ENABLED=false writes synchronously, and sink 'loki' has no write_now()",
        ),
    ],
)
def test_settings_that_do_not_go_together(tmp_path: Path, environ: dict[str, str], found: str) -> None:
    """They are errors, too, and show no secret."""
    findings = told(check_settings, made_up(tmp_path, environ=environ))
    assert findings.keys() == {"error"}
    assert found in findings["error"]
    assert "hush" not in findings["error"]


def test_names_that_are_no_settings(tmp_path: Path) -> None:
    """Each is a warning, with the nearest that is one."""
    findings = list(check_settings(made_up(tmp_path, environ={"FAPILOG_LEVL": "x", "FAPILOG_WXYZ": "x"})))
    assert [(each.severity, each.found, each.change) for each in findings[:-1]] == [
        ("warning", "FAPILOG_LEVL is no setting, so it has no effect.", "Write FAPILOG_LEVEL."),
        ("warning", "FAPILOG_WXYZ is no setting, so it has no effect.", "Remove it."),
    ]


def test_variables_that_a_program_overrules(tmp_path: Path) -> None:
    """A program's own arguments win: a warning names the variables that have no effect; equal ones are right."""
    write(tmp_path, app="import fapilog; fapilog.configure_logging(level='DEBUG', service='till', sinks=['file']); app = print")
    same: dict[str, Any] = {"FAPILOG_SERVICE": "till", "FAPILOG_SINKS": "stdout"}
    assert told(check_settings, seen(tmp_path, "app:app", **same)).keys() == {"ok"}
    found = told(check_settings, seen(tmp_path, "app:app", FAPILOG_LEVEL="INFO", FAPILOG_ENV="x", **same))
    assert "than FAPILOG_LEVEL: the variables have no effect" in found["warning"]
    assert "FAPILOG_ENV" in found["ok"]
    assert "FAPILOG_LEVEL" not in found["ok"]


def test_a_wrong_value_that_a_program_overrules(tmp_path: Path) -> None:
    """It is wrong all the same: commands, and children that know the environment alone, read it."""
    write(tmp_path, app="import fapilog; fapilog.configure_logging(level='DEBUG'); app = print")
    findings = told(check_settings, seen(tmp_path, "app:app", FAPILOG_LEVEL="LOUD"))
    assert findings.keys() == {"error"}


def test_a_level_for_a_logger_that_nobody_has(tmp_path: Path) -> None:
    """Where a logger of nearly that name is there, it is a warning; a name above or without a likeness is right."""
    names = ("root", "sqlalchemy.engine", "urllib3")
    rules = {"FAPILOG_LEVEL": "INFO,urlib3=ERROR,sqlalchemy=WARNING,shop.cart=DEBUG"}
    found = told(check_levels, made_up(tmp_path, names=names, environ=rules))
    assert found.keys() == {"warning"}
    assert "FAPILOG_LEVEL has a level for urlib3" in found["warning"]
    assert found["warning"].endswith("-> If urllib3 is meant, write urllib3.")


# The clock


def test_a_clock_that_was_never_set(tmp_path: Path) -> None:
    """1970 is an error, today is right."""
    case = made_up(tmp_path)
    (finding,) = check_clock(case, lambda: 4711.0)
    assert (finding.severity, finding.found.partition(":")[0]) == ("error", "The clock says 1970-01-01 01")
    assert told(check_clock, case).keys() == {"ok"}


def test_a_clock_beside_another() -> None:
    """Five minutes are much, in both directions."""
    now = time.time()
    assert compared(now, now - 299, "there") is None
    ahead, behind = compared(now, now - 301, "there"), compared(now, now + 7200, "there")
    assert ahead is not None
    assert behind is not None
    assert ahead.found.startswith("This clock is 5m1s ahead of that of there:")
    assert behind.found.startswith("This clock is 2h behind that of there:")


# Distributions


def distribution(
    place: Path, version: str, *, ours: bool, files: tuple[str, ...] = (), name: str = "fapilog", needs: str = ""
) -> Path:
    """Make what an installer leaves of a distribution."""
    info = place / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    fields = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    fields += [f"Classifier: {OURS}"] if ours else ["Classifier: Development Status :: 4 - Beta"]
    fields += [f"Requires-Dist: {needs}"] if needs else []
    (info / "METADATA").write_text("\n".join(fields) + "\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    return place


@contextlib.contextmanager
def only(*places: Path) -> Iterator[None]:
    """Let only these be on the path."""
    before = sys.path[:]
    sys.path[:] = map(str, places)
    try:
        yield
    finally:
        sys.path[:] = before


def said(case: Case, *places: Path) -> list[tuple[str, str]]:
    with only(*places):
        return [(each.severity, each.found) for each in check_distribution(case)]


def test_our_distribution(tmp_path: Path) -> None:
    """It is right; so is none, from a checkout."""
    case = made_up(tmp_path)
    ours = distribution(tmp_path / "a", "0.1.0", ours=True)
    assert said(case, ours) == [("ok", f"fapilog 0.1.0 is ours, in {PACKAGE}.")]
    assert said(case, tmp_path)[0][0] == "ok"
    assert said(case, ours, ours) == said(case, ours)


def test_the_distribution_of_another_project(tmp_path: Path) -> None:
    """It is an error, alone and beside ours, in whichever order; ours twice is a warning."""
    case = made_up(tmp_path)
    ours, other = distribution(tmp_path / "a", "0.1.0", ours=True), distribution(tmp_path / "b", "0.4.2", ours=False)
    again = distribution(tmp_path / "c", "0.1.0", ours=True)
    wanted = [("error", f"fapilog 0.4.2 in {other} is another project of the same name.")]
    for places in ((other,), (ours, other), (other, ours)):
        assert said(case, *places) == wanted
    assert [severity for severity, _ in said(case, ours, again)] == ["warning", "ok"]


def test_files_of_another_project_among_ours(tmp_path: Path) -> None:
    """They are counted: somebody has installed one over the other."""
    (tmp_path / "b").mkdir()
    up = "../" * len((tmp_path / "b").resolve().parts[1:])
    files = tuple(f"{up}{PACKAGE.resolve().relative_to('/')}/{name}" for name in ("__init__.py", "errors.py"))
    other = distribution(tmp_path / "b", "0.4.2", ours=False, files=(*files, "elsewhere/x.py"))
    ((_, found),) = said(made_up(tmp_path), other)
    assert found.endswith(f", and 2 of its files are in the directory of this one, {PACKAGE}.")


def test_a_requirement_by_name(tmp_path: Path) -> None:
    """Whoever requires fapilog by its name gets the other one at the next upgrade: a warning; by URL it is right."""
    case = made_up(tmp_path)
    place = distribution(tmp_path / "a", "0.1.0", ours=True)
    distribution(place, "1.0", ours=False, name="shop", needs="fapilog[all] >=0.1 ; python_version > '3'")
    distribution(place, "1.0", ours=False, name="till", needs="fapilog")
    distribution(place, "1.0", ours=False, name="good", needs="fapilog @ file:///srv/fapilog")
    distribution(place, "1.0", ours=False, name="like", needs="fapilog-extras >=1")
    found = said(case, place)
    assert [severity for severity, _ in found] == ["ok", "warning"]
    assert "good" not in found[1][1]
    assert "like" not in found[1][1]
    assert all(name in found[1][1] for name in ("shop", "till"))


def test_a_file_that_stands_before_us(tmp_path: Path) -> None:
    """A module of our name where the server starts is what it would import: an error; another directory is right."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", fapilog="")
    found = told(check_distribution, seen(tmp_path / "in"))
    assert f"In {tmp_path}/in, `import fapilog` finds {tmp_path}/in/fapilog.py, not {PACKAGE}" in found["error"]
    assert "error" not in told(check_distribution, seen(tmp_path))
