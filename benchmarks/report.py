"""What was measured, as Markdown: tables with the losses in the same row, the machine, and how far to trust it."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import web
from benchmarks.budgets import HANGING, HEALTHY
from benchmarks.contenders import BASELINE, FLOOR, JOURNALED, SUBJECT
from benchmarks.measure import PACED_RATE, SHARES
from benchmarks.rounds import ratios

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.rounds import Rounds

MIB = 1 << 20
QUIET = 0.1


def middle(rounds: Sequence[dict[str, Any]], key: str) -> float:
    """Return the median of the rounds."""
    return median(each[key] for each in rounds)


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return a table, its first column of texts and the others of numbers."""
    heads = list(heads)
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def named(name: str) -> str:
    """Return a contender's name as a row has it: ours stand out."""
    return f"**{name}**" if name.startswith("fapilog") else name or "no logging"


def losses(rounds: Sequence[dict[str, Any]]) -> str:
    """Return how many events were lost in all rounds, of how many."""
    if "lost" not in rounds[0]:
        return "-"
    lost, logged = sum(each["lost"] for each in rounds), sum(each.get("logged", 0) for each in rounds)
    return f"{lost:,} of {logged:,}" if logged else f"{lost:,}"


def calls(found: dict[str, Any]) -> list[str]:
    """Cost of a call, events a second, CPU and memory."""
    base: Rounds = found["throughput"]
    rows = []
    for name, rounds in base.items():
        cost, rate = middle(rounds, "mean"), middle(rounds, "rate")
        beside = f"{median(ratios(base, name, BASELINE, 'mean')):.2f} x"
        if name == FLOOR:
            rows.append([name, f"{cost / 1e3:.2f}", beside, "-", "-", "-", "-", "-"])
            continue
        faster = f"{median(ratios(base, name, BASELINE, 'rate')):.2f} x"
        cpu, peak = f"{middle(rounds, 'cpu') / 1e3:.2f}", f"{max(each['peak_mib'] for each in rounds):.0f}"
        rows.append([named(name), f"{cost / 1e3:.2f}", beside, f"{rate:,.0f}", faster, cpu, peak, losses(rounds)])
    heads = ["", "call, us", "beside the first", "events/s", "beside the first", "CPU us/event", "peak MiB", "lost"]
    return table(heads, rows)


def percentiles(rounds_by_name: Rounds) -> list[str]:
    """Single calls."""
    keys = [*SHARES, "max"]
    rows = [
        [named(name), *(f"{middle(rounds, key) / 1e3:,.1f}" for key in keys), losses(rounds)]
        for name, rounds in rounds_by_name.items()
    ]
    return table(["", *keys, "lost"], rows)


def processes(found: dict[str, Any]) -> list[str]:
    """Events a second of several processes together."""
    counts = list(next(iter(found["together"].values())))
    rows = [
        [named(name), *(f"{each[count]['rate']:,.0f}" for count in counts), f"{sum(each[count]['lost'] for count in counts):,}"]
        for name, each in found["together"].items()
    ]
    return table(["processes", *counts, "lost"], rows)


def served(found: dict[str, Any]) -> list[str]:
    """Requests a second."""
    rows = []
    for name in found[web.BARE]:
        row = [named(name)]
        for endpoint in (web.BARE, web.ORDERS):
            share = median(ratios(found[endpoint], name, web.NOTHING, "rate"))
            row += [f"{middle(found[endpoint][name], 'rate'):,.0f}", f"{share:.0%}"]
        lost = sum(each["lost"] for endpoint in (web.BARE, web.ORDERS) for each in found[endpoint][name])
        rows.append([*row, f"{lost:,}"])
    return table(["", "bare requests/s", "of those without", "requests/s of a millisecond", "of those without", "lost"], rows)


def spread(found: dict[str, Any]) -> float:
    """Return how far the middle half of the baseline's own rounds lies apart, as a share of their median."""
    own = sorted(each["mean"] for each in found["throughput"][BASELINE])
    return float((own[-1 - len(own) // 4] - own[len(own) // 4]) / median(own))


def doubts(found: dict[str, Any]) -> str:
    """How far to trust it."""
    apart, about = spread(found), found["machine"]
    head = ratios(found["throughput"], SUBJECT, BASELINE, "mean")
    trust = "quiet enough" if apart < QUIET else "noisy: run it again"
    return (
        f"Doubts: over {len(head)} rounds a call of ours cost from {min(head):.2f} to {max(head):.2f} x the first; the middle "
        f"half of structlog's means spans {apart:.0%} ({trust}); load {about['load_before']} before, {about['load_after']} "
        "after. Percentiles beyond p99.9 rest on a few calls and are the scheduler's too. Lost means: not in the file when the "
        "contender said that it was done."
    )


def about(found: dict[str, Any]) -> str:
    """Where and with what."""
    known = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in known["versions"].items())
    return "{cpu}, {cores} cores, {system}, {python}; files on {file_system}, no fsync. ".format_map(known) + versions + "."


def as_markdown(found: dict[str, Any]) -> str:
    """Return all of it."""
    single = median(ratios(found["disabled"], SUBJECT, BASELINE, "mean"))
    hang = median(ratios(found["hanging"], HANGING, HEALTHY, "p99.9"))
    grown = found["outage"]["grown_bytes"] / MIB
    journal = median(ratios(found["throughput"], JOURNALED, BASELINE, "mean"))
    plain = median(ratios(found["throughput"], SUBJECT, BASELINE, "mean"))
    lines = [
        about(found), "",
        "A call, back to back, and events a second from the first call until the last line is where it goes:", "",
        *calls(found),
        "Single calls, back to back, microseconds (with the timer):", "", *percentiles(found["latency"]),
        f"Single calls at {PACED_RATE:,} a second, microseconds from when each was due:", "", *percentiles(found["paced"]),
        "Events a second of several processes, each with a file of its own:", "", *processes(found),
        "Requests a second of FastAPI under Gunicorn, one UvicornWorker, five events a request:", "", *served(found),
        f"- A call costs {plain:.2f} x structlog + orjson, with the journal {journal:.2f} x.",
        f"- A disabled call costs {single:.2f} x structlog's own.",
        f"- While a sink hangs, the p99.9 of a call is {hang:.2f} x that beside a healthy one; memory grows by {grown:.0f} MiB.",
        *(f"- Not measured: {name}, {reason}." for name, reason in found["absent"].items()),
        f"- {doubts(found)}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def overview(found: dict[str, Any]) -> str:
    """Return the short table for the README."""
    base, bare = found["throughput"], found[web.ORDERS]
    rows = []
    for name in found["paced"]:
        cost = median(ratios(base, name, BASELINE, "mean"))
        rate = median(ratios(base, name, BASELINE, "rate"))
        tail = middle(found["paced"][name], "p99.9") / 1e3
        share = median(ratios(bare, name, web.NOTHING, "rate"))
        rows.append([named(name), f"{cost:.2f} x", f"{rate:.2f} x", f"{tail:,.0f} us", f"{share:.0%}", losses(base[name])])
    heads = ["", "cost of a call", "events/s to the file", "p99.9 of a call", "requests/s left", "lost"]
    return "\n".join(table(heads, rows)).rstrip() + "\n"
