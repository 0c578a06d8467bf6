"""Draws docs/pictures/dashboard.svg from the dashboard in template.yaml: `python3 docs/pictures/dashboard.py`.

Where each widget is and what it names come from the template. The data are samples, the same each time: a working day
of a fleet of forty notebooks in which two things went wrong and were fixed. Standard library only.
"""

from __future__ import annotations

import json
import math
import random
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE.parent.parent / "template.yaml"

CELL, ROW, GAP, TOP = 54, 27, 6, 46
"""A dashboard has 24 columns. Pixels of a column, of a row, between widgets, and above the first."""

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b")

STYLE = """
  text { font-family: 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif; fill: #1f2937 }
  .title { font-size: 13.5px; font-weight: 600 }
  .label { font-size: 11px }
  .from { font-size: 10.5px; fill: #64748b }
  .head { font-size: 10.5px; fill: #64748b; font-weight: 600 }
  .query { font-size: 10.5px; font-family: Consolas, Menlo, 'DejaVu Sans Mono', monospace; fill: #64748b }
  .widget { fill: #ffffff; stroke: #cbd5e1 }
  .grid { stroke: #e2e8f0 }
  polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round }
"""

POINTS = 96
"""One for each quarter of an hour."""

TABLES: dict[str, Sequence[Sequence[str]]] = {
    "Now, by status": (
        ("status", "number"), ("connected", "27"), ("stopped", "9"), ("pending-restart", "2"), ("starting", "1"),
        ("ngrok-token-invalid", "1"),
    ),
    "By problem, when last seen": (
        ("problem", "number", "last seen"), ("ngrok-token-invalid", "1", "18:45"), ("config-too-large", "0", "11:15"),
    ),
    "Start to connected": (("notebooks", "p50", "p90"), ("31", "78", "121")),
    "Changes of status": (
        ("status", "changes"), ("connected", "34"), ("starting", "33"), ("stopped", "29"), ("pending-restart", "6"),
    ),
    "Tag to connected": (("notebooks", "p50", "p90"), ("6", "164", "302")),
    "Last problems in the logs": (
        ("time", "level", "message", "resource", "code"),
        ("18:32", "WARNING", "an admin is needed", "nlp-7", "ngrok-token-invalid"),
        ("15:04", "WARNING", "record left out", "churn-2", ""),
        ("11:02", "WARNING", "problem", "gpu-setup", "config-too-large"),
    ),
    "Last used over SSH": (
        ("notebook", "last use"), ("nlp-2", "18:44"), ("churn-model", "18:37"), ("vision-4", "17:58"), ("etl", "16:20"),
    ),
}  # fmt: skip
"""What the queries of the logs' widgets might find: the columns, then the rows."""

HOURS = {
    "Failing": (11, 11.5),
    "TokenRefused": (18.5, 24),
    "ApproximateNumberOfMessagesVisible": (15, 16),
    "Errors": (15, 15.2),
}
"""When something was the matter: hours of the day."""


def sample(metric: str, number: int, of: int) -> list[float]:
    """A day of a metric, for the line `number` of the `of` lines of its graph."""
    chance = random.Random(f"{metric} {number}")  # noqa: S311  a picture
    day = [hour / 4 for hour in range(POINTS)]
    at_work = [max(0.0, math.sin((hour - 7) / 12 * math.pi)) ** 0.5 if 7 < hour < 19 else 0.0 for hour in day]
    begins, ends = HOURS.get(metric, (24, 24))
    alone = number == 0 or metric in ("Failing", "TokenRefused")
    matters = [float(begins <= hour < ends and alone) for hour in day]
    match metric:
        case "Requested":
            return [36.0 + (hour > 9) * 2 + (hour > 14) * 2 for hour in day]
        case "Connected":
            return [8 + round(20 * share) for share in at_work]
        case "Stale":
            return [float(2 <= hour < 2.5) for hour in day]
        case "Failing" | "TokenRefused" | "ApproximateNumberOfMessagesVisible" | "Errors":
            return matters
        case "Throttles" | "5XXError":
            return [0.0] * POINTS
        case "ApproximateAgeOfOldestMessage":
            return [float(chance.randint(0, 2) + chance.choice((0, 0, 0, 5)) * (share > 0)) for share in at_work]
        case "4XXError":
            return [float(chance.choice((0, 0, 0, 1, 2)) * (share > 0)) for share in at_work]
        case "Latency":
            return [(1 + 2 * number) * (2 + share + chance.random()) for share in at_work]
        case "Duration":
            return [(of - number) * (4 + 2 * chance.random()) for _ in day]
        case _:
            return [(of - number) * (2 + 5 * share + chance.random()) for share in at_work]


def widgets(template: str) -> list[dict[str, Any]]:
    """The widgets of the template's dashboard; a reference is left as its name."""
    (body,) = re.findall(r"DashboardBody: !Sub \|\n((?: {8}.*\n)+)", template)
    return list(json.loads(re.sub(r"\$\{(?:AWS::)?(\w+)(?:\.\w+)?\}", r"\1", body))["widgets"])


def series(properties: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The label of each line in a graph, the metric and the statistic that it is of, and its colour."""
    before: list[str] = []
    for number, metric in enumerate(properties.get("metrics", [])):
        options = metric[-1] if isinstance(metric[-1], dict) else {}
        colour = options.get("color", COLOURS[number % len(COLOURS)])
        if "expression" in options:
            found = re.search(r'MetricName="(\w+)"', options["expression"])
            yield options.get("label", "one for each status"), found[1] if found else "expression", colour
            continue
        words = [word for word in metric if isinstance(word, str)]
        before = [*before[: len(before) - len(words) + 1], *words[1:]] if words[0] == "..." else words
        yield options["label"], f"{before[1]}, {options.get('stat') or properties['stat']}", colour


def draw_widget(widget: dict[str, Any]) -> Iterator[str]:
    """The lines of SVG for one widget."""
    x, y = widget["x"] * CELL + GAP, widget["y"] * ROW + TOP
    width, height = widget["width"] * CELL - GAP, widget["height"] * ROW - GAP
    properties = widget["properties"]
    yield f'<rect class="widget" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
    title, *rest = properties.get("title", properties.get("markdown", "").lstrip("# ")).split("\n")
    yield f'<text class="title" x="{x + 12}" y="{y + 21}">{escape(title)}</text>'
    for line in rest:
        yield f'<text class="from" x="{x + 12}" y="{y + 38}">{escape(line)}</text>'
    if widget["type"] == "metric":
        yield from draw_graph(list(series(properties)), x + 12, y + 34, width - 24, height - 42)
    elif title in TABLES:
        yield from draw_table(TABLES[title], x + 12, y + 42, width - 24)
    else:
        for line in textwrap.wrap(properties.get("query", ""), (width - 24) // 7, break_on_hyphens=False):
            yield f'<text class="query" x="{x + 12}" y="{y + 42}">{escape(line)}</text>'
            y += 15


def draw_graph(lines: Sequence[tuple[str, str, str]], x: int, y: int, width: int, height: int) -> Iterator[str]:
    """Lines over a day, and below them the labels; what each is of is in its title element."""
    labels, rows = [], 1
    place = 0
    for label, source, colour in lines:
        taken = 22 + 7 * len(label)
        if place + taken > width:
            place, rows = 0, rows + 1
        labels.append((place, rows, label, source, colour))
        place += taken
    plot = height - 15 * rows - 4
    data = [sample(source.partition(",")[0], number, len(lines)) for number, (_, source, _) in enumerate(lines)]
    top = max(1.0, *(value for each in data for value in each)) * 1.1
    for part in (0, 0.5, 1):
        yield f'<line class="grid" x1="{x}" x2="{x + width}" y1="{y + plot * part:.0f}" y2="{y + plot * part:.0f}"/>'
    for each, (_, source, colour) in zip(data, lines, strict=True):
        points = " ".join(
            f"{x + width * number / (POINTS - 1):.0f},{y + plot * (1 - value / top):.0f}"
            for number, value in enumerate(each)
        )
        yield f'<polyline stroke="{colour}" points="{points}"><title>{escape(source)}</title></polyline>'
    for place, row, label, source, colour in labels:
        below = y + plot + 15 * row
        yield f'<rect x="{x + place}" y="{below - 9}" width="9" height="9" fill="{colour}"/>'
        yield f'<text class="label" x="{x + place + 13}" y="{below}">{escape(label)}<title>{escape(source)}</title></text>'


def draw_table(rows: Sequence[Sequence[str]], x: int, y: int, width: int) -> Iterator[str]:
    """Rows of a query's result, the columns as wide as their longest words ask."""
    widest = [max(len(row[column]) for row in rows) + 3 for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        for column, text in enumerate(row):
            place = x + min(7 * sum(widest[:column]), width * sum(widest[:column]) // sum(widest))
            style = "label" if number else "head"
            yield f'<text class="{style}" x="{place}" y="{y + 17 * number}">{escape(text)}</text>'


def draw(template: str) -> str:
    """The picture as SVG text."""
    shown = widgets(template)
    width = 24 * CELL + GAP
    height = max(widget["y"] + widget["height"] for widget in shown) * ROW + TOP + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="The dashboard of the stack with sample data">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="12" fill="#f1f5f9"/>',
        '<text class="title" x="12" y="28">The dashboard, with sample data: one working day</text>',
        *(line for widget in shown for line in draw_widget(widget)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (HERE / "dashboard.svg").write_text(draw(TEMPLATE.read_text("utf-8")), encoding="utf-8")
