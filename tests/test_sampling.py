"""Sampling rules: what passes, what is stopped and counted, and that the books stay exact whatever happens meanwhile."""

from __future__ import annotations

import collections
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

import fapilog
from fapilog import QueueWorker, queue_sink
from fapilog._internal.accounting import Reason
from fapilog._internal.route import route
from fapilog._internal.sampling import MAX_NAME, MAX_NAMES, Rule, Sampler, parse_rules, sampler_of
from fapilog.bootstrap import use_worker
from fapilog.coordinator import coordinator
from fapilog.errors import ConfigurationError
from fapilog.pipeline import emit
from fapilog.settings import load_settings
from fapilog.stdlib import HubHandler
from tests._support import process_restored, ran_well, read_lines, rest_in_matrix, run_script
from tests.test_cases import balanced, no_hole

TO_FILE = {"FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "out.jsonl"}
ROOT = str(Path(__file__).parents[1])
LEVEL_NAMES = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
SECOND = 1.0


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Refusals(list[Reason]):
    """Stands for the queue."""

    def __call__(self, reason: Reason) -> bool:
        self.append(reason)
        return False


@pytest.fixture(autouse=True)
def _restored():
    with process_restored():
        yield


@pytest.fixture
def configure(tmp_path):
    """Configure this process with a file sink; returns a reader of that file after a flush."""

    def do(sampling: str, name: str = "out.jsonl", **overrides: Any):
        fapilog.configure_logging(
            **{
                "sinks": ["file"],
                "file_path": str(tmp_path / name),
                "run_dir": str(tmp_path / "run"),
                "queue_batch_timeout": 0.05,
                "level": "DEBUG",
                "sampling": sampling,
                **overrides,
            }
        )

        def read() -> list[dict[str, Any]]:
            assert fapilog.flush(10).complete
            return read_lines(tmp_path / name)

        return read

    return do


def passed(sampler: Sampler, event: object, count: int, levelno: int = 20) -> list[int]:
    """Log *event* so often and return which times passed, from 1."""
    refusals = Refusals()
    found = [n for n in range(1, count + 1) if not sampler.stops(levelno, event, refusals)]
    assert refusals == [Reason.SAMPLED] * (count - len(found))
    return found


def without_notices(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] != "fapilog.dropped"]


def refused() -> int:
    return fapilog.statistics().refused.get("sampled", 0)


# What rules say.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("cache_miss=100:50/1s", (Rule("cache_miss", 0, 100, 50, 1.0),)),
        ("x=5/15m", (Rule("x", 0, 5, 0, 900.0),)),
        ("x=0:1/250ms", (Rule("x", 0, 0, 1, 0.25),)),
        ("x=1/2h", (Rule("x", 0, 1, 0, 7200.0),)),
        ("x=1/1d", (Rule("x", 0, 1, 0, 86_400.0),)),
        ("x=1/1", (Rule("x", 0, 1, 0, 1.0),)),
        ("x=1/0.5s", (Rule("x", 0, 1, 0, 0.5),)),
        ("level:DEBUG=10:100/1m, *=1/1s", (Rule("", 10, 10, 100, 60.0), Rule("*", 0, 1, 0, 1.0))),
        ("level:warn=1/1s", (Rule("", 30, 1, 0, 1.0),)),
        ("  GET /a=b  =  7:8/9s ", (Rule("GET /a=b", 0, 7, 8, 9.0),)),
    ],
)
def test_a_rule_is_read(text: str, expected: tuple[Rule, ...]) -> None:
    """The name is everything before the last equals sign; spaces around parts do not count."""
    assert parse_rules(text) == expected


@pytest.mark.parametrize(
    ("text", "named", "right"),
    [
        ("x", "'x'", "such as cache_miss=100:50/1s"),
        ("a=1/1s,x=100", "'x=100'", "write what=first:thereafter/interval"),
        ("x=100:50", "'x=100:50'", "write what=first:thereafter/interval"),
        ("x=-1/1s", "'x=-1/1s'", "write what="),
        ("x=1:/1s", "'x=1:/1s'", "write what="),
        ("x=1:2:3/1s", "'x=1:2:3/1s'", "write what="),
        ("=1/1s", "'=1/1s'", "write what="),
        ("debug:0.1", "'debug:0.1'", "write what="),
        ("x=1/s", "'x=1/s'", "write what="),
        ("x=1/0s", "'x=1/0s'", "1ms to 1000000s"),
        ("x=1/1w", "'x=1/1w'", "ms, s, m, h or d"),
        ("x=1/1.2.3s", "'x=1/1.2.3s'", "a number with"),
        ("x=1/99999d", "'x=1/99999d'", "1ms to 1000000s"),
        ("level:debgu=1/1s", "'level:debgu=1/1s'", "'debgu' is not one of debug, info, warning, warn, error, critical, fatal"),
        ("level:debgu=1/1s", "'debgu'", "did you mean debug?"),
        ("x=1/1s,y=1/1s,x=2/1s", "'x=2/1s'", "a second rule for the same events"),
        ("level:warn=1/1s,level:WARNING=1/1s", "'level:WARNING=1/1s'", "a second rule"),
        ("*=1/1s,*=1/1s", "'*=1/1s'", "a second rule"),
        ("x=1/1s,", "FAPILOG_SAMPLING", "without an empty one"),
        (f"{'x' * (MAX_NAME + 1)}=1/1s", "'xxxxx", f"{MAX_NAME} characters"),
    ],
)
def test_a_rule_that_is_wrong(text: str, named: str, right: str) -> None:
    """O-CFG-1: an error at set-up names the variable, the wrong rule and what would be right."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ={"FAPILOG_SAMPLING": text})

    assert f"FAPILOG_SAMPLING={text!r}: " in str(caught.value)
    assert named in str(caught.value)
    assert right in str(caught.value)


@pytest.mark.parametrize("value", [5, None, b"x=1/1s", [5], ["x=1/1s", ""], {"x": "1/1s"}, ["a,b=1/1s"]])
def test_an_override_that_is_wrong(value: object) -> None:
    """O-CFG-1: what is neither text nor a list of rules is an error too."""
    with pytest.raises(ConfigurationError, match=r"sampling=.* \(override\): "):
        load_settings({"sampling": value}, {})


def test_rules_as_a_list() -> None:
    """From Python a list of rules will do; what is read can be given again."""
    read = load_settings({"sampling": ["x=1/1s ", " *=2:3/1m"]}, {})

    assert read.sampling == "x=1/1s,*=2:3/1m"
    assert load_settings(read.model_dump(), {}).sampling == read.sampling


def test_no_rules_cost_nothing(configure) -> None:
    """Without rules there is no sampler that a log call would ask."""
    configure("")
    assert route.sampler is None
    assert sampler_of("") is None


# What passes.


def test_the_first_of_an_interval_then_one_in_so_many() -> None:
    """As in zap: the first 3, then every 4th, until the interval is over."""
    clock = Clock()
    sampler = Sampler(parse_rules("x=3:4/1s"), clock)

    assert passed(sampler, "x", 12) == [1, 2, 3, 7, 11]
    clock.now += SECOND
    assert passed(sampler, "x", 7) == [1, 2, 3, 7]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("x=2/1s", [1, 2]), ("x=2:0/1s", [1, 2]), ("x=0:3/1s", [3, 6]), ("x=0/1s", []), ("x=0:1/1s", [1, 2, 3, 4, 5, 6, 7])],
)
def test_rules_at_the_edges(rule: str, expected: list[int]) -> None:
    """Without the second number nothing follows the first ones, 0 first ones and 1 in 1 are taken by the word."""
    assert passed(Sampler(parse_rules(rule), Clock()), "x", 7) == expected


def test_an_interval_begins_with_an_event() -> None:
    """The first event after the end of an interval begins the next one, however much later it comes."""
    clock = Clock()
    sampler = Sampler(parse_rules("x=1/1s"), clock)
    found = []
    for wait in (0.0, 0.9, 0.1, 5.5, 0.9, 0.1):
        clock.now += wait
        found.append(len(passed(sampler, "x", 1)))

    assert found == [1, 0, 1, 1, 0, 1]


def test_a_name_beats_its_level_and_a_level_beats_the_star() -> None:
    """Each event meets one rule only."""
    sampler = Sampler(parse_rules("named=3/1s,level:info=2/1s,*=1/1s"), Clock())

    assert len(passed(sampler, "named", 9)) == 3
    assert len(passed(sampler, "other", 9)) == 2
    assert len(passed(sampler, "other", 9, 10)) == 1


@pytest.mark.parametrize("levelno", [40, 50])
def test_errors_are_stopped_only_by_a_rule_that_names_them(levelno: int) -> None:
    """The star does not reach ERROR and above; their own names and levels do."""
    assert len(passed(Sampler(parse_rules("*=0/1s,level:warning=0/1s"), Clock()), "x", 5, levelno)) == 5
    assert len(passed(Sampler(parse_rules(f"*=0/1s,level:{LEVEL_NAMES[levelno]}=1/1s"), Clock()), "x", 5, levelno)) == 1
    assert len(passed(Sampler(parse_rules("*=0/1s,x=2/1s"), Clock()), "x", 5, levelno)) == 2


@pytest.mark.parametrize("rules", ["x=1/1s,y=1/1s", "*=1/1s"])
def test_a_flood_takes_nothing_from_its_neighbours(rules: str) -> None:
    """Every name is counted by itself, and at each level by itself."""
    sampler = Sampler(parse_rules(rules), Clock())
    passed(sampler, "x", 100)

    assert passed(sampler, "y", 2) == [1]
    assert passed(sampler, "x", 2, 30) == [1]


class Odd(str):
    __slots__ = ()

    def __hash__(self):
        raise RuntimeError("hashed")

    def __eq__(self, other):
        raise RuntimeError("compared")

    def __str__(self):
        raise RuntimeError("shown")


def test_text_of_a_class_of_the_users() -> None:
    """It is known by its characters; none of its own code runs."""
    assert passed(Sampler(parse_rules("x=1/1s"), Clock()), Odd("x"), 3) == [1]


def test_events_that_are_no_text() -> None:
    """They have no name: they meet the rule of their level, all together."""
    sampler = Sampler(parse_rules("*=2/1s"), Clock())
    refusals = Refusals()

    assert [sampler.stops(20, event, refusals) for event in (None, 5, {"a": 1}, object())] == [False, False, True, True]


def test_long_texts() -> None:
    """They are known by their first characters, so that a huge one costs no more than a short one."""
    sampler = Sampler(parse_rules("*=1/1s"), Clock())
    huge = "x" * 50_000_000

    assert passed(sampler, huge, 2) == [1]
    assert passed(sampler, huge[:MAX_NAME], 1) == []


def test_names_without_end() -> None:
    """The state stays bounded; the surplus names share one count, and the next interval begins anew."""
    clock = Clock()
    sampler = Sampler(parse_rules("*=1/1s"), clock)
    names = [f"event {n}" for n in range(3 * MAX_NAMES)]

    assert sum(len(passed(sampler, name, 1)) for name in names) == MAX_NAMES + 1
    assert len(sampler._by_level[20]._counts) == MAX_NAMES + 1
    clock.now += SECOND
    assert passed(sampler, names[-1], 2) == [1]
    assert len(sampler._by_level[20]._counts) == 1


class Model:
    """The same rules, written down as they are told: for each rule a list of what the current interval has seen."""

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules
        self.seen: dict[Rule, list[tuple[str, int]]] = collections.defaultdict(list)
        self.ends: dict[Rule, float] = collections.defaultdict(lambda: -math.inf)

    def rule(self, name: str, levelno: int) -> Rule | None:
        by_name = [rule for rule in self.rules if rule.what == name != "*"]
        by_level = [rule for rule in self.rules if rule.levelno == levelno]
        star = [rule for rule in self.rules if rule.what == "*" and levelno < 40]
        return next(iter(by_name + by_level + star), None)

    def passes(self, name: str, levelno: int, now: float) -> bool:
        rule = self.rule(name, levelno)
        if rule is None:
            return True
        if now >= self.ends[rule]:
            self.seen[rule] = []
            self.ends[rule] = now + rule.interval
        self.seen[rule].append((name, levelno))
        number = self.seen[rule].count((name, levelno))
        return number <= rule.first or bool(rule.thereafter and (number - rule.first) % rule.thereafter == 0)


NUMBERS = st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from([0.5, 1.0, 3.0]))
RULES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "*", "level:debug", "level:info", "level:error"]), NUMBERS),
    unique_by=lambda rule: rule[0],
)
STEPS = st.lists(
    st.one_of(
        st.sampled_from([0.25, 0.5, 2.0]),
        st.tuples(st.sampled_from(["a", "b", "c", "*"]), st.sampled_from(sorted(LEVEL_NAMES)), st.integers(1, 6)),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(rules=RULES, steps=STEPS)
def test_model(rules, steps) -> None:
    """Whatever the rules, the events and the time between them, what passes is what the model lets pass."""
    text = ",".join(f"{what}={first}:{then}/{interval:g}s" for what, (first, then, interval) in rules)
    parsed = parse_rules(text)
    clock = Clock()
    sampler, model, refusals = Sampler(parsed, clock), Model(list(parsed)), Refusals()
    stopped = 0
    for step in steps:
        if isinstance(step, float):
            clock.now += step
            continue
        name, levelno, count = step
        for _ in range(count):
            expected = not model.passes(name, levelno, clock.now)
            stopped += expected
            assert sampler.stops(levelno, name, refusals) is expected
    assert refusals == [Reason.SAMPLED] * stopped


# Every way in.


def test_every_way_in(configure) -> None:
    """Loggers of both kinds, the standard library and a chain of the user's own meet the same rule and the same count."""
    read = configure("x=2:3/1h")
    library = logging.getLogger("test_sampling.library")
    library.propagate = False
    library.setLevel(logging.DEBUG)
    handler = HubHandler()
    library.addHandler(handler)
    chain = structlog.wrap_logger(None, processors=[queue_sink], wrapper_class=structlog.make_filtering_bound_logger(0))
    ways = [
        lambda: fapilog.get_logger("fapilog").info("x", way="ours"),
        lambda: fapilog.get_logger("fapilog").log(20, "x", way="log"),
        lambda: structlog.get_logger("structlog").info("x", way="structlog"),
        lambda: library.info("x", extra={"way": "stdlib"}),
        lambda: chain.info("x", way="chain"),
    ]
    for call in ways * 4:
        call()
    library.removeHandler(handler)
    lines = [line for line in read() if line["event"] == "x"]

    assert [line["way"] for line in lines] == ["ours", "log", "chain", "structlog", "ours", "stdlib", "log", "chain"]
    assert refused() == 12


def test_a_stopped_event_costs_no_more() -> None:
    """It is neither processed by the user's processors nor encoded."""
    route.sampler = sampler_of("x=0/1h")
    route.refuse = refusals = Refusals()
    touched = []

    class Value:
        def __repr__(self):
            touched.append(self)
            return "shown"

    emit(20, "info", "n", "x", {}, {"value": Value()}, [lambda *args: touched.append(args)])

    assert touched == []
    assert refusals == [Reason.SAMPLED]


def test_a_worker_by_hand() -> None:
    """What a rule stops on the way to it is refused by its own queue."""
    worker = QueueWorker([], announce=False)
    route.sampler = sampler_of("x=1/1h")
    use_worker(worker)
    for n in range(5):
        with pytest.raises(structlog.DropEvent):
            queue_sink(None, "info", {"event": "x", "n": n})

    assert worker.queue.qsize() == 1
    assert worker.queue.refused[Reason.SAMPLED].count == 4
    assert worker.queue.last_seq == 5


def test_the_level_of_a_users_chain(configure) -> None:
    """The rule of the level that the line will show is met, wherever the chain has put it; no text stops nothing."""
    configure("level:warning=0/1h")
    for event, method in (({"event": "x", "level": "WARN"}, "info"), ({"event": "x"}, "warning"), ("rendered", "warning")):
        with pytest.raises(structlog.DropEvent):
            queue_sink(None, method, event)  # type: ignore[arg-type]
    with pytest.raises(structlog.DropEvent):
        queue_sink(None, "warning", {"event": "x", "level": "error"})

    assert refused() == 3


def test_a_disabled_event_is_not_counted(configure) -> None:
    """The level decides before the rules do."""
    read = configure("x=1/1h", level="INFO")
    log = fapilog.get_logger()
    log.debug("x")
    log.info("x", n=1)

    assert [line["n"] for line in read()] == [1]
    assert refused() == 0


# The books.


def test_the_books_of_a_file(configure, tmp_path) -> None:
    """Lines and announced refusals together are the events logged, and each notice names its span."""
    configure("x=10:10/1h")
    log = fapilog.get_logger()
    for n in range(1000):
        log.info("x", n=n)
        if n % 100 == 0:
            log.error("y")
    fapilog.shutdown_logging(10)
    books = fapilog.statistics()
    lines = read_lines(tmp_path / "out.jsonl")

    assert books.refused == {"sampled": 891}
    assert books.logged == books.accepted + 891
    no_hole(lines, {"refused": books.refused, "sinks": {}})
    assert [line["n"] for line in lines if line["event"] == "x"] == [*range(10), *range(19, 1000, 10)]
    seqs = {line["seq"] for line in lines}
    for notice in (line for line in lines if line["event"] == "fapilog.dropped"):
        assert (notice["scope"], notice["reason"]) == ("queue", "sampled")
        assert notice["count"] == sum(seq not in seqs for seq in range(notice["first_seq"], notice["last_seq"] + 1))


def test_before_the_hub(configure) -> None:
    """An event that is stopped before there is a queue starts the hub as any other, and is counted in its turn."""
    read = configure("x=0/1h")
    assert coordinator.state.queue is None
    fapilog.get_logger().info("x")
    fapilog.get_logger().info("y")

    assert [(line["event"], line["seq"]) for line in without_notices(read())] == [("y", 2)]
    assert refused() == 1


def test_while_events_are_held(configure) -> None:
    """What is stopped while events wait for the hub has its place between them."""
    read = configure("x=1/1h")
    coordinator.hold()
    log = fapilog.get_logger()
    for event in ("a", "x", "x", "b", "x", "c"):
        log.info(event)
    assert coordinator.state.hub is None
    coordinator.let_go()

    assert [(line["event"], line["seq"]) for line in without_notices(read())] == [("a", 1), ("x", 2), ("b", 4), ("c", 6)]
    assert refused() == 2


def test_after_the_shutdown(configure, tmp_path) -> None:
    """Rules hold for late events too; the notice follows the next line that is written."""
    configure("x=1/1h")
    log = fapilog.get_logger()
    log.info("x")
    fapilog.shutdown_logging(10)
    for _ in range(5):
        log.info("x")
    log.info("y")
    lines = read_lines(tmp_path / "out.jsonl")

    assert [line["event"] for line in lines] == ["x", "fapilog.closed", "y", "fapilog.dropped"]
    no_hole(lines, {"refused": {"sampled": 5}, "sinks": {}})


def test_synchronous_output(configure, tmp_path) -> None:
    """Without a queue the refusals are announced as well, once a second at the most, the last ones at the end."""
    configure("x=2:10/1h", queue_enabled=False)
    log = fapilog.get_logger()
    for n in range(102):
        log.info("x", n=n)
    log.info("y")
    fapilog.shutdown_logging(10)
    lines = read_lines(tmp_path / "out.jsonl")

    assert [line["n"] for line in lines if line["event"] == "x"] == [0, 1, *range(11, 102, 10)]
    assert lines[-1]["event"] == "fapilog.closed"
    assert lines[-1]["last_seq"] == lines[-1]["seq"]
    assert sum(line["event"] == "fapilog.dropped" for line in lines) <= 2
    no_hole(lines, {"refused": {"sampled": 90}, "sinks": {}})
    balanced(json.loads(json.dumps(fapilog.statistics(), default=lambda each: {f: getattr(each, f) for f in each.__slots__})))


def test_a_hub_that_can_never_start(configure, monkeypatch) -> None:
    """What was stopped before it gave up counts as sampled, not as refused after the close."""
    configure("x=0/1h")
    monkeypatch.setattr("fapilog._internal.starting.take_slot", lambda *_: 1 / 0)
    log = fapilog.get_logger()
    for _ in range(5):
        log.info("x")
    log.info("y")
    queue = coordinator.state.queue
    assert queue is not None
    assert {str(reason): window.count for reason, window in queue.refused.items() if window.count} == {
        "sampled": 5,
        "after_close": 1,
    }


def test_another_set_up(configure, tmp_path) -> None:
    """New rules begin with nothing seen, the same rules keep their counts, none at all stop nothing; the books go on."""
    log = fapilog.get_logger()
    configure("x=1/1h")
    for _ in range(3):
        log.info("x", under="first")
    configure("x=1/1h", level="INFO")
    log.info("x", under="first")
    configure("x=2/1h")
    for _ in range(3):
        log.info("x", under="second")
    configure("")
    for _ in range(3):
        log.info("x", under="none")
    assert refused() == 4
    fapilog.shutdown_logging(10)
    lines = read_lines(tmp_path / "out.jsonl")

    assert collections.Counter(line["under"] for line in lines if line["event"] == "x") == {"first": 1, "second": 2, "none": 3}
    no_hole(lines, {"refused": {"sampled": 4}, "sinks": {}})


# Threads, signals, forks.

STORM = """
import json, signal, sys, threading
from dataclasses import asdict
import fapilog

fapilog.configure_logging(level="DEBUG", queue_size=200_000, queue_max_bytes="1GiB", drain_timeout=30)
sys.setswitchinterval(1e-5)
log = fapilog.get_logger("storm")
handled = 0

def handler(_number, _frame):
    global handled
    handled += 1
    log.info("hot", who="handler")
    log.warning(f"handler {handled}")

log.info("started")
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

def run(thread):
    for n in range(COUNT):
        log.info("hot", who=thread)
        log.debug(f"cold {n % 50}", who=thread)
        log.error("error", who=thread, n=n)

threads = [threading.Thread(target=run, args=(number,)) for number in range(7)]
for each in threads:
    each.start()
run(7)
for each in threads:
    each.join()
while handled < 200:
    signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0)
fapilog.shutdown_logging(30)
print(json.dumps([handled, asdict(fapilog.statistics())]))
"""


@pytest.mark.parametrize("enabled", rest_in_matrix(1, [True, False]))
def test_eight_threads_and_a_timer(tmp_path: Path, enabled: bool) -> None:
    """Exactly as many pass as the rules say, whichever thread or handler logs, and the books balance to the event."""
    count = 2000 if enabled else 500
    env = {**TO_FILE, "FAPILOG_SAMPLING": "hot=5:7/1d,level:debug=3:100/1d,*=0:1/1s", "FAPILOG_QUEUE_ENABLED": str(enabled)}
    printed = ran_well(run_script(f"COUNT = {count}\n{STORM}", tmp_path, env=env, timeout=120))
    handled, books = json.loads(printed)
    lines = read_lines(tmp_path / "out.jsonl")
    kinds = collections.Counter(line["event"].split()[0] for line in lines)
    hot = 8 * count + handled
    cold_of_each_name = 8 * count // 50

    balanced(books)
    assert kinds["error"] == 8 * count
    assert kinds["handler"] == handled
    assert kinds["hot"] == 5 + (hot - 5) // 7
    assert kinds["cold"] == 50 * (3 + (cold_of_each_name - 3) // 100)
    stopped = hot - kinds["hot"] + 8 * count - kinds["cold"]
    assert books["refused"] == {"sampled": stopped}
    no_hole(lines, books)


RAISES = """
import json, signal, time
from dataclasses import asdict
import fapilog

class Interruption(KIND):
    pass

fapilog.configure_logging(queue_size=200_000, queue_max_bytes="1GiB", drain_timeout=30)
log = fapilog.get_logger("case")
handled = raised = caught = calls = 0
armed = False

def handler(_number, _frame):
    global handled, raised, armed
    handled += 1
    log.info("x")
    if armed:
        armed = False
        raised += 1
        raise Interruption("by the handler")

log.info("started")
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
end = time.monotonic() + 2

def work():
    global armed, calls
    while time.monotonic() < end:
        for _ in range(20):
            armed = True
            calls += 1
            log.info("x")
    armed = False

while time.monotonic() < end:
    try:
        work()
    except Interruption:
        caught += 1
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
log.info("the log still works")
fapilog.shutdown_logging(30)
print(json.dumps([handled, raised, caught, calls, asdict(fapilog.statistics())]))
"""


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["BaseException", "Exception"])
def test_a_handler_that_raises(tmp_path: Path, kind: str) -> None:
    """An exception in the middle of it leaves no event half stopped: it was written or counted, never both, or never came in."""
    env = {**TO_FILE, "FAPILOG_SAMPLING": "x=0:5/1d"}
    printed = ran_well(run_script(f"KIND = {kind}\n{RAISES}", tmp_path, env=env, timeout=90))
    handled, raised, caught, calls, books = json.loads(printed)
    lines = read_lines(tmp_path / "out.jsonl")

    assert raised > 100
    assert caught == raised if kind == "BaseException" else caught <= raised
    fates = sum(line["event"].strip("'") == "x" for line in lines) + books["refused"]["sampled"]
    assert calls + handled - raised <= fates <= calls + handled
    balanced(books)
    no_hole(lines, books)
    assert [line["event"] for line in lines if line["event"] not in {"x", "'x'", "fapilog.dropped"}] == [
        "started",
        "the log still works",
        "fapilog.closed",
    ]


FINALISERS = """
import gc, json, threading
from dataclasses import asdict
import fapilog

fapilog.configure_logging(queue_size=200_000, queue_max_bytes="512MiB", drain_timeout=30)
log = fapilog.get_logger("case")
finalised = 0

class Cycle:
    def __init__(self):
        self.me = self
    def __del__(self):
        global finalised
        finalised += 1
        log.info("x")

def run():
    for n in range(COUNT):
        Cycle()
        log.info("x", n=n)

log.info("started")
gc.set_threshold(1)
threads = [threading.Thread(target=run) for number in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
gc.collect()
gc.set_threshold(700)
fapilog.shutdown_logging(30)
print(json.dumps([finalised, asdict(fapilog.statistics())]))
"""


def test_finalisers_inside_of_rules(tmp_path: Path) -> None:
    """O-RE-1: garbage collected at any allocation logs the same event: the count stays exact."""
    count = 500
    env = {**TO_FILE, "FAPILOG_SAMPLING": "x=3:10/1d"}
    finalised, books = json.loads(ran_well(run_script(f"COUNT = {count}\n{FINALISERS}", tmp_path, env=env, timeout=90)))
    lines = read_lines(tmp_path / "out.jsonl")
    all_of_them = 8 * count + finalised

    assert finalised == 8 * count
    written = sum(line["event"] == "x" for line in lines)
    assert written == 3 + (all_of_them - 3) // 10
    assert books["refused"] == {"sampled": all_of_them - written}
    balanced(books)
    no_hole(lines, books)


UNDER_FIRE = """
import json, sys, threading, time
from dataclasses import asdict
import fapilog

fapilog.configure_logging()
sys.setswitchinterval(1e-5)
log = fapilog.get_logger("fire")
stop = threading.Event()
counts = [0] * 4

def run(thread):
    while not stop.is_set():
        log.info("x", who=thread, n=counts[thread])
        counts[thread] += 1

threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
for each in threads:
    each.start()

def fire(more):
    before = sum(counts)
    while sum(counts) < before + more:
        time.sleep(0.001)

fire(2000)
for number in range(5):
    fapilog.shutdown_logging(10)
    fire(2000)
    fapilog.configure_logging()
    fire(2000)
fapilog.shutdown_logging(10)
fire(2000)
stop.set()
for each in threads:
    each.join()
log.info("end")
print(json.dumps([sum(counts), asdict(fapilog.statistics())]))
"""


def test_a_shutdown_under_fire(tmp_path: Path) -> None:
    """Threads log on while the hub is closed and opened again: every number is in the file or announced there."""
    env = {**TO_FILE, "FAPILOG_SAMPLING": "x=0:100/1d", "FAPILOG_QUEUE_OVERFLOW": "block", "FAPILOG_QUEUE_BLOCK_TIMEOUT": "30"}
    calls, books = json.loads(ran_well(run_script(UNDER_FIRE, tmp_path, env=env, timeout=90)))
    lines = read_lines(tmp_path / "out.jsonl")
    kinds = collections.Counter(line["event"] for line in lines)

    busy = books["sinks"]["file"]["dropped"].get("after_close", 0)  # late ones, while the file's own thread was writing
    announced = sum(line["count"] for line in lines if line.get("reason") == "sampled")
    assert calls // 100 - busy <= kinds["x"] <= calls // 100
    assert books["refused"] == {"sampled": calls - calls // 100}
    assert announced == calls - calls // 100
    assert max(line["seq"] for line in lines) == len(lines) + announced + busy
    balanced(books)
    assert len({(line["who"], line["n"]) for line in lines if line["event"] == "x"}) == kinds["x"]


FORKS = """
import json, os, sys
import fapilog

log = fapilog.get_logger("forks")
os.register_at_fork(after_in_child=lambda: log.info("x", where="hook"))
fapilog.configure_logging()
for n in range(10):
    log.info("x", where="parent", n=n)
for child in range(3):
    pid = os.fork()
    if not pid:
        for n in range(10):
            log.info("x", where="child", n=n)
        fapilog.shutdown_logging(10)
        print(json.dumps([os.getpid(), fapilog.statistics().refused]))
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
log.info("x", where="parent", n=10)
fapilog.shutdown_logging(10)
print(json.dumps([os.getpid(), fapilog.statistics().refused]))
"""


def test_forked_children(tmp_path: Path) -> None:
    """Each begins with nothing seen and books of its own; the parent's go on where they were."""
    env = {"FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "{pid}.jsonl", "FAPILOG_SAMPLING": "x=2:4/1d"}
    printed = ran_well(run_script(FORKS, tmp_path, env=env))
    said = dict(json.loads(line) for line in printed.splitlines())
    assert len(said) == 4
    *children, parent = said
    for pid, books in said.items():
        lines = read_lines(tmp_path / f"{pid}.jsonl")
        no_hole(lines, {"refused": books, "sinks": {}})
        found = [(line["where"], line.get("n", 0)) for line in lines if line["event"] == "x"]
        if pid == parent:
            assert found == [("parent", n) for n in (0, 1, 5, 9)]
            assert books == {"sampled": 7}
        else:
            assert found == [("hook", 0), ("child", 0), ("child", 4), ("child", 8)]
            assert books == {"sampled": 7}
    assert len(children) == 3


def test_a_stopped_event_of_an_at_fork_hook_that_runs_before_ours(tmp_path: Path) -> None:
    """The rules that it meets are the parent's still, but it is refused, and counted, by the child."""
    code = """
    import json, os
    early = []
    os.register_at_fork(after_in_child=lambda: [call() for call in early])
    import fapilog

    fapilog.configure_logging()
    log = fapilog.get_logger()
    for _ in range(3):
        log.info("x")
    early.append(lambda: log.info("x"))
    pid = os.fork()
    if not pid:
        log.info("y")
        fapilog.shutdown_logging(10)
        assert fapilog.statistics().refused == {"sampled": 1}, fapilog.statistics()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    fapilog.shutdown_logging(10)
    assert fapilog.statistics().refused == {"sampled": 1}, fapilog.statistics()
    """
    env = {"FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "{pid}.jsonl", "FAPILOG_SAMPLING": "x=2/1d"}
    ran_well(run_script(code, tmp_path, env=env))
    files = [read_lines(path) for path in tmp_path.glob("*.jsonl")]

    assert sorted([line["event"] for line in lines if not line["event"].startswith("fapilog.")] for lines in files) == [
        ["x", "x"],
        ["y"],
    ]
    for lines in files:
        no_hole(lines, {"refused": {"sampled": 1}, "sinks": {}})


def test_a_wrong_rule_stops_the_start(tmp_path: Path) -> None:
    """O-CFG-1: `configure_logging()` raises; a logger used without it says so and goes on without rules."""
    env = {**TO_FILE, "FAPILOG_SAMPLING": "x=1"}
    result = run_script("import fapilog; fapilog.configure_logging()", tmp_path, env=env)
    assert result.returncode != 0
    assert "FAPILOG_SAMPLING='x=1': 'x=1' is not a rule" in result.stderr

    result = run_script("import fapilog; fapilog.get_logger().info('x')", tmp_path, env=env)
    assert '"event":"x"' in ran_well(result)
    assert "'x=1' is not a rule" in result.stderr
