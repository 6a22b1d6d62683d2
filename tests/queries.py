"""
Just enough PromQL and LogQL to say which names and labels a query of `examples/grafana` uses, and which lines it selects.

No parser: what does not look like the queries there is an error here, or is not seen. `promtool` says whether they are valid.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.loki.query import matcher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.loki import Entry

KEYWORDS = {"and", "or", "unless", "bool", "offset"}
_LISTS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_SELECTOR = re.compile(r"\b([a-zA-Z_:][\w:]*)\b(?:\{(.*?)\})?(?!\s*\()")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')


@dataclass
class Used:
    """
    What a PromQL expression uses.

    Args:
        metrics: Name, label, operator and value of each matcher; of a metric without matchers, the name alone.
        listed: Labels that something is summed or joined by.
    """

    metrics: list[tuple[str, list[tuple[str, str, str]]]] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)

    @classmethod
    def by(cls, expression: str) -> Used:
        """Return what *expression* uses."""
        used = cls()
        for names in _LISTS.findall(expression):
            used.listed |= {name.strip() for name in names.split(",")}
        bare = re.sub(r"\[[^\]]*\]", "", _LISTS.sub("", expression))
        for name, inner in _SELECTOR.findall(bare):
            if name not in KEYWORDS:
                used.metrics.append((name, _MATCHER.findall(inner)))
        return used


def filled(query: str, variables: Mapping[str, str]) -> str:
    """Return *query* as Grafana sends it, where the variables have these values."""
    for name in sorted(variables, key=len, reverse=True):
        query = query.replace(f"${name}", variables[name])
    assert "$" not in query, query
    return query


_STAGE = re.compile(
    r"""\s*(?:
        (?P<line>\|=|\|~)\s*`(?P<text>[^`]*)`
      | \|\s*json\s+(?P<fields>\w+="\w+"(?:,\s*\w+="\w+")*)
      | \|\s*unwrap\s+(?P<unwrap>\w+)
      | \|\s*(?P<label>\w+)\s*(?P<operator>=~|=)\s*"(?P<value>[^"]*)"
    )""",
    re.VERBOSE,
)
_COUNT = re.compile(r"sum by \((?P<by>[\w, ]+)\) \((?P<over>count|sum)_over_time\((?P<lines>.*) \[[^\]]+\]\)\)")


@dataclass
class LogQuery:
    """
    A LogQL query whose variables are filled in.

    Args:
        selector: Of streams.
        stages: Of the lines.
        by: Labels that it sums by; none for a query of lines.
        unwrapped: The label whose values it sums, if it does.
    """

    selector: str
    stages: list[dict[str, str]]
    by: tuple[str, ...] = ()
    unwrapped: str = ""

    @classmethod
    def of(cls, query: str) -> LogQuery:
        """Return *query*, which has the form of those on the dashboard."""
        counted = _COUNT.fullmatch(query)
        lines = counted["lines"] if counted else query
        end = lines.index("}") + 1
        found = cls(lines[:end], [], tuple(counted["by"].split(", ")) if counted else ())
        while rest := lines[end:].strip():
            stage = _STAGE.match(lines, end)
            assert stage is not None, f"no stage that is known here: {rest}"
            end = stage.end()
            found.stages.append({name: text for name, text in stage.groupdict().items() if text is not None})
        found.unwrapped = next((stage["unwrap"] for stage in found.stages if "unwrap" in stage), "")
        assert bool(counted and counted["over"] == "sum") is bool(found.unwrapped)
        return found

    def selects(self, entry: Entry) -> dict[str, str] | None:
        """Return the labels that *entry* has behind all stages; *None* where one of them takes it out."""
        if not matcher(self.selector)(entry.labels):
            return None
        labels = dict(entry.labels)
        for stage in self.stages:
            if "line" in stage:
                passes = stage["text"] in entry.line if stage["line"] == "|=" else bool(re.search(stage["text"], entry.line))
            elif "fields" in stage:
                labels |= _extracted(entry.line, stage["fields"], labels)
                passes = True
            elif "unwrap" in stage:
                passes = stage["unwrap"] in labels
            else:
                found = labels.get(stage["label"], "")
                passes = bool(re.fullmatch(stage["value"], found)) if stage["operator"] == "=~" else found == stage["value"]
            if not passes:
                return None
        return labels


def _extracted(line: str, fields: str, labels: Mapping[str, str]) -> dict[str, str]:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return {"__error__": "JSONParserErr"}
    pairs = [(name, found.get(source)) for name, source in re.findall(r'(\w+)="(\w+)"', fields)]
    return {f"{name}_extracted" if name in labels else name: str(value) for name, value in pairs if value is not None}
