"""The panels and variables that `make_dashboard.py` puts together, in the words of Grafana 10 and 11."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Json = dict[str, Any]

PROMETHEUS = {"type": "prometheus", "uid": "${prometheus}"}
LOKI = {"type": "loki", "uid": "${loki}"}
WIDTH = 24
GREEN, RED = "green", "red"
RED_FROM_ONE: list[Json] = [{"color": GREEN, "value": None}, {"color": RED, "value": 1}]


def target(query: str, legend: str = "", **more: Any) -> Json:
    """Return a query; its letter and its data source are the panel's to give."""
    return {"expr": query, "legendFormat": legend, **more}


def panel(kind: str, title: str, about: str, unit: str, size: tuple[int, int], targets: Iterable[Json], **more: Any) -> Json:
    """Return a panel without its place."""
    defaults = {"unit": unit, **more.pop("defaults", {})}
    source = more.pop("source", PROMETHEUS)
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": source,
        "targets": [{"refId": chr(65 + at), "datasource": source, **each} for at, each in enumerate(targets)],
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
        "gridPos": {"w": size[0], "h": size[1]},
        **more,
    }


def graph(title: str, about: str, unit: str, *targets: Json, width: int = 12, stacked: bool = False, **more: Any) -> Json:
    """Return a panel of lines over time, with a table of them below."""
    custom = {"fillOpacity": 25 if stacked else 5, "showPoints": "never", "stacking": {"mode": "normal" if stacked else "none"}}
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    defaults = {"min": 0, "custom": custom, **more.pop("defaults", {})}
    return panel("timeseries", title, about, unit, (width, 8), targets, options=options, defaults=defaults, **more)


def number(title: str, about: str, query: str, *, unit: str = "none", steps: Sequence[Json] | None = None) -> Json:
    """Return a panel of one number; with *steps*, its colour says whether that is well."""
    options = {
        "colorMode": "background" if steps else "value",
        "graphMode": "none" if steps else "area",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    thresholds = {"mode": "absolute", "steps": list(steps or [{"color": GREEN, "value": None}])}
    defaults = {"decimals": 0, "noValue": "0", "thresholds": thresholds}
    asked = target(query, instant=steps is not None, range=steps is None)
    return panel("stat", title, about, unit, (3, 4), [asked], options=options, defaults=defaults)


def states(title: str, about: str, asked: Json) -> Json:
    """Return a panel of bars over time, green for 1 and red for 0."""
    mappings = [
        {"type": "value", "options": {"0": {"text": "down", "color": RED}, "1": {"text": "up", "color": GREEN}}},
    ]
    steps = [{"color": RED, "value": None}, {"color": GREEN, "value": 1}]
    options = {"mergeValues": True, "showValue": "never", "rowHeight": 0.8, "legend": {"showLegend": False}}
    defaults = {"mappings": mappings, "thresholds": {"mode": "absolute", "steps": steps}, "max": 1, "min": 0}
    return panel("state-timeline", title, about, "none", (12, 8), [asked], options=options, defaults=defaults)


def lines(title: str, about: str, query: str, height: int = 10) -> Json:
    """Return a panel of log lines."""
    options = {
        "showTime": True,
        "wrapLogMessage": True,
        "enableLogDetails": True,
        "prettifyLogMessage": False,
        "sortOrder": "Descending",
        "dedupStrategy": "none",
    }
    return panel("logs", title, about, "short", (WIDTH, height), [target(query)], options=options, source=LOKI)


def from_loki(title: str, about: str, query: str, legend: str) -> Json:
    """Return a panel of counts that Loki makes of lines."""
    return graph(title, about, "short", target(query, legend, queryType="range"), stacked=True, source=LOKI)


def placed(sections: dict[str, list[Json]]) -> list[Json]:
    """Return all panels, each with its id and its place, section by section, from left to right."""
    found: list[Json] = []
    y = 0
    for title, panels in sections.items():
        found.append(
            {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}}
        )
        x, y, height = 0, y + 1, 0
        for each in panels:
            size = each["gridPos"]
            if x + size["w"] > WIDTH:
                x, y, height = 0, y + height, 0
            found.append({**each, "gridPos": {"x": x, "y": y, **size}})
            x, height = x + size["w"], max(height, size["h"])
        y += height
    return [{"id": at, **each} for at, each in enumerate(found, 1)]


def source(name: str, label: str) -> Json:
    """Return the variable that says which data source of its kind is meant."""
    return {
        "type": "datasource",
        "name": name,
        "label": label,
        "query": name,
        "refresh": 1,
        "current": {},
        "hide": 0,
        "regex": "",
    }


def choice(name: str, label: str, query: str, everything: str | None = None) -> Json:
    """Return a variable of a label's values; *everything* is what "All" means, by default each of the values."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": PROMETHEUS,
        "query": {"query": query, "refId": f"variable {name}"},
        "definition": query,
        "refresh": 2,
        "sort": 3,
        "multi": True,
        "includeAll": True,
        **({} if everything is None else {"allValue": everything}),
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def values(name: str, label: str, known: Sequence[str]) -> Json:
    """Return a variable of *known* values; "All" is also none of them."""
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "query": ",".join(known),
        "options": [
            {"selected": True, "text": "All", "value": "$__all"},
            *({"selected": False, "text": each, "value": each} for each in known),
        ],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "hide": 0,
    }


def words(name: str, label: str) -> Json:
    """Return a variable that takes any text, at first none."""
    return {"type": "textbox", "name": name, "label": label, "query": "", "current": {"text": "", "value": ""}, "hide": 0}
