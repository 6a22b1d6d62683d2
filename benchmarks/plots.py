"""The plots of the documentation. Needs matplotlib, of the extra `bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import web
from benchmarks.measure import SHARES
from benchmarks.report import middle

if TYPE_CHECKING:
    from pathlib import Path

OURS, OTHERS = "#1b7f5c", "#9aa5b1"


def _colour(name: str) -> str:
    return OURS if name.startswith("fapilog") else OTHERS


def _bars(path: Path, title: str, unit: str, values: dict[str, float]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.36 * len(values) + 1.1), layout="constrained")
    axes = figure.subplots()
    names = sorted(values, key=lambda name: values[name])
    bars = axes.barh(names, [values[name] for name in names], color=[_colour(name) for name in names])
    axes.bar_label(bars, fmt="{:,.1f}" if max(values.values()) < 1000 else "{:,.0f}", padding=3, fontsize=8)
    axes.set(title=title, xlabel=unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _lines(path: Path, title: str, found: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    keys = [*SHARES, "max"]
    for name, rounds in found.items():
        ours = name.startswith("fapilog")
        axes.plot(
            keys, [middle(rounds, key) / 1e3 for key in keys], "o-", label=name, linewidth=2.4 if ours else 1.2, markersize=3
        )
    axes.set(title=title, ylabel="microseconds", yscale="log")
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.legend(fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def draw(found: dict[str, Any], folder: Path) -> None:
    """Write the PNG files into *folder*."""
    whole = {name: rounds for name, rounds in found["throughput"].items() if name in found["paced"]}
    cost = {name: middle(rounds, "mean") / 1e3 for name, rounds in whole.items()}
    _bars(folder / "performance-calls.png", "Cost of a log call for the caller", "microseconds", cost)
    rate = {name: middle(rounds, "rate") for name, rounds in whole.items()}
    _bars(folder / "performance-events.png", "Until all events are in the file", "events a second", rate)
    _lines(folder / "performance-percentiles.png", "Single calls at a steady rate, from when each was due", found["paced"])
    requests = {name or "no logging": middle(rounds, "rate") for name, rounds in found[web.ORDERS].items()}
    _bars(folder / "performance-requests.png", "FastAPI under Gunicorn, five events a request", "requests a second", requests)
