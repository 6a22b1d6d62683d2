"""benchmarks/: what is measured, what is printed, and what the check makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import check as checking
from benchmarks import docs, web
from benchmarks.budgets import GROUPS, Budget
from benchmarks.contenders import CONTENDERS, FLOOR, absent
from benchmarks.errors import BenchError
from benchmarks.event import FIELDS, NAME, fields_of, written
from benchmarks.measure import measured
from benchmarks.rounds import ratios, together
from tests._support import rest_in_matrix

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
EVENTS = 2_000 + 500  # those that warm up, and those that are measured


def run(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("name", rest_in_matrix(7, [name for name in CONTENDERS if name != FLOOR and "hangs" not in name]))
def test_a_contender(tmp_path: Path, name: str) -> None:
    """It writes every event, with its fields, and says what it took."""
    if reason := absent(name):
        pytest.skip(reason)
    (tmp_path / "files").mkdir()
    done = run(tmp_path, "measure", name, "throughput", "500", str(tmp_path / "files"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["logged"], found["lost"]) == (EVENTS, 0)
    assert min(found["mean"], found["rate"], found["cpu"], found["peak_mib"]) > 0


def test_servers_that_are_loaded_in_turns(monkeypatch) -> None:
    """Each is warmed up, then has a quarter of the requests at a time, in turns that no drift of the machine favours."""
    asked = []

    def loaded(port: int, _endpoint: str, requests: int) -> float:
        asked.append((port, requests))
        return 100.0 * port

    monkeypatch.setattr(web, "loaded", loaded)
    took = web._took({"a": 1, "b": 2}, web.ORDERS, 800)
    assert asked[:2] == [(1, web.WARMUP), (2, web.WARMUP)]
    assert asked[2:] == [(port, 200) for port in (1, 2, 2, 1, 1, 2, 2, 1)]
    assert took == {"a": 8.0, "b": 4.0}


@pytest.mark.matrix
def test_requests_in_turns(tmp_path: Path) -> None:
    """Both servers answer, and every event is in the files."""
    found = web.in_turns([web.NOTHING, "fapilog"], web.ORDERS, 320, 1, tmp_path)
    assert [each["lost"] for each in (*found[web.NOTHING], *found["fapilog"])] == [0, 0]
    assert min(ratios(found, "fapilog", web.NOTHING, "rate")) > 0


@pytest.mark.parametrize("mode", rest_in_matrix(2, ["latency", "outage", "paced", "disabled"]))
def test_a_way_of_measuring(tmp_path: Path, mode: str) -> None:
    """It comes to its end, with all events in the file."""
    (tmp_path / "files").mkdir()
    done = run(tmp_path, "measure", "fapilog beside a sink", mode, "501", str(tmp_path / "files"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lost"] == 0


def test_several_processes(tmp_path: Path) -> None:
    """They log at once, each to a file of its own."""
    found = together("fapilog", 2, 1_000, tmp_path)
    assert found["lost"] == 0
    assert found["rate"] > 0
    assert list(tmp_path.iterdir()) == []


def test_events_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is void if they are fapilog's."""
    session = CONTENDERS[FLOOR](tmp_path)
    monkeypatch.setitem(CONTENDERS, "fapilog", lambda _: session)
    with pytest.raises(BenchError, match=r"2100 events logged, 0 in the file"):
        measured("fapilog", "throughput", 100, tmp_path)


def test_fields_that_are_wrong(tmp_path: Path) -> None:
    """The run is void, whoever wrote them."""
    line = {"event": NAME, "extra": {**FIELDS, "paid": False}}
    (tmp_path / "bench.jsonl").write_text(f"{json.dumps(line)}\n")
    with pytest.raises(BenchError, match="fields differ"):
        written(tmp_path)
    assert fields_of(json.dumps({"record": {"extra": FIELDS}}).encode()).items() >= FIELDS.items()


def test_ratios_are_taken_round_by_round() -> None:
    """What slows both down in a round does not show."""
    rounds: dict[str, list[dict[str, Any]]] = {"a": [{"mean": 2.0}, {"mean": 20.0}], "b": [{"mean": 4.0}, {"mean": 40.0}]}
    assert ratios(rounds, "a", "b", "mean") == [0.5, 0.5]


def values(change: dict[str, list[float]]) -> dict[Callable[..., Any], Any]:
    """Return groups whose measurements are made up: the bounds themselves, but for *change*."""
    groups: dict[Callable[..., Any], Any] = {}
    for rounds, budgets in deepcopy(list(GROUPS.values())):
        found = {name: change.get(name, [budget.bound]) for name, budget in budgets.items()}
        groups[lambda _rounds, _base, found=found: found] = (rounds, budgets)
    return groups


@pytest.mark.parametrize(
    ("change", "arguments", "code"),
    [
        ({}, [], 0),
        ({}, ["--strict"], 0),
        ({"call": [0.54]}, [], 0),
        ({"call": [0.54]}, ["--strict"], 1),
        ({"call": [0.56]}, [], 1),
        ({"rate": [1.72]}, [], 0),
        ({"rate": [1.70]}, [], 1),
        ({"import": [1.0]}, [], 1),
    ],
)
def test_the_check(
    change: dict[str, list[float]],
    arguments: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """It fails if a bound is missed by more than a tenth, or at all with --strict, and says which."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(checking, "GROUPS", values(change))
    monkeypatch.setattr(checking, "absent", lambda _: "")
    assert checking.main(arguments) == code
    errors = capsys.readouterr().err
    assert ("missed" in errors) == bool(code)
    for name in change if code else ():
        assert next(budgets[name].what for _, budgets in GROUPS.values() if name in budgets) in errors


def test_a_budget_that_holds_when_it_is_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All rounds count, the first ones too."""
    measured_values = iter([[0.9, 0.9], [0.4, 0.4], [0.4, 0.4]])
    monkeypatch.setattr(checking, "GROUPS", {lambda _rounds, _base: {"a": next(measured_values)}: (2, {"a": Budget("a", 0.5)})})
    (budget,) = checking.check(tmp_path, 0.1)
    assert budget.values == [0.9, 0.9, 0.4, 0.4, 0.4, 0.4]
    assert budget.value == 0.4


def test_a_peer_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It is said, and no reason to fail."""
    monkeypatch.setattr(checking, "GROUPS", {lambda _rounds, _base: {}: (1, {"loguru enqueue": Budget("beside loguru", 25.0)})})
    monkeypatch.setattr(checking, "absent", lambda _: "loguru is not installed on this Python")
    assert [budget.held() for budget in checking.check(tmp_path, 0.0)] == [True]
    assert "not measured" in capsys.readouterr().out


def test_marks_that_are_missing() -> None:
    """The error names them; what is around them stays."""
    with pytest.raises(ValueError, match="bench: begin"):
        docs.replaced("text", "inner")
    page = f"before\n{docs.BEGIN}\nold\n{docs.END}\nafter\n"
    assert docs.replaced(page, "new") == f"before\n{docs.BEGIN}\n\nnew\n\n{docs.END}\nafter\n"


@pytest.mark.soak
def test_the_benchmark(tmp_path: Path) -> None:
    """Every measurement comes to its end, and the report has every contender that is there."""
    done = run(tmp_path, "bench", "--quick", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "out" / "results.md").read_text()
    assert all(name in report for name in CONTENDERS if not absent(name) and "beside" not in name)
    assert "Doubts:" in report
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert all(each["lost"] == 0 for name in ("fapilog", "fapilog journal") for each in found["throughput"][name])
